# SPDX-License-Identifier: Apache-2.0
"""The agent and its command line as an operator meets them: start, readiness, manifests good and bad, the CA's folder."""
import json
import os
import re
import select
import shutil
import socket
import stat
import subprocess
import time

import certs
from mesh import BUILD, Namespace, check, eventually, LABEL, Mesh, Process, run, Skip

FALLBACK = "together"


def setup():
    m = Mesh("node")
    os.makedirs(m.ca)
    m.operator_root = certs.write_plugin_ca(m.ca)
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("second", 2, labels={"app": "server"}, account="server")
    m.vips = m.service("server", {"app": "server"}, [("who", 80, 11)])
    m.service("named", {"app": "server"}, [("main", 81, "main")])
    m.service("headless", {"app": "server"}, [("who", 80, 11)], clusterIP="None", clusterIPs=["None"])
    m.apply()
    for n in ("server", "second"):
        m.pods[n].serve("echo:7", "who:11", "echo:12")
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as f, open("/proc/sys/net/ipv4/tcp_available_congestion_control") as g:
        system = f.read().strip()
        m.congestion = [c for c in g.read().split() if c != system]
    m.agent_options = ["--tunnel-congestion=" + c for c in m.congestion[:1]] + ["--exclude-ports=12,13"]
    m.start_agents()
    return m


def served_by(m, port=80, address=None):
    with m.pods["client"].connect(address or m.vips[0], port) as s:
        return s.recv(200).decode().split()[2]


def test_operators_ca(m):
    """Istio's plug-in files (an RSA intermediate): the chain ends in the operator's root."""
    check(m.pods["client"].traffic("ping", m.pods["server"].ip, 7, 5, 5)["ok"], "traffic with the operator's CA")
    text = m.agents[1].ctl("-j", "status").stdout + m.agents[1].ctl("-j", "certificate", "list").stdout
    check("operator" in text.lower() or "intermediate" in text.lower(), "status says whose root", text[:600])
    check(not os.path.exists(m.ca + "/root-key.pem"), "no root of its own beside the operator's")


def test_tunnel_congestion(m):
    """The operator's choice is that of both ends of a tunnel, and of nothing else that the pod does."""
    if not m.congestion:
        raise Skip("the kernel has one congestion control only")
    s = m.pods["client"].connect(m.pods["server"].ip, 7)
    s.sendall(b"x")
    check(s.recv(1) == b"x", "a tunnel is up")
    for name in ("client", "server"):
        text = m.pods[name].sh("ss", "-tinOH", "state", "established", "( sport = :15008 or dport = :15008 )").stdout.splitlines()
        check(text and all(" %s " % m.congestion[0] in line for line in text), "tunnels of %s use %s" % (name, m.congestion[0]), text)
    s.close()


def test_excluded_ports(m):
    """They leave as they are, while everything else is captured."""
    client, server = m.pods["client"], m.pods["server"]
    open_to = lambda: {c["dst"] for c in m.agents[1].json("connection")}
    with client.connect(server.ip, 12) as plain, client.connect(server.ip, 7) as meshed:
        for s in (plain, meshed):
            s.sendall(b"x")
            check(s.recv(1) == b"x", "an echo")
        eventually(lambda: server.ip + ":7" in open_to(), 5, "captured")
        check(server.ip + ":12" not in open_to(), "not captured", open_to())
    dump = m.agents[1].json("bpf")
    check(sorted(dump["excluded_ports"]) == [12, 13], "as JSON", dump["excluded_ports"])
    text = m.agents[1].ctl("bpf").stdout
    check(re.search(r"name wr_excl .*entries 2 of .*\n\t1[23]\n\t1[23]\n", text), "as text", text)


def test_service_spreads(m):
    seen = [served_by(m) for _ in range(60)]
    counts = {a: seen.count(a) for a in set(seen)}
    check(set(counts) == {m.pods["server"].ip, m.pods["second"].ip} and min(counts.values()) >= 10, "both endpoints", counts)


def test_named_target_port(m):
    vip = m.services["named"]["spec"]["clusterIP"]
    check(m.pods["client"].traffic("ping", vip, 81, 5, 5)["ok"], "named target port")


