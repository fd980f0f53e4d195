# SPDX-License-Identifier: Apache-2.0
"""Peers with a valid certificate, and pods, that want to do harm: what they do stays theirs."""
import ctypes
import errno
import os
import socket
import struct
import time

import certs
import hbone
import h2.errors
import h2.events
import h2.settings
from mesh import Mesh, check, eventually, scaled

FALLBACK = "together"
DIAL = 3


def setup():
    m = Mesh("hostile")
    m.agent_options = ["--dial-timeout=%ds" % DIAL, "--workers=1", "--buffer-limit=8M"]
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    evil = m.pod("evil", 2)
    m.apply()
    m.pod_without_agent(evil)
    m.pods["server"].serve("echo:7", "duplex:9", "rst:12")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    m.good = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/good.pem")
    m.evil = certs.issue(certs.load_ca(m.ca), evil.identity, m.dir + "/evil.pem")
    return m


def attacker(m, **kw):
    return hbone.Client(m.pods["plain"], m.pods["server"].ip, m.good, m.root, **kw)


class Held:
    """An innocent connection through both agents, checked before and after the attack."""

    def __init__(self, m, pod="client"):
        self.s = m.pods[pod].connect(m.pods["server"].ip, 7)
        self.still_there("before")

    def still_there(self, when):
        try:
            self.s.settimeout(5)
            self.s.sendall(b"ping")
            got = self.s.recv(4)
        except OSError as e:
            got = e
        check(got == b"ping", "the innocent connection works %s the attack" % when, got)

    def close(self):
        self.s.close()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def works(m):
    r = m.pods["client"].traffic("ping", m.pods["server"].ip, 7, 5, 64)
    check(r["ok"] and r["seconds"] < 3, "others are served", r)


def garbage_below_tls(c):
    """A record that fails its authentication: a fatal TLS error on an established tunnel."""
    fd = c.sock.fileno()
    os.write(fd, b"\x17\x03\x03\x00\x20" + b"\0" * 32)


def test_broken_tls_of_one_peer_ends_its_tunnel_only(m):
    """OpenSSL's error queue is per thread: what one tunnel leaves in it must not be read as another's failure."""
    held = Held(m)
    for i in range(5):
        c = attacker(m)
        check(c.status(c.request(m.pods["server"].ip + ":7")) == 200, "the attacker's tunnel is up")
        garbage_below_tls(c)
        while c.pump(5):
            pass
        held.still_there("after round %d of" % i)
        c.close()
    held.close()


def raw_server(m, on_request):
    class Evil(hbone.Server):
        def _event(self, c, e):
            if isinstance(e, h2.events.RequestReceived):
                self.requests.append(dict(e.headers))
                on_request(c, e.stream_id)

    return Evil(m.pods["evil"], m.evil, m.root)


def test_data_before_the_answer(m):
    """A server that sends DATA instead of an answer and then refuses: no byte reaches the app, nothing stays behind."""
    def on_request(c, stream):
        # This h2 refuses to write DATA before a final answer: written by hand, behind an interim one.
        c._data_to_send += frame(1, 4, stream, b"\x08\x03100")
        for _ in range(16):
            c._data_to_send += frame(0, 0, stream, b"early" * 3200)
        c._data_to_send += frame(3, 0, stream, struct.pack(">I", int(h2.errors.ErrorCodes.REFUSED_STREAM)))

    s = raw_server(m, on_request)
    agent = m.agents[1]
    try:
        socks = []
        for _ in range(40):
            k = m.pods["client"].socket()
            k.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            k.settimeout(5)
            k.connect((m.pods["evil"].ip, 7))
            socks.append(k)
        time.sleep(DIAL + 1)
        got = b""
        for k in socks:
            try:
                got += k.recv(5)
            except OSError:
                pass
            k.close()
    finally:
        s.close()
    held = [line for line in agent.text().splitlines() if "wait for slow readers" in line]
    check(got == b"", "no byte before the answer", len(got), agent.rss_kib())
    check(not held, "nothing kept for it", held)
    works(m)


def test_resets_of_one_app_spare_its_neighbours(m):
    """An app that ends its connections by RST, often: neighbours in the same tunnel do not notice."""
    held = Held(m)
    for _ in range(scaled(3000, 1500)):
        s = m.pods["client"].connect(m.pods["server"].ip, 7)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.sendall(b"x")
        s.recv(1)
        s.close()
    held.still_there("after")
    held.close()


