# SPDX-License-Identifier: Apache-2.0
"""Peers with a valid certificate, and pods, that want to do harm: what they do stays theirs."""
import errno
import os
import socket
import struct
import time

import certs
import hbone
import h2.errors
import h2.events
from mesh import Mesh, SANITIZER, check, eventually, scaled

FALLBACK = False
DIAL = 3


def setup():
    m = Mesh("hostile")
    m.agent_options = ["--dial-timeout=%ds" % DIAL, "--workers=1", "--buffer-limit=8M"]
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    evil = m.pod("evil", 2)
    m.apply()
    evil.known = False
    d = evil.manifest()
    d["spec"]["nodeName"] = "a-node-without-agent"
    m.write("pod-evil.yaml", d)
    m.pods["server"].serve("echo:7", "duplex:9", "rst:12")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    m.good = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/good.pem")
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


def flood(m, make, limit_seconds=20, limit_bytes=48 << 20, ack=True, rcvbuf=None):
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
    except OSError as e:
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
