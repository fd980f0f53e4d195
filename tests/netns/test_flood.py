# SPDX-License-Identifier: Apache-2.0
"""Peers with a valid certificate that send frames of no use, by hand and as fast as they can: their tunnel ends, with a
reason, and no other does. What apps cause, however often, ends nothing. WR_SCALE=10 runs the long forms."""
import contextlib
import signal
import socket
import ssl
import struct
import time

import certs
import hbone
import h2.events
from mesh import Mesh, SANITIZER, check, eventually, scaled

LOAD = "alone"
FALLBACK = "together"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11
# A sanitizer keeps what was freed.
GROWTH_KIB = (16 if not SANITIZER else 64) * 1024


def setup():
    m = Mesh("flood")
    # With a small congestion window a GOAWAY may still be queued when the flood's socket is closed, and goes with it.
    m.agent_options = ["--workers=1", "--tunnel-congestion=system"]
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    evil = m.pod("evil", 2)
    m.apply()
    m.pod_without_agent(evil)
    m.pods["server"].serve("echo:7")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    m.good = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/good.pem")
    m.evil = certs.issue(certs.load_ca(m.ca), evil.identity, m.dir + "/evil.pem")
    return m


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def connect(m, stream, flags=4, port=7):
    """CONNECT to the server's app, nothing of it in the compression table (RFC 7541 6.2.2)."""
    authority = ("%s:%d" % (m.pods["server"].ip, port)).encode()
    return frame(HEADERS, flags, stream, b"\x02\x07CONNECT\x01" + bytes([len(authority)]) + authority)


def rst(stream):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", 8))


class Raw:
    """A tunnel of frames written by hand; what comes back is kept as (type, flags, stream, payload)."""

    def __init__(self, m):
        self.sock = hbone.context(False, m.good, m.root).wrap_socket(m.pods["plain"].connect(m.pods["server"].ip, 15008))
        self.data, self.frames, self.closed = b"", [], False
        # Windows that never close: nothing has to be given back.
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 30)) +
                  frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def send(self, data, seconds=20):
        self.sock.settimeout(seconds)
        self.sock.sendall(data)

    def read(self, seconds):
        """Keeps what has come. False when there is nothing more for now, or ever."""
        self.sock.settimeout(seconds)
        try:
            more = self.sock.recv(1 << 18)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            more = b""
        self.closed = not more
        self.data += more
        at = 0
        while len(self.data) - at >= 9:
            n = int.from_bytes(self.data[at:at + 3], "big")
            if len(self.data) - at - 9 < n:
                break
            kind, flags, stream = struct.unpack(">BBI", self.data[at + 3:at + 9])
            self.frames.append((kind, flags, stream, self.data[at + 9:at + 9 + n]))
            at += 9 + n
        self.data = self.data[at:]
        return bool(more)

    def drain(self):
        while self.read(0):
            pass

    def has(self, what, seconds=10):
        """Whether a frame of which what() is true comes."""
        end = time.monotonic() + seconds
        while not any(what(f) for f in self.frames):
            if self.closed or time.monotonic() > end:
                return False
            self.read(max(0.01, end - time.monotonic()))
        return True

    def opened(self, m, stream):
        self.send(connect(m, stream))
        return self.has(lambda f: f[0] == HEADERS and f[2] == stream and f[3].startswith(b"\x88"))

    def close(self):
        self.sock.close()


class Bystanders:
    """Another tunnel of the same peer, and an app's connection through both agents: not touched by what goes on between."""

    def __init__(self, m):
        self.raw = Raw(m)
        check(self.raw.opened(m, 1), "a second tunnel")
        self.app = m.pods["client"].connect(m.pods["server"].ip, 7)

    def check(self):
        self.raw.frames.clear()
        self.raw.send(frame(DATA, 0, 1, b"ping"))
        check(self.raw.has(lambda f: f[0] == DATA and f[3] == b"ping"), "the other tunnel works", self.raw.frames)
        self.app.settimeout(5)
        self.app.sendall(b"ping")
        check(self.app.recv(4) == b"ping", "the other agent's connections work")


@contextlib.contextmanager
def bystanders(m):
    b = Bystanders(m)
    b.check()
    yield
    b.check()
    b.raw.close()
    b.app.close()


CONTROL = ("LIMIT_CONTROL_BURST",)
ANSWERED = CONTROL + ("LIMIT_ACKS_QUEUED",)  # whichever comes first


def floods(agent, limits):
    """How many tunnels have ended for one of these limits of limits.h."""
    return sum(x.get("error", "").startswith("h2_flood:") and x["error"].endswith(limits) for x in agent.access())


