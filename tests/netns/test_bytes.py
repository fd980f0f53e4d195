# SPDX-License-Identifier: Apache-2.0
"""Bytes, half-close and RST arrive as without the mesh. Clients on node 1, the server on node 2, one pod out of the mesh."""
import errno
import math
import os
import re
import select
import socket
import struct
import threading
import time

from mesh import Failure, Mesh, SANITIZER, check, eventually, scaled

LOAD = "alone"
FALLBACK = True
MIB = 1 << 20
SERVERS = ["echo:7", "duplex:9", "who:11", "rst:12", "finfirst:13", "last:14"]


def setup():
    m = Mesh("bytes")
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 2, enrolled=False)
    m.vips = m.service("server", {"app": "server"}, [(w.split(":")[0], int(w.split(":")[1]), int(w.split(":")[1])) for w in SERVERS])
    # Not captured by its own address: by this one the agent relays to it.
    m.plain_vips = m.service("plain", {"app": "plain"}, [(w.split(":")[0], int(w.split(":")[1]), int(w.split(":")[1])) for w in SERVERS + ["own:4000"]])
    m.client_vips = m.service("client", {"app": "client"}, [("echo", 80, 7)])
    m.apply()
    m.pods["server"].serve(*SERVERS)
    m.pods["client"].serve("echo:7")
    m.pods["plain"].serve(*SERVERS)
    m.start_agents()
    return m


def last(pod):
    """(count, bytes, errno) of the server's connection that ended last, asked on loopback."""
    with pod.connect("127.0.0.1", 14) as s:
        n, size, _, error = s.recv(200).decode().split()
    return int(n), int(size), int(error)


