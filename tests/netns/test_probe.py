# SPDX-License-Identifier: Apache-2.0
"""The kubelet's probes: known by the socket that opened them, not by an address. The node is a namespace, and whatever
process of it connects is the kubelet; without an agent everything else to the pod is closed. Without sockops nobody can
tell a probe: it is a caller like any other, carried by the agent, under policy, and closed where there is no agent."""
import errno
import os
import socket
import struct

from mesh import Mesh, Namespace, check, eventually, run
from policies import authorization, peer

FALLBACK = True
KNOWN = "sockops" not in os.environ.get("WR_ASSUME_MISSING", "")
PROBE = {"probe": 1} if KNOWN else {"captured_in": 1}
DECLARED, NAMED, UNDECLARED, STARTUP, LIFECYCLE = 7, 13, 11, 17, 19
PROBED = (DECLARED, NAMED, STARTUP, LIFECYCLE)
NODE = "10.77.1.1"
CGROUP = "/sys/fs/cgroup/unified"


def setup():
    m = Mesh("probe")
    m.agent_options = ["--drain=100ms"]
    p = m.pod("server", 1)
    p.spec = {"containers": [{"name": "app", "ports": [{"name": "main", "containerPort": DECLARED}, {"name": "health", "containerPort": NAMED},
                                                       {"name": "other", "containerPort": UNDECLARED}],
                              "livenessProbe": {"tcpSocket": {"port": DECLARED}},
                              "readinessProbe": {"httpGet": {"port": "health", "path": "/"}},
                              "startupProbe": {"grpc": {"port": STARTUP}}, "lifecycle": {"preStop": {"httpGet": {"port": LIFECYCLE}}}}]}
    m.pod("outside", 2, foreign=True)
    m.apply()
    p.serve(*("echo:%d" % port for port in PROBED + (UNDECLARED,)))
    m.start_agents()
    return m


def probe(m, port, family=4, timeout=1.0):
    """What a process of the node sees: 0 after an echo, or the error."""
    p = m.pods["server"]
    with Namespace(m.node_netns(1)):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    s.settimeout(timeout)
    try:
        s.connect((p.address(family), port))
        s.sendall(b"alive?")
        return 0 if s.recv(6) else errno.ECONNRESET
    except socket.timeout:
        return errno.ETIMEDOUT
    except OSError as e:
        return e.errno
    finally:
        s.close()


def counters(m):
    return {"probe": 0, "captured_in": 0, "drop_agent_gone": 0, "mtls_required": 0, **m.agents[1].json("bpf")["pods"][0]["counters"]}


def counted(m, what):
    """How far the counters go up by it, and its result."""
    before = counters(m)
    r = what()
    after = counters(m)
    return r, {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}


def test_a_probe_goes_to_the_app(m):
    logged = len(m.agents[1].access())
    for port in PROBED:
        for family in 4, 6, 64:
            r, n = counted(m, lambda: probe(m, port, family))
            check(r == 0 and n == PROBE, "port %d, family %d" % (port, family), os.strerror(r), n)
    eventually(lambda: len(m.agents[1].access()) == logged + (0 if KNOWN else 3 * len(PROBED)), 3, "the agent has a part in it only where it must")


def test_a_probe_passes_every_policy(m):
    """Mutual TLS demanded, nobody allowed, and closed for a policy that never was valid: the probes alone get through."""
    for what, document, others, way in (("STRICT", peer("STRICT"), errno.ECONNREFUSED, "mtls_required"),
                                        ("no ALLOW", authorization("nothing", rules=[]), errno.ECONNRESET, "captured_in"),
                                        ("DENY", authorization("everybody", "DENY", [{}]), errno.ECONNRESET, "captured_in"),
                                        ("closed", authorization("never", "ALOW", [{}]), errno.ECONNRESET, "captured_in")):
        m.write("policies.yaml", document)
        try:
            eventually(lambda: probe(m, UNDECLARED) == others, 5, what + ": in force")
            for family in 4, 6, 64:
                for port in PROBED:
                    r, n = counted(m, lambda: probe(m, port, family))
                    check((r, n) == ((0, PROBE) if KNOWN else (others, {way: 1})), "%s: a probe of port %d, family %d" % (what, port, family), os.strerror(r), n)
                r, n = counted(m, lambda: probe(m, UNDECLARED, family))
                check(r == others and n == {way: 1}, "%s: another port, family %d" % (what, family), os.strerror(r), n)
        finally:
            m.remove_manifest("policies.yaml")
        eventually(lambda: probe(m, UNDECLARED) == 0, 5, what + ": gone")