def flood(m, make, limits=CONTROL):
    """Sends what make(n) gives, n = 0, 1, ..., reading the answers, until the tunnel ends."""
    agent = m.agents[2]
    before, rss = floods(agent, limits), agent.rss_kib()
    with bystanders(m):
        t = Raw(m)
        check(t.opened(m, 1), "the flood's tunnel is up")
        worst = 0
        try:
            for n in range(400):
                t.send(make(n))
                t.drain()
                worst = max(worst, agent.rss_kib() - rss)
        except OSError:
            pass
        check(t.has(lambda f: f[0] == GOAWAY), "GOAWAY first", t.frames[-3:])
        last = [f for f in t.frames if f[0] == GOAWAY][-1]
        check(struct.unpack(">I", last[3][4:8])[0] == ENHANCE_YOUR_CALM, "it says why", last)
        while t.read(5):
            pass
        check(t.closed, "the tunnel ends")
        t.close()
        eventually(lambda: floods(agent, limits) > before, 3, "logged with the limit that it met: " + " or ".join(limits))
        check(worst < GROWTH_KIB, "memory bounded", "%d KiB" % worst)


EACH = 1000


def test_rapid_reset(m):
    flood(m, lambda n: b"".join(connect(m, k) + rst(k) for k in range(3 + 2 * EACH * n, 3 + 2 * EACH * (n + 1), 2)))


def test_requests_without_end(m):
    """To a port of the mesh: answered 400 at once."""
    flood(m, lambda n: b"".join(connect(m, k, 5, 15008) for k in range(3 + 2 * EACH * n, 3 + 2 * EACH * (n + 1), 2)))


def test_control_frames(m):
    for one in (frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)), frame(PING, 0, 0, b"12345678"),
                frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"), frame(PRIORITY, 0, 99, b"\0\0\0\3\x10"),
                frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
                frame(DATA, 0, 1), frame(DATA, 8, 1, b"\2\0\0"), frame(0xbe, 0, 0)):
        flood(m, lambda n: one * EACH, ANSWERED if one[3] in (SETTINGS, PING) else CONTROL)


def test_continuations(m):
    flood(m, lambda n: connect(m, 3, 0) + frame(CONTINUATION, 0, 3) * EACH, ("LIMIT_CONTINUATIONS",))


def test_header_bomb(m):
    """One large field for the table, then a byte each to have it again (RFC 7541 7.3)."""
    field = b"\x40\x01x\x7f\xb9\x16" + b"v" * 3000
    flood(m, lambda n: frame(HEADERS, 4, 3 + 2 * n, field + b"\xbe" * 10000), ("LIMIT_HEADER_BLOCK",))


