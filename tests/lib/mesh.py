# SPDX-License-Identifier: Apache-2.0
"""A mesh for tests and the demo: nodes and pods as network namespaces, real agents, real clients.

Enters: pods and services to make; leaves: a running topology with manifests, agents, captures. Called by tests/netns,
tests/interop, tests/lib/demo.py and tests/bench. Everything is named wr-<pid of the run>-..., so that two runs do not
meet and the next run can sweep what a killed one left behind.
"""
import atexit
import ctypes
import fcntl
import glob
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("WR_BUILD", "build"))
SCALE = float(os.environ.get("WR_SCALE", "1"))
SANITIZER = os.environ.get("WR_SAN", "")
STATE = "/run/warren-test"
BPFFS = "/sys/fs/bpf"
MESH_CIDRS = ["10.77.0.0/16", "10.96.0.0/16", "fd77::/16", "fd96::/16"]
LABEL = "istio.io/dataplane-mode"

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
CLONE_NEWNET = 0x40000000


class Failure(AssertionError):
    """A test did not see what it should."""


class Skip(Exception):
    """This machine cannot run the test; the text says why."""


def check(condition, text, *more):
    if not condition:
        raise Failure(text + "".join("\n    %s" % (m,) for m in more))


def scaled(number, least=1):
    return max(least, int(number * SCALE))


def eventually(what, seconds=5.0, text="condition", step=0.05):
    """Calls `what` until it gives something true; returns that."""
    end = time.monotonic() + seconds
    while True:
        got = what()
        if got:
            return got
        if time.monotonic() > end:
            raise Failure("not within %.1f s: %s (last: %r)" % (seconds, text, got))
        time.sleep(step)


def run(*args, check_rc=True, **kw):
    r = subprocess.run(args, capture_output=True, text=True, **kw)
    if check_rc and r.returncode:
        raise Failure("%s: exit %d: %s" % (" ".join(args), r.returncode, (r.stderr or r.stdout).strip()))
    return r


def _die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Namespace:
    """With this, the calling thread is in a network namespace; sockets made there stay there."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        r = libc.setns(fd, CLONE_NEWNET)
        os.close(fd)
        if r:
            os.close(self.back)
            raise OSError(ctypes.get_errno(), "setns " + self.path)

    def __exit__(self, *exc):
        libc.setns(self.back, CLONE_NEWNET)
        os.close(self.back)


def _alive(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return b"python" in f.read()
    except OSError:
        return False


def sweep():
    """Removes what runs that are dead left behind: processes, namespaces, pins, folders."""
    dead = set()
    for path in glob.glob("/run/netns/wr-*-*") + glob.glob(STATE + "/*") + glob.glob(BPFFS + "/warren/wr-*"):
        m = re.search(r"(?:wr-|/)(\d+)(?:-|$)", path[len(STATE):] if path.startswith(STATE) else os.path.basename(path))
        if m and not _alive(int(m.group(1))):
            dead.add(m.group(1))
    for number in dead:
        _remove_run(number)


def _remove_run(number, nodes=()):
    """nodes: names of nodes (and so of pin folders) that do not carry the run's number."""
    spaces = glob.glob("/run/netns/wr-%s-*" % number)
    inodes = set()
    for s in spaces:
        try:
            inodes.add(os.stat(s).st_ino)
        except OSError:
            pass
    for p in os.listdir("/proc"):
        if p.isdigit() and int(p) != os.getpid():
            try:
                if os.stat("/proc/%s/ns/net" % p).st_ino in inodes:
                    os.kill(int(p), signal.SIGKILL)
            except OSError:
                pass
    for s in spaces:
        subprocess.run(["ip", "netns", "del", os.path.basename(s)], capture_output=True)
    for d in glob.glob(BPFFS + "/warren/wr-%s-*" % number) + [BPFFS + "/warren/" + n for n in nodes]:
        shutil.rmtree(d, ignore_errors=True)
    for d in glob.glob(STATE + "/%s" % number) + glob.glob(STATE + "/%s-*" % number):
        shutil.rmtree(d, ignore_errors=True)


