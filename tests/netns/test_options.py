# SPDX-License-Identifier: Apache-2.0
"""Options where they take effect: given in a file and in the environment, what the logs, the model, the pins show of them."""
import json
import os
import re
import signal
import socket

from mesh import BPFFS, Mesh, check, eventually, run

FALLBACK = False
ENDS = ["src.addr", "src.workload", "src.namespace", "src.identity", "src.cluster", "dst.addr", "dst.hbone_addr", "dst.service", "dst.workload",
        "dst.namespace", "dst.identity", "dst.cluster", "direction"]
COUNTS = ["bytes_sent", "bytes_recv", "duration"]
HEAD = ["level", "time", "scope", "message"]


def setup():
    m = Mesh("options")
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.vips = m.service("server", {"app": "server"}, [("echo", 80, 7), ("uneven", 81, 20)])
    m.apply()
    m.pods["server"].serve("echo:7")
    path = os.path.join(m.dir, "agent.conf")
    with open(path, "w") as f:
        f.write("# both agents\ncluster-id = west\ncluster-domain = k8s.test  # not cluster.local\nnetwork = net-1\n\nworkers = 2\nlog = 'debug,json'\n")
    m.agents[1].options = ["--config=" + path]
    m.agents[2].env = {"WARREN_CLUSTER_ID": "west", "WARREN_CLUSTER_DOMAIN": "k8s.test", "WARREN_NETWORK": "net-1", "WARREN_WORKERS": "2",
                       "WARREN_LOG": "debug,json", "WARREN_DRAIN": "1h"}
    for a in m.agents.values():
        a.options = a.options + ["--access-log=%s,json" % a.access_log, "--drain=1s"]
    m.start_agents()
    return m


def echo(m, pod, address, port):
    """One connection with three bytes there and back; its source as the logs write it."""
    with m.pods[pod].connect(address, port) as s:
        s.sendall(b"abc")
        check(s.recv(3) == b"abc", "an echo")
        return "%s:%d" % s.getsockname()[:2]


def uneven(m):
    """Five bytes there and two back, through the Service."""
    with m.pods["server"].listen(20) as listener, m.pods["client"].connect(m.vips[0], 81) as s, listener.accept()[0] as app:
        s.sendall(b"12345")
        check(app.recv(5, socket.MSG_WAITALL) == b"12345", "there")
        app.sendall(b"ab")
        check(s.recv(2, socket.MSG_WAITALL) == b"ab", "and back")
        return "%s:%d" % s.getsockname()[:2]


def lines(m, node, source):
    return [x for x in m.agents[node].access() if x["src.addr"] == source]


