# SPDX-License-Identifier: Apache-2.0
"""Who may talk to whom: AuthorizationPolicy and PeerAuthentication as a user writes them, changed under live connections,
and what the command line says of each verdict."""
import json
import os
import re
import socket
import subprocess
import time

import h2.errors
import h2.events

import certs
import hbone
from mesh import BUILD, Mesh, check, eventually
from policies import Policies, authorization, died, peer, principal

FALLBACK = True
APPLIES_S = 1.0  # from the rename to the last byte: what is promised


def setup():
    m = Mesh("policy")
    m.pod("client", 1)
    m.pod("other", 1)
    m.pod("server", 2).spec = {"containers": [{"name": "app", "livenessProbe": {"tcpSocket": {"port": 9}}}]}
    m.pod("bystander", 2)
    m.pod("plain", 1, enrolled=False)
    m.pod("stranger", 1, enrolled=False, known=False)
    m.vips = m.service("server", {"app": "server"}, [("echo", 80, 7)])
    m.apply()
    for name in ("server", "bystander", "plain"):
        m.pods[name].serve("echo:7", "echo:8", "duplex:9")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    return m


def outcome(pod, address, port=7):
    return pod.outcome(address, port)


def talking(pod, address, port=7):
    s = pod.connect(address, port)
    s.sendall(b"x")
    check(s.recv(1) == b"x", "open from " + pod.name)
    return s


def denial(m, reason, src=None):
    """The latest access line of the server's agent with this reason."""
    lines = [x for x in m.agents[2].access() if x.get("error", "").startswith(reason + ":") and (not src or x.get("src.addr", "").startswith(src))]
    return lines[-1] if lines else None


def test_without_policies(m):
    for name in ("client", "plain"):
        check(outcome(m.pods[name], m.pods["server"].ip) == "ok", "nothing is denied to " + name)


def test_allow_by_principal(m):
    client, other, server = m.pods["client"], m.pods["other"], m.pods["server"]
    with Policies(m, authorization("only-client", rules=[{"from": [{"source": {"principals": [principal(client)]}}]}], selector={"app": "server"})):
        for address, port in ((server.ip, 7), (server.ip6, 7), (m.vips[0], 80)):
            check(outcome(client, address, port) == "ok", "the named one by " + address)
            check(outcome(other, address, port) == "reset", "nobody else by " + address)
        check(outcome(m.pods["plain"], server.ip) == "reset", "plaintext proves no principal")
        check(outcome(other, m.pods["bystander"].ip) == "ok", "the selector leaves the neighbour alone")
        line = eventually(lambda: denial(m, "policy_no_allow", other.ip + ":"), 3, "the denial in the log")
        check(line["policy"] == "AuthorizationPolicy/demo/only-client" and line["policy.rule"] == "0" and "principals" in line["policy.field"] and
              line["src.identity"] == other.identity and line["dst.workload"] == "server" and "http status: 401" in line["error"], "with all that decided", line)
        rows = [r for r in m.agents[2].json("policy", "verdicts") if r["policy"] == "AuthorizationPolicy/demo/only-client"]
        check(rows and all(r["outcome"] == "denied" and r["reason"] == "policy_no_allow" and r["count"] > 0 for r in rows), "counted by policy", rows)
        check(any(r["rule"] == 0 and r["field"] == line["policy.field"] for r in rows), "rule and field, as the line has them", rows, line)
    check(outcome(other, server.ip) == "ok", "and open again without it")


def test_allow_nothing_and_allow_all(m):
    client, server = m.pods["client"], m.pods["server"]
    with Policies(m, {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "nothing", "namespace": "demo"}, "spec": {}}) as p:
        check(outcome(client, server.ip) == "reset", "spec: {} allows nothing")
        p.write(authorization("nothing", rules=[{}]))
        check(outcome(client, server.ip) == "ok" and outcome(m.pods["plain"], server.ip) == "ok", "rules: [{}] allows everybody")