def hold():
    """While held, no run removes what all runs share; given back by let_go, or by the kernel when the holder is killed."""
    os.makedirs(STATE, exist_ok=True)
    fd = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def let_go(fd):
    """The last one to go removes the folder of pins that agents of all nodes share, if nothing is in it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(BPFFS + "/warren")
    except OSError:
        pass
    os.close(fd)


def mount_bpffs():
    with open("/proc/mounts") as f:
        if any(line.split()[1] == BPFFS and line.split()[2] == "bpf" for line in f):
            return
    run("mount", "-t", "bpf", "bpf", BPFFS)


class Process:
    """A child in a namespace with its output in a file; ended with the run whatever happens."""

    def __init__(self, mesh, name, args, netns=None, stdin=None, env=None):
        self.name = name
        self.log = os.path.join(mesh.dir, "%s.%d.log" % (name.replace("/", "_"), len(mesh.processes)))
        full = (["nsenter", "--net=" + netns] if netns else []) + list(args)
        environ = dict(os.environ, **env) if env else None
        with open(self.log, "wb") as f:
            self.popen = subprocess.Popen(full, stdout=f, stderr=subprocess.STDOUT, stdin=stdin or subprocess.DEVNULL,
                                          preexec_fn=_die_with_parent, env=environ, cwd=ROOT)
        mesh.processes.append(self)

    def output(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def wait_for(self, text, seconds=5.0):
        eventually(lambda: text in self.output() or self.popen.poll() is not None, seconds, "%s says %r" % (self.name, text))
        check(text in self.output(), "%s ended early" % self.name, self.output()[-2000:])

    def result(self, seconds=60.0):
        """The last JSON line of a traffic client."""
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure("%s: no end within %.0f s" % (self.name, seconds))
        lines = [line for line in self.output().splitlines() if line.startswith("{")]
        check(lines, "%s: no result (exit %s)" % (self.name, self.popen.returncode), self.output()[-1500:])
        return json.loads(lines[-1])

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def end(self, seconds=10.0):
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None


class Pod:
    def __init__(self, mesh, name, node, number, labels, account, enrolled, foreign, namespace):
        self.mesh, self.name, self.node, self.account, self.enrolled = mesh, name, node, account, enrolled
        self.namespace = namespace
        self.labels = dict(labels or {}, app=(labels or {}).get("app", name))
        self.foreign = foreign  # an address outside the mesh ranges, unknown to the manifests
        base = (192, 0, 2) if foreign else (10, 77, node)
        self.ip = "%d.%d.%d.%d" % (*base, number)
        self.ip6 = "2001:db8::%x" % number if foreign else "fd77:%x::%x" % (node, number)
        self.ns = "wr-%s-%s" % (mesh.id, name)
        self.netns = "/run/netns/" + self.ns
        self.veth = "v%d" % number
        self.annotations = {}
        self.spec = {}
        self.ready = True

    @property
    def identity(self):
        return "spiffe://%s/ns/%s/sa/%s" % (self.mesh.trust_domain, self.namespace, self.account)

    def address(self, family=4):
        return self.ip if family == 4 else self.ip6 if family == 6 else "::ffff:" + self.ip

    def inside(self):
        return Namespace(self.netns)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        with self.inside():
            return socket.socket(family, kind)

    def connect(self, address, port, timeout=10.0, source=None):
        s = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        s.settimeout(timeout)
        try:
            if source:
                s.bind((source, 0))
            s.connect((address, port))
        except BaseException:
            s.close()
            raise
        return s

    def listen(self, port, backlog=128):
        s = self.socket(socket.AF_INET6)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("::", port))
        s.listen(backlog)
        s.settimeout(20)
        return s

    def start(self, *args, name=None, **kw):
        return Process(self.mesh, name or self.name + "-" + os.path.basename(args[0]), args, netns=self.netns, **kw)

    def outcome(self, address, port=7, timeout=5.0):
        """"ok", "reset", "refused", "timeout" or "closed": what the app sees of one connection to an echo server."""
        try:
            with self.connect(address, port, timeout) as s:
                s.sendall(b"hello")
                return "ok" if s.recv(5) == b"hello" else "closed"
        except ConnectionResetError:
            return "reset"
        except ConnectionRefusedError:
            return "refused"
        except (socket.timeout, TimeoutError):
            return "timeout"

    def sh(self, *args, check_rc=True, **kw):
        return run("nsenter", "--net=" + self.netns, *args, check_rc=check_rc, **kw)

    def serve(self, *modes):
        p = self.start(self.mesh.traffic, "serve", *modes, name=self.name + "-server")
        p.wait_for("ready")
        return p

    def client(self, *args, name=None):
        return self.start(self.mesh.traffic, *[str(a) for a in args], name=name or "%s-%s" % (self.name, args[0]))

    def traffic(self, *args, seconds=120.0):
        return self.client(*args).result(seconds)

    def manifest(self):
        labels = dict(self.labels)
        if self.enrolled is not None:
            labels[LABEL] = "ambient" if self.enrolled else "none"
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.name, "namespace": self.namespace, "labels": labels,
                             "uid": "uid-%s-%s" % (self.mesh.id, self.name),
                             "annotations": dict({"warren.dev/netns": self.netns}, **self.annotations)},
                "spec": dict({"nodeName": self.mesh.node_name(self.node), "serviceAccountName": self.account,
                              "containers": [{"name": "app", "ports": [{"name": "main", "containerPort": 7}]}]}, **self.spec),
                "status": {"phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}, {"ip": self.ip6}],
                           "conditions": [{"type": "Ready", "status": "True" if self.ready else "False"}]}}


class Capture:
    """tcpdump on one interface of a node, packet by packet as tcpdump prints it, and the raw file for bytes."""

    def __init__(self, mesh, netns, interface, expression="tcp"):
        self.mesh = mesh
        self.path = os.path.join(mesh.dir, "capture.%d.pcap" % len(mesh.processes))
        self.process = Process(mesh, "tcpdump", ["tcpdump", "-Z", "root", "--immediate-mode", "-U", "-n", "-i", interface, "-B", "32768",
                                                 "-s", os.environ.get("WR_SNAPLEN", "256"), "-w", self.path] + expression.split(),
                               netns=netns)
        self.process.wait_for("listening on", 10)

    def stop(self):
        time.sleep(0.2)
        self.process.signal(signal.SIGINT)
        self.process.popen.wait(10)
        return self

    def packets(self, *filter_words):
        r = run("tcpdump", "-n", "-q", "-tt", "-r", self.path, *filter_words, check_rc=False)
        return [line for line in r.stdout.splitlines() if " IP" in line]

    def data(self):
        with open(self.path, "rb") as f:
            return f.read()

    def tcp(self):
        """(source, source port, destination, destination port, flags, payload bytes seen) of each TCP packet."""
        return list(pcap_tcp(self.data()))


def pcap_tcp(raw):
    at = 24
    while at + 16 <= len(raw):
        n = int.from_bytes(raw[at + 8:at + 12], "little")
        frame = raw[at + 16:at + 16 + n]
        at += 16 + n
        kind = int.from_bytes(frame[12:14], "big")
        if kind == 0x0800:
            ihl = (frame[14] & 15) * 4
            if frame[23] != 6:
                continue
            src, dst, tcp = ipaddress.ip_address(frame[26:30]), ipaddress.ip_address(frame[30:34]), frame[14 + ihl:]
            total = int.from_bytes(frame[16:18], "big")
            offset = int.from_bytes(frame[20:22], "big") & 0x1fff
            if offset:
                yield str(src), 0, str(dst), 0, -1, tcp
                continue
            length = total - ihl
        elif kind == 0x86dd:
            src, dst, tcp = ipaddress.ip_address(frame[22:38]), ipaddress.ip_address(frame[38:54]), frame[54:]
            length = int.from_bytes(frame[18:20], "big")
            kind, fragment = frame[20], False
            while kind in (0, 43, 44, 60) and len(tcp) >= 8:
                fragment = fragment or (kind == 44 and int.from_bytes(tcp[2:4], "big") & 0xfff8 != 0)
                size = 8 if kind == 44 else 8 + 8 * tcp[1]
                kind, tcp, length = tcp[0], tcp[size:], length - size
            if kind != 6:
                continue
            if fragment:
                yield str(src), 0, str(dst), 0, -1, tcp
                continue
        else:
            continue
        if len(tcp) < 20:
            continue
        off = (tcp[12] >> 4) * 4
        payload = tcp[off:length] if length else tcp[off:]
        yield (str(src), int.from_bytes(tcp[0:2], "big"), str(dst), int.from_bytes(tcp[2:4], "big"), tcp[13], payload)


class Agent:
    """One node's agent, started as a user would start it."""

    def __init__(self, mesh, node):
        self.mesh, self.node, self.process = mesh, node, None
        self.name = mesh.node_name(node)
        self.access_log = os.path.join(mesh.dir, "access.%d.log" % node)
        self.options = []
        self.env = {}
        self.limit_fds = None

    def arguments(self):
        assume = os.environ.get("WR_ASSUME_MISSING")
        return ([os.path.join(BUILD, "warren-agent"), "--node=" + self.name, "--source=dir:" + self.mesh.config,
                 "--ca=dir:" + self.mesh.ca, "--run-dir=" + self.mesh.run_dir,
                 "--mesh-cidr=" + ",".join(MESH_CIDRS), "--access-log=" + self.access_log] +
                (["--trust-domain=" + self.mesh.trust_domain] if self.mesh.trust_domain != "cluster.local" else []) +
                (["--assume-missing=" + assume] if assume else []) + self.mesh.agent_options + self.options)

    def start(self, wait=True, extra=()):
        args = self.arguments() + list(extra)
        if self.limit_fds:
            args = ["prlimit", "--nofile=%d" % self.limit_fds] + args
        self.process = Process(self.mesh, "agent-n%d" % self.node, args, netns=self.mesh.node_netns(self.node), env=self.env)
        if wait:
            self.wait_up()
        return self.process

    @property
    def pid(self):
        return self.process.popen.pid

    def up(self):
        return self.ctl("status", check_rc=False).returncode == 0

    def wait_up(self, seconds=None):
        seconds = seconds or (40 if SANITIZER else 15)
        eventually(lambda: self.up() or not self.process.running(), seconds, "agent of node %d up" % self.node)
        check(self.process.running(), "agent of node %d ended with %s" % (self.node, self.process.popen.returncode),
              self.process.output()[-3000:])

    def ctl(self, *args, check_rc=True):
        return run("nsenter", "--net=" + self.mesh.node_netns(self.node), os.environ.get("WR_CTL", os.path.join(BUILD, "warrenctl")),
                   "--run-dir=" + self.mesh.run_dir, "--node=" + self.name, *args, check_rc=check_rc, timeout=30)

    def json(self, *args):
        return json.loads(self.ctl("-j", *args).stdout)

    def access(self):
        """The access log's lines as dictionaries."""
        try:
            with open(self.access_log) as f:
                return [parse_access(line) for line in f if "\taccess\t" in line or line.startswith("{")]
        except FileNotFoundError:
            return []

    def text(self):
        return self.process.output() if self.process else ""

    def counters(self):
        """reason -> count over all pods of this node, as BPF counted."""
        total = {}
        for key, value in _reason_counts(self.json("bpf", "show")):
            total[key] = total.get(key, 0) + value
        return total

    def rss_kib(self):
        with open("/proc/%d/status" % self.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def kill(self):
        self.process.kill()

    def stop(self, seconds=20.0):
        """SIGTERM, at which an agent with pods waits for a successor, and again, at which it ends. Two that come before it
        looks are one: so it is said until it is done."""
        eventually(self._told_to_stop, seconds, "agent of node %d ends" % self.node, step=0.1)

    def _told_to_stop(self):
        self.process.signal(signal.SIGTERM)
        return not self.process.running()


REASONS = None


def reasons():
    """Names of the reasons, from the one table."""
    global REASONS
    if REASONS is None:
        with open(os.path.join(ROOT, "include/abi/reasons.h")) as f:
            REASONS = re.findall(r"X\(\w+, \"(\w+)\"", f.read())
    return REASONS


def _reason_counts(tree):
    if isinstance(tree, dict):
        name = tree.get("reason")
        count = next((tree[k] for k in ("count", "packets", "value") if isinstance(tree.get(k), int)), None)
        if name in reasons() and count is not None:
            yield name, count
            return
        for key, value in tree.items():
            if key in reasons() and isinstance(value, int):
                yield key, value
            else:
                yield from _reason_counts(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _reason_counts(item)


def parse_access(line):
    line = line.strip()
    if line.startswith("{"):
        return json.loads(line)
    head = line.split("\t")
    out = {"time": head[0], "level": head[1], "message": head[3] if len(head) > 3 else ""}
    for m in re.finditer(r"([a-z_.]+)=(\"(?:[^\"\\]|\\.)*\"|\S+)", line):
        out[m.group(1)] = m.group(2).strip('"')
    return out


class Mesh:
    """Two (or more) nodes, each a namespace with its pods' namespaces behind it, joined by links."""

    def __init__(self, name="m", nodes=2, namespace="demo", tag=None):
        self._hold = hold()
        sweep()
        mount_bpffs()
        self.id = self.run_id(tag)
        self.name, self.nodes, self.namespace = name, nodes, namespace
        self.trust_domain = "cluster.local"
        self.dir = os.path.join(STATE, self.id)
        self.config, self.ca, self.run_dir = (os.path.join(self.dir, d) for d in ("config", "ca", "run"))
        for d in (self.config, self.run_dir):
            os.makedirs(d, exist_ok=True)
        self.traffic = os.path.join(BUILD, "tests", "traffic")
        self.pods, self.services, self.processes, self.agents = {}, {}, [], {}
        self.agent_options = []
        self._closed = False
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, lambda n, f: sys.exit(128 + n))
        self._make_nodes()
        self.agents = {n: Agent(self, n) for n in range(1, nodes + 1)}

    def run_id(self, tag):
        return str(os.getpid()) if not tag else "%d-%s" % (os.getpid(), tag)

    def node_name(self, node):
        """With a dot, as clouds name their nodes."""
        return "wr-%s-n%d.test" % (self.id, node)

    def node_netns(self, node):
        return "/run/netns/wr-%s-n%d" % (self.id, node)

    def _node_ns(self, node):
        return os.path.basename(self.node_netns(node))

    def _batch(self, netns, lines):
        run("ip", *(["-n", netns] if netns else []), "-batch", "-", input="\n".join(lines) + "\n")

    def _sysctl(self, netns, *settings):
        code = "".join("echo %s > /proc/sys/%s;" % (v, k.replace(".", "/")) for k, v in (s.split("=") for s in settings))
        run("nsenter", "--net=/run/netns/" + netns, "sh", "-c", code)

    def _make_nodes(self):
        for n in range(1, self.nodes + 1):
            ns = self._node_ns(n)
            run("ip", "netns", "add", ns)
            self._sysctl(ns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0")
            self._batch(ns, ["link set lo up", "address add 10.77.%d.1/32 dev lo" % n,
                             "route add blackhole 10.96.0.0/16", "route add blackhole fd96::/16"])
        for a in range(1, self.nodes + 1):
            for b in range(a + 1, self.nodes + 1):
                left, right = self._node_ns(a), self._node_ns(b)
                run("ip", "link", "add", "to-n%d" % b, "netns", left, "type", "veth", "peer", "name", "to-n%d" % a, "netns", right)
                for me, other in ((a, b), (b, a)):
                    self._batch(self._node_ns(me), [
                        "link set to-n%d up" % other,
                        "address add 10.77.%d.%d/24 dev to-n%d" % (200 + 10 * a + b - 10, me, other),
                        "address add fd77:ff%d%d::%d/64 dev to-n%d nodad" % (a, b, me, other)])
                for me, other in ((a, b), (b, a)):
                    self._batch(self._node_ns(me), [
                        "route add 10.77.%d.0/24 via 10.77.%d.%d" % (other, 200 + 10 * a + b - 10, other),
                        "route add fd77:%x::/64 via fd77:ff%d%d::%d" % (other, a, b, other)])

    def link(self, a=1, b=2):
        """(namespace path, interface) of the link between two nodes, for a capture."""
        return self.node_netns(a), "to-n%d" % b

    def pod(self, name, node, labels=None, account=None, enrolled=None, foreign=False, known=True, ips=None, namespace=None):
        number = len(self.pods) + 10
        p = Pod(self, name, node, number, labels, account or name, enrolled, foreign, namespace or self.namespace)
        if ips:
            p.ip, p.ip6 = ips
        p.known = known and not foreign
        self.pods[name] = p
        self.make_pod_netns(p)
        return p

    def make_pod_netns(self, p):
        node = self._node_ns(p.node)
        run("ip", "netns", "add", p.ns)
        self._sysctl(p.ns, "net.ipv6.conf.default.accept_dad=0")
        run("ip", "link", "add", p.veth, "netns", node, "type", "veth", "peer", "name", "eth0", "netns", p.ns)
        self._batch(node, ["link set %s up" % p.veth, "address add fe80::1/64 dev %s nodad" % p.veth,
                           "route add %s/32 dev %s" % (p.ip, p.veth), "route add %s/128 dev %s" % (p.ip6, p.veth)])
        gateway = "10.77.%d.1" % p.node
        self._batch(p.ns, ["link set lo up", "link set eth0 up", "address add %s/32 dev eth0" % p.ip,
                           "address add %s/128 dev eth0 nodad" % p.ip6, "route add %s dev eth0" % gateway,
                           "route add default via %s dev eth0" % gateway, "route add default via fe80::1 dev eth0"])
        if p.foreign:
            for n in range(1, self.nodes + 1):
                if n != p.node:
                    a, b = sorted((n, p.node))
                    self._batch(self._node_ns(n), [
                        "route add %s via 10.77.%d.%d" % (p.ip, 200 + 10 * a + b - 10, p.node),
                        "route add %s via fd77:ff%d%d::%d" % (p.ip6, a, b, p.node)])

    def pod_without_agent(self, p):
        """Lists the pod on a node that nobody serves: the test itself plays the agent at its 15008."""
        p.known = False
        d = p.manifest()
        d["spec"]["nodeName"] = "a-node-without-agent"
        self.write("pod-%s.yaml" % p.name, d)

    def delete_pod_netns(self, p):
        run("ip", "netns", "del", p.ns)

    def service(self, name, selector, ports, **spec):
        """ports: list of (name, port, target port)."""
        number = len(self.services) + 10
        vips = ["10.96.0.%d" % number, "fd96::%x" % number]
        self.services[name] = {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": self.namespace},
            "spec": dict({"selector": selector, "clusterIP": vips[0], "clusterIPs": vips, "ipFamilies": ["IPv4", "IPv6"],
                          "ipFamilyPolicy": "RequireDualStack",
                          "ports": [{"name": n, "port": p, "targetPort": t, "protocol": "TCP"} for n, p, t in ports]}, **spec)}
        return vips

    def write(self, name, *documents):
        """One manifest file, replaced atomically, as an editor or kubelet would."""
        path = os.path.join(self.config, name)
        hidden = os.path.join(self.config, "." + name + ".tmp")
        with open(hidden, "w") as f:
            f.write("".join("---\n%s\n" % (d if isinstance(d, str) else json.dumps(d, indent=1)) for d in documents))
        os.rename(hidden, path)

    def apply(self, ambient=True):
        self.write("namespace.yaml", *[{"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": n, "labels": {LABEL: "ambient"} if ambient else {}}}
            for n in sorted({self.namespace} | {p.namespace for p in self.pods.values()})])
        self.write("services.yaml", *self.services.values())
        for p in self.pods.values():
            if p.known:
                self.write_pod(p)

    def write_pod(self, p):
        self.write("pod-%s.yaml" % p.name, p.manifest())

    def remove_manifest(self, name):
        os.unlink(os.path.join(self.config, name))

    def enrol(self, p, wanted):
        p.enrolled = wanted
        self.write_pod(p)

    def start_agents(self):
        for a in self.agents.values():
            if a.process is None or not a.process.running():
                a.start(wait=False)
        for a in self.agents.values():
            a.wait_up()

    def capture(self, a=1, b=2, expression="tcp"):
        return Capture(self, *self.link(a, b), expression)

    def capture_on(self, netns, interface, expression="tcp"):
        return Capture(self, netns, interface, expression)

    def logs(self):
        """The end of each agent's log, for a failed test."""
        out = []
        for n, a in self.agents.items():
            if a.process:
                text = a.text().splitlines()
                errors = [t for t in text if "\terror\t" in t.lower() or "Sanitizer" in t]
                out.append("agent n%d (%s):\n%s" % (n, "running" if a.process.running() else "ended %s" % a.process.popen.returncode,
                                                   "\n".join((errors[-8:] or text[-8:]))))
        return "\n".join(out)

    def close(self):
        if self._closed:
            return
        self._closed = True
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, signal.SIG_IGN)
        for p in self.processes:
            if p.running():
                p.signal(signal.SIGKILL)
        for p in self.processes:
            try:
                p.popen.wait(5)
            except subprocess.TimeoutExpired:
                pass
        if not os.environ.get("WR_KEEP_LOGS"):
            _remove_run(self.id)
        else:
            for s in glob.glob("/run/netns/wr-%s-*" % self.id):
                subprocess.run(["ip", "netns", "del", os.path.basename(s)], capture_output=True)
            for d in glob.glob(BPFFS + "/warren/wr-%s-*" % self.id):
                shutil.rmtree(d, ignore_errors=True)
        let_go(self._hold)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, lambda n, f: sys.exit(128 + n))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
