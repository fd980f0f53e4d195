# SPDX-License-Identifier: Apache-2.0
"""Whose an address is: no header says so, only the model does, and only where it is certain. An identity from another's
address is refused, and tunnels end their use when their address gets a new owner. The callers here are of another stack."""
import socket

import certs
import hbone
import h2.events
from mesh import Mesh, Namespace, check, eventually
from policies import Trace, died

FALLBACK = "together"
NODE = "10.77.1.1"


def setup():
    m = Mesh("binding")
    m.agent_options = ["--drain=100ms"]
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.pod("stranger", 1, enrolled=False, known=False)
    peer = m.pod("peer", 2)
    m.apply()
    m.pod_without_agent(peer)
    m.pods["server"].serve("echo:7", "who:11")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    return m


class Node:
    """Calls from the node's own address, as a hostNetwork pod does."""

    def __init__(self, m):
        self.m = m

    def connect(self, address, port, timeout=10.0):
        with Namespace(self.m.node_netns(1)):
            s = socket.socket()
        s.settimeout(timeout)
        s.bind((NODE, 0))
        s.connect((address, port))
        return s


def certificate(m, account):
    """`account`: of the namespace demo, or NAMESPACE/NAME."""
    namespace, name = ("demo/" + account).split("/")[-2:]
    return certs.issue(certs.load_ca(m.ca), "spiffe://cluster.local/ns/%s/sa/%s" % (namespace, name), m.dir + "/caller.pem")


def tunnel(m, pod, account):
    return hbone.Client(pod, m.pods["server"].ip, certificate(m, account), m.root)


def status(m, pod, account, **kw):
    c = tunnel(m, pod, account)
    got = c.status(c.request(m.pods["server"].ip + ":7", **kw))
    c.close()
    return got


def count(m, reason):
    return m.agents[2].json("status")["counters"].get(reason, 0)


def restart(m, *options):
    a = m.agents[2]
    a.stop()
    a.options = list(options)
    a.start()


def test_modes(m):
    plain, stranger = m.pods["plain"], m.pods["stranger"]
    try:
        for mode, anothers, nobodys in (("known", 401, 200), ("enforce", 401, 401), ("off", 200, 200)):
            restart(m, *(["--source-binding=" + mode] if mode != "known" else []))
            check(status(m, plain, "plain") == 200, mode + ": its own address")
            check(status(m, plain, "client") == anothers, mode + ": another's address is answered %d" % anothers)
            before = count(m, "source_unbound")
            check(status(m, stranger, "client") == nobodys, mode + ": nobody's address is answered %d" % nobodys)
            check(count(m, "source_unbound") == before + (mode != "off"), mode + ": counted once, where addresses are compared", count(m, "source_unbound") - before)
            check(count(m, "src_identity_mismatch") == (anothers == 401), mode + ": so is the refusal", count(m, "src_identity_mismatch"))
    finally:
        restart(m)


def test_no_identity_is_exempt(m):
    """Not even those of a mesh's own parts, which may speak for others elsewhere."""
    for account in ("istio-system/ztunnel", "istio-system/istiod", "istio-system/istio-ingressgateway-service-account", "waypoint"):
        check(status(m, m.pods["plain"], account) == 401, account + " from another's address")


def known(m, name):
    return [w for w in m.agents[2].json("workload", "list") if w["name"] == name]


def test_addresses_that_prove_nothing(m):
    """The node's, although a hostNetwork pod has it, and one that two pods claim: no verdict, but counted."""
    stranger, before = m.pods["stranger"], count(m, "source_unbound")
    d = m.pods["plain"].manifest()
    for name, ip, network in (("proxy", NODE, True), ("twin-a", stranger.ip, False), ("twin-b", stranger.ip, False)):
        d["metadata"].update(name=name, uid=name)
        d["spec"].update(hostNetwork=network, serviceAccountName=name)
        d["status"].update(podIP=ip, podIPs=[{"ip": ip}])
        m.write("pod-%s.yaml" % name, d)
    try:
        eventually(lambda: all(known(m, n) for n in ("proxy", "twin-a", "twin-b")), 3, "known")
        check(status(m, Node(m), "client") == 200, "from the node's address")
        check(status(m, stranger, "client") == 200, "from an address of two pods")
        check(count(m, "source_unbound") == before + 2, "both counted")
        m.remove_manifest("pod-twin-b.yaml")
        eventually(lambda: not known(m, "twin-b"), 3, "one pod is left")
        check(status(m, stranger, "client") == 401 and status(m, stranger, "twin-a") == 200, "and now it is certain whose it is")
        r = m.agents[2].ctl("policy", "check", "--from=demo/twin-a", "--to=demo/server:7")
        check("plaintext: nobody is proven" in r.stdout, "a pod outside the mesh proves nothing", r.stdout)
    finally:
        for name in ("proxy", "twin-a"):
            m.remove_manifest("pod-%s.yaml" % name)
    eventually(lambda: not known(m, "twin-a"), 3, "gone")