def test_deny_wins(m):
    client, server = m.pods["client"], m.pods["server"]
    with Policies(m, authorization("everybody", rules=[{}]),
                  authorization("not-port-8", "DENY", [{"to": [{"operation": {"ports": ["8"]}}], "from": [{"source": {"namespaces": ["demo"]}}]}])):
        check(outcome(client, server.ip, 7) == "ok" and outcome(client, server.ip, 8) == "reset", "DENY before ALLOW, by port")
        check(outcome(m.pods["plain"], server.ip, 8) == "ok", "plaintext has no namespace: the DENY does not match")
        line = eventually(lambda: denial(m, "policy_deny", client.ip + ":"), 3, "the denial in the log")
        check(line["policy"] == "AuthorizationPolicy/demo/not-port-8", "by name", line)


def test_ip_blocks(m):
    client, plain, server = m.pods["client"], m.pods["plain"], m.pods["server"]
    with Policies(m, authorization("by-address", rules=[{"from": [{"source": {"ipBlocks": [plain.ip, client.ip6 + "/128"]}}]}])):
        check(outcome(plain, server.ip) == "ok" and outcome(client, server.ip) == "reset" and outcome(client, server.ip6) == "ok", "addresses of both families")


def test_strict(m):
    client, plain, server = m.pods["client"], m.pods["plain"], m.pods["server"]
    with Policies(m, peer("STRICT")) as p:
        check(outcome(client, server.ip) == "ok", "mutual TLS passes")
        check(outcome(plain, server.ip) in ("reset", "refused"), "plaintext does not")
        check(outcome(plain, server.ip6) in ("reset", "refused"), "nor over IPv6")
        line = eventually(lambda: denial(m, "mtls_required", plain.ip + ":"), 3, "the denial in the log")
        check(line["policy"] == "PeerAuthentication/demo/default" and line["src.workload"] == "plain", "with what decided", line)
        p.write(peer("STRICT"), peer("UNSET", "open-8", selector={"app": "server"}, ports={8: "PERMISSIVE"}))
        check(outcome(plain, server.ip, 8) == "ok" and outcome(plain, server.ip, 7) in ("reset", "refused"), "but for a port that is excepted")
        check(outcome(plain, m.pods["bystander"].ip, 8) in ("reset", "refused"), "of that workload alone")
        p.write(peer("PERMISSIVE", "mesh", namespace="istio-system"), peer("STRICT", "this", selector={"app": "server"}))
        check(outcome(plain, server.ip) in ("reset", "refused") and outcome(plain, m.pods["bystander"].ip) == "ok", "workload before mesh")
    check(outcome(plain, server.ip) == "ok", "and passes again without it")


def test_live_connections(m):
    """A policy that forbids them ends connections that are open, tunnelled and plaintext alike, and no others."""
    client, other, plain, server = (m.pods[n] for n in ("client", "other", "plain", "server"))
    listener = server.listen(4100)
    open_ = {}
    for pod in (client, other, plain):
        s = pod.connect(server.ip, 4100)
        s.sendall(b"x")
        app = listener.accept()[0]
        check(app.recv(1) == b"x", "open from " + pod.name)
        open_[pod.name] = s, app
    began = time.monotonic()
    with Policies(m, authorization("only-other", rules=[{"from": [{"source": {"principals": [principal(other)]}}]}])):
        for name in ("client", "plain"):
            s, app = open_[name]
            check(died(s, APPLIES_S) == "reset", "the caller %s is reset" % name)
            check(died(app, APPLIES_S) == "reset", "and so is the app")
        check(time.monotonic() - began < 3 * APPLIES_S, "soon")
        s, app = open_["other"]
        check(died(s, 0.3) is None, "who is still allowed is not cut")
        app.sendall(b"y")
        check(s.recv(1) == b"y", "and talks on")
        line = eventually(lambda: denial(m, "policy_no_allow", client.ip + ":"), 3, "the line of what was cut")
        check(line["policy"] == "AuthorizationPolicy/demo/only-other", "says by what", line)
    for s, app in open_.values():
        s.close()
        app.close()
    listener.close()