def reset_on_close(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_gibibyte_each_way(m):
    n = scaled(1 << 30)
    r = m.pods["client"].traffic("bulk", m.pods["server"].ip, 9, n, n)
    check(r["ok"] and r["peer_received"] == n, "equal hashes both ways", r)
    return "%.1f Gbit/s" % (2 * n * 8 / 1e9 / r["seconds"])


def test_gibibyte_by_service_ipv6(m):
    n = scaled(256 * MIB)
    r = m.pods["client"].traffic("bulk", m.vips[1], 9, n, n)
    check(r["ok"], "equal hashes both ways", r)


def test_to_a_pod_outside_the_mesh(m):
    n = scaled(64 * MIB)
    for address in (m.pods["plain"].ip, m.pods["plain"].ip6, *m.plain_vips):
        r = m.pods["client"].traffic("bulk", address, 9, n, n)
        check(r["ok"], "equal hashes both ways", r)


def test_from_a_pod_outside_the_mesh(m):
    n = scaled(64 * MIB)
    for address in (m.pods["server"].ip, m.pods["server"].ip6):
        r = m.pods["plain"].traffic("bulk", address, 9, n, n)
        check(r["ok"], "equal hashes both ways", r)


def test_ping_pong_10000_times_one_byte(m):
    r = m.pods["client"].traffic("ping", m.pods["server"].ip, 7, 10000, 1)
    check(r["ok"] and r["count"] == 10000, "ping-pong", r)
    return "%.0f us a round" % (r["seconds"] * 100)


def test_large_and_tiny_writes_mixed(m):
    n = scaled(64 * MIB)
    r = m.pods["client"].traffic("bulk", m.vips[0], 9, n, n, "mixed")
    check(r["ok"], "equal hashes", r)


def test_every_family_and_address(m):
    server = m.pods["server"]
    for address in (server.ip, server.ip6, "::ffff:" + server.ip, m.vips[0], m.vips[1], "::ffff:" + m.vips[0]):
        r = m.pods["client"].traffic("ping", address, 7, 20, 100)
        check(r["ok"], "to " + address, r)


def test_half_close_by_the_client(m):
    r = m.pods["client"].traffic("bulk", m.pods["server"].ip, 9, 0, scaled(64 * MIB))
    check(r["ok"], "everything after the client's FIN", r)


def test_half_close_by_the_server(m):
    server = m.pods["server"]
    n, before = scaled(32 * MIB), last(server)[0]
    s = m.pods["client"].connect(server.ip, 13)
    check(s.recv(1) == b"", "the server's FIN")
    s.sendall(b"u" * n)
    s.shutdown(socket.SHUT_WR)
    eventually(lambda: last(server)[0] > before, 10, "upload ended")
    check(last(server)[1:] == (n, 0), "the whole upload after the server's FIN", last(server))
    s.close()


def test_reset_by_the_server(m):
    for address in (m.pods["server"].ip, m.vips[1], m.pods["plain"].ip, m.plain_vips[0]):
        s = m.pods["client"].connect(address, 12)
        s.sendall(b"x")
        try:
            got = s.recv(10)
        except OSError as e:
            got = e.errno
        check(got == errno.ECONNRESET, "reset arrives as reset, from " + address, got)
        s.close()


def test_reset_by_the_client(m):
    for who, address, server in (("client", m.pods["server"].ip, "server"), ("client", m.pods["plain"].ip, "plain"), ("client", m.plain_vips[1], "plain"),
                                 ("plain", m.pods["server"].ip, "server")):
        before = last(m.pods[server])[0]
        s = m.pods[who].connect(address, 7)
        s.sendall(b"hello")
        check(s.recv(5) == b"hello", "echo")
        reset_on_close(s)
        s.close()
        eventually(lambda: last(m.pods[server])[0] > before, 5, "the app's end")
        check(last(m.pods[server])[2] == errno.ECONNRESET, "reset arrives as reset at %s" % server, last(m.pods[server]))


def until_the_end(s):
    got = b""
    try:
        while True:
            part = s.recv(65536)
            if not part:
                return got, "FIN"
            got += part
    except OSError as e:
        return got, errno.errorcode[e.errno]


def every_way(m):
    """(who calls, address, where it is): between members, out of the mesh and into it, each by an agent, in both families."""
    client, server, plain = m.pods["client"], m.pods["server"], m.pods["plain"]
    for who, to, addresses in ((client, server, (server.ip, server.ip6)), (client, plain, m.plain_vips), (plain, server, (server.ip, server.ip6))):
        for address in addresses:
            yield who, address, to


def connected(who, address, to):
    with to.listen(4000) as listener:
        near = who.connect(address, 4000)
        near.sendall(b"x")
        far = listener.accept()[0]
        far.settimeout(20)
        check(far.recv(1) == b"x", "connected to " + address)
    return near, far


def test_half_close_on_every_way(m):
    """Either side says FIN first; the other still says a lot, and then ends well or by a reset: both arrive as what they are."""
    blob = os.urandom(1 << 20)
    for who, address, to in every_way(m):
        for by_server in (False, True):
            for reset in (False, True):
                near, far = connected(who, address, to)
                first, second = (far, near) if by_server else (near, far)
                text = "%s to %s, %s closes its half first" % (who.name, address, "server" if by_server else "client")
                first.shutdown(socket.SHUT_WR)
                check(second.recv(1) == b"", text + ": FIN arrives")
                sender = threading.Thread(target=second.sendall, args=(blob,))
                sender.start()
                got = b""
                while len(got) < len(blob):
                    got += first.recv(1 << 20)
                sender.join()
                check(got == blob, text + ": everything arrives after it")
                if reset:
                    reset_on_close(second)
                second.close()
                check(until_the_end(first) == (b"", "ECONNRESET" if reset else "FIN"), text + (": then a reset" if reset else ": then FIN"))
                first.close()


def test_reset_by_who_closed_its_half(m):
    """FIN, and then no more interest: the other side's bytes meet a reset, as they would without the mesh."""
    for who, address, to in every_way(m):
        for by_server in (False, True):
            near, far = connected(who, address, to)
            first, second = (far, near) if by_server else (near, far)
            first.shutdown(socket.SHUT_WR)
            check(second.recv(1) == b"", "FIN arrives")
            first.close()

            def refused():
                try:
                    second.sendall(b"y")
                except OSError as e:
                    return e.errno in (errno.ECONNRESET, errno.EPIPE)
            eventually(refused, 10, "%s to %s: nobody is there any more" % (who.name, address))
            second.close()


def test_keepalive_on_every_hop(m):
    """A party that is gone without a word is noticed: what the agent accepted, and what it dialled out of the mesh."""
    for who, address, to in every_way(m):
        near, far = connected(who, address, to)
        member = who if who.enrolled is None else to
        lines = [x for x in member.sh("ss", "-tnoH", "state", "established").stdout.splitlines() if ":4000 " in x]
        # The app's own end has none; the agent's to a local app needs none.
        want = 2 if to.enrolled is False else 1
        check(sum("keepalive" in x for x in lines) == want, "%s to %s" % (who.name, address), lines)
        near.close()
        far.close()


def test_urgent_data(m):
    """It stays where it is in the stream (RFC 6093), and nothing waits for it."""
    for who, address, to in every_way(m):
        near, far = connected(who, address, to)
        for speaker, hearer in ((near, far), (far, near)):
            hearer.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            for _ in range(20):
                speaker.send(b"abc")
                speaker.send(b"D", socket.MSG_OOB)
                speaker.send(b"efg")
                got = b""
                while len(got) < 7:
                    got += hearer.recv(100)
                check(got == b"abcDefg", "%s to %s" % (who.name, address), got)
        near.close()
        far.close()


def test_words_before_a_reset(m):
    """What was said right before a reset arrives, and then the reset: whoever resets, on every way."""
    words = b"413 " * 2500
    for who, address, to in every_way(m):
        for unread in (False, True):
            for by_server in (False, True):
                near, far = connected(who, address, to)
                speaker, other = (far, near) if by_server else (near, far)
                if unread:
                    other.sendall(b"never read")
                    eventually(lambda: select.select([speaker], [], [], 0)[0], 5, "something to leave unread")
                speaker.sendall(words)
                if not unread:
                    reset_on_close(speaker)
                speaker.close()
                got, end = until_the_end(other)
                other.close()
                check(got == words and end == "ECONNRESET", "%s to %s, %s resets%s" % (
                    who.name, address, "server" if by_server else "client", ", having left something unread" if unread else ""), len(got), end)


def test_reset_to_who_does_not_read(m):
    """Nobody makes room for what was said before a reset: the reset comes without it."""
    for who, address, to in every_way(m):
        near, far = connected(who, address, to)
        far.setblocking(False)
        quiet = 0
        while quiet < 20:
            try:
                far.send(b"z" * 262144)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.02)
        reset_on_close(far)
        far.close()
        poll = select.poll()
        poll.register(near, 0)
        check(poll.poll(10000), "%s hears of it, from %s" % (who.name, address))
        near.close()