def test_endpoints_from_slices(m):
    """A List of JSON and a .yml beside it: a Service without a selector leads where its slice says, and follows it."""
    ready = {"server": True, "second": False}

    def write():
        endpoints = "".join("- {addresses: [%s], conditions: {ready: %s}}\n" % (m.pods[n].ip, str(r).lower()) for n, r in ready.items())
        m.write("slice.yml", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: sliced-1, namespace: demo, labels: "
                "{kubernetes.io/service-name: sliced}}\naddressType: IPv4\nports:\n- {name: who, port: 11, protocol: TCP}\nendpoints:\n" + endpoints)

    def endpoints():
        rows = [s for s in m.agents[1].json("service", "list") if s["name"] == "sliced"]
        return {e["workload"]: (e["healthy"], e["target_ports"]) for s in rows for e in s["endpoints"]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sliced", "namespace": "demo"},
               "spec": {"clusterIP": "10.96.2.1", "ports": [{"name": "who", "port": 80, "targetPort": 9999}]}}
    with open(os.path.join(m.config, "sliced.json"), "w") as f:
        json.dump({"apiVersion": "v1", "kind": "List", "items": [service]}, f, indent=1)
    for _ in range(2):
        write()
        eventually(lambda: endpoints() == {n: (r, {"80": 11}) for n, r in ready.items()}, 5, "the slice's endpoints")
        seen = {served_by(m, address="10.96.2.1") for _ in range(15)}
        check(seen == {m.pods[n].ip for n, r in ready.items() if r}, "those that are ready, at the slice's port", seen)
        ready = {n: not r for n, r in ready.items()}
    m.remove_manifest("slice.yml")
    m.remove_manifest("sliced.json")
    eventually(lambda: not endpoints(), 5, "gone")


def test_headless(m):
    """No address of its own, but endpoints: their pods are reached as pods, by the tunnel."""
    row = next(s for s in m.agents[1].json("service", "list") if s["name"] == "headless")
    check(not row["vips"] and {e["workload"] for e in row["endpoints"]} == {"server", "second"}, "listed", row)
    c = m.capture()
    check(served_by(m, 11, m.pods["second"].ip) == m.pods["second"].ip, "that pod")
    c.stop()
    check(not [x for x in c.tcp() if 11 in (x[1], x[3])], "by the tunnel")


def test_unready_pod_gets_nothing(m):
    m.pods["second"].ready = False
    m.write_pod(m.pods["second"])
    healthy = lambda: {e["workload"] for s in m.agents[1].json("service", "list") if s["name"] == "server" for e in s["endpoints"] if e["healthy"]}
    eventually(lambda: healthy() == {"server"}, 5, "not ready is known")
    seen = {served_by(m) for _ in range(30)}
    m.pods["second"].ready = True
    m.write_pod(m.pods["second"])
    check(seen == {m.pods["server"].ip}, "only the ready one", seen)
    eventually(lambda: served_by(m) == m.pods["second"].ip, 5, "ready again: served again")


def test_readiness_and_status(m):
    r = run("nsenter", "--net=" + m.node_netns(1), "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:15021/healthz/ready")
    check(r.stdout == "200", "readiness", r.stdout)
    check(m.agents[1].ctl("status").returncode == 0 and isinstance(m.agents[1].json("status"), dict), "status")


def test_every_object_lists(m):
    for words in (("pod", "list"), ("workload", "list"), ("service", "list"), ("connection", "list"), ("tunnel", "list"), ("certificate", "list"),
                  ("bpf", "show"), ("config", "dump"), ("doctor",)):
        r = m.agents[1].ctl("-j", *words, check_rc=False)
        check(r.returncode == 0, "warrenctl -j %s" % " ".join(words), r.stderr[-300:])
        try:
            json.loads(r.stdout)
        except ValueError as e:
            check(False, "JSON of %s: %s" % (" ".join(words), e), r.stdout[:300])
        check(m.agents[1].ctl(*words, check_rc=False).stdout.strip(), "text of " + " ".join(words))