def test_live_strict(m):
    plain, client, server = m.pods["plain"], m.pods["client"], m.pods["server"]
    a, b = plain.connect(server.ip, 7), client.connect(server.ip, 7)
    for s in (a, b):
        s.sendall(b"x")
        check(s.recv(1) == b"x", "open")
    with Policies(m, peer("STRICT")):
        check(died(a, APPLIES_S) == "reset" and died(b, 0.3) is None, "STRICT ends plaintext alone")
    a.close()
    b.close()


def test_label_moves_a_pod_into_scope(m):
    client, plain, server = m.pods["client"], m.pods["plain"], m.pods["server"]
    open_ = [talking(client, server.ip), talking(plain, server.ip)]
    with Policies(m, authorization("locked", rules=[], selector={"tier": "locked"})):
        check(died(open_[0], 0.3) is None and outcome(client, server.ip) == "ok", "not selected")
        server.labels["tier"] = "locked"
        m.write_pod(server)
        for s in open_:
            check(died(s, APPLIES_S) == "reset", "selected by its new label")
        eventually(lambda: outcome(client, server.ip) == "reset", 3, "and closed")
        del server.labels["tier"]
        m.write_pod(server)
        eventually(lambda: outcome(client, server.ip) == "ok", 3, "open again")
    for s in open_:
        s.close()


def test_a_stream_that_is_denied_is_reset(m):
    """On the wire: RST_STREAM CONNECT_ERROR, never END_STREAM; the tunnel and a stream to another port live on."""
    server = m.pods["server"]
    pem = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/mine.pem")
    c = hbone.Client(m.pods["plain"], server.ip, pem, m.root)
    cut, kept = (c.request("%s:%d" % (server.ip, port)) for port in (7, 8))
    for stream in cut, kept:
        check(c.status(stream) == 200, "open")
        c.send(stream, b"x")
        check(c.read(stream, 1) == b"x", "echo")
    with Policies(m, authorization("not-7", "DENY", [{"to": [{"operation": {"ports": ["7"]}}]}])):
        e = c.wait(h2.events.StreamReset, cut, APPLIES_S)
        check(e and e.error_code == h2.errors.ErrorCodes.CONNECT_ERROR, "reset as a connection that failed", e)
        check(not [x for x in c.events if isinstance(x, (h2.events.StreamEnded, h2.events.ConnectionTerminated))], "no clean end", c.events)
        c.send(kept, b"y")
        check(c.read(kept, 1) == b"y", "the other stream does not notice")
    c.close()


def status_of(m, pem, pod="plain", **kw):
    c = hbone.Client(m.pods[pod], m.pods["server"].ip, pem, m.root)
    began = time.monotonic()
    got = c.status(c.request(m.pods["server"].ip + ":7", **kw))
    c.close()
    return got, time.monotonic() - began


def test_401_on_the_wire(m):
    mine = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/mine.pem")
    check(status_of(m, mine)[0] == 200, "200 before")
    with Policies(m, authorization("nothing", rules=[])):
        check(status_of(m, mine)[0] == 401, "401 when denied")
        forged = [("forwarded", 'for="%s"' % m.pods["client"].ip), ("x-forwarded-for", m.pods["client"].ip), ("baggage", "k8s.namespace.name=demo")]
        check(status_of(m, mine, headers=forged)[0] == 401, "headers change nothing")
    with Policies(m, authorization("by-address", rules=[{"from": [{"source": {"ipBlocks": [m.pods["client"].ip]}}]}])):
        check(status_of(m, mine, headers=forged)[0] == 401, "nor do they forge an address")