def test_zero_windows(m):
    """As many streams as a tunnel may have, and no room to answer on any: they wait, cost little, and nobody else does.
    Nothing is lost when there is room again; a WINDOW_UPDATE of nothing is an error (RFC 9113 6.9)."""
    agent, each, most = m.agents[2], 8192, 1000
    rss = agent.rss_kib()
    with bystanders(m):
        t = Raw(m)
        t.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
        streams = range(1, 2 * most, 2)
        for at in range(0, most, 100):
            t.send(b"".join(connect(m, k) for k in streams[at:at + 100]))
            check(t.has(lambda f: f[0] == HEADERS and f[2] == streams[at + 99]), "open", t.frames[-1:])
        eventually(lambda: t.read(0.1) or sum(f[0] == HEADERS for f in t.frames) == most, 10, "all of them")
        t.send(connect(m, 2 * most + 1))
        check(t.has(lambda f: f[0] == RST_STREAM and f[2] == 2 * most + 1), "LIMIT_STREAMS_PER_TUNNEL", t.frames[-1:])
        for k in streams:
            t.send(frame(DATA, 0, k, b"z" * each))
        check(not t.has(lambda f: f[0] == DATA, 1), "nothing is sent without a window")
        check(agent.rss_kib() - rss < GROWTH_KIB, "memory bounded", agent.rss_kib() - rss)
        t.frames.clear()
        t.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)))
        got = 0
        while got < most * each and t.read(10):
            got += sum(len(f[3]) for f in t.frames if f[0] == DATA)
            check(not any(f[0] in (RST_STREAM, GOAWAY) for f in t.frames), "no stream ends", t.frames[-1:])
            t.frames.clear()
        check(got == most * each, "everything comes back", got)
        t.send(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"))
        check(t.has(lambda f: f[0] == GOAWAY and f[3][4:8] == b"\0\0\0\1"), "PROTOCOL_ERROR", t.frames[-1:])
        t.close()


test_zero_windows.seconds = 90


def test_a_server_that_floods(m):
    """The same the other way: the tunnel of a server that sends PINGs for an answer ends, its callers see a reset."""
    class Evil(hbone.Server):
        def _event(self, c, e):
            super()._event(c, e)
            if isinstance(e, h2.events.DataReceived):
                c._data_to_send += frame(PING, 0, 0, b"12345678") * 100000

    client, evil, agent = m.pods["client"], m.pods["evil"], m.agents[1]
    before = floods(agent, ANSWERED)
    s = Evil(evil, m.evil, m.root)
    try:
        with bystanders(m):
            k = client.connect(evil.ip, 7)
            k.settimeout(10)
            k.sendall(b"x")
            try:
                while k.recv(1):
                    pass
                reset = False
            except ConnectionResetError:
                reset = True
            check(reset, "its caller sees a reset")
            k.close()
            eventually(lambda: floods(agent, ANSWERED) > before, 3, "logged with its limit")
    finally:
        s.close()


def test_bytes_one_by_one(m):
    """100,000 DATA frames of one byte on 100 streams, echoed: never an offence."""
    t, each = Raw(m), scaled(1000, 10)
    streams = range(1, 201, 2)
    for k in streams:
        check(t.opened(m, k), "open")
    got = 0
    t.frames.clear()
    for _ in range(each):
        t.send(b"".join(frame(DATA, 0, k, b"x") for k in streams))
        t.drain()
        got += sum(len(f[3]) for f in t.frames if f[0] == DATA)
        t.frames = [f for f in t.frames if f[0] in (RST_STREAM, GOAWAY)]
    while got < each * len(streams) and t.read(10):
        got += sum(len(f[3]) for f in t.frames if f[0] == DATA)
        t.frames = [f for f in t.frames if f[0] in (RST_STREAM, GOAWAY)]
    check(got == each * len(streams) and not t.frames, "everything comes back", got, t.frames)
    t.close()
    return "%d frames" % got


test_bytes_one_by_one.seconds = 120


def test_last_words_of_a_lost_tunnel(m):
    """A peer leaves more behind than one round takes, and resets: what it said is heard out, and others are served between."""
    agent, server = m.agents[2], m.pods["server"]
    lost, other = Raw(m), Raw(m)
    check(lost.opened(m, 1) and other.opened(m, 1), "open")
    caller = lost.sock.getsockname()
    agent.process.signal(signal.SIGSTOP)
    lost.send(b"".join(connect(m, k, port=15001) for k in range(3, 1803, 2)))
    lost.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    lost.close()
    other.send(b"".join(connect(m, k, port=15001) for k in range(3, 203, 2)))
    gone = "%s:%d" % caller
    eventually(lambda: gone not in server.sh("ss", "-Htn", "state", "established").stdout, 5, "the reset has come")
    agent.process.signal(signal.SIGCONT)
    mine = lambda r, s: r["src.addr"] == "%s:%d" % s.getsockname()
    eventually(lambda: sum(mine(r, other.sock) for r in agent.access()) >= 100, 10, "the other's requests are answered")
    end = eventually(lambda: [i for i, r in enumerate(agent.access()) if r["src.addr"] == gone and r.get("error", "").startswith("tunnel_lost")], 10, "the lost one has ended")
    served = [i for i, r in enumerate(agent.access()) if mine(r, other.sock)]
    check(served[99] < end[0], "all of the other's are answered before", served, end)
    other.close()


def test_aborts_of_callers(m):
    """500 streams a second, given up right away or once they are open: their neighbours on the same tunnel live on."""
    t, seconds = Raw(m), scaled(6, 1)
    check(t.opened(m, 1), "open")
    rounds, start, k = seconds * 50, time.monotonic(), 3
    for i in range(rounds):
        early = b"".join(connect(m, s) + rst(s) for s in range(k, k + 10, 2))
        late = range(k + 10, k + 20, 2)
        k += 20
        t.send(early + b"".join(connect(m, s) for s in late))
        time.sleep(max(0, start + (i + 1) / 50 - time.monotonic()))
        t.send(b"".join(rst(s) for s in late))
        t.drain()
        check(not any(f[0] == GOAWAY for f in t.frames), "no GOAWAY", i)
        t.frames.clear()
    t.send(frame(DATA, 0, 1, b"ping"))
    check(t.has(lambda f: f[0] == DATA and f[2] == 1 and f[3] == b"ping"), "the neighbour lives")
    check(t.opened(m, k), "new streams are welcome")
    t.close()
    return "%d aborts in %.1f s" % (rounds * 10, time.monotonic() - start)


test_aborts_of_callers.seconds = 120
