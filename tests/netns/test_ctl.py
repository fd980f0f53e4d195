# SPDX-License-Identifier: Apache-2.0
"""warrenctl itself: every command of its help as text and JSON, its exit codes, counts against real connections, and what
it makes of agents that hang or lie (played here on a Unix socket) and of outputs that cannot be written."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from mesh import BPFFS, BUILD, SANITIZER, Mesh, Skip, check, eventually

FALLBACK = "together"
CTL = os.environ.get("WR_CTL", os.path.join(BUILD, "warrenctl"))
OK, NOT_SO, USAGE, NO_AGENT, REFUSED, MISSING, BROKEN = range(7)


def setup():
    m = Mesh("ctl")
    m.pod("client", 1)
    m.pod("server", 2)
    m.service("server", {"app": "server"}, [("echo", 80, 7)])
    m.apply()
    m.pods["server"].serve("echo:7")
    m.start_agents()
    return m


class Result:
    """One run of the tool: its exit code, what it wrote, how long it took and how much memory it had."""

    def __init__(self, args, stdout=None, preexec=None, tool=CTL, stdin=subprocess.DEVNULL):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            start = time.monotonic()
            p = subprocess.Popen([tool, *args], stdout=out if stdout is None else stdout, stderr=err, stdin=stdin, preexec_fn=preexec)
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = self.code = os.waitstatus_to_exitcode(status)
            self.seconds, self.mib = time.monotonic() - start, usage.ru_maxrss / 1024
            out.seek(0)
            err.seek(0)
            self.raw, self.raw_err = out.read(), err.read()
        self.out, self.err = self.raw.decode(errors="replace"), self.raw_err.decode(errors="replace")
        check("Sanitizer" not in self.err and "runtime error:" not in self.err, " ".join(args), self.err[:3000])

    def __repr__(self):
        return "exit %s after %.1f s, %.0f MiB\n    out: %s\n    err: %s" % (self.code, self.seconds, self.mib, self.out[:400], self.err[:400])


def ctl(m, *args, node=1, **kw):
    return Result(["--run-dir=" + m.run_dir, "--node=" + m.agents[node].name, *args], **kw)


def as_nobody(m, *args):
    """A run without privileges, of a copy: the build may be in root's home, which nobody else may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        return ctl(m, *args, tool=shutil.copy(CTL, folder), preexec=lambda: os.setuid(65534))


def commands():
    """(object, command, arguments) of each line of the help's table."""
    r = Result(["help"])
    words = [line[2:34].split() for line in r.out.splitlines() if re.match("  [a-z]", line)]
    found = [(w[0], w[1], " ".join(w[2:])) for w in words]
    check(r.code == OK and len(found) >= 13, "the help lists the commands", r)
    return found


def lists():
    return [(o, c) for o, c, args in commands() if not args or c == "list"]


def one_line(text):
    return text.endswith("\n") and text.count("\n") == 1 and len(text) < 1200


def is_json(text):
    try:
        json.loads(text)
        return True
    except ValueError:
        return False


def answers_in_each_form(m, words, before=lambda: None):
    for options in ((), ("-j",), ("-p",), ("--json", "--pretty")):
        before()
        r = ctl(m, *options, *words)
        name = "%s %s" % (" ".join(options), " ".join(words))
        check(r.code == OK and not r.err and r.out.strip(), name, r)
        check(is_json(r.out) == (bool(options) or words == ("config", "dump")), name + ": text or JSON as asked for", r)
        if options:
            check((r.out.count("\n") == 1) == (options == ("-j",)) or r.out in ("[]\n", "{}\n"), name + ": indented or not", r)


def test_every_command(m):
    for words in lists():
        answers_in_each_form(m, words)
    answers_in_each_form(m, ("log", "level"))
    answers_in_each_form(m, ("log", "level", "info"))
    answers_in_each_form(m, ("policy", "check", "--from=demo/server", "--to=demo/client:7"))
    answers_in_each_form(m, ("connection", "close", "--unmanaged"))
    answers_in_each_form(m, ("pod", "release", "client"), before=lambda: ctl(m, "pod", "enroll", "client"))
    answers_in_each_form(m, ("pod", "enroll", "demo/client"), before=lambda: ctl(m, "pod", "release", "client"))
    eventually(lambda: ctl(m, "status").code == OK, 5, "enrolled again")
    known = {o for o, _, _ in commands()}
    check(known == {"status", "doctor", "pod", "workload", "service", "connection", "tunnel", "memory", "certificate", "bpf", "config",
                    "policy", "log", "prove"}, "objects", known)