def test_a_probe_is_not_unmanaged(m):
    """It is not older than enrolment, though the agent does not carry it either: close --unmanaged leaves it alone."""
    with Namespace(m.node_netns(1)):
        s = socket.socket()
    with s:
        s.settimeout(3)
        s.connect((m.pods["server"].ip, DECLARED))
        s.sendall(b"x")
        check(s.recv(1) == b"x", "open")
        check(m.agents[1].json("connection", "unmanaged") == [], "not in the list", m.agents[1].json("connection", "unmanaged"))
        m.agents[1].ctl("connection", "close", "--unmanaged")
        s.sendall(b"y")
        check(s.recv(1) == b"y", "it goes on")


def test_another_port_goes_to_the_agent(m):
    for family in 4, 6, 64:
        r, n = counted(m, lambda: probe(m, UNDECLARED, family))
        check(r == 0 and n == {"captured_in": 1}, "family %d" % family, os.strerror(r), n)


class agent_gone:
    def __init__(self, m, *extra):
        self.agent, self.extra = m.agents[1], extra

    def __enter__(self):
        self.agent.process.kill()

    def __exit__(self, *exc):
        self.agent.start(extra=self.extra)


def closed(m, port, family=4):
    r, n = counted(m, lambda: probe(m, port, family, 0.5))
    check(r == errno.ETIMEDOUT and set(n) == {"drop_agent_gone"}, "closed without an agent: port %d, family %d" % (port, family), os.strerror(r), n)


def open_if_known(m, family=4):
    """Without an agent: a probe."""
    if not KNOWN:
        closed(m, DECLARED, family)
        return
    r, n = counted(m, lambda: probe(m, DECLARED, family))
    check(r == 0 and n == PROBE, "a probe, family %d" % family, os.strerror(r), n)


def test_without_an_agent(m):
    with agent_gone(m):
        for family in 4, 6, 64:
            open_if_known(m, family)
            closed(m, UNDECLARED, family)


