# SPDX-License-Identifier: Apache-2.0
"""Plaintext to a port whose mode is STRICT: refused by the kernel itself, with an agent and without one, told once."""
import ctypes
import errno
import os
import random
import socket
import sys
import time

from mesh import check, eventually, libc, Mesh, SANITIZER, scaled
from policies import Trace, authorization

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_leak import ip4, mac, syn  # noqa: E402

FALLBACK = True
APP, EXEMPT = 7, 11


def setup():
    m = Mesh("strict")
    m.agent_options = ["--on-agent-loss=open", "--drain=100ms"]
    m.pod("server", 1)
    m.pod("other", 1)
    m.pod("covered", 1)
    m.pod("meshed", 2)
    m.pod("plain", 2, enrolled=False)
    m.service("server", {"app": "server"}, [("echo", 80, APP)])
    m.apply()
    for name in "server", "other", "covered":
        m.pods[name].serve("echo:%d" % APP, "echo:%d" % EXEMPT)
    m.start_agents()
    return m


def authentication(m, mode, ports=None, pod="server"):
    spec = {"selector": {"matchLabels": {"app": pod}}, "mtls": {"mode": mode}}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": x} for port, x in ports.items()}
    m.write("authentication-%s.yaml" % pod, {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
                                             "metadata": {"name": pod, "namespace": m.namespace}, "spec": spec})


def kernel(m, name="server"):
    return next(p for p in m.agents[1].json("bpf")["pods"] if p["name"] == name)


def count(m, reason, name="server"):
    return kernel(m, name)["counters"].get(reason, 0)


def dial(m, caller, family=4, port=APP, to="server", timeout=5.0):
    """0 after an echo, or the error."""
    try:
        s = m.pods[caller].connect(m.pods[to].address(family), port, timeout)
    except socket.timeout:
        return errno.ETIMEDOUT
    except OSError as e:
        return e.errno
    with s:
        try:
            s.sendall(b"hello")
            return 0 if s.recv(5) else errno.ECONNRESET
        except OSError as e:
            return e.errno


def strict(m, ports=None):
    authentication(m, "STRICT", ports)
    exempt = {"%d:%d" % (kernel(m)["number"], port): "permissive" for port in ports or {}}
    eventually(lambda: kernel(m)["mtls"] == "strict" and m.agents[1].json("bpf")["port_modes"] == exempt, 5, "the kernel knows")


def test_refused_by_the_kernel(m):
    strict(m, {EXEMPT: "PERMISSIVE"})
    for family in 4, 6, 64:
        before = count(m, "mtls_required"), count(m, "captured_in")
        r = dial(m, "plain", family)
        check(r == errno.ECONNREFUSED, "a RST, family %d" % family, os.strerror(r))
        check((count(m, "mtls_required"), count(m, "captured_in")) == (before[0] + 1, before[1]), "counted, the agent never saw it")
        check(dial(m, "plain", family, EXEMPT) == 0, "the exempt port, family %d" % family)
        check(dial(m, "meshed", family) == 0, "by mutual TLS, family %d" % family)
        check(dial(m, "plain", family, to="other") == 0, "another pod, family %d" % family)


def lines(m):
    return [x for x in m.agents[1].access() if x.get("error", "").startswith("mtls_required") and x["dst.addr"].endswith(":%d" % APP)]


def test_one_line_for_each_caller(m):
    """And the number of those in between with the next one, ten seconds later."""
    strict(m)
    callers = [m.pod("caller%d" % i, 2, enrolled=False) for i in range(2)]
    for p in callers:
        m.write_pod(p)
    before = len(lines(m))
    for p in callers:
        for _ in range(3):
            r = dial(m, p.name)
            check(r == errno.ECONNREFUSED, "refused", os.strerror(r), kernel(m)["counters"])
    eventually(lambda: len(lines(m)) >= before + 2, 3, "a line for each")
    check(len(lines(m)) == before + 2, "and one only", lines(m)[before:])
    for p, line in zip(callers, lines(m)[before:]):
        check(line["src.addr"].startswith(p.ip + ":") and line["dst.addr"] == "%s:%d" % (m.pods["server"].ip, APP) and
              line["direction"] == "inbound", "who to whom", line)
    authentication(m, "STRICT", pod="other")
    eventually(lambda: kernel(m, "other")["mtls"] == "strict", 5, "another pod")
    check(dial(m, callers[0].name, to="other") == errno.ECONNREFUSED and count(m, "mtls_required", "other") == 1, "counted apart")
    eventually(lambda: lines(m)[before + 2:], 3, "and told apart")
    m.remove_manifest("authentication-other.yaml")
    before += 1
    time.sleep(10)
    check(dial(m, callers[0].name) == errno.ECONNREFUSED, "refused")
    eventually(lambda: len(lines(m)) > before + 2, 3, "a new line")
    check("2 more" in lines(m)[-1]["error"], "with the number that got none", lines(m)[-1])