def test_wrong_use(m):
    ctl, agent = os.path.join(BUILD, "warrenctl"), os.path.join(BUILD, "warren-agent")
    check(run(ctl, "nonsense", check_rc=False).returncode != 0, "unknown object")
    r = run(agent, "--node=x", "--source=dir:/nonexistent", "--workers=many", "--ca=dir:/tmp/x", check_rc=False, timeout=10)
    check(r.returncode == 2 and "workers" in r.stderr + r.stdout, "a wrong value names itself and exits 2", r)
    r = run(agent, "--no-such-option", check_rc=False, timeout=10)
    check(r.returncode == 2, "unknown option exits 2", r)
    r = run(agent, "--help", check_rc=False, timeout=10)
    check(r.returncode == 0 and all("--" + o in r.stdout for o in ("node", "source", "ca", "mesh-cidr", "drain", "takeover", "assume-missing")), "help", r.stdout[:500])


def test_without_an_agent(m):
    m.agents[1].kill()
    try:
        r = m.agents[1].ctl("status", check_rc=False)
        check(r.returncode != 0, "status says so", r.stdout)
        for words in (("bpf", "show"), ("doctor",), ("pod", "list")):
            r = m.agents[1].ctl(*words, check_rc=False)
            check(r.stdout.strip(), "works without an agent: " + " ".join(words), r.stderr[-300:])
    finally:
        m.agents[1].start()


def test_release_without_an_agent(m):
    """The way out when no agent will come back: the pod works in plaintext, as an operator asked."""
    m.agents[1].kill()
    try:
        m.agents[1].ctl("pod", "release", "--all")
        p = m.pods["client"]
        check(p.traffic("ping", m.pods["server"].ip, 7, 3, 3)["ok"], "released: past the mesh")
        check("wr_" not in p.sh("bpftool", "net", "show", check_rc=False).stdout and len(p.sh("ip", "rule").stdout.splitlines()) == 3, "nothing left in the pod")
    finally:
        m.agents[1].start()
    c = m.capture()
    check(m.pods["client"].traffic("ping", m.pods["server"].ip, 7, 3, 3)["ok"], "meshed again")
    c.stop()
    check(not [x for x in c.tcp() if x[3] == 7], "by the tunnel")


def test_bad_document_is_refused_alone(m):
    m.write("mixed.yaml", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "good", "namespace": "demo"},
                           "spec": {"selector": {"app": "server"}, "clusterIP": "10.96.1.1", "ports": [{"port": 80, "targetPort": 11}]}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bad", "namespace": "demo"},
             "spec": {"selector": {"app": "server"}, "clusterIP": "10.96.1.300", "ports": [{"port": 80000}]}})
    eventually(lambda: "good" in m.agents[1].ctl("-j", "service", "list").stdout, 3, "the good one applies")
    text = m.agents[1].ctl("-j", "config", "dump").stdout
    check('"refused"' in text and "mixed.yaml" in text, "the bad one is shown as refused", text[-800:])
    check(served_by(m, address="10.96.1.1"), "the good one serves")
    m.remove_manifest("mixed.yaml")


def test_last_good_version_stays(m):
    good = m.services["server"]
    m.write("services.yaml", *[dict(s, spec=dict(s["spec"], ports=[{"port": "eighty"}])) if s is good else s for s in m.services.values()])
    eventually(lambda: re.search(r"^  refused: Service demo/server  .*; its last good version stays in force$", m.agents[1].ctl("status").stdout, re.M), 5,
               "refused and said")
    check(served_by(m), "the last good version serves")
    m.apply()


def test_broken_yaml_changes_nothing(m):
    m.write("pod-client.yaml", "kind: Pod\n  bad indent: [\n")
    eventually(lambda: "pod-client.yaml" in m.agents[1].ctl("status").stdout, 5, "it was read")
    check(m.pods["client"].traffic("ping", m.pods["server"].ip, 7, 3, 3)["ok"], "still meshed")
    check("client" in m.agents[1].ctl("-j", "pod", "list").stdout, "still enrolled")
    m.write_pod(m.pods["client"])


def test_empty_folder_changes_nothing(m):
    """Suddenly empty, then away, also across a restart: an alarm, not an un-enrolment."""
    kept = {n: open(os.path.join(m.config, n)).read() for n in os.listdir(m.config)}
    for n in kept:
        os.unlink(os.path.join(m.config, n))
    time.sleep(1)
    c = m.capture()
    check(served_by(m), "services stay")
    m.agents[1].kill()
    m.agents[1].start()
    check(served_by(m), "also after a restart")
    c.stop()
    check(not [x for x in c.tcp() if x[3] in (7, 11)], "and nothing in plaintext")
    text = m.agents[1].ctl("-j", "config", "dump", check_rc=False).stdout + m.agents[1].ctl("-j", "status", check_rc=False).stdout + m.agents[1].text()
    check("empty" in text, "alarm", m.agents[1].text()[-500:])
    for n, text in kept.items():
        m.write(n, text)
    time.sleep(0.7)
    check(served_by(m), "the folder is back")