def test_identity_with_anothers_address(m):
    """From an address that is another workload's: refused after a wait for newer configuration; from one that nobody owns: not compared."""
    stolen = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/stolen.pem")
    got, took = status_of(m, stolen)
    check(got == 401 and took > 1.5, "401 after the wait", got, took)
    line = eventually(lambda: denial(m, "src_identity_mismatch", m.pods["plain"].ip + ":"), 3, "said in the log")
    check(line["src.identity"] == m.pods["client"].identity and line["src.workload"] == "plain", "who it was and said to be", line)
    check(status_of(m, stolen, "stranger")[0] == 200, "an address that nobody owns proves nothing against it")
    stranger = m.pods["stranger"]
    stranger.account, stranger.known = "wrong", True
    m.write_pod(stranger)
    eventually(lambda: [w for w in m.agents[2].json("workload", "list") if w["name"] == "stranger"], 3, "the address has an owner now")
    c = hbone.Client(stranger, m.pods["server"].ip, stolen, m.root)
    s = c.request(m.pods["server"].ip + ":7")
    time.sleep(0.3)
    stranger.account = "client"
    m.write_pod(stranger)
    began = time.monotonic()
    check(c.status(s) == 200 and time.monotonic() - began < 1.5, "newer configuration bears it out")
    c.close()
    m.remove_manifest("pod-stranger.yaml")


def ctl(m, *args):
    r = m.agents[2].ctl(*args, check_rc=False)
    return r.returncode, r.stdout + r.stderr


def test_check(m):
    client, server = m.pods["client"], m.pods["server"]
    with Policies(m, peer("STRICT"), authorization("not-8", "DENY", [{"to": [{"operation": {"ports": ["8"]}}]}])):
        code, text = ctl(m, "policy", "check", "--from=demo/client", "--to=demo/server:7")
        check(code == 0 and text.startswith("allowed") and client.identity in text, "allowed", text)
        code, text = ctl(m, "policy", "check", "--from=demo/client", "--to=demo/server:8")
        check(code == 1 and "DENIED" in text and "policy_deny" in text and "demo/not-8" in text, "by a policy", text)
        for who in (["--from=demo/plain"], ["--from=ip:192.0.2.7"], ["--from=demo/client", "--plaintext"]):
            code, text = ctl(m, "policy", "check", *who, "--to=demo/server:7")
            check(code == 1 and "mtls_required" in text, "plaintext", who, text)
        code, text = ctl(m, "-j", "policy", "check", "--from=spiffe://cluster.local/ns/x/sa/y", "--to=demo/server:7")
        check(code == 0 and json.loads(text)["allow"] is True, "by identity, as JSON", text)
        code, text = ctl(m, "policy", "check", "--from=spiffe://other.example/ns/demo/sa/client", "--to=demo/server:7")
        check(code == 1 and text.startswith("DENIED  tls_trust_domain\n"), "not even the handshake", code, text)
        check(re.search(r"^  identity +spiffe://other.example/ns/demo/sa/client\n  handshake +refused: .*trust domain.*\n$", text, re.M), "and nothing after it", text)
        code, text = ctl(m, "policy", "check", "--from=spiffe://other.example/ns/demo/sa/client", "--plaintext", "--to=demo/server:8")
        check(code == 1 and "handshake" not in text and "mtls_required" in text, "plaintext shakes no hands", text)
        for port in ("+7", "-7", " 7", "7 ", "07", "0x7", "7.0", "7e0", "0", "", "65536", "65543", "4294967303", "18446744073709551623", "seven", "\u0667"):
            code, text = ctl(m, "policy", "check", "--from=demo/client", "--to=demo/server:" + port)
            check(code == 2 and "--to: demo/server:" in text and "a number from 1 to 65535 in digits alone" in text, "no port: %r" % port, code, text)
        code, text = ctl(m, "-j", "policy", "check", "--from=demo/client", "--to=demo/server:8")
        steps = {s["step"]: s for s in json.loads(text)["steps"]}
        check(code == 1 and list(steps) == ["probe", "identity", "handshake", "source binding", "peer_authentication", "deny"], "in order, to what decides", text)
        check(steps["peer_authentication"]["value"] == "STRICT" and steps["source binding"]["result"] == "the address is this identity's", "mode and binding", steps)
        check((steps["deny"]["policy"], steps["deny"]["rule"], steps["deny"]["result"]) == ("demo/not-8", 0, "match"), "policy and rule", steps)
        code, text = ctl(m, "-j", "policy", "check", "--from=demo/plain", "--to=demo/server:7")
        check(json.loads(text)["steps"][-1]["field"] == "spec.mtls.mode", "field", text)
        for port, result in ((9, "the node's own sockets"), (7, "the port is no probe's")):
            code, text = ctl(m, "policy", "check", "--from=demo/client", "--to=demo/server:%d" % port)
            check(code == 0 and result in text.splitlines()[1], "what the port is to probes", text)
        for wrong in (["--from=demo/nobody", "--to=demo/server:7"], ["--from=demo/client", "--to=demo/server"], ["--from=demo/client", "--to=demo/client:7"],
                      ["--to=demo/server:7"], ["--from=ip:1.2.3", "--to=demo/server:7"]):
            code, text = ctl(m, "policy", "check", *wrong)
            check(code == 2, "an error", wrong, text)
        code, text = ctl(m, "policy", "check", "--from=spiffe://nobody", "--to=demo/server:7")
        check(code == 2 and "spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT" in text, "no identity, and how one looks", text)
        code, text = ctl(m, "--node=nowhere", "policy", "check", "--from=demo/client", "--to=demo/server:7")
        check(code == 2 and "nowhere" in text, "no agent is an error, too", text)
    with Policies(m, authorization("not-8", "DENY", [{"to": [{"operation": {"ports": ["8"]}}]}])):
        code, text = ctl(m, "policy", "check", "--from=demo/client", "--to=demo/server:7")
        check(code == 0 and re.search(r"^  peer_authentication +none \(PERMISSIVE\): pass$", text, re.M), "the mode that nobody asked for", text)