def denied_once(m, pod, port=APP):
    """The access line, the trace record and the row of counters of one refusal; who is refused by whom is all that differs."""
    server, before, counts = m.pods["server"], len(lines(m)), verdicts(m)
    with Trace(m, 1) as t:
        check(pod.outcome(server.ip, port) in ("reset", "refused"), "refused")
        line = eventually(lambda: lines(m)[before:], 3, "the line")[0]
        record = eventually(lambda: t.rows("mtls_required"), 5, "the record")[0]
    row, = [k for k, n in verdicts(m).items() if n == counts.get(k, 0) + 1]
    check(line["src.addr"].startswith(pod.ip + ":") and record["src"].startswith(pod.ip + ":"), "of this caller", line, record)
    for k in "time", "src.addr", "duration":
        del line[k]
    for k in "time", "src", "seq":
        del record[k]
    return line, record, row


def verdicts(m):
    return {(r["outcome"], r.get("reason"), r["policy"], r.get("rule"), r.get("field")): r["count"] for r in m.agents[1].json("policy", "verdicts")}


def in_status(m):
    return m.agents[1].json("status")["counters"].get("mtls_required", 0)


def test_told_as_the_agent_tells_it(m):
    """Line, trace and counter are the same whoever refused: with too many ports for the kernel's map it is the agent."""
    callers = [m.pod("told%d" % i, 2, enrolled=False, known=False) for i in range(2)]
    strict(m)
    before, total = count(m, "mtls_required"), in_status(m)
    by_kernel = denied_once(m, callers[0])
    check(count(m, "mtls_required") == before + 1, "by the kernel")
    check(in_status(m) == total + 1, "in status, too", total, in_status(m))
    authentication(m, "STRICT", {port: "PERMISSIVE" for port in range(20000, 20000 + 16385)})
    eventually(lambda: kernel(m)["mtls"] == "permissive", 10 if not SANITIZER else 60, "the kernel leaves it to the agent")
    by_agent = denied_once(m, callers[1])
    check(count(m, "mtls_required") == before + 1, "by the agent")
    check(in_status(m) == total + 2, "and there both count", total, in_status(m))
    for what, a, b in zip(("line", "record", "counter"), by_kernel, by_agent):
        check(a == b, "the same " + what, a, b)
    line, record, row = by_kernel
    check(line["policy"] == "PeerAuthentication/demo/server" and line["policy.field"] == "spec.mtls.mode" and line["dst.service"].startswith("server."), "with all that decided", line)
    check(record["policy"] == line["policy"] and record["field"] == line["policy.field"], "also in the record", record)
    check(row[:3] == ("denied", "mtls_required", line["policy"]) and row[4] == line["policy.field"], "and by the counter", row)


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]


class Message(ctypes.Structure):
    """struct mmsghdr."""
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(IoVec)), ("iovlen", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int), ("sent", ctypes.c_uint)]


def sender(pod, packets):
    """Calls of it send all these IPv4 packets at once, as fast as the kernel takes them."""
    head = mac(pod.mesh.node_netns(pod.node), pod.veth) + mac(pod.netns, "eth0") + b"\x08\0"
    vectors = [IoVec(head + p, len(head + p)) for p in packets]
    messages = (Message * len(packets))(*(Message(iov=ctypes.pointer(v), iovlen=1) for v in vectors))
    with pod.inside():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        s.bind(("eth0", 0))
    return lambda: libc.sendmmsg(s.fileno(), messages, len(vectors), 0)