def test_two_pods_one_label_each_way(m):
    """A pod's own label wins over its namespace's."""
    p = m.pods["second"]
    m.enrol(p, False)
    eventually(lambda: '"second"' not in m.agents[2].ctl("-j", "pod", "list").stdout and "demo/second" not in m.agents[2].ctl("-j", "pod", "list").stdout, 15, "out by its own label")
    c = m.capture()
    check(served_by(m, port=11, address=p.ip), "reached in plaintext")
    c.stop()
    check([x for x in c.tcp() if x[2] == p.ip and x[3] == 11], "seen on the link")
    m.enrol(p, None)


class Solo:
    """An agent of a node of its own beside agent 1, without pods: what it says and does by itself."""

    def __init__(self, m, name):
        self.m, self.name, self.dir = m, "wr-%s-%s" % (m.id, name), os.path.join(m.dir, name)
        self.source = os.path.join(self.dir, "manifests")

    def arguments(self, *options):
        return [os.path.join(BUILD, "warren-agent"), "--node=" + self.name, "--source=dir:" + self.source,
                "--ca=dir:" + os.path.join(self.dir, "etc", "ca"), "--run-dir=" + os.path.join(self.dir, "var", "run"),
                "--access-log=off", "--drain=20s", "--readiness-port=0", *options]

    def start(self, *options, env=None):
        return Process(self.m, self.name, self.arguments(*options), netns=self.m.node_netns(1), env=env)

    def status(self):
        return run(os.path.join(BUILD, "warrenctl"), "--run-dir=" + os.path.join(self.dir, "var", "run"), "--node=" + self.name, "status",
                   check_rc=False)

    def up(self):
        return self.status().returncode == 0

    def manifest(self, node, netns=None):
        """One pod; of the mesh when its network namespace is named."""
        meta = {"name": "p", "namespace": "shop"}
        if netns:
            meta.update(labels={LABEL: "ambient"}, annotations={"warren.dev/netns": netns})
        os.makedirs(self.source, exist_ok=True)
        with open(os.path.join(self.source, "pod.yaml"), "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node}}, f)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_start_says_what_it_has(m):
    """Folders come with their parents; one line says who this is, with what and without what."""
    a = Solo(m, "line")
    a.manifest(a.name)
    p = a.start("--assume-missing=tcx,sockops", "--mesh-cidr=10.0.0.0/8")
    eventually(a.up, 10, "up")
    line = next(x for x in p.output().splitlines() if "warren 0" in x)
    for words in ("node " + a.name, "source dir:" + a.source, "made now", "captures 10.0.0.0/8", "workers: ", "no readiness port",
                  "tcx (assumed missing), sockops (assumed missing)"):
        check(words in line, "the line says %s" % words, line)
    check("without: tcx, sockops\n" in a.status().stdout, "and status what is missing", a.status().stdout)
    modes = [oct(mode(os.path.join(a.dir, d))) for d in ("etc", "etc/ca", "var", "var/run", "var/run/" + a.name)]
    check(modes == ["0o755", "0o700", "0o755", "0o755", "0o700"], "folders' modes", modes)
    start = time.monotonic()
    check(p.end() == 0 and time.monotonic() - start < 2, "with nothing to wait for it ends at once", time.monotonic() - start)
    check("no pod and no connection to wait for" in p.output() and "stay captured" not in p.output(), "and says so", p.output())
    p = a.start()
    eventually(a.up, 10, "up again")
    check("found there" in p.output() and "captures every address" in p.output(), "the CA's root is the old one", p.output())
    p.end()


def test_wrong_node_name_is_noticed(m):
    a = Solo(m, "typo")
    a.manifest("typing-error")
    p = a.start()
    eventually(a.up, 10, "up all the same")
    words = "none of the 1 pods in dir:%s has spec.nodeName %s (seen: typing-error)" % (a.source, a.name)
    check(words in p.output(), "warned", p.output())
    a.manifest("another-error")
    time.sleep(0.5)
    check(p.output().count("has spec.nodeName") == 1, "once", p.output())
    p.end()


def test_state_is_its_sources(m):
    """Another --source does not get the old one's pods; one that is not there yet is waited for."""
    a = Solo(m, "moved")
    a.manifest(a.name)
    p = a.start()
    eventually(lambda: "1 applied" in a.status().stdout, 10, "applied")
    p.end()
    first, a.source = a.source, os.path.join(a.dir, "later")
    p = a.start()
    p.wait_for("no configuration yet, waiting for " + a.source)
    time.sleep(0.3)
    check(not a.up() and " applied" not in a.status().stdout and "last configuration" not in p.output(), "nothing of the old one", p.output())
    os.makedirs(a.source)
    eventually(a.up, 5, "an empty folder is a configuration")
    check("empty all at once" not in p.output(), "and no alarm", p.output())
    p.end()
    a.source = first
    p = a.start()
    eventually(lambda: "1 applied" in a.status().stdout, 10, "the old one again")
    p.end()


def ready(m):
    r = run("nsenter", "--net=" + m.node_netns(1), "curl", "-s", "-m", "5", "-w", "|%{http_code}", "http://127.0.0.1:15022/healthz/ready", check_rc=False)
    return r.stdout.rpartition("|")[::2]


def test_up_is_said_everywhere(m):
    """Without configuration, and while a pod is not enrolled, neither status, nor 15021, nor systemd is told that it is up; then
    all of them are, and systemd of the end."""
    a = Solo(m, "notify")
    late = "/run/netns/wr-%s-late" % m.id
    os.makedirs(a.dir, exist_ok=True)
    # Names without a file are a network namespace's.
    with Namespace(m.node_netns(1)):
        sockets = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    for s, address in zip(sockets, (os.path.join(a.dir, "socket"), "\0warren-test-%s" % a.name)):
        with s:
            s.bind(address)
            s.settimeout(10)
            p = a.start("--readiness-port=15022", env={"NOTIFY_SOCKET": address.replace("\0", "@")})
            p.wait_for("no configuration yet")
            eventually(lambda: a.status().returncode == 1, 5, "it answers, and is not up")
            check(ready(m) == ("not ready, pending: source\n", "500"), "the probe is told what is missing", ready(m))
            a.manifest(a.name, late)
            eventually(lambda: "waiting for: p\n" in a.status().stdout, 5, "a pod whose namespace is not there")
            check(a.status().returncode == 1 and ready(m) == ("not ready, pending: p\n", "500"), "not up", a.status(), ready(m))
            check("up: " not in p.output() and not select.select([s], [], [], 0)[0], "nor for systemd", p.output())
            run("ip", "netns", "add", os.path.basename(late))
            run("ip", "-n", os.path.basename(late), "link", "set", "lo", "up")
            check(s.recv(100) == b"READY=1\n", "up")
            check(a.status().returncode == 0 and ready(m) == ("ready\n", "200"), "for all", a.status(), ready(m))
            p.signal(15)
            check(s.recv(100) == b"STOPPING=1\n", "and the end")
            p.signal(15)
            eventually(lambda: not p.running(), 10, "ends")
        run("ip", "netns", "del", os.path.basename(late))
        for path in (a.source, os.path.join(a.dir, "var")):
            shutil.rmtree(path)


def test_taken_port_ends_before_anything_began(m):
    """Agent 1 has 15021 in this namespace: advice, and neither READY nor a pod."""
    a = Solo(m, "port")
    a.manifest(a.name)
    os.makedirs(a.dir, exist_ok=True)
    path = os.path.join(a.dir, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.setblocking(False)
        p = a.start("--readiness-port=15021", env={"NOTIFY_SOCKET": path})
        eventually(lambda: not p.running(), 10, "ends")
        check(p.popen.returncode == 1, "exit 1", p.popen.returncode)
        check("--readiness-port: 15021: Address already in use; choose one with --readiness-port, 0 for none" in p.output(), "advice", p.output())
        try:
            got = s.recv(100)
        except BlockingIOError:
            got = b""
    check(not got and "up: " not in p.output(), "never up", got, p.output())
