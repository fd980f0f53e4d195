# SPDX-License-Identifier: Apache-2.0
"""What the command line says of manifests that do not count, which node it means when none is named, and that a node
that nobody uses any more is left as it was found."""
import fcntl
import json
import os
import re
import subprocess

from mesh import BPFFS, BUILD, Mesh, check, eventually

FALLBACK = "together"
CTL = os.environ.get("WR_CTL", os.path.join(BUILD, "warrenctl"))
OK, NOT_SO, USAGE, NO_AGENT, REFUSED = range(5)
POLICY = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "deny-all", "namespace": "demo"}, "spec": {}}


def setup():
    m = Mesh("config")
    m.pod("client", 1)
    m.pod("second", 1)
    m.pod("server", 2)
    m.apply()
    m.start_agents()
    return m


def ctl(m, *args, env=None):
    """Without a node, as people type it."""
    clear = {k: v for k, v in os.environ.items() if not k.startswith("WARREN_")}
    return subprocess.run([CTL, *args], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
                          env=dict(clear, **({"WARREN_RUN_DIR": m.run_dir} if env is None else env)))


def on(m, node, *args):
    return ctl(m, "--node=" + m.agents[node].name, *args)


def status(m):
    return on(m, 1, "status").stdout


def bad_service(n):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad-%d" % n, "namespace": "shop"}, "spec": {"ports": [{"port": 70000}]}}


def test_not_enforced(m):
    """One warning, an alarm as long as it lies there; what is none of a mesh's business is neither."""
    place = os.path.join(m.config, "policy.yaml")
    m.write("policy.yaml", POLICY, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": "demo"}})
    eventually(lambda: "ALARM: NOT ENFORCED: RequestAuthentication demo/deny-all\n" in status(m), 5, "the alarm")
    check(on(m, 1, "status").returncode == OK and "1 not enforced" in status(m) and "Deployment" not in status(m), "up all the same", status(m))
    m.write("more.yaml", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "more", "namespace": "demo"}})
    eventually(lambda: re.search(r"^ServiceAccount +demo +more +applied ", on(m, 1, "config", "list").stdout, re.M), 5, "another read")
    lines = [x for x in m.agents[1].text().splitlines() if "NOT ENFORCED" in x]
    check(len(lines) == 1 and "\twarn\t" in lines[0] and place + ":" in lines[0] and "demo/deny-all" in lines[0], "one warning with its place", lines)
    check("Deployment" not in m.agents[1].text(), "none for the other", m.agents[1].text()[-1500:])
    m.write("many.yaml", *[dict(POLICY, metadata={"name": "p%d" % i, "namespace": "demo"}) for i in range(4)])
    m.write("a.yaml", *[{"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "g%d" % i, "namespace": "demo"}} for i in range(4)])
    eventually(lambda: re.search(r"ALARM: NOT ENFORCED: .* and 6 more: warrenctl config list\n", status(m)), 5, "many in one line")
    check("Gateway" not in next(x for x in status(m).splitlines() if "NOT ENFORCED" in x), "what is about access first", status(m))
    for name in ("policy.yaml", "more.yaml", "many.yaml", "a.yaml"):
        m.remove_manifest(name)
    eventually(lambda: "ALARM" not in status(m), 5, "gone with it")


def test_refused_are_named(m):
    """The first ten in the status: kind, name, place, field, what is wrong with it. All of them in the list."""
    m.write("bad.yaml", *[bad_service(n) for n in range(11)])
    m.write("broken.yaml", "a: [")
    eventually(lambda: "12 refused" in status(m), 5, "counted")
    shown = re.findall(r"^  refused: Service shop/bad-(\d+)  (\S+/bad\.yaml):(\d+)  (spec\.ports\[\]\.port): (must be .*)$", status(m), re.M)
    check([x[0] for x in shown] == [str(n) for n in range(10)], "the first ten, in order", status(m))
    check(len({x[2] for x in shown}) == 10 and "  and 2 more: warrenctl config list\n" in status(m), "and how many more", status(m))
    listed = on(m, 1, "config", "list").stdout
    check(len(re.findall(r"^Service +shop +bad-\d+ +refused +\S+/bad\.yaml:\d+ +spec\.ports", listed, re.M)) == 11, "all in the list", listed)
    check(re.search(r"^- +- +- +refused +\S+/broken\.yaml:\d+ +\S", listed, re.M), "a file that is no YAML, too", listed)
    rows = json.loads(on(m, 1, "-j", "config", "list").stdout)
    got = {(r["kind"], r["namespace"], r["name"]) for r in rows if r["state"] == "refused"}
    check(got == {("Service", "shop", "bad-%d" % n) for n in range(11)} | {("", "", "")}, "by name", got)
    source = json.loads(on(m, 1, "-j", "status").stdout)["source"]
    check(len(source["refused"]) == 10 and source["resources"]["refused"] == 12, "the same as JSON", source)
    m.remove_manifest("bad.yaml")
    m.remove_manifest("broken.yaml")
    eventually(lambda: "refused:" not in status(m), 5, "gone with them")


def test_broken_file_is_said_once(m):
    """Each change in the folder reads all of it again: what is as wrong as before makes no second line, a new mistake does."""
    def lines():
        return [x for x in m.agents[1].text().splitlines() if "wrong.yaml:" in x or "twin.yaml:" in x]

    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "once", "namespace": "demo"}}
    m.write("wrong.yaml", "a: [")
    m.write("once.yaml", account)
    m.write("twin.yaml", account)
    eventually(lambda: len(lines()) == 2, 5, "a line each")
    for n in range(2):
        m.write("more.yaml", dict(account, metadata={"name": "more-%d" % n, "namespace": "demo"}))
        eventually(lambda: "more-%d" % n in on(m, 1, "config", "list").stdout, 5, "another read")
    check(len(lines()) == 2, "no other", lines())
    check(any(re.search(r"wrong.yaml:\d+: not YAML: ", x) and x.endswith("; nothing of this document is in force") for x in lines()), "what becomes of it", lines())
    m.write("once.yaml", account, "a: [")
    eventually(lambda: re.search(r"once.yaml:\d+: not YAML: .*; what this file held before stays in force\n", m.agents[1].text()), 5, "nor of this")
    m.write("wrong.yaml", "b: 1\na: [")
    eventually(lambda: len(lines()) == 3, 5, "another mistake")
    for name in ("wrong.yaml", "once.yaml", "twin.yaml", "more.yaml"):
        m.remove_manifest(name)


def test_files_that_are_not_read(m):
    """One line of the list for all of them; those of ConfigMaps and editors, which begin with a dot, are nobody's business."""
    names = ["a.yaml.bak", "notes", "server.YAML", "x.tmp", ".hidden"]
    for name in names:
        m.write(name, "a: [")
    m.write("more.yaml", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "more", "namespace": "demo"}})
    want = r"^- +- +- +ignored +%s:0 +not read, as only \*\.yaml, \*\.yml and \*\.json are: a\.yaml\.bak, notes, server\.YAML and 1 more$" % re.escape(m.config)
    eventually(lambda: len(re.findall(want, on(m, 1, "config", "list").stdout, re.M)) == 1, 5, "one line")
    check("not read" not in m.agents[1].text() and "ALARM" not in status(m), "nothing is wrong")
    for name in names + ["more.yaml"]:
        m.remove_manifest(name)
    eventually(lambda: "not read" not in on(m, 1, "config", "list").stdout, 5, "gone with them")