def flood(m, make, limit_seconds=20, limit_bytes=48 << 20):
    """Sends what make(n) gives over a tunnel whose answers are never read. Returns (bytes sent, RSS growth in KiB)."""
    agent = m.agents[2]
    pod = m.pods["plain"]
    raw = pod.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect((m.pods["server"].ip, 15008))
    s = hbone.context(False, m.good, m.root).wrap_socket(raw)
    before = agent.rss_kib()
    s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    sent, n, worst = 0, 0, 0
    end = time.monotonic() + limit_seconds
    s.settimeout(2)
    try:
        while sent < limit_bytes and time.monotonic() < end:
            data = make(n)
            n += 1
            s.sendall(data)
            sent += len(data)
            worst = max(worst, agent.rss_kib() - before)
    except OSError:
        pass
    time.sleep(0.3)
    check(agent.process.running(), "the agent lives", agent.text()[-2000:])
    worst = max(worst, agent.rss_kib() - before)
    s.close()
    return sent, worst


def connects(m, n, count=2000):
    """Requests with another pod's authority (400), each with an id of its own; HPACK without the table."""
    authority = (m.pods["plain"].ip + ":7").encode()
    block = b"\x02\x07CONNECT" + b"\x01" + bytes([len(authority)]) + authority
    out = b""
    for i in range(count):
        out += frame(1, 4, 1 + 2 * (n * count + i), block)
    return out


def test_refused_streams_that_are_never_read(m):
    sent, grown = flood(m, lambda n: connects(m, n))
    check(grown < 16 * 1024, "memory bounded", "%d bytes sent, %d KiB grown" % (sent, grown))
    works(m)
    return "%d bytes sent, %d KiB grown" % (sent, grown)


def test_refused_streams_reset_and_never_read(m):
    def make(n):
        out = b""
        authority = (m.pods["plain"].ip + ":7").encode()
        block = b"\x02\x07CONNECT" + b"\x01" + bytes([len(authority)]) + authority
        for i in range(1000):
            k = 1 + 2 * (n * 1000 + i)
            out += frame(1, 4, k, block) + frame(3, 0, k, b"\0\0\0\x08")
        return out

    sent, grown = flood(m, make)
    check(grown < 16 * 1024, "memory bounded", "%d bytes sent, %d KiB grown" % (sent, grown))
    works(m)
    return "%d bytes sent, %d KiB grown" % (sent, grown)


def test_pings_and_settings_that_are_never_read(m):
    for kind, payload in ((6, b"12345678"), (4, b"\0\4\0\0\0\1")):
        one = frame(kind, 0, 0, payload) * 2000
        sent, grown = flood(m, lambda n: one, 8)
        check(grown < 16 * 1024, "memory bounded", "frame %d: %d bytes sent, %d KiB grown" % (kind, sent, grown))
    works(m)


def test_tunnels_of_one_peer_are_bounded(m):
    """A peer with a certificate that keeps opening tunnels and never a stream: refused beyond a limit, with a reason."""
    agent = m.agents[2]
    before = agent.descriptors()
    held, tunnels = Held(m), []
    for _ in range(400):
        try:
            tunnels.append(attacker(m))
        except OSError:
            break
    got = agent.descriptors() - before
    held.still_there("during")
    held.close()
    works(m)
    for t in tunnels:
        t.close()
    check(200 < got < 300, "bounded", "%d tunnels held" % got)
    eventually(lambda: any("limit_tunnels" in x.get("error", "") for x in agent.access()), 3, "logged with its reason")
    eventually(lambda: agent.descriptors() <= before + 5, 5, "descriptors back")


def test_a_pod_that_calls_its_own_listener(m):
    """By an address that no manifest knows: a call to 15001 must not go round in circles."""
    client, agent = m.pods["client"], m.agents[1]
    own = ("10.77.1.250", "fd77:1::beef")
    client.sh("ip", "address", "add", own[0] + "/32", "dev", "eth0")
    client.sh("ip", "address", "add", own[1] + "/128", "dev", "eth0", "nodad")
    # The kernel makes the local route of an IPv6 address a moment later; until then it looks for a neighbour that has it.
    eventually(lambda: own[1] in client.sh("ip", "-6", "route", "show", "table", "local").stdout, 5, "the address is in use")
    before = agent.descriptors()
    try:
        for address in own:
            for port in (15001, 15006):
                try:
                    s = client.connect(address, port, 2)
                    s.sendall(b"x")
                    got = s.recv(1)
                except OSError as e:
                    got = e.errno
                check(got == errno.ECONNRESET and agent.descriptors() < before + 5, "%s:%d is refused" % (address, port), got,
                      agent.descriptors() - before)
    finally:
        client.sh("ip", "address", "flush", "dev", "eth0", "to", own[0])
        client.sh("ip", "address", "flush", "dev", "eth0", "to", own[1])
    works(m)


