# SPDX-License-Identifier: Apache-2.0
"""Peers whose kernel still acknowledges but that say nothing any more: PING finds them out, in either role."""
import errno
import signal

import h2.events

import certs
import hbone
from mesh import Mesh, check, eventually

LOAD = "waits"
FALLBACK = False


def setup():
    m = Mesh("silence")
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.apply()
    for n in ("client", "server"):
        m.pods[n].serve("echo:7")
    m.start_agents()
    return m


def timed_out(m, direction):
    return [x for x in m.agents[1].access() if x["direction"] == direction and x.get("error", "").startswith("h2_ping_timeout: ")]


def test_silent_peers(m):
    """A server agent that is stopped, and a client that does not read: their streams end by RST, and the log says why."""
    client, plain = m.pods["client"], m.pods["plain"]
    pem = certs.issue(certs.load_ca(m.ca), plain.identity, m.dir + "/plain.pem")
    mute = hbone.Client(plain, client.ip, pem, certs.root_file(m.ca))
    stream = mute.request(client.ip + ":7")
    check(mute.status(stream) == 200, "a tunnel into node 1")
    with client.connect(m.pods["server"].ip, 7) as s:
        s.sendall(b"x")
        check(s.recv(1) == b"x", "and one out of it")
        m.agents[2].process.signal(signal.SIGSTOP)
        try:
            s.settimeout(70)
            try:
                got = s.recv(1)
            except OSError as e:
                got = e.errno
        finally:
            m.agents[2].process.signal(signal.SIGCONT)
    check(got == errno.ECONNRESET, "the app is told", got)
    for direction in "outbound", "inbound":
        eventually(lambda: len(timed_out(m, direction)) == 1, 30, "%s: %s" % (direction, m.agents[1].access()[-2:]))
    check(mute.wait(h2.events.PingReceived) and mute.wait(h2.events.ConnectionTerminated), "it was asked, and told of the end", mute.events)
    check(client.outcome(m.pods["server"].ip) == "ok", "the next connection has a new tunnel")


test_silent_peers.seconds = 120