def test_check_of_a_shared_address(m):
    """Where addresses that nobody owns alone are refused, the check says so."""
    client, other = m.pods["client"], m.pods["other"]
    a = m.agents[2]
    d = other.manifest()
    d["metadata"].update(name="twin", uid="twin")
    d["status"].update(podIP=client.ip, podIPs=[{"ip": client.ip}, {"ip": client.ip6}])
    m.write("pod-twin.yaml", d)
    try:
        for options, code, text in (([], 0, "not compared"), (["--source-binding=enforce"], 1, "source_unbound")):
            a.kill()
            a.start(extra=options)
            got = eventually(lambda: (lambda r: r if text in r[1] else None)(ctl(m, "policy", "check", "--from=demo/client", "--to=demo/server:7")), 5, text)
            check(got[0] == code, "exit %d" % code, got)
            check(outcome(client, m.pods["server"].ip) == ("reset" if code else "ok"), "and so it is")
    finally:
        m.remove_manifest("pod-twin.yaml")
        a.kill()
        a.start()


def test_a_pod_outside_the_mesh(m):
    """What no agent stands before is not called denied, and a policy for it not enforced."""
    node = m.agents[1]
    with Policies(m, authorization("nothing", rules=[])):
        for name, why in (("plain", "it is not labelled into the mesh"), ("other", "released by hand")):
            if name == "other":
                node.ctl("pod", "release", "demo/other")
            r = node.ctl("policy", "check", "--from=demo/client", "--to=demo/%s:7" % name, check_rc=False)
            check(r.returncode == 0 and r.stdout.startswith("allowed  NOT ENFORCED here: ") and why in r.stdout, "nobody denies", r.stdout, r.stderr)
            text = node.ctl("policy", "show", "nothing").stdout
            check(re.search(r"pod demo/%s  not enforced: .*%s" % (name, why), text), "nor enforces", text)
        check(outcome(m.pods["client"], m.pods["plain"].ip) == "ok", "and so it is")
        check("1 of 3" in node.ctl("policy", "list").stdout, "also in the list", node.ctl("policy", "list").stdout)
        node.ctl("pod", "enroll", "demo/other")
        r = eventually(lambda: (lambda r: r if r.returncode else None)(node.ctl("policy", "check", "--from=demo/server", "--to=demo/other:7", check_rc=False)),
                       5, "enforced again")
        check("DENIED  policy_no_allow" in r.stdout, "by the policy", r.stdout)