def test_config_list(m):
    m.write("odd.yaml", 'apiVersion: "v1\\e[31m"\nkind: "Pod\\e[2J\\a"\nmetadata: {name: "x\\e]0;y\\a\\n  forged", namespace: "\\u202e\\u009b"}')
    eventually(lambda: "odd.yaml" in on(m, 1, "config", "list").stdout, 5, "listed")
    listed = on(m, 1, "config").stdout
    check(listed.split()[:6] == ["KIND", "NAMESPACE", "NAME", "STATE", "PLACE", "REASON"], "also what `config` alone shows", listed)
    for kind, namespace, name in (("Namespace", "-", "demo"), ("Pod", "demo", "client"), ("Pod", "demo", "server")):
        check(len(re.findall(r"^%s +%s +%s +applied +\S+:\d+ +-$" % (kind, namespace, name), listed, re.M)) == 1, "a row each", name, listed)
    check(not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]|^  forged", listed, re.M), "no control characters", repr(listed))
    check(listed == on(m, 1, "config", "show").stdout == on(m, 1, "config", "list").stdout, "the same order each time")
    m.remove_manifest("odd.yaml")


def test_which_node(m):
    """A folder is no node: one that has an agent is meant, and without any the one that has pins, which is said."""
    one, two = (m.agents[n].name for n in (1, 2))
    os.makedirs(os.path.join(m.run_dir, "mistyped"))
    r = ctl(m, "status")
    check(r.returncode == USAGE and one in r.stderr and two in r.stderr and "mistyped" not in r.stderr, "two agents: which", r)
    m.agents[2].kill()
    r = ctl(m, "status")
    check(r.returncode == OK and r.stdout.startswith("node %s: up" % one) and not r.stderr, "the one that has an agent", r)
    m.agents[1].kill()
    try:
        r = ctl(m, "status")
        check(r.returncode == NO_AGENT and one in r.stderr and two in r.stderr and r.stderr.count("\n") == 1, "none has one", r)
        r = ctl(m, "pod", "list")
        check(r.returncode == USAGE and one in r.stderr and two in r.stderr and "mistyped" not in r.stderr, "both have pins: which", r)
        r = on(m, 2, "pod", "release", "--all")
        check(r.returncode == OK, "one is left", r)
        for words in (("pod", "list"), ("bpf",), ("-j", "pod")):
            r = ctl(m, *words)
            check(r.returncode == OK and "client" in r.stdout, "the one with pins", r)
            check("taking node %s," % one in r.stderr and r.stderr.count("\n") == 1, "and says so", r)
    finally:
        m.start_agents()
        os.rmdir(os.path.join(m.run_dir, "mistyped"))