def test_access_log_as_json(m):
    """ztunnel's fields in their order, dotted keys, counts as numbers; at the log level debug a line when it opens, too."""
    client, server = m.pods["client"], m.pods["server"]
    before = {n: len(a.access()) for n, a in m.agents.items()}
    source = uneven(m)
    for node, direction, sent, received in ((1, "outbound", 5, 2), (2, "inbound", 2, 5)):
        eventually(lambda: len(m.agents[node].access()) == before[node] + 2, 5, "opened and complete on node %d" % node)
        opened, done = m.agents[node].access()[-2:]
        # The far agent sees the tunnel's own port.
        check(opened["src.addr"] == done["src.addr"] and (done["src.addr"] == source or node == 2 and done["src.addr"].startswith(client.ip + ":")),
              "the caller", opened, done)
        check(list(opened) == HEAD + ENDS and list(done) == HEAD + ENDS + COUNTS, "fields and their order", list(opened), list(done))
        check((opened["level"], opened["message"]) == ("debug", "connection opened") and
              (done["level"], done["message"]) == ("info", "connection complete"), "which is which", opened, done)
        want = {"scope": "access", "src.workload": "client", "src.namespace": "demo", "src.identity": client.identity, "src.cluster": "west",
                "dst.addr": server.ip + ":15008", "dst.hbone_addr": server.ip + ":20", "dst.service": "server.demo.svc.k8s.test", "dst.workload": "server",
                "dst.namespace": "demo", "dst.identity": server.identity, "dst.cluster": "west", "direction": direction}
        check(want.items() <= opened.items() and want.items() <= done.items(), "their values", opened, done)
        check((done["bytes_sent"], done["bytes_recv"]) == (sent, received) and re.fullmatch(r"\d+ms", done["duration"]), "as the local app sees it", done)
        check(all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", x["time"]) for x in (opened, done)), "the time", opened, done)


def test_plaintext_has_no_identities(m):
    source = echo(m, "plain", m.pods["server"].ip, 7)
    eventually(lambda: len(lines(m, 2, source)) == 2, 5, "opened and complete")
    without = [k for k in ENDS if k not in ("src.identity", "dst.identity", "dst.hbone_addr")]
    check([list(x)[4:] for x in lines(m, 2, source)] == [without, without + COUNTS], "what mutual TLS did not prove is not said", lines(m, 2, source))
    check(lines(m, 2, source)[1]["dst.addr"] == m.pods["server"].ip + ":7", "no tunnel", lines(m, 2, source))


def test_log_as_json_and_its_level(m):
    for n, a in m.agents.items():
        rows = [json.loads(x) for x in a.text().splitlines()]
        check(rows and all(list(r) == ["time", "level", "scope", "message"] for r in rows), "each line of the log", a.text()[:600])
        check(any(r["message"].startswith("warren ") for r in rows), "what it says at the start", rows[:3])
        check(a.ctl("log", "level").stdout == "debug\n", "the level", n)
    try:
        m.agents[1].ctl("log", "level", "info")
        source = echo(m, "client", m.vips[0], 80)
        eventually(lambda: lines(m, 1, source), 5, "a line")
        check([x["message"] for x in lines(m, 1, source)] == ["connection complete"], "no opening any more", lines(m, 1, source))
    finally:
        m.agents[1].ctl("log", "level", "debug")


def test_same_by_file_and_environment(m):
    """An argument wins over both."""
    for n, a in m.agents.items():
        options = a.json("config", "dump")["options"]
        want = {"cluster-id": "west", "cluster-domain": "k8s.test", "network": "net-1", "workers": 2, "log": "debug,json", "drain": 1000}
        check(want.items() <= options.items(), "in force on node %d" % n, options)
        check(len(a.json("memory", "show")) == 2, "two workers")
        check(any(s["hostname"] == "server.demo.svc.k8s.test" for s in a.json("service", "list")), "the name of the Service")


def test_where_the_access_log_goes(m):
    """To stdout, to a file that is begun anew at SIGHUP, or nowhere."""
    agent = m.agents[1]
    old = agent.access_log + ".1"
    os.rename(agent.access_log, old)
    agent.process.signal(signal.SIGHUP)
    eventually(lambda: os.path.exists(agent.access_log), 5, "a new file")
    source = echo(m, "client", m.vips[0], 80)
    eventually(lambda: len(lines(m, 1, source)) == 2, 5, "written there")
    with open(old) as f:
        check(source not in f.read(), "not in the old one")
    try:
        for target, to_stdout in (("stdout", True), ("off", False)):
            agent.kill()
            size = os.path.getsize(agent.access_log)
            agent.start(extra=["--access-log=" + target])
            source = echo(m, "client", m.vips[0], 80)
            if to_stdout:
                eventually(lambda: "connection complete\tsrc.addr=%s " % source in agent.text(), 5, "on stdout, as text")
            else:
                eventually(lambda: not agent.json("connection", "list"), 5, "the connection is over")
            agent.stop()
            check((source in agent.text()) == to_stdout and os.path.getsize(agent.access_log) == size, "nowhere else", target)
    finally:
        agent.start()


def test_pin_dir(m):
    """A folder that is no BPF file system becomes one; the pins are there and nowhere else, also for warrenctl without an agent."""
    agent, folder = m.agents[1], os.path.join(m.dir, "bpf")
    usual = os.path.join(BPFFS, "warren", agent.name.replace(".", ":"))
    os.makedirs(folder)
    agent.kill()
    p = agent.start(wait=False, extra=["--pin-dir=/dev/null"])
    eventually(lambda: not p.running(), 10, "ends")
    check(p.popen.returncode == 1 and "/dev/null is not a bpffs and cannot be mounted" in p.output() and "run: mount -t bpf bpf /dev/null" in p.output(),
          "what to do is said", p.output())
    agent.ctl("pod", "release", "--all")
    try:
        agent.start(extra=["--pin-dir=" + folder])
        check(echo(m, "client", m.vips[0], 80), "meshed")
        with open("/proc/mounts") as f:
            check(any(x.split()[1:3] == [folder, "bpf"] for x in f), "mounted")
        check(os.listdir(os.path.join(folder, "warren")) == [os.path.basename(usual)] and not os.path.exists(usual), "the pins")
        agent.kill()
        r = agent.ctl("pod", "list", check_rc=False)
        check(r.returncode == 3 and not r.stdout, "none in the usual place", r)
        r = agent.ctl("--pin-dir=" + folder, "pod", "list")
        check(re.search(r"^demo +client +captured, no agent", r.stdout, re.M), "found there", r)
        agent.ctl("--pin-dir=" + folder, "pod", "release", "--all")
    finally:
        agent.kill()
        run("umount", folder, check_rc=False)
        agent.start()
