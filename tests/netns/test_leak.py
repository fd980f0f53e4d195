# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves in clear that should not: dead agents, strange packets, un-enrolling; and outsiders are left alone."""
import errno
import re
import socket
import struct
import time

import packets
from mesh import check, eventually
from packets import clear, ip4, ip6, mac, send_raw, syn

LOAD = "waits"
FALLBACK = True


def setup():
    return packets.mesh_and_outsiders("leak")


def test_a_pod_that_terminates_stays_in_the_mesh(m):
    """Between its deletionTimestamp and its end a pod finishes its work: by its own address, both ways, never in clear."""
    client, leaver, server = m.pods["client"], m.pods["near"], m.pods["server"]
    vips = m.service("server", {"app": "server"}, [("echo", 80, 7)])
    m.apply()

    def answer():
        try:
            with client.connect(vips[0], 80, 2) as s:
                s.sendall(b"x")
                return s.recv(1)
        except OSError as e:
            return e.errno

    eventually(lambda: answer() == b"x", 5, "the service is there")
    for p in (leaver, server):
        d = p.manifest()
        d["metadata"].update(deletionTimestamp="2030-01-01T00:00:00Z", deletionGracePeriodSeconds=30)
        m.write("pod-%s.yaml" % p.name, d)

    try:
        eventually(lambda: answer() == errno.ECONNRESET, 5, "no longer an endpoint of its service")
        c = m.capture()
        for caller, called in ((client, server), (leaver, server)):
            with caller.connect(called.ip, 7) as s:
                s.sendall(b"LAST-WORDS")
                check(s.recv(100) == b"LAST-WORDS", "%s still talks to %s" % (caller.name, called.name))
        c.stop()
        check(len(c.tcp()) > 4 and not clear(m, c, client, leaver, server), "only by the tunnel", clear(m, c, client, leaver, server)[:3])
        states = {x["name"]: x["state"] for a in m.agents.values() for x in a.json("pod", "list")}
        check(states["near"] == states["server"] == "enrolled", "still enrolled", states)
    finally:
        m.services.pop("server")
        m.apply()


def strange_syns(src, dst, first):
    """(name, family, packets) of a SYN dressed up so that a lazy parser misses it."""
    a, b = src.ip, dst.ip
    a6, b6 = src.ip6, dst.ip6
    t = [syn(a, b, first + i, 7) for i in range(4)]
    t6 = [syn(a6, b6, first + i, 7) for i in range(3)] + [syn(a6, b6, first + 3, 7, b"twelve bytes")]
    pad = b"\0" + b"\1\4\0\0\0\0"
    frag = lambda off, more: b"\0" + struct.pack("!HI", off | more, 77)  # noqa: E731
    return [("two fragments", socket.AF_INET, [ip4(a, b, t[0][:8], ident=5, flags=1), ip4(a, b, t[0][8:], ident=5, offset=8)]),
            ("IP options", socket.AF_INET, [ip4(a, b, t[1], options=b"\1\1\1\1" * 3)]),
            ("destination options", socket.AF_INET6, [ip6(a6, b6, t6[1], [(60, pad)])]),
            ("hop-by-hop and destination options", socket.AF_INET6, [ip6(a6, b6, t6[2], [(0, pad), (60, pad)])]),
            ("IPv6 fragments", socket.AF_INET6, [ip6(a6, b6, t6[3][:24], [(44, frag(0, 1))]), ip6(a6, b6, t6[3][24:], [(44, frag(24, 0))])])]


def test_strange_syns_outbound(m):
    client, server = m.pods["client"], m.pods["server"]
    c = m.capture(expression="ip or ip6")
    before = m.agents[1].counters()
    for _, family, made in strange_syns(client, server, 40000):
        send_raw(client, made, family)
    time.sleep(1)
    c.stop()
    raw = c.data()
    check(b"\x00\x07" not in b"".join(syn_ports(c)), "no SYN for the app's port on the link", clear(m, c, client)[:5])
    check(not fragments(raw), "no fragment of them on the link")
    after = m.agents[1].counters()
    check(after.get("drop_fragment", 0) > before.get("drop_fragment", 0), "fragments are counted", before, after)