def test_end_of_stream_with_the_request(m):
    """The peer's FIN is there before the app has accepted: the app still sees a connection and a FIN."""
    c = attacker(m)
    for _ in range(20):
        s = c.request(m.pods["server"].ip + ":7", end=True)
        check(c.status(s) == 200, "200")
        check(c.wait(h2.events.StreamEnded, s), "the app's FIN follows")
    c.close()


class Openssl:
    """A client on libssl itself: the ssl module cannot send a KeyUpdate."""

    def __init__(self, m):
        self.lib = lib = ctypes.CDLL("libssl.so.3")
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(lib, name).restype = ctypes.c_void_p
        self.raw = m.pods["plain"].connect(m.pods["server"].ip, 15008)
        self.raw.setblocking(True)
        self.ctx = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
        lib.SSL_CTX_use_certificate_chain_file(self.ctx, m.good.encode())
        lib.SSL_CTX_use_PrivateKey_file(self.ctx, m.good.encode(), 1)
        lib.SSL_CTX_set_alpn_protos(self.ctx, b"\2h2", 3)
        self.ssl = ctypes.c_void_p(lib.SSL_new(self.ctx))
        lib.SSL_set_fd(self.ssl, self.raw.fileno())
        check(lib.SSL_connect(self.ssl) == 1, "handshake")
        self.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))

    def write(self, data):
        return self.lib.SSL_write(self.ssl, data, len(data))

    def key_update(self):
        return self.lib.SSL_key_update(self.ssl, 1) == 1 and self.lib.SSL_do_handshake(self.ssl) == 1

    def close(self):
        self.raw.close()
        self.lib.SSL_free(self.ssl)
        self.lib.SSL_CTX_free(self.ctx)


def test_key_updates_do_not_take_the_worker(m):
    """KeyUpdates (RFC 8446 4.6.3) without end: the tunnel ends, the others keep their worker."""
    held = Held(m)
    c = Openssl(m)
    sent, worst, end = 0, 0, time.monotonic() + 6
    while sent < 200000 and time.monotonic() < end and c.key_update():
        sent += 1
        if sent % 5000 == 0:
            start = time.monotonic()
            held.still_there("during")
            worst = max(worst, time.monotonic() - start)
    c.close()
    check(sent < 200000 and time.monotonic() < end, "the tunnel is ended", sent)
    check(worst < 1, "others are served meanwhile", worst)
    held.still_there("after")
    held.close()
    few = Openssl(m)
    check(all(few.key_update() for _ in range(20)) and few.write(frame(6, 0, 0, b"12345678")) > 0, "some are welcome")
    time.sleep(0.2)
    check(few.key_update(), "still open")
    few.close()


def test_status_in_a_request_is_no_answer(m):
    """A second header block with :status on a stream whose app has not accepted yet: a stream error, and nothing is served."""
    server = m.pods["server"]
    listener = server.listen(21, backlog=0)
    c = attacker(m)
    c.request(server.ip + ":21")
    time.sleep(0.3)
    stream = c.request(server.ip + ":21")
    c.sock.sendall(frame(1, 4, stream, b"\x88"))
    e = c.wait(h2.events.StreamReset, stream)
    check(e and e.error_code == 1, "RST_STREAM PROTOCOL_ERROR", e)
    listener.close()
    c.close()
    works(m)


def test_a_waiting_connection_of_a_draining_pod_keeps_its_pace(m):
    """Unlabelled while its peer's agent is away: tried again now and then, not as fast as the worker can."""
    client, evil = m.pods["client"], m.pods["evil"]
    s = client.connect(evil.ip, 7)
    c = m.capture(expression="tcp port 15008 and host " + evil.ip)
    m.enrol(client, False)
    time.sleep(1)
    c.stop()
    s.close()
    m.enrol(client, True)
    eventually(lambda: m.agents[1].up(), 10, "enrolled again")
    works(m)
    check(len(c.packets()) < 100, "few tries", len(c.packets()))


def stopped(pod, port):
    """A listener of the app that accepts and never reads."""
    listener = pod.listen(port, 512)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return listener


def fill_by_tunnel(m, server, leave):
    """More than all that may wait for slow readers. leave: the peer says that this was all, and goes."""
    c = attacker(m)
    streams = [c.request(server.ip + ":22") for _ in range(64)]
    check(all(c.status(s) == 200 for s in streams), "the streams are open")
    # By hand, so that no later SETTINGS is acknowledged: every stream keeps the window it began with.
    c.sock.settimeout(20)
    for s in streams:
        c.sock.sendall(b"".join(frame(0, leave and i == 15, s, b"x" * 16384) for i in range(16)))
        if leave:
            c.sock.sendall(frame(3, 0, s, struct.pack(">I", 8)))
    time.sleep(0.5)
    if leave:
        c.close()
    return [c]


