# SPDX-License-Identifier: Apache-2.0
"""Limits: descriptors, connections, peers that answer halfway. Bounded, logged, recovered."""
import errno
import os
import socket
import ssl
import time

import certs
import hbone
from mesh import Mesh, SANITIZER, check, eventually

LOAD = "alone"
FALLBACK = "together"
DIAL = 3


def setup():
    m = Mesh("exhaust")
    m.agent_options = ["--dial-timeout=%ds" % DIAL]
    m.pod("client", 1)
    m.pod("second", 1)
    m.pod("third", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    halfway = m.pod("halfway", 2)
    m.apply()
    m.pod_without_agent(halfway)
    m.pods["server"].serve("echo:7", "duplex:9")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    m.good = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/good.pem")
    return m


def works(m, pod="client"):
    r = m.pods[pod].traffic("ping", m.pods["server"].ip, 7, 5, 64)
    check(r["ok"] and r["seconds"] < 3, "others are served", r)


def halfway(m, mode, reasons):
    """A peer that stops answering at `mode`: the app is reset within the deadline, others are not held up."""
    pod = m.pods["halfway"]
    s = hbone.Server(pod, certs.issue(certs.load_ca(m.ca), pod.identity, m.dir + "/halfway.pem"), m.root, mode=mode)
    try:
        refused_in_time(m, s, mode, reasons)
    finally:
        s.close()
    works(m)


def refused_in_time(m, s, mode, reasons):
    pod, client = m.pods["halfway"], m.pods["client"]
    before = len(m.agents[1].access())
    start = time.monotonic()
    held = [client.connect(pod.ip, 7) for _ in range(20)]
    works(m)
    for c in held:
        c.settimeout(DIAL + 3)
        try:
            c.sendall(b"never")
            got = c.recv(1)
        except OSError as e:
            got = e.errno
        check(got == errno.ECONNRESET, "reset when the deadline is missed", got, time.monotonic() - start)
        c.close()
    check(time.monotonic() - start < DIAL + 2, "within the deadline", time.monotonic() - start)
    check(s.received == b"" and s.connections <= 25, "no data, few dials", s.connections, s.received)

    def logged():
        return [x["error"] for x in m.agents[1].access()[before:] if x.get("error")]

    eventually(lambda: len(logged()) >= 20, 3, "each logged")
    check(all(any(r in e for r in reasons) for e in logged()), "each logged with %s" % reasons, logged())


def test_peer_completes_tcp_but_not_tls(m):
    halfway(m, "tcp", ["tls_timeout"])


def test_peer_completes_tls_but_not_settings(m):
    halfway(m, "mute", ["h2_timeout"])


def test_peer_takes_connect_and_says_nothing(m):
    halfway(m, "hang", ["connect_timeout"])


def test_halfway_clients(m):
    """Inbound: TCP without TLS, TLS without SETTINGS: closed at the deadline, counted; good ones are served meanwhile."""
    plain, server = m.pods["plain"], m.pods["server"]
    before = m.agents[2].descriptors()
    idle = [plain.connect(server.ip, 15008) for _ in range(200)]
    mute = []
    for _ in range(20):
        mute.append(hbone.context(False, m.good, m.root).wrap_socket(plain.connect(server.ip, 15008)))
    works(m)
    c = hbone.Client(plain, server.ip, m.good, m.root)
    check(c.status(c.request(server.ip + ":7")) == 200, "a good client beside them")
    c.close()
    end = time.monotonic() + 25
    for s in idle + mute:
        s.settimeout(max(0.1, end - time.monotonic()))
        try:
            while s.recv(1000):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        except (socket.timeout, TimeoutError):
            check(False, "closed by the agent at its deadline")
        s.close()
    eventually(lambda: m.agents[2].descriptors() <= before + 4, 5, "descriptors back")
    text = m.agents[2].text() + str(m.agents[2].access())
    check("tls_timeout" in text and "h2_timeout" in text, "logged with reasons")


def test_connect_and_then_nothing_inbound(m):
    """A tunnel with many silent streams costs little and harms nobody."""
    c = hbone.Client(m.pods["plain"], m.pods["server"].ip, m.good, m.root)
    streams = [c.request(m.pods["server"].ip + ":7") for _ in range(80)]
    check(all(c.status(s) == 200 for s in streams), "80 silent streams open")
    works(m)
    c.close()
    time.sleep(0.5)
    works(m)


def at_limit(m, node):
    agent = m.agents[node]
    agent.stop()
    agent.limit_fds = 600
    agent.start()
    client, server = m.pods["client"], m.pods["server"]
    before = agent.descriptors()
    p = client.client("burst", server.ip, 7, 900, 1500)
    works_later = False
    r = p.result(60)
    check(agent.process.running(), "the agent lives")
    odd = {k: v for k, v in r["errors"].items() if k not in ("Connection reset by peer", "Broken pipe", "Connection timed out",
                                                             "Resource temporarily unavailable")}
    check(r["failed"] > 0 and r["done"] > 100 and not odd, "some served, the rest refused clearly", r)
    text = agent.text() + str([x.get("error") for x in agent.access()])
    check("limit_descriptors" in text or "limit_connections" in text, "logged with its reason", agent.text()[-600:])
    eventually(lambda: agent.descriptors() <= before + 10, 20, "descriptors back")
    works(m)
    agent.stop()
    agent.limit_fds = None
    agent.start()
    works(m)
    return "%d served, %d refused" % (r["done"], r["failed"])


def test_descriptor_limit_of_the_clients_agent(m):
    return at_limit(m, 1)


def test_a_pod_cannot_fill_the_table(m):
    """One pod opens all it can and holds it: the next pod of the node is still served, and so is a third one beside that."""
    agent, server = m.agents[1], m.pods["server"]
    agent.stop()
    agent.limit_fds = 600
    agent.start()
    hogs = []
    for name, least in (("client", 150), ("second", 40)):
        works(m, "third")
        p = m.pods[name].client("burst", server.ip, 7, 400, 4000)
        hogs.append((p, least))
        eventually(lambda n=name: sum(c["src_workload"] == n for c in agent.json("connection", "list")) >= least, 10, "%s holds its share" % name)
        works(m, "third")
    refused = [x for x in agent.access() if "limit_connections" in x.get("error", "")]
    check(refused, "refusals say why")
    for p, least in hogs:
        r = p.result(60)
        check(r["failed"] > 0 and r["done"] >= least, "a share was served", r)
    agent.stop()
    agent.limit_fds = None
    agent.start()
    works(m)


def test_descriptor_limit_of_the_servers_agent(m):
    return at_limit(m, 2)


test_descriptor_limit_of_the_clients_agent.seconds = 120
test_descriptor_limit_of_the_servers_agent.seconds = 120