def test_frame_that_calls_itself_arp(m):
    """A packet socket (CAP_NET_RAW is enough) says of its IPv4 frame that it is ARP. A pod without the mesh shows that it would pass."""
    server = m.pods["server"]
    before = m.agents[1].counters().get("drop_malformed", 0)
    for pod, passes in ((m.pods["client"], False), (m.pods["plain"], True)):
        c = m.capture(expression="ip")
        ip = ip4(pod.ip, server.ip, syn(pod.ip, server.ip, 42000, 7))
        with pod.inside():
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            s.sendto(mac(m.node_netns(pod.node), pod.veth) + mac(pod.netns, "eth0") + b"\x08\x00" + ip, ("eth0", 0x0806))
        except OSError as e:
            check(e.errno == errno.ENOBUFS and not passes, "refused at the pod's own interface", e)
        s.close()
        time.sleep(0.5)
        c.stop()
        check((b"\x00\x07" in syn_ports(c)) == passes, "the SYN of %s on the link: %s" % (pod.name, passes), syn_ports(c))
    check(m.agents[1].counters().get("drop_malformed", 0) > before, "dropped and counted")


def syn_ports(capture):
    return [struct.pack("!H", p[3]) for p in capture.tcp() if p[4] >= 0 and p[4] & 2 and p[3] != 15008]


def fragments(raw):
    """IPv4 fragments and IPv6 fragment headers in a capture."""
    at, n = 24, 0
    while at + 16 <= len(raw):
        size = int.from_bytes(raw[at + 8:at + 12], "little")
        f = raw[at + 16:at + 16 + size]
        at += 16 + size
        kind = f[12:14]
        n += kind == b"\x08\x00" and int.from_bytes(f[20:22], "big") & 0x3fff != 0
        n += kind == b"\x86\xdd" and f[20] == 44
    return n


def test_strange_syns_inbound(m):
    """From a pod without the mesh: fragments never get an answer, the others never reach the app but by the agent."""
    plain, server = m.pods["plain"], m.pods["server"]
    before = m.agents[2].counters()
    c = m.capture_on(plain.netns, "eth0", "ip or ip6")
    # The sender's kernel would answer a SYN-ACK it does not know with RST: that is fine, the answer was captured first.
    for _, family, made in strange_syns(plain, server, 41000):
        send_raw(plain, made, family)
    time.sleep(1)
    c.stop()
    answered = {p[3] for p in c.tcp() if p[0] in (server.ip, server.ip6) and p[4] & 0x12 == 0x12}
    check(41000 not in answered and 41003 not in answered, "a fragmented SYN is not answered", answered)
    after = m.agents[2].counters()
    check(after.get("drop_fragment", 0) - before.get("drop_fragment", 0) >= 2, "counted", before, after)
    check(after.get("captured_in", 0) - before.get("captured_in", 0) >= 3, "the parsable ones were captured", before, after)


def test_outside_the_ranges_never_enters_the_agent(m):
    client, outside = m.pods["client"], m.pods["outside"]
    before, lines = m.agents[1].counters(), len(m.agents[1].access())
    for address in (outside.ip, outside.ip6):
        with client.connect(address, 11) as s:
            seen = s.recv(200).decode().split()
            check(seen[0] in (client.ip, client.ip6), "direct", seen)
    after = m.agents[1].counters()
    check(after.get("bypass_outside_mesh", 0) >= before.get("bypass_outside_mesh", 0) + 2, "counted as bypass", before, after)
    check(after.get("captured_out", 0) == before.get("captured_out", 0), "none captured", before, after)
    check(not any(outside.ip in str(x) for x in m.agents[1].access()[lines:]), "no access log line")


def test_outsider_is_left_alone(m):
    """A pod out of the mesh has no program, rule or route of ours, and its sockets keep their settings, with two agents running."""
    plain = m.pods["plain"]
    net = plain.sh("bpftool", "net", "show", check_rc=False).stdout
    check("wr_" not in net and not re.search(r"(tcx|clsact|eth0|lo).*(prog|id) ", net), "no program in its namespace", net)
    check("clsact" not in plain.sh("tc", "qdisc", "show").stdout, "no qdisc")
    rules = plain.sh("ip", "rule").stdout
    check(len(rules.splitlines()) == 3, "the three rules of the kernel", rules)
    default = plain.sh("cat", "/proc/sys/net/ipv4/tcp_congestion_control").stdout.strip()
    s = plain.connect(m.pods["outside"].ip, 7)
    got = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0")[0].decode()
    s.close()
    check(got == default, "congestion control of its socket", got, default)
    listing = m.agents[1].ctl("-j", "pod", "list").stdout
    check("client" in listing and '"plain"' not in listing.replace("demo/plain", ""), "not an enrolled pod", listing)