def fill_in_plaintext(m, server):
    held = [m.pods["plain"].connect(server.ip, 22) for _ in range(300)]
    for _ in range(8):
        for s in held:
            s.setblocking(False)
            try:
                s.send(b"x" * 262144)
            except OSError:
                pass
        time.sleep(0.1)
    return held


def who_fills_the_buffers(m, fill):
    client, server = m.pods["client"], m.pods["server"]
    listener = stopped(server, 22)
    slow = [(client.connect(server.ip, 22), listener.accept()[0]) for _ in range(40)]
    held = fill(m, server)
    # Now each neighbour sends more than the sockets in between hold.
    sent = []
    for s, _ in slow:
        s.settimeout(0.05)
        n = 0
        try:
            while n < 16 << 20:
                n += s.send(b"y" * 65536)
        except OSError:
            pass
        sent.append(n)
    time.sleep(0.5)
    got = []
    for (_, app), n in zip(slow, sent):
        app.settimeout(3)
        got.append(0)
        try:
            while got[-1] < n:
                k = len(app.recv(1 << 20))
                if not k:
                    break
                got[-1] += k
        except OSError:
            pass
    check(got == sent, "all of the neighbours' bytes arrive", sum(a == b for a, b in zip(sent, got)),
          [x.get("error") for x in m.agents[2].access()][-3:])
    for s in held + [s for pair in slow for s in pair]:
        s.close()
    listener.close()
    works(m)


def budget_was_reached(m):
    eventually(lambda: any("limit_buffer" in x.get("error", "") for x in m.agents[2].access()), 3, "the budget was reached")


def test_who_fills_the_buffers_pays_for_it(m):
    """One tunnel holds all that may wait for slow readers: it is cut, and neighbours with slow readers are not."""
    who_fills_the_buffers(m, lambda m, server: fill_by_tunnel(m, server, False))
    budget_was_reached(m)


def test_who_fills_the_buffers_and_leaves(m):
    """The same from a peer that is gone by then: what it left behind goes first."""
    who_fills_the_buffers(m, lambda m, server: fill_by_tunnel(m, server, True))
    budget_was_reached(m)


def test_who_fills_the_buffers_in_plaintext(m):
    """Relayed connections hold little once there is little room: tunnels do not pay for them."""
    who_fills_the_buffers(m, fill_in_plaintext)


def test_a_stream_on_its_way_at_unlabel(m):
    """A pod that leaves says so first: a stream that a peer opens before it can know is served."""
    server = m.pods["server"]
    c = attacker(m)
    held = c.request(server.ip + ":7")
    check(c.status(held) == 200, "before")
    m.enrol(server, False)
    eventually(lambda: "demo/server: draining" in m.agents[2].text(), 3, "it leaves")
    time.sleep(0.4)
    late = c.request(server.ip + ":7")
    c.sock.sendall(frame(0, 0, late, b"late"))
    # By hand: this client's session is closed for it by the first GOAWAY.
    c.sock.settimeout(5)
    data, seen, last = b"", [], []
    while (0, late) not in seen and (3, late) not in seen:
        more = c.sock.recv(65536)
        check(more, "the tunnel stays", seen)
        data += more
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            n = 9 + int.from_bytes(data[:3], "big")
            seen.append((data[3], int.from_bytes(data[5:9], "big")))
            if data[3] == 7:
                last.append(int.from_bytes(data[9:13], "big"))
            data = data[n:]
    check((1, late) in seen and (0, late) in seen, "served", seen)
    check(last == [0x7fffffff], "with notice", last)
    c.close()
    eventually(lambda: "demo/server: out of the mesh" in m.agents[2].text(), 10, "it has left")
    m.enrol(server, True)
    eventually(lambda: m.agents[2].text().count("demo/server: enrolled") > 1, 5, "it is back")
    works(m)