def test_fin_is_not_a_reset(m):
    server = m.pods["server"]
    before = last(server)[0]
    s = m.pods["client"].connect(server.ip, 7)
    s.sendall(b"hello")
    check(s.recv(5) == b"hello", "echo")
    s.close()
    eventually(lambda: last(server)[0] > before, 5, "the app's end")
    check(last(server)[1:] == (5, 0), "a clean end stays one", last(server))


def test_app_not_listening(m):
    for address, port in ((m.pods["server"].ip, 4444), (m.pods["server"].ip6, 4444), (m.pods["plain"].ip, 4444), *((a, 4000) for a in m.plain_vips)):
        start = time.monotonic()
        try:
            s = m.pods["client"].connect(address, port)
            got = s.recv(10)
        except OSError as e:
            got = e.errno
        took = time.monotonic() - start
        check(got in (errno.ECONNRESET, errno.ECONNREFUSED) and took < (3 if SANITIZER else 1), "RST promptly, " + address, got, took)
    line = eventually(lambda: [x for x in m.agents[2].access() if "error" in x and "4444" in x.get("dst.hbone_addr", x.get("dst.addr", ""))],
                      3, "a log line that says why")[-1]
    check("refused" in line["error"], "the log says why", line)


def test_service_without_endpoint(m):
    vip = m.service("nobody", {"app": "nobody"}, [("x", 80, 80)])[0]
    m.apply()
    time.sleep(0.5)
    try:
        got = m.pods["client"].connect(vip, 80).recv(1)
    except OSError as e:
        got = e.errno
    check(got in (errno.ECONNRESET, errno.ECONNREFUSED), "no endpoint: RST", got)
    eventually(lambda: [x for x in m.agents[1].access() if "no_healthy_upstream" in x.get("error", "")], 3, "reason in the access log")


def test_pod_to_itself_by_its_service(m):
    for address in m.client_vips:
        r = m.pods["client"].traffic("ping", address, 80, 50, 100)
        check(r["ok"], "to itself by " + address, r)


def test_reader_that_stops_for_ten_seconds(m):
    pause, n = (10000, scaled(64 * MIB, 16 * MIB))
    before = [a.rss_kib() for a in m.agents.values()]
    c = m.pods["client"].client("bulk", m.pods["server"].ip, 9, n, 0, "plain", pause)
    worst = [0, 0]
    end = time.monotonic() + pause / 1000 - 1
    while time.monotonic() < end:
        worst = [max(w, a.rss_kib()) for w, a in zip(worst, m.agents.values())]
        time.sleep(0.25)
    r = c.result(60)
    check(r["ok"] and r["seconds"] > pause / 1000 - 0.5, "everything arrives afterwards", r)
    grown = [w - b for w, b in zip(worst, before)]
    check(max(grown) < 16 * 1024, "memory bounded while the reader stands still (KiB grown)", grown)
    return "grown %s KiB" % grown