def test_unenrolled_under_live_connections(m):
    leaver = m.pods["near"]
    live = [leaver.connect(m.pods["server"].ip, 7) for _ in range(10)]
    for s in live:
        s.sendall(b"first")
        check(s.recv(5) == b"first", "meshed before")
    c = m.capture()
    m.enrol(leaver, False)
    ended = 0
    end = time.monotonic() + 8
    marks = [b"UNLABELLED-%02d" % i for i in range(10)]
    while time.monotonic() < end and ended < 10:
        for i, s in enumerate(live):
            if s is None:
                continue
            try:
                s.sendall(marks[i])
                s.recv(100)
            except OSError as e:
                check(e.errno in (errno.ECONNRESET, errno.EPIPE), "ends by reset", e)
                live[i] = None
                ended += 1
        time.sleep(0.1)
    time.sleep(1)
    c.stop()
    check(ended == 10, "every one ended after the drain", ended)
    check(b"UNLABELLED-" not in c.data() and not clear(m, c, leaver), "none goes on in plaintext", clear(m, c, leaver)[:4])
    m.enrol(leaver, True)


def test_agent_gone_drops(m):
    """Fail closed: a new connection is dropped, not passed and not refused."""
    client = m.pods["client"]
    m.agents[1].kill()
    c = m.capture()
    s = client.socket()
    s.settimeout(1.5)
    try:
        s.connect((m.pods["server"].ip, 7))
        got = "connected"
    except (socket.timeout, TimeoutError):
        got = "no answer"
    except OSError as e:
        got = e
    s.close()
    c.stop()
    check(got == "no answer", "dropped", got)
    check(not clear(m, c, client), "nothing on the link", clear(m, c, client)[:4])
    # Traffic outside the ranges and of the pods outside the mesh goes on.
    check(client.traffic("ping", m.pods["outside"].ip, 7, 3, 8)["ok"], "outside the ranges: as before")
    check(m.pods["plain"].traffic("ping", m.pods["outside"].ip, 7, 3, 8)["ok"], "outsider: as before")
    m.agents[1].start()
    check(m.agents[1].counters().get("drop_agent_gone", 0) >= 1, "counted", m.agents[1].counters())


def test_idle_connection_of_a_dead_agent(m):
    """Idle connection, kill -9, 70 s later the app writes: nothing on the link. The resets that the kernel sends for the dead
    agent are lost: the app knows of nothing."""
    client = m.pods["client"]
    held = [client.connect(a, 7) for a in (m.pods["server"].ip, m.pods["server"].ip6, "::ffff:" + m.pods["server"].ip)]
    for s in held:
        s.sendall(b"before")
        check(s.recv(6) == b"before", "meshed")
    client.sh("nft", "add table inet lost; add chain inet lost i { type filter hook input priority 0; }; "
              "add rule inet lost i tcp flags & rst == rst drop")
    m.agents[1].kill()
    c = m.capture()
    time.sleep(70)
    for s in held:
        s.sendall(b"LEAKED-PLAINTEXT")
    time.sleep(4)
    c.stop()
    check(b"LEAKED-PLAINTEXT" not in c.data() and not clear(m, c, client), "no byte on the link", clear(m, c, client)[:5])
    client.sh("nft", "delete", "table", "inet", "lost")
    m.agents[1].start()
    check(m.agents[1].counters().get("drop_connection_lost", 0) > 0, "counted with its reason", m.agents[1].counters())
    for s in held:
        # Whoever goes on writing is told by a reset, never by silence.
        s.settimeout(1)
        got = None
        for _ in range(20):
            try:
                s.sendall(b"again")
                check(s.recv(10) == b"", "no byte is invented")
                time.sleep(0.5)
            except (socket.timeout, TimeoutError):
                continue
            except OSError as e:
                got = e.errno
                break
        check(got in (errno.ECONNRESET, errno.EPIPE), "with an agent again: reset, never silence", got)
        s.close()


test_idle_connection_of_a_dead_agent.seconds = 180