def test_trace(m):
    client, server = m.pods["client"], m.pods["server"]
    out = os.path.join(m.dir, "trace.txt")
    with Policies(m, authorization("not-8", "DENY", [{"to": [{"operation": {"ports": ["8"]}}]}])), open(out, "w") as f:
        p = subprocess.Popen([os.path.join(BUILD, "warrenctl"), "--run-dir=" + m.run_dir, "--node=" + m.agents[2].name, "policy", "trace"], stdout=f)
        try:
            time.sleep(0.5)
            outcome(client, server.ip, 7)
            outcome(client, server.ip, 8)
            text = eventually(lambda: (lambda t: t if "DENIED" in t and "allowed" in t else None)(open(out).read()), 5, "both verdicts")
            check("demo/not-8" in text and client.identity in text, "with what led to them", text)
        finally:
            p.terminate()
            p.wait()


def asked(m, command, **args):
    """The agent's own answer, without warrenctl between."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(m.run_dir, m.agents[2].name, "agent.sock"))
        s.sendall(json.dumps({"command": command, "args": args}).encode() + b"\n")
        with s.makefile() as f:
            return json.loads(f.readline())["result"]


def test_nothing_is_traced_for_nobody(m):
    """Verdicts are kept while somebody asks for them, and for three seconds after."""
    client, server = m.pods["client"], m.pods["server"]

    def rows(since):
        return asked(m, "policy trace", since=since)

    def last():
        return max([r["seq"] for r in rows(0)] + [0])
    seq = last()
    check(outcome(client, server.ip) == "ok", "a verdict")
    check(eventually(lambda: rows(seq), 3, "kept while asked for")[0]["pod"] == "demo/server", "of this pod")
    seq = last()
    time.sleep(3.3)
    for _ in range(5):
        check(outcome(client, server.ip) == "ok", "verdicts")
    check(rows(seq) == [], "nothing was kept")


def test_dry_run(m):
    client, server = m.pods["client"], m.pods["server"]
    d = authorization("trial", "DENY", [{}])
    d["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    with Policies(m, d):
        check(outcome(client, server.ip) == "ok", "a dry run denies nothing")
        rows = eventually(lambda: [r for r in m.agents[2].json("policy", "verdicts") if r["outcome"] == "would_deny"], 3, "but counts")
        check(rows[0]["policy"] == "AuthorizationPolicy/demo/trial", "by policy", rows)
    d = authorization("relief", rules=[{"from": [{"source": {"principals": [principal(client)]}}]}])
    d["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
    with Policies(m, authorization("nothing", rules=[]), d):
        check(outcome(client, server.ip) == "reset" and outcome(m.pods["other"], server.ip) == "reset", "nor does it allow anything")
        rows = eventually(lambda: [r for r in m.agents[2].json("policy", "verdicts") if r["outcome"] == "would_allow"], 3, "but counts")
        check([(r["policy"], r["count"]) for r in rows] == [("AuthorizationPolicy/demo/relief", 1)], "by policy, the one whom it names", rows)


def test_bad_policies(m):
    """A mistake never opens: the last good version stays, and what never was valid closes what it covers."""
    client, server, bystander = m.pods["client"], m.pods["server"], m.pods["bystander"]
    good = authorization("lock", "DENY", [{"to": [{"operation": {"ports": ["8"]}}]}], selector={"app": "server"})
    with Policies(m, good) as p:
        check(outcome(client, server.ip, 8) == "reset", "in force")
        p.write(authorization("lock", "DENY", [{"to": [{"operation": {"prots": ["8"]}}]}], selector={"app": "server"}))
        check(outcome(client, server.ip, 8) == "reset" and outcome(client, server.ip, 7) == "ok", "the last good version stays")
        code, text = ctl(m, "config", "list")
        check("prots" in text and "refused" in text, "and the mistake is shown", text)
        check(re.search(r"^ALARM: \S+: AuthorizationPolicy/demo/lock refused: .*prots.*; its last good version stays in force", ctl(m, "status")[1], re.M), "an alarm")
        check(re.search(r"ALARM: \S+: AuthorizationPolicy/demo/lock refused: ", m.agents[2].text()), "in the log, too")
    before = [talking(pod, server.ip) for pod in (client, m.pods["plain"])]
    with Policies(m, authorization("never", "ALOW", [{}], selector={"app": "server"})):
        check(outcome(client, server.ip) == "reset" and outcome(client, bystander.ip) == "ok", "never valid: its scope is closed")
        check(eventually(lambda: denial(m, "policy_invalid", client.ip + ":"), 3, "and says so")["policy"] == "AuthorizationPolicy/demo/never", "by name")
        for s in before:
            check(died(s, 0.5) is None, "to new connections: those that are open stay")
            s.sendall(b"y")
            check(s.recv(1) == b"y", "and talk on")
            s.close()
    check(outcome(client, server.ip) == "ok", "open without it")


def test_files_that_cannot_be_parsed(m):
    """What may hold a policy that nobody has read yet closes as a bad policy of the mesh, and alarms; what names none closes nothing."""
    client, server, bystander = m.pods["client"], m.pods["server"], m.pods["bystander"]
    with Policies(m, authorization("all", rules=[{}], selector={"app": "server"})):
        check(outcome(client, server.ip) == "ok", "allowed")
        m.write("broken.yaml", "kind: Deployment\nspec: [\n")
        eventually(lambda: "broken.yaml" in ctl(m, "config", "list")[1], 5, "read")
        check(outcome(client, server.ip) == "ok", "names no policy, closes nothing")
        m.write("broken.yaml", "kind: AuthorizationPolicy\nmetadata: {name: x}\nspec: [\n")
        eventually(lambda: client.outcome(server.ip, 7) == "reset", 5, "closed")
        check(outcome(client, bystander.ip) == "ok", "who has no policy is left open")
        status, place = ctl(m, "status")[1], os.path.join(m.config, "broken.yaml") + ":6: not YAML"
        check(re.search("^ALARM: %s.*never was read well: it closes only workloads that have another policy" % re.escape(place), status, re.M), "an alarm with its place", status)
        check("ALARM: " + place in m.agents[2].text(), "in the log, too")
        listed = ctl(m, "policy", "list")[1]
        check(re.search(r"^- +- +- +closes +mesh +refused .*%s" % re.escape(place), listed, re.M), "in the list of policies", listed)
        m.remove_manifest("broken.yaml")
        eventually(lambda: client.outcome(server.ip, 7) == "ok", 5, "open again without it")


def test_the_agents_restart_keeps_them(m):
    client, server = m.pods["client"], m.pods["server"]
    with Policies(m, authorization("nothing", rules=[], selector={"app": "server"})):
        check(outcome(client, server.ip) == "reset", "closed")
        m.agents[2].kill()
        m.agents[2].start()
        check(outcome(client, server.ip) == "reset", "also by the agent's successor")


def test_connections_older_than_enrolment(m):
    """They are not carried: listed, warned of when policy forbids them, and ended on demand; those that are carried stay."""
    late, server, plain = m.pod("late", 2, enrolled=False), m.pods["server"], m.pods["plain"]
    late.serve("echo:7")
    m.write_pod(late)
    eventually(lambda: [w for w in m.agents[1].json("workload", "list") if w["name"] == "late"], 3, "known")
    inbound, outbound = [plain.connect(late.ip, 7) for _ in range(2)], late.connect(m.pods["bystander"].ip, 7)
    with Policies(m, authorization("lock-late", rules=[], selector={"app": "late"})):
        m.enrol(late, True)
        eventually(lambda: [p for p in m.agents[2].json("pod", "list") if p["name"] == "late" and p["state"] == "enrolled"], 5, "enrolled")
        rows = [r for r in m.agents[2].json("connection", "unmanaged") if r["pod"] == "demo/late"]
        check(sorted((r["direction"], r["allowed"]) for r in rows) == [("inbound", False)] * 2 + [("outbound", True)], "all are listed", rows)
        check("lock-late" in json.dumps(rows), "with the policy", rows)
        check("a connection older than enrolment goes on although policy forbids it" in m.agents[2].text(), "warned of")
        shown = m.agents[2].ctl("policy", "show", "lock-late").stdout
        check("pod demo/late\n    not enforced for: connections older than enrolment: 2; see warrenctl connection unmanaged" in shown, "nor hidden", shown)
        with late.connect(m.pods["bystander"].ip, 8) as carried:
            carried.sendall(b"x")
            check(carried.recv(1) == b"x", "carried")
            check(len([r for r in m.agents[2].json("connection", "unmanaged") if r["pod"] == "demo/late"]) == 3, "is not in the list")
            m.agents[2].ctl("connection", "close", "--unmanaged")
            check([died(s, 2) for s in inbound] == ["reset"] * 2 and not m.agents[2].json("connection", "unmanaged"), "ended")
            check("older" not in m.agents[2].ctl("policy", "show", "lock-late").stdout, "nothing is left of them")
            try:
                outbound.sendall(b"x")
                check(outbound.recv(1) == b"", "ended")
            except OSError:
                pass
            carried.sendall(b"y")
            check(carried.recv(1) == b"y", "what is carried goes on")
    m.remove_manifest("pod-late.yaml")
    for s in (*inbound, outbound):
        s.close()


def test_a_flip_meets_more_than_one_round(m):
    """More connections than a worker judges in one round, allowed and forbidden ones by turns: all of the latter end, none of the former."""
    client, other, server = m.pods["client"], m.pods["other"], m.pods["server"]
    listener = server.listen(4201, 1024)
    sides = {client: [], other: []}
    for _ in range(700):
        for pod, sockets in sides.items():
            sockets.append((pod.connect(server.ip, 4201), listener.accept()[0]))
    with Policies(m) as p:
        p.write(authorization("flip", "DENY", [{"from": [{"source": {"principals": [principal(client)]}}]}]))
        ends = [[died(s, APPLIES_S) for s in pair] for pair in sides[client]]
        check(ends == [["reset", "reset"]] * 700, "every forbidden one ends by reset on both sides", [e for e in ends if e != ["reset", "reset"]][:3])
        for s, app in sides[other]:
            app.sendall(b"k")
            check(s.recv(1) == b"k", "those that stayed allowed live")
    for pairs in sides.values():
        for pair in pairs:
            for s in pair:
                s.close()
    listener.close()


def test_many_open_connections_and_flips(m):
    """Flips under live connections and new ones: nobody outlives his permission, nobody else is cut, memory comes back."""
    client, other, server = m.pods["client"], m.pods["other"], m.pods["server"]
    listener = server.listen(4200, 1024)
    kept = []
    for _ in range(100):
        s = other.connect(server.ip, 4200)
        kept.append((s, listener.accept()[0]))
    deny_client = authorization("flip", "DENY", [{"from": [{"source": {"principals": [principal(client)]}}]}])
    with Policies(m) as p:
        for i in range(10):
            s = client.connect(server.ip, 4200)
            app = listener.accept()[0]
            p.write(deny_client)
            check(died(s, APPLIES_S) == "reset" and died(app, APPLIES_S) == "reset", "flip %d ends it" % i)
            check(outcome(client, server.ip) == "reset", "and keeps new ones out")
            p.write()
            check(outcome(client, server.ip) == "ok", "until it is gone")
    for s, app in kept:
        app.sendall(b"k")
        check(s.recv(1) == b"k", "those that stayed allowed live")
        s.close()
        app.close()
    listener.close()