def test_headers_change_no_address(m):
    """What the app sees is where the packets come from."""
    client, plain, server = m.pods["client"], m.pods["plain"], m.pods["server"]
    forged = [("forwarded", "for=%s" % client.ip), ("x-forwarded-for", client.ip), ("x-real-ip", client.ip), ("x-envoy-external-address", client.ip),
              ("x-forwarded-client-cert", "URI=" + client.identity), ("baggage", "k8s.namespace.name=demo,k8s.pod.name=client")]
    c = tunnel(m, plain, "plain")
    s = c.request(server.ip + ":11", headers=forged)
    check(c.status(s) == 200, "served")
    got = c.wait(h2.events.DataReceived, s).data.decode().split()[0]
    check(got == plain.ip, "by its own address", got)
    c.close()


def test_what_led_to_it(m):
    """A refusal for its address is traced and counted as any other."""
    with Trace(m) as t:
        check(status(m, m.pods["plain"], "client") == 401 and status(m, m.pods["plain"], "plain") == 200, "one refused, one not")
        row = eventually(lambda: t.rows("src_identity_mismatch"), 5, "traced")[0]
        check(row["steps"] == [{"step": "source binding", "result": "deny: the address is another identity's"}] and not row["allow"], "no policy was asked", row)
        row = eventually(lambda: [r for r in t.rows() if r["allow"]], 5, "the other one, too")[0]
        check(row["steps"][0] == {"step": "source binding", "result": "the address is this identity's"} and len(row["steps"]) > 1, "then the policies", row)
    rows = [r for r in m.agents[2].json("policy", "verdicts") if r.get("reason") == "src_identity_mismatch"]
    check(rows and rows[0]["outcome"] == "denied" and rows[0]["count"] >= 1, "counted", rows)


def give(m, name, ip, node):
    """The pod `name`, of its own account, has this address now."""
    d = m.pods["plain"].manifest()
    d["metadata"].update(name=name, uid=name)
    d["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient" if node == "a-node-without-agent" else "none"
    d["spec"].update(serviceAccountName=name, nodeName=node)
    d["status"].update(podIP=ip, podIPs=[{"ip": ip}])
    m.write("pod-%s.yaml" % name, d)


def test_a_new_owner_drains_the_callers_tunnel(m):
    stranger = m.pods["stranger"]
    give(m, "former", stranger.ip, m.node_name(1))
    eventually(lambda: known(m, "former"), 3, "owned")
    c = tunnel(m, stranger, "former")
    s = c.request(m.pods["server"].ip + ":7")
    check(c.status(s) == 200, "served")
    c.send(s, b"before")
    check(c.read(s, 6) == b"before", "served")
    m.remove_manifest("pod-former.yaml")
    give(m, "heir", stranger.ip, m.node_name(1))
    e = c.wait(h2.events.ConnectionTerminated)
    check(e and e.error_code == 0 and e.last_stream_id == 0x7fffffff, "GOAWAY, with notice", e)
    # By hand: this client's session is closed for it by the GOAWAY.
    c.sock.sendall((5).to_bytes(3, "big") + b"\0\0" + s.to_bytes(4, "big") + b"after")
    eventually(lambda: any(x["src"].startswith(stranger.ip + ":") and x["bytes_recv"] == 11 for x in m.agents[2].json("connection", "list")), 3, "its stream goes on")
    check(status(m, stranger, "former") == 401 and status(m, stranger, "heir") == 200, "new ones are the heir's alone")
    c.close()
    m.remove_manifest("pod-heir.yaml")
    eventually(lambda: not known(m, "heir"), 3, "gone")


def test_a_new_owner_drains_tunnels_to_it(m):
    client, peer = m.pods["client"], m.pods["peer"]

    def tunnels():
        return [t for t in m.agents[1].json("tunnel", "list") if t["remote"].startswith(peer.ip + ":")]
    with hbone.Server(peer, certificate(m, "peer"), m.root):
        held = client.connect(peer.ip, 7)
        held.sendall(b"x")
        check(held.recv(1) == b"x" and [t["state"] for t in tunnels()] == ["ready"], "served", tunnels())
        m.remove_manifest("pod-peer.yaml")
        give(m, "peers-heir", peer.ip, "a-node-without-agent")
        eventually(lambda: [t["state"] for t in tunnels() if t["streams"]] == ["draining"], 3, "no new streams")
        check(client.outcome(peer.ip, 7) == "reset", "who is not the heir gets no new connection")
        # This server's session is closed for it by the GOAWAY: it cannot answer any more.
        check(died(held, 0.3) is None and [t["state"] for t in tunnels() if t["streams"]] == ["draining"], "the open one goes on", tunnels())
        held.close()
    m.remove_manifest("pod-peers-heir.yaml")