def syn_of_nobody(m, port):
    """A SYN with the node's address that no socket of the node has sent, as of somebody who is masqueraded; whether the app answers."""
    p, source = m.pods["server"], NODE
    header = struct.pack("!HHIIBBHHH", 45678, port, 1, 0, 5 << 4, 2, 65535, 0, 0)
    whole = socket.inet_aton(source) + socket.inet_aton(p.ip) + struct.pack("!HH", 6, 20) + header
    total = sum(struct.unpack("!%dH" % (len(whole) // 2), whole))
    total = (total & 0xffff) + (total >> 16)
    header = header[:16] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + header[18:]
    with Namespace(m.node_netns(1)):
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with s:
        s.settimeout(0.5)
        s.bind((source, 0))
        s.sendto(header, (p.ip, 0))
        try:
            while True:
                got = s.recv(200)
                if got[20:24] == struct.pack("!HH", port, 45678) and got[33] & 2:
                    return True
        except socket.timeout:
            return False


def test_the_address_alone_does_not_pass(m):
    answered, n = counted(m, lambda: syn_of_nobody(m, DECLARED))
    check(answered and n == {"captured_in": 1}, "the agent answers", answered, n)
    with agent_gone(m):
        answered, n = counted(m, lambda: syn_of_nobody(m, DECLARED))
        check(not answered and n == {"drop_agent_gone": 1}, "nobody answers", answered, n)
        open_if_known(m)


def test_masqueraded_traffic_does_not_pass(m):
    """From outside, with the node's address by the node's own NAT: the agent's, as any other caller; and closed without one."""
    outside, server = m.pods["outside"], m.pods["server"]
    run("nsenter", "--net=" + m.node_netns(1), "nft", "add table ip wr; add chain ip wr out { type nat hook postrouting priority 100; }; "
        "add rule ip wr out ip saddr %s ip daddr %s snat to %s" % (outside.ip, server.ip, NODE))
    try:
        r, n = counted(m, lambda: outside.outcome(server.ip, DECLARED))
        check(r == "ok" and n == {"captured_in": 1}, "by the agent", r, n)
        line = eventually(lambda: [x for x in m.agents[1].access() if x["src.addr"].startswith(NODE + ":") and x["dst.addr"] == "%s:%d" % (server.ip, DECLARED)], 3, "logged")
        check(line[-1]["direction"] == "inbound", "with the node's address", line[-1])
        m.write("policies.yaml", peer("STRICT"))
        eventually(lambda: probe(m, UNDECLARED) == errno.ECONNREFUSED, 5, "STRICT")
        r, n = counted(m, lambda: outside.outcome(server.ip, DECLARED))
        check(r == "refused" and n == {"mtls_required": 1}, "refused", r, n)
        check(probe(m, DECLARED) == (0 if KNOWN else errno.ECONNREFUSED), "while a probe passes that is known as one")
        m.remove_manifest("policies.yaml")
        eventually(lambda: probe(m, UNDECLARED) == 0, 5, "as before")
        with agent_gone(m):
            r, n = counted(m, lambda: outside.outcome(server.ip, DECLARED, 0.5))
            check(r == "timeout" and set(n) == {"drop_agent_gone"}, "closed", r, n)
    finally:
        run("nsenter", "--net=" + m.node_netns(1), "nft", "delete table ip wr")


class cgroup:
    """With this, this process is in a cgroup of the given name."""

    def __init__(self, *names):
        self.paths = [os.path.join(CGROUP, *names[:n + 1]) for n in range(len(names))]

    def __enter__(self):
        with open("/proc/self/cgroup") as f:
            self.back = CGROUP + next(line for line in f if line.startswith("0::"))[3:].strip()
        for p in self.paths:
            os.mkdir(p)
        self.move(self.paths[-1])

    def move(self, to):
        with open(to + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))

    def __exit__(self, *exc):
        self.move(self.back)
        for p in reversed(self.paths):
            os.rmdir(p)


def test_a_pod_in_the_nodes_namespace_does_not_pass(m):
    number = os.getpid()
    with cgroup("kubepods.wr-%d" % number, "burstable", "pod1"):
        r, n = counted(m, lambda: probe(m, DECLARED))
    check(r == 0 and n == {"captured_in": 1}, "by the agent, as from everybody", os.strerror(r), n)
    with agent_gone(m):
        with cgroup("kubepods.wr-%d" % number, "burstable", "pod1"):
            closed(m, DECLARED)
        with cgroup("wr-system-%d" % number):
            open_if_known(m)


def test_ports_follow_the_manifest(m):
    p = m.pods["server"]
    c = p.spec["containers"][0]
    kept = c.pop("livenessProbe")
    m.write_pod(p)
    eventually(lambda: counted(m, lambda: probe(m, DECLARED))[1] == {"captured_in": 1}, 5, "no more a probe's")
    check(counted(m, lambda: probe(m, NAMED))[1] == PROBE, "the other one is")
    c["livenessProbe"] = kept
    m.write_pod(p)
    eventually(lambda: counted(m, lambda: probe(m, DECLARED))[1] == PROBE, 5, "again")


def test_every_socket_of_the_node(m):
    a = m.agents[1]
    a.process.end()
    a.start(extra=["--probe-exemption=node-sockets"])
    r, n = counted(m, lambda: probe(m, UNDECLARED))
    check(r == 0 and n == PROBE, "any port", os.strerror(r), n)
    with cgroup("kubepods.wr-%d" % os.getpid(), "burstable", "pod1"):
        r, n = counted(m, lambda: probe(m, UNDECLARED))
    check(r == 0 and n == PROBE, "a hostNetwork pod's, too", os.strerror(r), n)
    answered, n = counted(m, lambda: syn_of_nobody(m, UNDECLARED))
    check(answered and n == {"captured_in": 1}, "but not any packet", n)
    a.process.end()
    a.start()
    check(counted(m, lambda: probe(m, UNDECLARED))[1] == {"captured_in": 1}, "as before")


def test_what_people_see(m):
    p, a = m.pods["server"], m.agents[1]
    dump = a.json("bpf")
    check(dump["probe_ports"] == {"%s:%d" % (ip, port): 1 for ip in (p.ip, "[%s]" % p.ip6) for port in PROBED}, "ports", dump["probe_ports"])
    text = a.ctl("bpf", "show").stdout
    check("\t%s:%d  pod 1\n" % (p.ip, NAMED) in text, "as text", text[-1500:])


def test_without_sockops(m):
    """It goes the way of everybody, and doctor says so; with sockops again it is known again."""
    a = m.agents[1]
    a.process.end()
    a.start(extra=["--assume-missing=sockops"])
    r, n = counted(m, lambda: probe(m, DECLARED))
    check(r == 0 and n == {"captured_in": 1}, "by the agent", os.strerror(r), n)
    said = [x for x in a.json("doctor") if x["name"] == "sockops"]
    check(said and not said[0]["present"] and "probes are subject to policy" in said[0]["needed_for"], "the doctor says so", said)
    check("sockops: the kernel has it, the node's agent goes without" in a.ctl("doctor").stdout, "and why", a.ctl("doctor").stdout)
    a.process.end()
    a.start()
    check(counted(m, lambda: probe(m, DECLARED))[1] == PROBE, "back")
    check([x["present"] for x in a.json("doctor") if x["name"] == "sockops"] == [KNOWN], "and the doctor says so")