def test_show_list_and_short_names(m):
    for name, _ in lists():
        for words in ((name,), (name, "show"), (name, "list"), (name[:3], "list")):
            check(ctl(m, "-j", *words).code == OK, " ".join(words))
    check(ctl(m, "log", "show").out == ctl(m, "log", "level").out, "log show")
    check(ctl(m).out.startswith("node " + m.agents[1].name), "no words: the node's state")
    check(Result(["--run-dir=/nonexistent"]).out.startswith("Usage:"), "no words and no node: the help")


def test_wrong_use(m):
    """Exit 2, and the word that is wrong is in the line."""
    for words, named in ((("nonsense",), "nonsense"), (("pod", "nonsense"), "nonsense"), (("nonsense", "help"), "nonsense"), (("",), "unknown"),
                         (("--nonsense", "status"), "--nonsense"), (("-j", "-x", "status"), "-x"), (("-jx",), "-x"), (("--json=yes", "status"), "--json"),
                         (("status", "--run-dir"), "--run-dir"), (("status", "show", "more"), "more"), (("status", "show", "--all"), "--all"),
                         (("log", "level", "info", "more"), "more"), (("log", "show", "debug"), "debug"), (("pod", "release"), "name a pod"),
                         (("pod", "enroll"), "name a pod"), (("pod", "release", "a", "b"), "b"), (("pod", "--all"), "--all"),
                         (("--node=", "status"), "--node"), (("--node=../x", "status"), "--node"), (("--node=a/b", "bpf"), "--node")):
        for extra in ((), ("-j",)):
            r = ctl(m, *extra, *words)
            text = r.out + r.err
            if extra:
                check(is_json(r.out) and not r.err, "the error as JSON", words, r)
            check(r.code == USAGE and named in text and one_line(text), "wrong use", words, r)
    r = Result(["--run-dir=" + m.run_dir, "status"])
    check(r.code == USAGE and all(a.name in r.err for a in m.agents.values()), "two nodes: which", r)


def test_refusals(m):
    for words, named in ((("pod", "release", "nobody"), "nobody"), (("pod", "enroll", "nobody"), "nobody"), (("log", "level", "loud"), "loud")):
        r = ctl(m, *words)
        check(r.code == REFUSED and named in r.err and one_line(r.err) and not r.out, "the agent's own words", words, r)
        r = ctl(m, "-j", *words)
        check(r.code == REFUSED and named in json.loads(r.out)["error"] and not r.err, "as JSON", words, r)


def test_counts(m):
    """Open connections per pod, on both ends, and the node's connections and tunnels."""
    def pod(node):
        rows = json.loads(ctl(m, "-j", "pod", "list", node=node).out)
        return next(p["connections"] for p in rows if p["name"] == ("client", "server")[node - 1])

    held = [m.pods["client"].connect(m.pods["server"].ip, 7) for _ in range(3)]
    try:
        for s in held:
            s.sendall(b"x")
            check(s.recv(1) == b"x", "echo")
        check((pod(1), pod(2)) == (3, 3), "three on each side", pod(1), pod(2))
        s = json.loads(ctl(m, "-j", "status").out)
        check(s["connections"] == 3 and s["tunnels"] == 1, "the node's", s)
        check("connections: 3 open\ntunnels: 1 open\n" in ctl(m, "status").out, "as text", ctl(m, "status"))
        rows = ctl(m, "pod", "list").out.splitlines()
        at = rows[0].split().index("CONNS")
        check("CONNS" in rows[0] and rows[1].split()[at] == "3", "a column", rows)
        check(len(json.loads(ctl(m, "-j", "connection", "list").out)) == 3, "each of them is listed")
    finally:
        for s in held:
            s.close()
    eventually(lambda: (pod(1), pod(2)) == (0, 0), 5, "none when closed")


TCP_INFO = {"state", "rtt_us", "rttvar_us", "cwnd", "unacked", "notsent_bytes", "retrans", "delivery_rate"}


def test_tcp_info(m):
    """Of each hop its own: an app that does not read stops the hop to it, not the tunnel."""
    client, server = m.pods["client"], m.pods["server"]

    def row(node):
        return next(c for c in json.loads(ctl(m, "-j", "connection", "list", node=node).out) if c["authority"] == server.ip + ":9")

    with server.listen(9) as listener, client.connect(server.ip, 9) as s:
        with listener.accept()[0] as app:
            s.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    s.send(b"x" * 65536)
            for node in (1, 2):
                c = row(node)
                check(set(c["local_tcp_info"]) == set(c["tunnel_tcp_info"]) == TCP_INFO, "what is told", c)
                check(c["local_tcp_info"]["state"] == c["tunnel_tcp_info"]["state"] == 1 and c["local_tcp_info"]["rtt_us"] and c["tunnel_tcp_info"]["rtt_us"],
                      "both are up", c)
            check(c["local_tcp_info"]["notsent_bytes"] > 0 and c["tunnel_tcp_info"]["notsent_bytes"] == 0, "the hop that is stuck", c)
            head, *rows = ctl(m, "connection", "list", node=2).out.splitlines()
            got = next(x for x in rows if server.ip + ":9 " in x)
            check(head.endswith("LOCAL RTT us  TUNNEL RTT us") and re.search(r" \d+ +\d+$", got), "as text", head, got)
            t = json.loads(ctl(m, "-j", "tunnel", "list", node=2).out)[0]
            check(set(t["tcp_info"]) == TCP_INFO and t["tls"] == "TLSv1.3" and t["streams"] == 1 and t["peer_identity"] == client.identity, "the tunnel", t)
            check(app.recv(1) == b"x", "the app reads")