def test_environment(m):
    """Read where the option is not given; an empty variable is none."""
    name = m.agents[1].name
    both = {"WARREN_RUN_DIR": m.run_dir, "WARREN_NODE": name, "WARREN_PIN_DIR": BPFFS}
    check(ctl(m, "status", env=both).stdout.startswith("node %s: up" % name), "without options")
    other = m.agents[2].name
    check(ctl(m, "--node=" + other, "status", env=both).stdout.startswith("node %s: up" % other), "the option wins")
    r = ctl(m, "status", env=dict(both, WARREN_NODE="../x"))
    check(r.returncode == USAGE and "WARREN_NODE" in r.stderr, "a wrong one is named", r)
    r = ctl(m, "--run-dir=" + m.run_dir, "-n", name, "status", env={"WARREN_RUN_DIR": "", "WARREN_NODE": ""})
    check(r.returncode == OK, "empty ones", r)
    m.agents[1].kill()
    try:
        check(ctl(m, "pod", "list", env=dict(both, WARREN_PIN_DIR="/nonexistent")).returncode == NO_AGENT, "no pins there")
        check(ctl(m, "pod", "list", env=both).returncode == OK, "these pins")
    finally:
        m.agents[1].start()
    text = ctl(m, "help").stdout
    check(all(v in text for v in both), "the help says so", text)


def test_last_release_leaves_nothing(m):
    """Without an agent and without a pod the node's own link, maps and folder go; one that starts makes them anew."""
    pins = os.path.join(BPFFS, "warren", m.agents[1].name.replace(".", ":"))
    sockops = m.agents[1].json("bpf")["sockops"]
    check(("app_socket" in os.listdir(pins + "/v1")) == bool(sockops), "there before", os.listdir(pins + "/v1"))
    m.agents[1].kill()
    try:
        r = on(m, 1, "pod", "release", "client")
        check(r.returncode == OK and "removed" not in r.stdout and os.path.isdir(pins), "one of two: the rest stays", r)
        for path, flags in ((os.path.join(m.run_dir, m.agents[1].name, "lock"), os.O_RDWR), (pins, os.O_RDONLY | os.O_DIRECTORY)):
            lock = os.open(path, flags)
            fcntl.flock(lock, fcntl.LOCK_EX)
            r = on(m, 1, "pod", "release", "--all")
            os.close(lock)
            check(r.returncode == REFUSED and "starting or ending" in r.stderr and not r.stdout, "not under an agent that begins", path, r)
            check(len(json.loads(on(m, 1, "-j", "pod", "list").stdout)) == 1 and os.path.isdir(pins + "/v1"), "which finds all that there was", path)
        r = on(m, 1, "pod", "release", "--all")
        maps = re.search(r"^removed: (\d+) maps$", r.stdout, re.M)
        check(r.returncode == OK and maps and int(maps.group(1)) >= 9, "says what went", r)
        check(("removed: sockops link\n" in r.stdout) == bool(sockops) and "removed: %s\n" % pins in r.stdout and not os.path.exists(pins), "all of it", r)
        check(on(m, 1, "bpf").returncode == NO_AGENT, "nothing to show")
    finally:
        m.agents[1].start()
    check(on(m, 1, "status").returncode == OK and os.path.isdir(pins + "/v1"), "a new agent starts from nothing")
    m.agents[1].kill()
    try:
        r = on(m, 1, "-j", "pod", "release", "--all")
        got = json.loads(r.stdout)
        check(r.returncode == OK and got["pods"] == 2 and pins in got["removed"] and not os.path.exists(pins), "as JSON", r)
    finally:
        m.agents[1].start()
