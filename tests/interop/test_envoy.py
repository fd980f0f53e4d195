# SPDX-License-Identifier: Apache-2.0
"""Envoy and the agent speak HBONE with each other, each as client and as server.

Node 1 has an agent and the pod `app`. Node 2 has none: there Envoy plays the peer, in `gateway` (a client that tunnels to
app:15008) and in `waypoint` (labelled enrolled, so that node 1's agent tunnels to it; Envoy terminates CONNECT).
"""
import errno
import socket
import time

import certs
import envoy
from mesh import Mesh, check, eventually, scaled

FALLBACK = "together"
PORTS = [7, 9, 11, 12, 13, 14, 99]
SERVERS = ["echo:7", "duplex:9", "who:11", "rst:12", "finfirst:13", "last:14"]
MIB = 1 << 20


def setup():
    envoy.binary()
    m = Mesh("envoy")
    app, gateway, waypoint = m.pod("app", 1), m.pod("gateway", 2, enrolled=False), m.pod("waypoint", 2)
    m.apply()
    del m.agents[2]
    app.serve(*SERVERS)
    waypoint.serve(*SERVERS)
    m.start_agents()
    ca, roots = certs.load_ca(m.ca), certs.root_file(m.ca)
    m.client = envoy.Envoy(gateway, envoy.client_config(
        app.ip, PORTS, certs.issue(ca, gateway.identity, m.dir + "/gateway.pem"), roots, app.identity))
    m.server = envoy.Envoy(waypoint, envoy.server_config(
        PORTS, certs.issue(ca, waypoint.identity, m.dir + "/waypoint.pem"), roots, 200))
    return m


def both(m):
    """(who dials, address, port offset, pod that serves) for either direction."""
    return ((m.pods["gateway"], "127.0.0.1", 10000, m.pods["app"]),
            (m.pods["app"], m.pods["waypoint"].ip, 0, m.pods["waypoint"]))


def last(pod):
    s = pod.connect("127.0.0.1", 14)
    n, size, _, error = s.recv(200).decode().split()
    s.close()
    return int(n), int(size), int(error)


def test_bytes_both_ways(m):
    for pod, address, offset, _ in both(m):
        r = pod.traffic("bulk", address, offset + 9, scaled(256 * MIB), scaled(256 * MIB))
        check(r["ok"], "bulk from %s" % pod.name, r)
        r = pod.traffic("bulk", address, offset + 9, scaled(16 * MIB), scaled(16 * MIB), "mixed")
        check(r["ok"], "mixed writes from %s" % pod.name, r)
        r = pod.traffic("ping", address, offset + 7, 1000, 1)
        check(r["ok"], "ping-pong from %s" % pod.name, r)


def test_envoy_serves_with_the_agents_headers(m):
    stat = m.server.stat("http.hbone.downstream_rq_total")
    r = m.pods["app"].traffic("ping", m.pods["waypoint"].ip, 7, 1, 1)
    check(r["ok"] and m.server.stat("http.hbone.downstream_rq_total") == stat + 1, "one CONNECT seen by Envoy", r)
    lines = eventually(lambda: [x for x in m.agents[1].access() if x.get("direction") == "outbound" and x.get("dst.workload") == "waypoint"
                                and x.get("dst.hbone_addr") == m.pods["waypoint"].ip + ":7"], 3, "access log line")
    check(lines[-1]["dst.identity"] == m.pods["waypoint"].identity, "identity of the server in the log", lines[-1])


def test_app_sees_the_gateways_address(m):
    s = m.pods["gateway"].connect("127.0.0.1", 10011)
    line = s.recv(200).decode().split()
    s.close()
    check(line[0] == m.pods["gateway"].ip and line[2:] == [m.pods["app"].ip, "11"], "addresses", line)


def test_client_half_close(m):
    for pod, address, offset, _ in both(m):
        r = pod.traffic("bulk", address, offset + 9, 0, scaled(32 * MIB))
        check(r["ok"], "everything after the client's FIN, from %s" % pod.name, r)


def test_server_half_close(m):
    for pod, address, offset, server in both(m):
        sent, s = scaled(4 * MIB), None
        resets = m.server.stat("http2.tx_reset")
        try:
            s = pod.connect(address, offset + 13)
            check(s.recv(10) == b"", "FIN of the server arrives at " + pod.name)
            before, _, _ = last(server)
            s.sendall(b"u" * sent)
            s.shutdown(socket.SHUT_WR)
        except OSError as e:
            # As server Envoy resets a stream once its own side has ended, perhaps before connect(2) has returned: then,
            # and only then, the app is reset.
            eventually(lambda: pod.name == "app" and m.server.stat("http2.tx_reset") >= max(1, resets), 2,
                       "upload after the server's FIN, from %s: %s" % (pod.name, e))
            if s:
                s.close()
            continue
        eventually(lambda: last(server)[0] > before, 10, "upload ended at " + server.name)
        check(last(server)[1:] == (sent, 0), "whole upload after the server's FIN, from " + pod.name, last(server))
        s.close()