def policy(name, spec, kind="AuthorizationPolicy", namespace="demo"):
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


SOMEBODY = {"selector": {"matchLabels": {"app": "client"}}, "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"]}}]}]}


def test_policies(m):
    """What became of each policy and on which pods, as a table, as one of them, as JSON; what is refused is an alarm."""
    m.write("policies.yaml", policy("somebody", SOMEBODY), policy("typo", dict(SOMEBODY, rules=[{"form": []}])),
            policy("nobodys", {"mtls": {"mode": "STRICT"}}, kind="PeerAuthentication", namespace="empty"))
    try:
        eventually(lambda: "somebody" in ctl(m, "policy", "list").out, 5, "the policies are read")
        r = ctl(m, "policy", "list")
        check(r.code == OK and re.search(r"^KIND +NAMESPACE +NAME +ACTION +SCOPE +STATE +PODS +REASON$", r.out, re.M), "a table", r)
        check(re.search(r"^AuthorizationPolicy +demo +somebody +ALLOW +workload +enforced here +1 +-$", r.out, re.M), "enforced", r)
        check(re.search(r"^AuthorizationPolicy +demo +typo +closes +workload +refused +1 +spec.rules\[0\].form: unknown field, did you mean from\? \(line \d+\)$", r.out, re.M), "refused", r)
        m.write("l7.yaml", policy("gets", {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}))
        row = r"^AuthorizationPolicy +demo +gets +ALLOW +namespace +enforced here +1 +2 warnings, such as spec.rules: none can match here"
        eventually(lambda: re.search(row, ctl(m, "policy", "list").out, re.M), 5, "an effect that nobody wants")
        check(re.search(r"^PeerAuthentication +empty +nobodys +STRICT +namespace +enforced here +0 +for no pod of the mesh yet; or .* misspelt$", r.out, re.M), "of no pod at all", r)
        r = ctl(m, "policy", "show", "demo/somebody")
        check(r.code == OK and "\n  selector app=client\n" in r.out and "\n  pod demo/client\n" in r.out and "policies.yaml:" in r.out, "one policy", r)
        check("typo" not in r.out, "only that", r)
        rows = json.loads(ctl(m, "-j", "policy", "show", "typo").out)
        check([(x["name"], x["closed"], x["last_good_in_force"], [p["name"] for p in x["pods"]]) for x in rows] == [("typo", True, False, ["client"])], "as JSON", rows)
        r = ctl(m, "policy", "show", "bank/somebody")
        check(r.code == NOT_SO and "bank/somebody" in r.err and one_line(r.err), "no such policy", r)
        check("ALARM: AuthorizationPolicy/demo/typo never was valid" in ctl(m, "status").out, "an alarm", ctl(m, "status"))
    finally:
        for name in ("policies.yaml", "l7.yaml"):
            m.remove_manifest(name)
    eventually(lambda: ctl(m, "policy", "list").out == "none\n" and "ALARM" not in ctl(m, "status").out, 5, "all gone")