def cpu_seconds(agent):
    with open("/proc/%d/stat" % agent.pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_flood_of_syns(m):
    """From addresses that nobody has: the kernel answers, the agent and other pods hardly notice."""
    strict(m)
    a, client, server = m.agents[1], m.pods["meshed"], m.pods["server"]
    near = m.pod("flooder", 1, enrolled=False)
    random.seed(1)
    send = sender(near, [ip4(src, server.ip, syn(src, server.ip, 1024 + i, APP)) for i, src in
                         enumerate("198.18.%d.%d" % (random.randrange(256), random.randrange(1, 255)) for _ in range(1024))])
    calm = client.traffic("ping", m.pods["other"].ip, APP, 5000, 64)
    before, said, rss, cpu, start = count(m, "mtls_required"), len(lines(m)), a.rss_kib(), cpu_seconds(a), time.monotonic()
    pings = client.client("ping", m.pods["other"].ip, APP, 5000, 64)
    while time.monotonic() < start + scaled(2, 1):
        check(send() > 0, "sent")
    took, cpu = time.monotonic() - start, cpu_seconds(a) - cpu
    refused = count(m, "mtls_required") - before
    during = pings.result()
    check(refused > 1000 * took, "refused by the kernel", refused)
    check(during["ok"] and during["count"] == 5000, "another pod is served", during)
    check(cpu < took / 2, "the agent has little to do with it", cpu, took)
    check(SANITIZER or a.rss_kib() - rss < 16 * 1024, "nor keeps anything of it", a.rss_kib() - rss)
    check(len(lines(m)) - said < 3000 * (took + 1), "lines are bounded", len(lines(m)) - said)
    check(dial(m, "plain") == errno.ECONNREFUSED and dial(m, "meshed") == 0, "and all is as before")
    return "%d SYN/s, agent %.2f s of CPU in %.1f s, a round trip of others %.0f us, before %.0f us" % (
        refused / took, cpu, took, during["seconds"] * 200, calm["seconds"] * 200)


test_a_flood_of_syns.seconds = 90


def test_in_force_without_an_agent(m):
    """--on-agent-loss=open is for pods that no policy covers."""
    strict(m, {EXEMPT: "PERMISSIVE"})
    eventually(lambda: kernel(m)["on_agent_loss"] == "open, inbound closed by policy", 3, "inbound stays closed")
    m.agents[1].process.kill()
    try:
        for family in 4, 6:
            check(dial(m, "plain", family) == errno.ECONNREFUSED, "strict, family %d" % family)
            check(dial(m, "plain", family, EXEMPT, timeout=0.5) == errno.ETIMEDOUT, "the exempt port, family %d" % family)
            check(dial(m, "plain", family, to="other") == 0, "a pod without policy, family %d" % family)
    finally:
        m.agents[1].start()
    check(kernel(m)["mtls"] == "strict" and dial(m, "plain") == errno.ECONNREFUSED, "and after its return")


def test_any_policy_closes_without_an_agent(m):
    """Even one that allows everybody: nobody is there to judge by it."""
    m.write("everybody.yaml", authorization("everybody", rules=[{}], selector={"app": "covered"}))
    eventually(lambda: kernel(m, "covered")["on_agent_loss"] == "open, inbound closed by policy", 5, "the kernel knows")
    check(kernel(m, "covered")["mtls"] == "permissive" and dial(m, "plain", to="covered") == 0, "with an agent it is open")
    m.agents[1].process.kill()
    try:
        for family in 4, 6:
            check(dial(m, "plain", family, to="covered", timeout=0.5) == errno.ETIMEDOUT, "closed without, family %d" % family)
            check(dial(m, "plain", family, to="other") == 0, "a pod without policy, family %d" % family)
    finally:
        m.agents[1].start()
    check(dial(m, "plain", to="covered") == 0, "and open again")
    m.remove_manifest("everybody.yaml")
    eventually(lambda: kernel(m, "covered")["on_agent_loss"] == "open", 5, "the policy is gone")


def test_modes_follow_the_policy(m):
    for _ in range(5):
        strict(m)
        check(dial(m, "plain") == errno.ECONNREFUSED, "strict")
        authentication(m, "PERMISSIVE", {APP: "STRICT"})
        eventually(lambda: kernel(m)["mtls"] == "permissive", 5, "strict on one port")
        check(dial(m, "plain") == errno.ECONNREFUSED and dial(m, "plain", port=EXEMPT) == 0, "strict on one port")
        authentication(m, "PERMISSIVE")
        eventually(lambda: dial(m, "plain") == 0, 5, "permissive")
    m.remove_manifest("authentication-server.yaml")
    eventually(lambda: kernel(m)["on_agent_loss"] == "open", 5, "no policy is left")
    check(not m.agents[1].json("bpf")["port_modes"], "nor any port", m.agents[1].json("bpf")["port_modes"])
