# SPDX-License-Identifier: Apache-2.0
"""Each way in which a connection ends is told by its own reason: in the access log and in the counters of the node that knows it."""
import contextlib
import socket
import struct

import certs
import hbone
import packets
from mesh import Mesh, check, eventually, run

LOAD = "waits"
DIAL = 3


def setup():
    m = Mesh("reasons")
    m.agent_options = ["--dial-timeout=%ds" % DIAL, "--workers=1"]
    m.pod("client", 1)
    m.pod("server", 2)
    for name in ("plain", "other", "third"):
        m.pod(name, 2, enrolled=False)
    # Listed as a member of the mesh, but nobody answers its 15008.
    m.pod_without_agent(m.pod("lone", 2))
    m.plain_vip = m.service("plain", {"app": "plain"}, [("echo", 7, 7), ("nobody", 81, 4444)])[0]
    m.apply()
    for p in ("server", "plain"):
        m.pods[p].serve("echo:7", "rst:12")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    m.good = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/good.pem")
    return m


@contextlib.contextmanager
def told(m, seconds=5, **wanted):
    """What happens inside makes these reasons known: n1="reason", n2="reason"; each in a new line, each counted."""
    agents = {int(k[1:]): v for k, v in wanted.items()}
    lines = {n: len(m.agents[n].access()) for n in agents}
    counts = {n: count(m, n, v) for n, v in agents.items()}
    yield
    for n, reason in agents.items():
        eventually(lambda: any(x.get("error", "").startswith(reason + ":") for x in m.agents[n].access()[lines[n]:]), seconds,
                   "%s in the log of node %d" % (reason, n))
        check(count(m, n, reason) > counts[n], "%s counted at node %d" % (reason, n))


def count(m, node, reason):
    """As `warrenctl status` has it."""
    return m.agents[node].json("status")["counters"].get(reason, 0)