def test_fifty_stopped_readers(m):
    """50 stopped streams on one tunnel: a 51st keeps at least half its rate, the agents stay within the budget."""
    client, server = m.pods["client"], m.pods["server"]
    n = scaled(256 * MIB, 32 * MIB)
    alone = min(client.traffic("bulk", server.ip, 9, n, 0)["seconds"] for _ in range(2))
    before = [a.rss_kib() for a in m.agents.values()]
    stopped = []
    for _ in range(50):
        s = client.connect(server.ip, 9)
        s.sendall(b"D 0 1 600000 0\n")
        s.setblocking(False)
        stopped.append(s)
    quiet = 0
    while quiet < 5:
        moved = 0
        for s in stopped:
            try:
                moved += s.send(b"z" * 262144)
            except BlockingIOError:
                pass
        quiet = 0 if moved else quiet + 1
        time.sleep(0.02 if moved else 0.1)
    # One transfer takes some 50 ms, which a busy machine doubles by itself: a stall would show in every one of them.
    beside, tries = math.inf, 0
    while tries < 8 or (beside > 2 * alone and tries < 24):
        beside, tries = min(beside, client.traffic("bulk", server.ip, 9, n, 0)["seconds"]), tries + 1
    grown = [a.rss_kib() - b for a, b in zip(m.agents.values(), before)]
    for s in stopped:
        reset_on_close(s)
        s.close()
    check(beside <= 2 * alone * (1.5 if SANITIZER else 1), "the 51st keeps half its rate", "alone %.3f s, beside %.3f s" % (alone, beside))
    # A sanitizer keeps freed memory and pads every allocation.
    check(max(grown) < (64 + 16) * 1024 * (3 if SANITIZER else 1), "RSS within the buffer budget", grown)
    return "rate %.2f of alone, grown %s KiB" % (alone / beside, grown)


def test_burst_of_1000(m):
    n = 1000 if not SANITIZER else 300
    client, server = m.pods["client"], m.pods["server"]
    for cookies in (1, 2):
        for p in (client, server):
            p.sh("sh", "-c", "echo %d > /proc/sys/net/ipv4/tcp_syncookies" % cookies)
        for who, address in ((client, server.ip), (client, server.ip6), (m.pods["plain"], server.ip)):
            # The server says more than it hears. Where both sides have sent the same number of bytes, Linux takes the
            # duplicate of a connection's last ACK for a valid cookie and opens it anew, with or without a mesh.
            r = who.traffic("burst", address, 11, n, 0, "who")
            check(r["ok"] and r["done"] == n, "%d at once from %s to %s, tcp_syncookies=%d" % (n, who.name, address, cookies), r)
    for p in (client, server):
        p.sh("sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_syncookies")


def test_serial_10000_leaves_nothing(m):
    n = 10000 if not SANITIZER else 1000
    client = m.pods["client"]
    client.traffic("serial", m.vips[0], 7, 200)
    time.sleep(1)
    before = [(a.descriptors(), a.rss_kib()) for a in m.agents.values()]
    logged = len([x for x in m.agents[2].access() if x.get("direction") == "inbound"])
    r = client.traffic("serial", m.vips[0], 7, n)
    check(r["ok"] and r["done"] == n, "all %d" % n, r)
    # A pod keeps up to 15 sockets made ahead (LIMIT_SOCKET_BATCH); how many are left of a batch is chance.
    eventually(lambda: all(a.descriptors() <= b[0] + 17 for a, b in zip(m.agents.values(), before)), 10, "descriptors back to before")
    after = [(a.descriptors(), a.rss_kib()) for a in m.agents.values()]
    if not SANITIZER:
        check(all(x[1] - b[1] < 2048 for x, b in zip(after, before)), "memory back to before (descriptors, KiB)", before, after)
    lines = [x for x in m.agents[2].access() if x.get("direction") == "inbound"][logged:]
    count = sum(int(x["bytes_recv"]) == 32 and int(x["bytes_sent"]) == 32 for x in lines if "bytes_recv" in x)
    check(count == n, "each logged once with its bytes", count, lines[-1:])
    return "%.2f ms each" % (r["seconds"] * 1000 / n)


def test_connections_are_counted_out(m):
    """Nothing is left open in either agent when the clients are gone."""
    def open_now():
        return [len(rows(a.json("connection", "list"))) for a in m.agents.values()]
    for _ in range(20):
        if not sum(open_now()):
            break
        time.sleep(0.5)
    check(not sum(open_now()), "no connection left", open_now(), m.agents[2].ctl("-j", "connection", "list").stdout[:1500])
    s = m.pods["client"].connect(m.pods["server"].ip, 7)
    s.sendall(b"x")
    s.recv(1)
    check(open_now() == [1, 1], "one open connection shows on both nodes", open_now())
    s.close()


def rows(answer):
    return answer if isinstance(answer, list) else next(v for v in answer.values() if isinstance(v, list))


test_gibibyte_each_way.seconds = 120
test_burst_of_1000.seconds = 120
test_serial_10000_leaves_nothing.seconds = 120