def test_policy_show_says_what_it_does_not_reach(m):
    """Which of two counts, from both sides; and what of a pod no policy is enforced for."""
    old, new = (dict(policy(n, {"mtls": {"mode": "STRICT"}}, kind="PeerAuthentication")) for n in ("old", "new"))
    old["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z"
    p = m.pods["client"]
    p.spec = {"containers": [{"name": "app", "ports": [{"containerPort": 7}, {"containerPort": 53, "protocol": "UDP"}]}]}
    m.write_pod(p)
    m.write("policies.yaml", old, new)
    try:
        eventually(lambda: "53" in ctl(m, "policy", "show", "old").out, 5, "read")
        r = ctl(m, "policy", "show", "old")
        check("\n  pod demo/client\n    counts before: demo/new\n    not enforced for: port 53: UDP is not TCP\n" in r.out, "the one that counts", r)
        r = ctl(m, "policy", "show", "new")
        check("\n  pod demo/client  another one counts: demo/old\n" in r.out, "the one that does not", r)
    finally:
        p.spec = {}
        m.write_pod(p)
        m.remove_manifest("policies.yaml")


def test_lint(_):
    """The agent's judgement without an agent: file:line, field and reason, and an exit code."""
    with tempfile.TemporaryDirectory() as folder:
        def write(name, *docs):
            place = os.path.join(folder, name)
            with open(place, "w") as f:
                f.write("---\n".join(d if isinstance(d, str) else json.dumps(d) + "\n" for d in docs))
            return place

        good = write("good.yaml", policy("good", SOMEBODY))
        warns = write("warns.yaml", policy("good2", SOMEBODY), policy("w", {"mtls": {"mode": "DISABLE"}}, kind="PeerAuthentication"),
                      policy("l7", {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}),
                      policy("nots", {"rules": [{"from": [{"source": {"notPrincipals": ["a"]}}]}]}))
        bad = write("bad.yaml", policy("bad", {"action": "DENY"}), "a: [\n")
        r = Result(["policy", "lint", "-f", good])
        check(r.code == OK and r.out == "1 document, 0 refused\n", "nothing to say", r)
        r = Result(["policy", "lint", "-f", good, "-f", warns])
        found = re.findall(r"^(\S+):(\d+): warning: (\w+) demo/(\w+): (\S+):", r.out, re.M)
        check(r.code == OK and [(p == warns, int(n), k, x) for p, n, k, x, _ in found] ==
              [(True, 3, "PeerAuthentication", "w"), (True, 5, "AuthorizationPolicy", "l7"), (True, 5, "AuthorizationPolicy", "l7"),
               (True, 7, "AuthorizationPolicy", "nots")], "warnings", r)
        other = write("other.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: demo}\n", *[
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d%d}\n" % i for i in range(10)])
        r = Result(["policy", "lint", good, other])
        check(r.code == OK and r.out == "12 documents, 0 refused, 11 ignored, whose kind is not a policy nor used otherwise: Secret demo/s, "
              + ", ".join("Deployment default/d%d" % i for i in range(9)) + " and 1 more\n", "what is ignored", r)
        broken = write("broken.yaml", "kind: AuthorizationPolicy\nspec: [\n")
        r = Result(["policy", "lint", broken])
        check(r.code == NOT_SO and "%s:3: refused: not YAML: " % broken in r.out and "; it names a policy: unless it was read well before" in r.out, "what it means", r)
        r = Result(["policy", "lint", good, bad])
        check(r.code == NOT_SO and "%s:1: refused: AuthorizationPolicy demo/bad: spec.rules: missing" % bad in r.out and "%s:4: refused: not YAML: did not find" % bad in r.out, "refused", r)
        r = Result(["-j", "policy", "lint", "-f", bad])
        check(r.code == NOT_SO and [x["state"] for x in json.loads(r.out)] == ["refused", "refused"], "as JSON", r)
        r = Result(["policy", "lint", "-f", good, "-f", os.path.join(folder, "none.yaml")])
        check(r.code == USAGE and "none.yaml: cannot be read: No such file" in r.err and one_line(r.err), "unreadable", r)
        r = Result(["policy", "lint", folder])
        check(r.code == USAGE and "cannot be read: Is a directory" in r.err and one_line(r.err), "no file", r)
        tabs = write("tabs.yaml", "# Grüße\nmetadata:\n\tname: x\n")
        r = Result(["policy", "lint", tabs])
        check(r.code == NOT_SO and "%s:3: refused: not YAML: indented by a tab" % tabs in r.out, "the tab is named", r)
        with open(bad) as f:
            r = Result(["policy", "lint", "-"], stdin=f)
        check(r.code == NOT_SO and "-:1: refused: AuthorizationPolicy demo/bad: spec.rules: missing" in r.out, "from kubectl's hand", r)
        nameless = write("nameless.yaml", "kind: AuthorizationPolicy\nmetadata: {namespace: demo}\n")
        r = Result(["policy", "lint", nameless])
        check("%s:1: refused: AuthorizationPolicy demo/?: apiVersion: missing: AuthorizationPolicy is read as security.istio.io/v1\n" % nameless in r.out, "without name and version", r)
        template = write("template.yaml", "metadata:\n  name: {{ .Values.name }}\n")
        r = Result(["policy", "lint", template])
        check("%s:2: refused: a key must be a plain name; a template must be filled in first\n" % template in r.out, "a template", r)
        r = Result(["policy", "lint"])
        check(r.code == USAGE and "name a file" in r.err, "no file", r)
        r = Result(["policy", "list", "-f", good])
        check(r.code == USAGE and "-f" in r.err, "-f is lint's", r)


def test_from_outside_the_nodes_network(m):
    """The agent's network namespace is where a pod's link ends: whoever asks from another one sees the same."""
    here = os.readlink("/proc/self/ns/net")
    check(os.stat(m.node_netns(1)).st_ino != int(re.search(r"\d+", here)[0]), "another one", here)
    r = ctl(m, "doctor")
    check(r.code == OK and not re.search(r"^link ", r.out, re.M), "no link without an end", r)
    r = ctl(m, "prove", "client")
    check(r.code == OK and "\n0 of " in r.out and "link enforced" in r.out, "and it can be tried", r)


def test_help_of_one_object(m):
    every = set(commands())
    for obj in {o for o, _, _ in every}:
        listed = [x[2:].split()[:2] for x in ctl(m, obj, "help").out.splitlines() if re.match("  [a-z]", x)]
        check(sorted(map(tuple, listed)) == sorted((o, c) for o, c, _ in every if o == obj), "its commands and no others", obj, listed)
    r = Result(["prove", "help"])
    check(r.code == OK and "\nprove: " in r.out and "\npolicy check: " not in r.out and "\nExit: " in r.out, "its own notes", r)
    check(Result(["help", "prove"]).out == r.out and Result(["help", "nonsense"]).code == USAGE, "either way round")
    r = Result(["help"])
    check(r.code == OK and "\nprove: " in r.out and "\npolicy check: " in r.out and "\npod release --all: " in r.out, "all of them", r)


def test_memory(m):
    """What an app does not read lies in the agent, where it is shown until the app takes it."""
    def rows():
        return json.loads(ctl(m, "-j", "memory", "show").out)

    def backlog():
        return sum(r["backlog_bytes"] for r in rows())

    with m.pods["client"].connect(m.pods["server"].ip, 7) as s:
        s.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += s.send(b"x" * 65536)
        held = backlog()
        check(0 < held <= sent, "bytes that the echo's reader left", held, sent)
        check(re.search(r"^WORKER +BUSY % +BACKLOG .*\n0 +\d+ +[1-9]", ctl(m, "memory").out), "as text", ctl(m, "memory"))
        s.settimeout(30)
        while sent > 0:
            sent -= len(s.recv(1 << 20))
    eventually(lambda: backlog() == 0, 5, "nothing when it was read")
    for r in rows():
        check(0 <= r["busy_percent"] <= 100 and r["budget_bytes"] > 0 and r["window_bytes"] > 0, "the rest of a row", r)


def test_bpf_as_text(m):
    r, dump = ctl(m, "bpf", "show"), json.loads(ctl(m, "-j", "bpf", "show").out)
    for part in ("wanted and attached", "programs", "links", "pods", "maps"):
        check("\n%s\n" % part in r.out, part, r.out[:1500])
    check(": all is as wanted" in r.out and "NOT" not in r.out, "nothing is missing", r.out[:1500])
    check({"pod_out", "pod_in", "pod_lo", "pod_link"} <= {p["name"] for p in dump["programs"]}, "the pod's programs", dump["programs"])
    for p in dump["programs"]:
        check(re.search(r"^  %d: \w+  name %s  tag [0-9a-f]{16}  " % (p["id"], p["name"]), r.out, re.M), "a line each", p, r.out)
    links = dump["pods"][0]["links"]
    check({(x["interface"], x["place"]) for x in links} == {("lo", "lo"), ("eth0", "in"), ("eth0", "out"), ("v10", "link")}, "wanted links", links)
    check(all(x["attached"] and x["wanted"] and x["prog_id"] for x in links), "attached", links)
    names = {x["name"] for x in dump["maps"]}
    check(names == set(re.findall(r"  name (wr_\w+)  key ", r.out)) and "wr_dest" in names, "maps", names)
    check("\t10.96.0.10  vip\n" in r.out and "\t10.77.0.0/16\n" in r.out and re.search(r"^\t\d+  pod 1$", r.out, re.M), "their contents", r.out)


def pinned(m, number, place):
    base = os.path.join(BPFFS, "warren", m.agents[1].name.replace(".", ":"), "v1", "pods", str(number))
    return [os.path.join(base, f) for f in os.listdir(base) if f.endswith("_" + place)] if os.path.isdir(base) else []


def test_bpf_shows_what_is_missing(m):
    """Wanted versus attached: a link that somebody took, a pod that cannot be enrolled."""
    if not pinned(m, 1, "in"):
        raise Skip("no links to take away without TCX")
    m.agents[1].kill()
    try:
        os.unlink(pinned(m, 1, "in")[0])
        r = ctl(m, "bpf", "show")
        check(re.search(r"demo/client: eth0\(\d+\) in is not attached", r.out) and "NOT ATTACHED" in r.out, "the missing one is named", r.out[:2000])
        check("2 of 3 wanted" in r.out and "no agent was asked" in r.out, "counted", r.out[:800])
    finally:
        m.agents[1].start()
    check(": all is as wanted" in ctl(m, "bpf", "show").out, "put back")
    late = m.pod("late", 1)
    late.spec = {"hostNetwork": True}
    m.write_pod(late)
    eventually(lambda: "demo/late is not captured: refused: " in ctl(m, "bpf", "show").out, 5, "why a pod is not there")
    m.remove_manifest("pod-late.yaml")


def test_without_an_agent(m):
    """What needs no agent works from the pins, the rest says in one line that there is none."""
    m.agents[1].kill()
    local = {o for o, c in lists() if re.search(r"^  %s %s .*\(\*\)$" % (o, c), Result(["help"]).out, re.M)}
    try:
        check(local == {"doctor", "bpf", "pod"}, "the help says which", local)
        for words in lists():
            text, as_json = ctl(m, *words), ctl(m, "-j", *words)
            if words[0] in local:
                check(text.code == as_json.code == OK and not text.err and is_json(as_json.out) and not is_json(text.out), "works", words, text, as_json)
            else:
                check(text.code == as_json.code == NO_AGENT and m.agents[1].name in text.err and one_line(text.err), "says so", words, text)
                check(m.agents[1].name in json.loads(as_json.out)["error"], "says so as JSON", as_json)
        check("captured, no agent" in ctl(m, "pod", "list").out and "demo" in ctl(m, "pod", "list").out, "pods from the pins")
        for words in (("log", "level"), ("pod", "enroll", "client")):
            check(ctl(m, *words).code == NO_AGENT, "needs an agent", words)
        r = ctl(m, "pod", "release", "nobody")
        check(r.code == NOT_SO and "nobody" in r.err and one_line(r.err), "no such pod in the pins", r)
        r = Result(["--run-dir=" + m.run_dir, "--node=nowhere", "bpf", "show"])
        check(r.code == NO_AGENT and "nowhere" in r.err and one_line(r.err), "a node without pins", r)
        r = as_nobody(m, "status")
        check(r.code in (NO_AGENT, MISSING) and one_line(r.err), "as nobody", r)
        r = ctl(m, "-p", "pod", "release", "--all")
        check(r.code == OK and json.loads(r.out)["pods"] == 1 and not pinned(m, 1, "in"), "released from the pins", r)
        r = ctl(m, "pod", "list")
        check(r.code == NO_AGENT and one_line(r.err), "nothing is left", r)
    finally:
        m.agents[1].start()
    r = as_nobody(m, "doctor")
    check(r.code == MISSING and re.search("^bpffs +", r.out, re.M) and "\nnot root: what needs privileges shows as missing\n" in r.out, "what it can see", r)
    r = as_nobody(m, "status")
    check(r.code == MISSING and "root" in r.err and one_line(r.err), "an agent, but not for nobody", r)


# --- an agent played by the test ---

class Fake:
    """A node whose agent is `behave(connection)`; the request has been read, unless deaf."""

    def __init__(self, m, name, behave, deaf=False):
        self.run_dir, self.name = os.path.join(m.dir, "fake"), name
        os.makedirs(os.path.join(self.run_dir, name), exist_ok=True)
        self.behave, self.deaf, self.requests, self.held = behave, deaf, [], []
        path = os.path.join(self.run_dir, name, "agent.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(0 if deaf else 16)
        if deaf:
            # One more than the backlog holds, so that the next connect() waits.
            for _ in range(3):
                s = socket.socket(socket.AF_UNIX)
                s.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    s.connect(path)
                self.held.append(s)
        else:
            threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                s, _ = self.listener.accept()
                self.held.append(s)
                threading.Thread(target=self.answer, args=(s,), daemon=True).start()

    def answer(self, s):
        with contextlib.suppress(OSError):
            line = b""
            while not line.endswith(b"\n"):
                line += s.recv(65536) or b"\n"
            self.requests.append(line)
            if self.behave(s) != "hold":
                s.close()

    def ctl(self, *args, **kw):
        return Result(["--run-dir=" + self.run_dir, "--node=" + self.name, *args], **kw)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)
        for s in [self.listener] + self.held:
            s.close()


def say(raw):
    return lambda s: s.sendall(raw)


def result(value, raw=None):
    return say(b'{"ok":true,"result":' + (raw or json.dumps(value).encode()) + b"}\n")


def hold(s):
    return "hold"


def trickle(s):
    for _ in range(60):
        s.sendall(b" ")
        time.sleep(0.5)


def reset(s):
    s.sendall(b'{"ok":true,')


def flood(s):
    block = b"x" * (1 << 20)
    for _ in range(200):
        s.sendall(block)


def expand(s):
    """Small text, large tree."""
    s.sendall(b'{"ok":true,"result":[')
    for _ in range(30):
        s.sendall(b"0," * (1 << 19))
    s.sendall(b"0]}\n")


STRANGE = {
    "garbage": (say(b"SSH-2.0-OpenSSH_9.2\r\n"), "not understood"),
    "binary": (say(bytes(range(256)) * 20 + b"\n"), "not understood"),
    "hidden": (say(b'{"ok":true,"result":[]}\0more\n'), "not understood"),
    "trailing": (say(b'{"ok":true,"result":[]} more\n'), "not understood"),
    "empty": (say(b""), "without an answer"),
    "blank": (say(b"\n"), "not understood"),
    "truncated": (say(b'{"ok":true,"result":[{"name":"cli'), "ends in the middle"),
    "cut": (reset, "ends in the middle"),
    "broken": (say(b'{"ok":true,"result":[{"name":"cli\n'), "not understood"),
    "scalar": (result(7), "not understood"),
    "null": (result(None), "not understood"),
    "mute": (say(b'{"ok":true}\n'), "not understood"),
    "unsure": (say(b'{"ok":"yes","result":[]}\n'), "not understood"),
    "nested": (result(None, raw=b"[" * 100000), "not understood"),
    "flood": (flood, "too large"),
    "expand": (expand, "too large"),
    "hang": (hold, "does not answer"),
    "trickle": (trickle, "does not answer"),
    "deaf": (None, "does not accept"),
}


def test_strange_agents(m):
    """Bounded time and memory, one line that says what happened, and exit 6."""
    bad = []

    def one(*case):
        try:
            ask(*case)
        except Exception as e:
            bad.append((case[0], repr(e)))

    def ask(name, behave, text, words):
        with Fake(m, "%s-%s" % (name, words[0]), behave, deaf=behave is None) as f:
            r = f.ctl(*words)
            as_json = "-j" in words
            line = r.out if as_json else r.err
            if not (r.code == BROKEN and text in line and f.name in line and one_line(line) and r.seconds < 14 and not (r.err if as_json else r.out)):
                bad.append((name, words, r))
            if as_json and not is_json(r.out):
                bad.append((name, "JSON", r))
            if r.mib > 520 and not SANITIZER:
                bad.append((name, "memory", r))

    slow, threads = ("hang", "trickle", "deaf"), []
    for name in slow:
        for words in (("status",), ("-j", "connection"), ("bpf",), ("pod", "release", "x")):
            threads.append(threading.Thread(target=one, args=(name, *STRANGE[name], words)))
            threads[-1].start()
    for name, (behave, text) in STRANGE.items():
        if name not in slow:
            for words in (("status",), ("-j", "tunnel")) if name in ("flood", "expand") else (("status",), ("-j", "workload"), ("pod",), ("config",), ("log", "level")):
                one(name, behave, text, words)
    for t in threads:
        t.join()
    check(not bad, "%d wrong" % len(bad), *bad[:5])


def test_strange_rows(m):
    """An answer of the right kind with nothing right in it: shown or refused, never a crash."""
    junk = [None, True, 7, -1e308, "x", [], {}, [[]], {"": None}, {"name": {}, "ports": 3, "vips": [1], "endpoints": [{}, 2], "target_ports": "x"},
            {"age_ms": -1, "bytes_sent": 1e300, "streams": "many", "local_tcp_info": [], "links": [{}, 1], "counters": [1], "addresses": ["a" * 500] * 3}]
    odd = {"up": "maybe", "pid": "1", "pods": [1, None], "pending": {"a": 1}, "alarms": [1, "alarm"], "source": 1, "counters": {"a": "b", "c": 1e300},
           "programs": junk, "maps": junk, "mesh_ranges": {}, "links": 1, "sockops": True, "sockops_link": [], "wanted": junk}
    for name, value in (("rows", junk), ("none", []), ("object", dict(odd, pods=junk)), ("odd", odd), ("nothing", {})):
        with Fake(m, name, result(value)) as f:
            for words in [w for w in lists() if w[0] != "doctor"] + [("log", "level"), ("pod", "release", "x"), ("pod", "enroll", "--all")]:
                for extra in ((), ("-j",)):
                    r = f.ctl(*extra, *words)
                    check(r.code in (OK, NOT_SO, BROKEN) and "(null)" not in r.out, "no crash", name, words, r)
                    check(not extra or is_json(r.out), "JSON", name, words, r)


NASTY = "\x1b[2J\x1b]0;owned\x07\u009b31m\u0085\x7f\x08\r\nforged: line\u202e\u2066\u200f"


def clean(raw):
    text = raw.decode()
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text)


def test_no_control_characters(m):
    """A name from the agent is shown as a name: in rows, in JSON, in errors."""
    row = {k: NASTY + "ü" for k in ("name", "namespace", "state", "identity", "direction", "pod", "hostname", "reason", "serial", "uid", "mode", "netns")}
    tree = {"node": NASTY + "ü", "up": True, "version": NASTY, "pending": [NASTY], "alarms": [NASTY], "pods": {NASTY: 1}, "counters": {NASTY: 2},
            "ca": NASTY, "source": {"spec": NASTY, "resources": {NASTY: 1, "refused": 2}, "refused": [dict(row, kind=NASTY, file=NASTY)]}, "level": NASTY, "destinations": {NASTY: NASTY}, "programs": [row], "maps": [row, {"name": "wr_dest"}],
            "wanted": [row]}
    for value in ([dict(row, addresses=[NASTY], ports=[{"port": 1}], endpoints=[dict(row, target_ports={NASTY: 1})])], tree, dict(tree, pods=[dict(row, links=[row], counters={NASTY: 1})])):
        raw = json.dumps(value).encode().replace(b"\\u007f", b"\x7f").replace(b"\\u009b", "\u009b".encode())
        with Fake(m, "nasty", result(None, raw=raw)) as f:
            for o, c in lists() + [("log", "level")]:
                for extra in ((), ("-j",), ("-p",)):
                    r = f.ctl(*extra, o, c)
                    check(clean(r.raw) and clean(r.raw_err), "no control characters", o, extra, repr(r.raw[:300]), repr(r.raw_err[:300]))
                    check("\nforged" not in r.out, "no forged line", o, extra, r)
                    if extra:
                        got = json.loads(r.out)
                        check(o == "doctor" or "error" in got or got == value, "JSON loses nothing", o, got)
                    elif r.code == OK and o in ("workload", "status"):
                        check("ü" in r.out, "what is printable stays", r)
    with Fake(m, "nasty", say(json.dumps({"ok": False, "error": NASTY + "ü" * 2000}).encode() + b"\n")) as f:
        for extra in ((), ("-j",)):
            r = f.ctl(*extra, "status")
            check(r.code == REFUSED and clean(r.raw) and clean(r.raw_err) and one_line(r.out + r.err), "an error", r)
    with Fake(m, "latin1", result(None, raw=b'[{"name":"\xe9\xff\xc0\xaf\xed\xa0\x80ok"}]')) as f:
        for extra in ((), ("-j",)):
            r = f.ctl(*extra, "workload")
            check(r.code == OK and clean(r.raw) and "ok" in r.out, "bytes that are not UTF-8", repr(r.raw))
        check(json.loads(r.out)[0]["name"].endswith("ok"), "valid JSON", r)


def test_agent_silent_over_pins(m):
    """An agent that is stopped, not gone: listings come from the pins with a remark, a release does not."""
    m.agents[1].process.signal(signal.SIGSTOP)
    results = {}
    try:
        def one(*words):
            results[words] = ctl(m, *words)

        threads = [threading.Thread(target=one, args=w) for w in (("pod", "list"), ("-j", "bpf", "show"), ("pod", "release", "client"), ("status",))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        m.agents[1].process.signal(signal.SIGCONT)
    r = results["pod", "list"]
    check(r.code == OK and "agent silent" in r.out and one_line(r.err) and "does not answer" in r.err, "pods from the pins", r)
    r = results["-j", "bpf", "show"]
    check(r.code == OK and is_json(r.out) and one_line(r.err), "the pins as JSON, the remark beside it", r)
    for words in (("pod", "release", "client"), ("status",)):
        check(results[words].code == BROKEN and one_line(results[words].err) and results[words].seconds < 14, "says so", words, results[words])
    eventually(lambda: ctl(m, "status").code == OK, 5, "and goes on")
    # The release reached the agent's queue before it was let go on.
    ctl(m, "pod", "enroll", "client")
    eventually(lambda: ctl(m, "status").code == OK, 5, "enrolled")


# --- outputs ---

def test_output_that_cannot_be_written(m):
    for words in lists() + [("help",), ("--help",), ("-V",), ("-j", "status"), ("-j", "nonsense"), ("-p", "config", "dump")]:
        with open("/dev/full", "wb") as full:
            r = ctl(m, *words, stdout=full)
        check(r.code == BROKEN and "cannot write the output: No space" in r.err and one_line(r.err), "a full disk", words, r)
        r = ctl(m, *words, preexec=lambda: os.close(1))
        check(r.code == BROKEN and "cannot write the output" in r.err and one_line(r.err), "a closed stdout", words, r)
    r = ctl(m, "status", preexec=lambda: os.closerange(0, 3))
    check(r.code == BROKEN, "nothing open at all", r)
    check(ctl(m, "status").code == OK, "the agent has not been fed with that")


def test_closed_pipe(m):
    """As with any filter: the signal ends it, and whoever ignores the signal gets a line and a code."""
    for words in (("status",), ("-p", "config", "dump"), ("bpf", "show")):
        for ignored in (False, True):
            r, w = os.pipe()
            os.close(r)
            got = ctl(m, *words, stdout=w, preexec=(lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN)) if ignored else None)
            os.close(w)
            if ignored:
                check(got.code == BROKEN and "Broken pipe" in got.err and one_line(got.err), "the signal ignored", words, got)
            else:
                check(got.code == -signal.SIGPIPE and not got.err, "by the signal", words, got)