class Full(hbone.Server):
    """Allows no stream; after `pause` seconds of that, if given, as many as one likes."""

    pause = None

    def _event(self, c, e):
        limit = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
        if isinstance(e, h2.events.RemoteSettingsChanged):
            c.update_settings({limit: 0})
        elif isinstance(e, h2.events.SettingsAcknowledged) and self.pause and limit in e.changed_settings:
            time.sleep(self.pause)
            c.update_settings({limit: 1000})
            self.pause = None
        elif isinstance(e, h2.events.RequestReceived) and c.local_settings.max_concurrent_streams != 1000:
            # On its way before our SETTINGS were known.
            self.requests.append(dict(e.headers))
            c.reset_stream(e.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            super()._event(c, e)


def test_a_server_without_room_for_streams(m):
    """MAX_CONCURRENT_STREAMS 0: connections wait on the one tunnel until their deadline, and it does not stay behind."""
    client, evil, agent = m.pods["client"], m.pods["evil"], m.agents[1]
    s = Full(evil, m.evil, m.root)
    try:
        held = [client.connect(evil.ip, 7) for _ in range(20)]
        for k in held:
            k.settimeout(DIAL + 5)
            try:
                got = k.recv(1)
            except OSError as e:
                got = e.errno
            check(got == errno.ECONNRESET, "reset at its deadline", got)
            k.close()
        check(s.connections == 1, "one tunnel", s.connections)
        # Who asked before the limit was known may still wait for an answer when its time is up.
        eventually(lambda: sum("limit_streams" in x.get("error", "") for x in agent.access()) >= 19, 3, "each with its reason")
        eventually(lambda: not any(evil.ip in str(t) for t in agent.json("tunnel", "list")), DIAL + 3, "it does not stay")
    finally:
        s.close()
    works(m)


def test_a_server_that_makes_room_for_streams(m):
    """What waited for the limit to rise is served then, over the tunnel it waited on."""
    client, evil = m.pods["client"], m.pods["evil"]
    s = Full(evil, m.evil, m.root)
    s.pause = 1
    try:
        held = [client.connect(evil.ip, 7) for _ in range(20)]
        for k in held:
            k.settimeout(DIAL + 5)
            k.sendall(b"ping")
            check(k.recv(4) == b"ping", "served")
            k.close()
        check(s.connections == 1, "one tunnel", s.connections, s.errors)
    finally:
        s.close()
    works(m)


class Single(hbone.Server):
    """Allows one stream at a time, and says so only after the first ones are on their way."""

    def _event(self, c, e):
        if isinstance(e, h2.events.RemoteSettingsChanged):
            c.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        elif isinstance(e, h2.events.RequestReceived) and c.open_inbound_streams > 1:
            c.reset_stream(e.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            super()._event(c, e)


def test_a_server_with_room_for_one_stream(m):
    """MAX_CONCURRENT_STREAMS 1: as many tunnels as there are connections, each used again."""
    client, evil = m.pods["client"], m.pods["evil"]
    s = Single(evil, m.evil, m.root)
    try:
        for _ in range(2):
            held = [client.connect(evil.ip, 7) for _ in range(10)]
            for k in held:
                k.settimeout(DIAL + 5)
                k.sendall(b"ping")
                check(k.recv(4) == b"ping", "served beside the others")
            for k in held:
                k.shutdown(socket.SHUT_WR)
                check(k.recv(1) == b"", "and ended")
                k.close()
        check(10 <= s.connections <= 12, "a tunnel for each, used again", s.connections, s.errors)
    finally:
        s.close()
    works(m)


class Narrow(hbone.Server):
    """Windows of one byte and no header table; after 200 bytes, windows of 100 that shrink to nothing before they grow."""

    def _event(self, c, e):
        code = h2.settings.SettingCodes
        if isinstance(e, h2.events.RemoteSettingsChanged):
            c.update_settings({code.INITIAL_WINDOW_SIZE: 1, code.HEADER_TABLE_SIZE: 0})
            return
        before = len(self.received)
        super()._event(c, e)
        if before < 200 <= len(self.received):
            for change in ({code.INITIAL_WINDOW_SIZE: 100}, {code.INITIAL_WINDOW_SIZE: 0, code.MAX_FRAME_SIZE: 65536},
                           {code.INITIAL_WINDOW_SIZE: 3, code.HEADER_TABLE_SIZE: 8192}):
                c.update_settings(change)


def test_a_server_with_tiny_windows(m):
    """What we send fits the windows of the moment, and nothing of it is lost."""
    client, evil = m.pods["client"], m.pods["evil"]
    s = Narrow(evil, m.evil, m.root)
    try:
        text = bytes(range(250)) * 4
        for _ in range(2):
            with client.connect(evil.ip, 7) as k:
                k.settimeout(20)
                k.sendall(text)
                k.shutdown(socket.SHUT_WR)
                got = b""
                while len(got) < len(text):
                    part = k.recv(1000)
                    check(part, "everything comes back", len(got), s.errors)
                    got += part
                check(got == text and k.recv(1) == b"", "as it was", s.errors)
    finally:
        s.close()
    works(m)