def reset_on_close(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def tunnel(m):
    return hbone.Client(m.pods["plain"], m.pods["server"].ip, m.good, m.root)


@contextlib.contextmanager
def silence(m):
    """Between the nodes nothing passes."""
    nft = ["nsenter", "--net=" + m.node_netns(1), "nft"]
    run(*nft, "add table inet silent; add chain inet silent f { type filter hook forward priority 0; policy drop; }")
    try:
        yield
    finally:
        run(*nft, "delete table inet silent")


def test_dials(m):
    client, lone = m.pods["client"], m.pods["lone"]
    with told(m, n1="dial_refused"):
        check(client.outcome(m.plain_vip, 81, DIAL + 5) == "reset", "plain TCP, refused")
    with told(m, n1="dial_refused"):
        check(client.outcome(lone.ip, 7, DIAL + 5) == "reset", "tunnel, refused until the deadline")
    with silence(m):
        with told(m, n1="dial_timeout"):
            check(client.outcome(m.plain_vip, 7, DIAL + 5) == "reset", "plain TCP, not answered")
        with told(m, n1="dial_timeout"):
            check(client.outcome(lone.ip, 7, DIAL + 5) == "reset", "tunnel, not answered")
    with told(m, n1="dial_failed"):
        check(client.outcome("10.77.2.250", 7, DIAL + 5) == "reset", "an address without a host")


def test_peers_that_break_protocols(m):
    server, plain = m.pods["server"], m.pods["plain"]
    with told(m, n2="tls_alpn"):
        plain.sh("openssl", "s_client", "-connect", server.ip + ":15008", "-alpn", "http/1.1", "-CAfile", m.root, "-cert", m.good, "-key", m.good,
                 check_rc=False, input="", timeout=20, errors="replace")
    with told(m, n2="tls_protocol"), plain.connect(server.ip, 15008) as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with told(m, n2="h2_protocol"):
        c = tunnel(m)
        check(c.status(c.request(server.ip + ":7")) == 200, "open")
        c.sock.sendall(b"\0\0\1\0\0\0\0\0\0x")  # DATA of no stream
        while c.pump(5):
            pass
    for reason, method, authority in (("bad_method", "GET", server.ip + ":7"), ("bad_authority", "CONNECT", "nonsense"),
                                      ("unknown_destination", "CONNECT", "nobody.demo.svc.cluster.local:80"),
                                      ("illegal_port", "CONNECT", server.ip + ":15006"), ("app_refused", "CONNECT", server.ip + ":4444")):
        with told(m, n2=reason):
            c = tunnel(m)
            check(c.status(c.request(authority, method, end=method == "GET")) >= 400, "refused")
            c.close()


def test_app_that_does_not_accept(m):
    server = m.pods["server"]
    c = tunnel(m)
    with server.listen(4003, 0), server.connect("127.0.0.1", 4003):
        with told(m, seconds=20, n2="app_timeout"):
            s = c.request(server.ip + ":4003")
        check(c.status(s) == 503, "through a tunnel")
        with told(m, seconds=20, n2="app_timeout"):
            check(m.pods["plain"].outcome(server.ip, 4003, 20) == "reset", "in plaintext")
    c.close()


def test_who_reset(m):
    client, server, plain = m.pods["client"], m.pods["server"], m.pods["plain"]
    for who, address, by_client, by_server in ((client, server.ip, {"n1": "client_reset", "n2": "peer_reset"}, {"n1": "peer_reset", "n2": "server_reset"}),
                                               (client, m.plain_vip, {"n1": "client_reset"}, {"n1": "server_reset"}),
                                               (plain, server.ip, {"n2": "client_reset"}, {"n2": "server_reset"})):
        with told(m, **by_client):
            with who.connect(address, 7) as s:
                s.sendall(b"x")
                s.recv(1)
                reset_on_close(s)
        if address != m.plain_vip:
            with told(m, **by_server), who.connect(address, 12) as s:
                s.sendall(b"x")
                with contextlib.suppress(ConnectionResetError):
                    s.recv(1)
    with told(m, n2="tunnel_lost"):
        c = tunnel(m)
        check(c.status(c.request(server.ip + ":7")) == 200, "open")
        c.close()


def test_packets_for_what_never_leaves_the_pod(m):
    """The app's connection to its agent has the server's address; a packet from outside that claims to be of it is none."""
    client, server = m.pods["client"], m.pods["server"]

    def dropped():
        return m.agents[1].counters().get("drop_not_from_agent", 0)
    for address, family in ((server.ip, socket.AF_INET), (server.ip6, socket.AF_INET6)):
        with client.connect(address, 7) as s:
            s.sendall(b"x")
            s.recv(1)
            me, port = s.getsockname()[:2]
            forged = packets.syn(address, me, 7, port)
            before = dropped()
            packets.send_raw(m.pods["plain"], [packets.ip4(address, me, forged) if family == socket.AF_INET else packets.ip6(address, me, forged, [])], family)
            eventually(lambda: dropped() > before, 5, "dropped with its reason, " + address)
            s.sendall(b"y")
            check(s.recv(1) == b"y", "and the connection goes on")


def test_limit_of_handshakes(m):
    """One address may have 256 tunnels, all of them together 1,024 that have not got through their handshake."""
    server = m.pods["server"]
    held = []
    try:
        for name in ("plain", "other"):
            for to in (server.ip, server.ip6):
                held += [m.pods[name].connect(to, 15008) for _ in range(256)]
        # The reset may come before connect has returned.
        with told(m, n2="limit_handshakes"), contextlib.suppress(ConnectionResetError):
            held.append(m.pods["third"].connect(server.ip, 15008))
    finally:
        for s in held:
            s.close()
    c = tunnel(m)
    check(c.status(c.request(server.ip + ":7")) == 200, "served afterwards")
    c.close()


def test_source_ports_that_clash(m):
    """All ports that would be tried first for this caller are taken: it is served from another, and counted."""
    client, server = m.pods["client"], m.pods["server"]
    taken = []
    try:
        for port in range(61000, 65536):
            s = server.socket()
            s.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
            with contextlib.suppress(OSError):
                s.bind((client.ip, port))
                s.listen(1)
            taken.append(s)
        before = count(m, 2, "source_port_clash")
        check(client.outcome(server.ip) == "ok", "served")
        check(count(m, 2, "source_port_clash") > before, "and counted")
    finally:
        for s in taken:
            s.close()


test_app_that_does_not_accept.seconds = 90