def test_reset_by_the_server(m):
    for pod, address, offset, _ in both(m):
        s = pod.connect(address, offset + 12)
        s.sendall(b"x")
        start = time.monotonic()
        try:
            got = s.recv(10)
        except OSError as e:
            got = e.errno
        s.close()
        # Envoy as client turns a stream's reset into a FIN for its own downstream; the agent does not.
        wanted = (errno.ECONNRESET,) if pod.name == "app" else (errno.ECONNRESET, b"")
        check(got in wanted and time.monotonic() - start < 5, "reset arrives at %s" % pod.name, got)


def test_reset_by_the_client(m):
    for pod, address, offset, server in both(m):
        before, _, _ = last(server)
        s = pod.connect(address, offset + 7)
        s.sendall(b"hello")
        check(s.recv(5) == b"hello", "echo before the reset")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        eventually(lambda: last(server)[0] > before, 5, "the app's connection ended")
        if pod.name == "gateway":
            continue  # what Envoy makes of its client's reset is Envoy's; here it counts that nothing hangs
        # Envoy as server may close its own upstream either way.
        check(last(server)[2] in (0, errno.ECONNRESET), "end seen by the app", last(server))


def test_many_streams_on_one_connection(m):
    n = scaled(400, 100)
    tunnels = m.client.stat("cluster.tunnel.upstream_cx_total")
    r = m.pods["gateway"].traffic("burst", "127.0.0.1", 10011, n, 0, "who")
    check(r["ok"] and r["done"] == n, "burst through Envoy to the agent", r)
    check(m.client.stat("cluster.tunnel.upstream_cx_total") - tunnels <= 1 + n // 100, "few tunnels",
          m.client.stat("cluster.tunnel.upstream_cx_total"))
    tunnels = m.server.stat("http.hbone.downstream_cx_total")
    r = m.pods["app"].traffic("burst", m.pods["waypoint"].ip, 7, n)
    check(r["ok"] and r["done"] == n, "burst through the agent to Envoy", r)
    # 200 requests to a connection, then Envoy sends GOAWAY: what counts is that tunnels are shared.
    check(m.server.stat("http.hbone.downstream_cx_total") - tunnels <= 8, "few tunnels",
          m.server.stat("http.hbone.downstream_cx_total") - tunnels)


def test_refused_app(m):
    for pod, address, offset, _ in both(m):
        start = time.monotonic()
        try:
            with pod.connect(address, offset + 99) as s:
                got = s.recv(10)
        except OSError as e:
            got = e.errno
        check(got in (b"", errno.ECONNRESET) and time.monotonic() - start < 5, "refused app, from %s" % pod.name, got)
    eventually(lambda: [x for x in m.agents[1].access() if "app_refused" in x.get("error", "")], 3, "the agent's log says why")


def test_goaway_from_envoy_loses_nothing(m):
    before = m.server.stat("http.hbone.downstream_cx_total")
    r = m.pods["app"].traffic("serial", m.pods["waypoint"].ip, 7, 700)
    check(r["ok"], "700 connections over tunnels that end after 200 each", r)
    check(m.server.stat("http.hbone.downstream_cx_total") - before >= 3, "new tunnels after GOAWAY")


def test_keepalive_and_idle(m):
    """25 s of silence: the agent's PINGs are answered by Envoy, Envoy's (every second, 3 s time-out) by the agent."""
    held = [pod.connect(address, offset + 7) for pod, address, offset, _ in both(m)]
    for s in held:
        s.sendall(b"a")
        check(s.recv(1) == b"a", "before")
    time.sleep(25)
    for s in held:
        s.sendall(b"b")
        check(s.recv(1) == b"b", "after 25 s of silence")
        s.close()
    check(m.client.stat("cluster.tunnel.http2.keepalive_timeout") == 0 and m.server.stat("http2.keepalive_timeout") == 0, "no PING unanswered")


def test_wrong_server_identity_gets_nothing(m):
    """Envoy with a certificate of another pod's identity on the waypoint's address."""
    import hbone
    other = m.pod("other", 2)
    m.write_pod(other)
    ca, roots = certs.load_ca(m.ca), certs.root_file(m.ca)
    s = hbone.Server(other, certs.issue(ca, m.pods["gateway"].identity, m.dir + "/wrong.pem"), roots)
    time.sleep(0.5)
    try:
        # The reset may come before connect has returned.
        c = m.pods["app"].connect(other.ip, 7)
        c.sendall(b"secret")
        got = c.recv(10)
    except OSError as e:
        got = e.errno
    s.close()
    check(got == errno.ECONNRESET and not s.received and not s.requests, "nothing to a wrong identity", got, s.received, s.requests)


def test_goaway_to_envoy_when_the_pod_leaves(m):
    """Last: un-enrols the pod. The open stream lives on for the drain, Envoy is told not to use the tunnel."""
    app = m.pods["app"]
    s = m.pods["gateway"].connect("127.0.0.1", 10007)
    s.sendall(b"a")
    check(s.recv(1) == b"a", "open before")
    before = m.client.stat("cluster.tunnel.upstream_cx_close_notify")
    m.enrol(app, False)
    eventually(lambda: m.client.stat("cluster.tunnel.upstream_cx_close_notify") > before, 5, "Envoy counts the GOAWAY")
    s.sendall(b"b")
    check(s.recv(1) == b"b", "the open stream goes on")
    s.close()


test_bytes_both_ways.seconds = 120
