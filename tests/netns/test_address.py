# SPDX-License-Identifier: Apache-2.0
"""Who is seen: the app sees the true client, the client sees the address it dialled."""
from mesh import Mesh, SANITIZER, check, eventually, run

FALLBACK = True


def setup():
    m = Mesh("address")
    m.pod("client", 1)
    m.pod("near", 1)
    m.pod("server", 2)
    m.pod("plain", 2, enrolled=False)
    m.vips = m.service("server", {"app": "server"}, [("who", 80, 11)])
    m.plain_vips = m.service("plain", {"app": "plain"}, [("who", 80, 11)])
    m.apply()
    for p in m.pods.values():
        p.serve("who:11", "echo:7")
    m.start_agents()
    return m


def ask(pod, address, port, source=None):
    with pod.connect(address, port, source=source) as s:
        seen = b""
        while not seen.endswith(b"\n"):
            got = s.recv(200)
            check(got, "the server said %r" % seen)
            seen += got
        return seen.decode().split(), s.getpeername()[:2]


def test_app_sees_the_client(m):
    client, server = m.pods["client"], m.pods["server"]
    for address, port, ip, family in ((server.ip, 11, client.ip, 4), (server.ip6, 11, client.ip6, 6), (m.vips[0], 80, client.ip, 4),
                                      (m.vips[1], 80, client.ip6, 6)):
        seen, peer = ask(client, address, port)
        check(seen[0] == ip, "the app sees the client's address by " + address, seen)
        check(seen[2] == (server.ip if family == 4 else server.ip6) and seen[3] == "11", "the app is met at its own address", seen)
        check(peer == (address, port), "the client sees what it dialled", peer)


def test_mapped_socket(m):
    seen, peer = ask(m.pods["client"], "::ffff:" + m.pods["server"].ip, 11)
    check(seen[0] == m.pods["client"].ip and peer[0] == "::ffff:" + m.pods["server"].ip, "v4-mapped socket", seen, peer)


def test_same_node(m):
    seen, peer = ask(m.pods["client"], m.pods["near"].ip, 11)
    check(seen[0] == m.pods["client"].ip and peer[0] == m.pods["near"].ip, "pods of one node", seen, peer)


def test_plaintext_caller_is_seen_too(m):
    for address, ip in ((m.pods["server"].ip, m.pods["plain"].ip), (m.pods["server"].ip6, m.pods["plain"].ip6)):
        seen, peer = ask(m.pods["plain"], address, 11)
        check(seen[0] == ip and peer[0] == address, "caller outside the mesh", seen, peer)


def test_loopback_is_left_alone(m):
    seen, _ = ask(m.pods["server"], "127.0.0.1", 11)
    check(seen[0] == "127.0.0.1" == seen[2], "loopback", seen)


def test_1000_open_from_one_address(m):
    n = 1000 if not SANITIZER else 300
    client, server = m.pods["client"], m.pods["server"]
    held = client.client("burst", server.ip, 11, n, 3000, "who")
    eventually(lambda: '"open"' in held.output(), 40, "%d open" % n)
    seen, _ = ask(client, server.ip, 11)
    check(seen[0] == client.ip, "one more beside them", seen)
    r = held.result(60)
    check(r["ok"] and r["peer"] == client.ip and r["other_peers"] == 0, "every one of them seen as the client", r)


def test_log_names_both_ends(m):
    client, server = m.pods["client"], m.pods["server"]
    before = [len(a.access()) for a in m.agents.values()]
    ask(client, m.vips[0], 80)
    out = eventually(lambda: [x for x in m.agents[1].access()[before[0]:] if x.get("direction") == "outbound" and "dst.service" in x],
                     3, "outbound line with the Service: %s" % m.agents[1].access()[-2:])[-1]
    inb = eventually(lambda: [x for x in m.agents[2].access()[before[1]:] if x.get("direction") == "inbound"], 3, "inbound line")[-1]
    check(out["src.workload"] == "client" and out["src.identity"] == client.identity and out["dst.identity"] == server.identity and
          out["dst.addr"] == server.ip + ":15008" and out["dst.hbone_addr"] == server.ip + ":11", "outbound fields", out)
    check(out["dst.service"].startswith("server.demo.svc."), "service name", out)
    check(inb["src.identity"] == client.identity and inb["dst.workload"] == "server" and inb["src.addr"].startswith(client.ip + ":") and
          inb["dst.hbone_addr"] == server.ip + ":11", "inbound fields", inb)


def test_log_counts_as_the_local_app_does(m):
    """What the pod's own app said is sent, what it heard is received (ztunnel.md 9.2), on every way."""
    client, server, plain = m.pods["client"], m.pods["server"], m.pods["plain"]
    for who, address, port, nodes in ((client, server.ip, 11, (1, 2)), (client, m.plain_vips[0], 80, (1,)), (plain, server.ip6, 11, (2,))):
        before = {n: len(m.agents[n].access()) for n in nodes}
        with who.connect(address, port) as s:
            heard = len(s.makefile("rb").readline())
            s.sendall(b"hello")
            check(s.recv(5) == b"hello", "echo")
            heard += 5
        for n in nodes:
            line = eventually(lambda: m.agents[n].access()[before[n]:], 3, "a line at node %d" % n)[-1]
            sent, recv = (5, heard) if n == 1 else (heard, 5)
            check((int(line["bytes_sent"]), int(line["bytes_recv"])) == (sent, recv), "%s to %s at node %d" % (who.name, address, n), line)


def test_client_with_several_addresses(m):
    """The one that the client chose is the one that is seen, behind a tunnel as out of the mesh."""
    client, server, plain = m.pods["client"], m.pods["server"], m.pods["plain"]
    for ip in ("10.77.1.200", "fd77:1::200"):
        client.sh("ip", "address", "add", ip, "dev", "eth0", *(["nodad"] if ":" in ip else []))
        run("nsenter", "--net=" + m.node_netns(1), "ip", "route", "add", ip, "dev", client.veth)
    d = client.manifest()
    d["status"]["podIPs"] += [{"ip": "10.77.1.200"}, {"ip": "fd77:1::200"}]
    m.write("pod-client.yaml", d)
    eventually(lambda: "10.77.1.200" in m.agents[1].ctl("-j", "workload", "list").stdout, 5, "the agent knows")
    for address, port, sources in ((server.ip, 11, (client.ip, "10.77.1.200")), (server.ip6, 11, (client.ip6, "fd77:1::200")),
                                   (m.plain_vips[0], 80, (client.ip, "10.77.1.200")), (m.plain_vips[1], 80, (client.ip6, "fd77:1::200"))):
        for source in sources:
            seen, _ = ask(client, address, port, source)
            check(seen[0] == source, "by %s from %s" % (address, source), seen)
