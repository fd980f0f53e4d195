# SPDX-License-Identifier: Apache-2.0
"""The mesh's own ConfigMap names the trust domain, its aliases and the root namespace where no option does: certificates,
identities and policies follow it, also over a restart without the folder. Aliases and root namespace change under live
connections, the trust domain with the next start."""
import json
import os

import certs
import hbone
import h2.events
from mesh import Mesh, check, eventually
from policies import Policies, authorization, died

FALLBACK = "together"
APPLIES_S = 1.0  # from the rename to the last byte: what is promised


def config_map(domain, aliases=("old.example",), root=None):
    mesh = "trustDomain: %s\ntrustDomainAliases: [%s]\naccessLogFile: /dev/stdout\n" % (domain, ", ".join(aliases))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": mesh + ("rootNamespace: %s\n" % root if root else "")}}


def setup():
    m = Mesh("trust")
    m.pod("client", 1)
    m.pod("other", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.apply()
    m.write("mesh.yaml", config_map("mesh.example"))
    m.pods["server"].serve("echo:7")
    m.start_agents()
    return m


def identities(m, node):
    return {x["identity"] for x in json.loads(m.agents[node].ctl("-j", "certificate", "list").stdout)}


def talks(m):
    with m.pods["client"].connect(m.pods["server"].ip, 7) as s:
        s.sendall(b"x")
        return s.recv(1) == b"x"


def test_the_domain_is_the_meshs(m):
    check(talks(m), "through the tunnel")
    check(identities(m, 1) == {m.pods[n].identity.replace("cluster.local", "mesh.example") for n in ("client", "other")}, "certificates", identities(m, 1))
    tunnels = json.loads(m.agents[2].ctl("-j", "tunnel", "list").stdout)
    check([t["peer_identity"].split("/")[2] for t in tunnels] == ["mesh.example"], "the peer's", tunnels)


def test_an_alias_names_the_same_account(m):
    """A caller of a former name of the mesh is let in, also from an address whose pod is known by the present name."""
    plain, server = m.pods["plain"], m.pods["server"]
    for domain, account, wanted in (("old.example", "plain", 200), ("mesh.example", "plain", 200), ("old.example", "client", 401), ("other.example", "plain", None)):
        pem = certs.issue(certs.load_ca(m.ca), "spiffe://%s/ns/demo/sa/%s" % (domain, account), m.dir + "/caller.pem")
        try:
            c = hbone.Client(plain, server.ip, pem, certs.root_file(m.ca))
            got = c.status(c.request(server.ip + ":7"))
            c.close()
        except OSError:
            got = None
        check(got == wanted, "%s of %s" % (account, domain), got)


def echoes(*sockets):
    """Who is not meant notices nothing."""
    for s in sockets:
        s.sendall(b"k")
        check(s.recv(1) == b"k", "lives on")


def caller(m, domain):
    """The plain pod with a certificate of this domain, and its open stream; None when the handshake is refused."""
    pem = certs.issue(certs.load_ca(m.ca), "spiffe://%s/ns/demo/sa/plain" % domain, m.dir + "/caller.pem")
    try:
        c = hbone.Client(m.pods["plain"], m.pods["server"].ip, pem, certs.root_file(m.ca))
        stream = c.request(m.pods["server"].ip + ":7")
        return (c, stream) if c.status(stream) == 200 else None
    except OSError:
        return None


def through(c, stream):
    c.send(stream, b"k")
    check(c.read(stream, 1) == b"k", "lives on")


def cut(c, stream):
    e = c.wait(h2.events.StreamReset, stream, APPLIES_S)
    check(e and e.error_code == 10, "RST_STREAM CONNECT_ERROR", e)
    check(not c.wait(h2.events.StreamEnded, stream, APPLIES_S), "never a clean end")
    c.close()


def test_an_alias_comes_and_goes_under_live_connections(m):
    """Certificates of that name, and principals of it in policies, on HBONE and plaintext connections alike."""
    client, other, plain, server = (m.pods[n] for n in ("client", "other", "plain", "server"))
    agent = m.agents[2]
    with Policies(m, authorization("former", "DENY", [{"from": [{"source": {"principals": ["older.example/ns/demo/sa/other"]}}]}])):
        a, b, c = (p.connect(server.ip, 7) for p in (client, other, plain))
        echoes(a, b, c)
        old = eventually(lambda: caller(m, "old.example"), 3, "an alias of ours")
        through(*old)
        check(caller(m, "older.example") is None, "no name of ours yet")
        m.write("mesh.yaml", config_map("mesh.example", ["old.example", "older.example"]))
        check(died(b, APPLIES_S) == "reset", "whom the policy means by its new name is cut")
        echoes(a, c)
        through(*old)
        check(other.outcome(server.ip) == "reset", "nor let in again")
        older = eventually(lambda: caller(m, "older.example"), 3, "the new name is believed")
        question = ("policy", "check", "--from=spiffe://older.example/ns/demo/sa/plain", "--to=demo/server:7")
        check(agent.ctl(*question).stdout.startswith("allowed"), "also by policy check")
        before = agent.json("status")["counters"].get("tls_trust_domain", 0)
        m.write("mesh.yaml", config_map("mesh.example", ["older.example"]))
        cut(*old)
        echoes(a, c)
        through(*older)
        check(caller(m, "old.example") is None, "and no new one with that name")
        m.write("mesh.yaml", config_map("mesh.example", []))
        cut(*older)
        echoes(a, c)
        check(other.outcome(server.ip) == "ok", "the policy means nobody again")
        r = agent.ctl(*question, check_rc=False)
        check(r.returncode == 1 and "tls_trust_domain" in r.stdout, "nor does policy check", r.stdout)
        check(agent.json("status")["counters"]["tls_trust_domain"] == before + 3, "counted: two streams and a handshake", agent.json("status")["counters"])
        for name in ("old.example", "older.example"):
            eventually(lambda: [x for x in agent.access() if name in x.get("src.identity", "") and x.get("error", "").startswith("tls_trust_domain: ")], 3, "and said")
        for s in (a, b, c):
            s.close()
    m.write("mesh.yaml", config_map("mesh.example"))


def test_the_root_namespace_changes_under_live_connections(m):
    """Its policies are the mesh's, from the moment that it is the root namespace to the moment that it is not."""
    client, other, plain, server = (m.pods[n] for n in ("client", "other", "plain", "server"))
    rules = [{"from": [{"source": {"ipBlocks": [plain.ip]}}]}, {"from": [{"source": {"principals": ["cluster.local/ns/demo/sa/other"]}}]}]
    with Policies(m, authorization("lock", "DENY", rules, namespace="the-root")):
        a, b, c = (p.connect(server.ip, 7) for p in (client, other, plain))
        echoes(a, b, c)
        m.write("mesh.yaml", config_map("mesh.example", root="the-root"))
        check(died(b, APPLIES_S) == "reset" and died(c, APPLIES_S) == "reset", "HBONE and plaintext are cut")
        echoes(a)
        check("root namespace the-root (ConfigMap istio)" in m.agents[2].ctl("status").stdout, "said", m.agents[2].ctl("status").stdout)
        m.write("mesh.yaml", config_map("mesh.example"))
        eventually(lambda: other.outcome(server.ip) == plain.outcome(server.ip) == "ok", 3, "let in again")
        echoes(a)
        for s in (a, b, c):
            s.close()


def test_options_win_over_the_config_map(m):
    a = m.agents[2]
    a.stop()
    a.options = ["--trust-domain-aliases=option.example"]
    a.start()
    try:
        check(caller(m, "option.example") and not caller(m, "old.example"), "the option's, and not the map's")
        said = "mesh: trust domain mesh.example (ConfigMap istio), aliases option.example (--trust-domain-aliases wins over ConfigMap istio: %s), " \
            "root namespace istio-system (default)\n"
        check(said % "old.example" in a.ctl("status").stdout, "said", a.ctl("status").stdout)
        m.write("mesh.yaml", config_map("mesh.example", ["old.example", "older.example"]))
        eventually(lambda: said % "old.example,older.example" in a.ctl("status").stdout, 3, "a change is read")
        check(caller(m, "option.example") and not caller(m, "older.example"), "and wins as little")
    finally:
        a.stop()
        a.options = []
        a.start()


def test_a_change_of_the_trust_domain_waits_for_the_next_start(m):
    """An agent's certificates carry it: it goes on with the one that it has, and says so until somebody acts."""
    alarm = "ALARM: ConfigMap istio-system/istio: trustDomain: new.example is asked for, and mesh.example stays in use, as certificates carry it: restart this agent"
    m.write("mesh.yaml", config_map("new.example"))
    for a in m.agents.values():
        eventually(lambda: alarm in a.text() and alarm in a.ctl("status").stdout, 5, "an alarm in log and status")
    check(talks(m) and {x.split("/")[2] for x in identities(m, 1)} == {"mesh.example"}, "as before", identities(m, 1))
    m.write("mesh.yaml", config_map("mesh.example"))
    for a in m.agents.values():
        eventually(lambda: "ALARM" not in a.ctl("status").stdout, 5, "taken back, nobody has to act")
    m.write("mesh.yaml", config_map("new.example"))
    eventually(lambda: all(alarm in a.ctl("status").stdout for a in m.agents.values()), 5, "asked for again")


def test_the_next_start_without_the_folder(m):
    """What was read last is what counts, for the trust domain, too."""
    os.rename(m.config, m.config + ".away")
    try:
        for a in m.agents.values():
            a.stop()
            a.start()
        check(talks(m) and {x.split("/")[2] for x in identities(m, 1)} == {"new.example"}, "the last one", identities(m, 1))
    finally:
        os.rename(m.config + ".away", m.config)
