#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make demo`: two nodes and four pods from deploy/samples, real agents, real traffic, and what happened on one screen.

Enters: the manifests; leaves: text on stdout, nothing on the machine. What is printed is read from the access logs, from
warrenctl and from a capture of the link between the nodes. `--shell` (make demo-shell) leaves it running under a shell, or
without a terminal until it is told to end.
"""
import collections
import contextlib
import glob
import ipaddress
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import yaml  # noqa: E402
import mesh  # noqa: E402
from mesh import ROOT, Mesh, run  # noqa: E402

SAMPLES = os.path.join(ROOT, "deploy", "samples")
BULK = 128 << 20
REQUESTS = 20
WIDTH = 80
WEB = """
import http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("hello from %s to %s\\n" % (sys.argv[1], self.client_address[0].replace("::ffff:", ""))).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
s = Server(("::", int(sys.argv[2])), Handler)
print("ready", flush=True)
s.serve_forever()
"""


class Demo(Mesh):
    """The mesh with the names that the sample manifests use."""

    def __init__(self):
        pid_file = os.path.join(mesh.STATE, "demo", "pid")
        try:
            with open(pid_file) as f:
                other = int(f.read() or 0)
            if other and mesh._alive(other):
                sys.exit("demo: already running (pid %d)" % other)
        except (OSError, ValueError):
            pass
        self.clean()
        super().__init__("demo", tag="demo")

    def run_id(self, tag):
        return "demo"

    def node_name(self, node):
        return "node-%d" % node

    def node_netns(self, node):
        return "/run/netns/wr-demo-node-%d" % node

    @staticmethod
    def clean():
        mesh._remove_run("demo", ["node-1", "node-2"])

    def close(self):
        if not self._closed:
            self.clean()
            super().close()


def say(text=""):
    """A line for a terminal: of its width, and without what others could have put into names and bytes to command it."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    for line in textwrap.wrap(text, WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False) or [""]:
        print(line.rstrip())


def documents():
    for path in sorted(glob.glob(SAMPLES + "/*.yaml")):
        with open(path) as f:
            for d in yaml.safe_load_all(f):
                if d:
                    yield d


def build(m):
    """Namespaces and links for the pods that the manifests name; the manifests themselves are copied as they are."""
    for d in documents():
        if d["kind"] != "Pod":
            continue
        ips = [x["ip"] for x in d["status"]["podIPs"]]
        name = os.path.basename(d["metadata"]["annotations"]["warren.dev/netns"])[len("wr-demo-"):]
        m.pod(name, int(d["spec"]["nodeName"].split("-")[1]), ips=ips, account=d["spec"]["serviceAccountName"])
    for path in glob.glob(SAMPLES + "/*.yaml"):
        with open(path) as f:
            m.write(os.path.basename(path), f.read())
    with open(os.path.join(m.dir, "pid"), "w") as f:
        f.write(str(os.getpid()))


def serve(m):
    ready = []
    for name in ("web-v1", "web-v2"):
        ready.append(m.pods[name].start("/usr/bin/python3", "-c", WEB, name, "8080", name=name + "-http"))
        m.pods[name].serve("duplex:9000")
    for p in ready:
        p.wait_for("ready", 10)


def curl(pod, url):
    return pod.sh("curl", "-sS", "-m", "10", url, check_rc=False)


def traffic(m, vip, vip6):
    sleep, legacy, web = m.pods["sleep"], m.pods["legacy"], m.pods["web-v1"]
    answers = collections.Counter()
    for i in range(REQUESTS):
        r = curl(sleep, "http://%s/" % (vip if i % 4 else "[%s]" % vip6))
        answers[re.sub(r"hello from (\S+) .*", r"\1", r.stdout.strip()) if r.returncode == 0 else r.stderr.strip()] += 1
    lines = [("sleep", "%d times curl http://%s/ or http://[%s]/ (Service web)" % (REQUESTS, vip, vip6),
              ", ".join("%s %d" % x for x in sorted(answers.items())))]
    b = sleep.traffic("bulk", vip, 9000, BULK, BULK)
    lines.append(("sleep", "%d MiB each way through Service web, port 9000" % (BULK >> 20),
                  "hashes equal, %.1f Gbit/s" % (2 * BULK * 8 / 1e9 / b["seconds"]) if b["ok"] else "FAILED: " + b["error"]))
    r = curl(legacy, "http://%s:8080/" % web.ip)
    lines.append(("legacy", "curl http://%s:8080/ (web-v1), not in the mesh" % web.ip, (r.stdout or r.stderr).strip()))
    ok = b["ok"] and sum(v for k, v in answers.items() if k in ("web-v1", "web-v2")) == REQUESTS and r.returncode == 0
    return lines, ok


def short(identity):
    return identity.replace("spiffe://", "") if identity else "-"


def account(identity):
    """namespace/account of an identity of this mesh."""
    return re.sub(r"^spiffe://cluster\.local/ns/([^/]+)/sa/", r"\1/", identity)


def host_port(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def names(m):
    return {str(ipaddress.ip_address(a)): p.name for p in m.pods.values() for a in (p.ip, p.ip6)}


def who(m, line):
    """One side and the other, the same from either end of a tunnel."""
    src = host_port(line.get("src.addr", "?:"))[0]
    name = line.get("src.workload") or names(m).get(src, "?")
    port = host_port(line.get("dst.hbone_addr", line.get("dst.addr", "?:")))[1]
    there = "%s:%s" % (line.get("dst.workload") or "?", port)
    if not (line.get("src.identity") and line.get("dst.identity")):
        return "%s (%s), plaintext -> %s" % (name, src, there)
    return "%s (%s) -> %s (%s)" % (name, account(line["src.identity"]), there, account(line["dst.identity"]))


def conversations(m):
    """(who talked to whom on which port, error) -> node -> [connections, bytes]; from both access logs."""
    seen = collections.defaultdict(dict)
    for n, a in m.agents.items():
        for line in a.access():
            if "direction" in line:
                c = seen[who(m, line), line.get("error", "")].setdefault(m.node_name(n), [0, 0])
                c[0] += 1
                c[1] += int(line.get("bytes_sent", 0)) + int(line.get("bytes_recv", 0))
    return sorted(seen.items())


def logs_agree(nodes):
    """Both ends of a tunnel wrote down the same connections and bytes."""
    return len({tuple(c) for c in nodes.values()}) == 1


def settled(m):
    """The last connections are in the logs."""
    return all(logs_agree(nodes) and ("plaintext" in text or len(nodes) == 2) for (text, _), nodes in conversations(m))


def tls_version(payload):
    """The version that a ServerHello settles on, read from its bytes (RFC 8446 4.1.3, 4.2.1)."""
    # Ciphertext in the middle of a record can look like any two bytes: both legacy versions and the lengths must fit, too.
    if len(payload) < 44 or payload[0] != 22 or payload[5] != 2 or payload[1] != 3 or payload[9] != 3 or payload[6] != 0 \
            or int.from_bytes(payload[7:9], "big") + 4 > int.from_bytes(payload[3:5], "big"):
        return None
    at = 5 + 4 + 2 + 32
    at += 1 + payload[at] + 3
    end = min(len(payload), at + 2 + int.from_bytes(payload[at:at + 2], "big"))
    at += 2
    while at + 4 <= end:
        kind, size = int.from_bytes(payload[at:at + 2], "big"), int.from_bytes(payload[at + 2:at + 4], "big")
        if kind == 43:
            return {0x0304: "TLS 1.3", 0x0303: "TLS 1.2"}.get(int.from_bytes(payload[at + 4:at + 6], "big"))
        at += 4 + size
    return "TLS 1.2 or older"


def wire(m, capture):
    """(client, server, port) -> packets, versions seen, first readable words; from the capture's bytes."""
    called = names(m)
    flows, servers = {}, {}
    for src, sport, dst, dport, flags, payload in capture.tcp():
        if flags & 0x12 == 0x02:
            servers[(src, sport, dst, dport)] = (src, dst, dport)
        forward = servers.get((src, sport, dst, dport))
        key = forward or servers.get((dst, dport, src, sport)) or (src, dst, dport)
        f = flows.setdefault((called.get(key[0], key[0]), called.get(key[1], key[1]), key[2]), {"packets": 0, "tls": set(), "clear": "", "flows": set()})
        f["packets"] += 1
        f["flows"].add(frozenset(((src, sport), (dst, dport))))
        version = tls_version(payload)
        if version:
            f["tls"].add(version)
        elif forward and payload and not f["clear"] and re.match(rb"[\x20-\x7e]{8}", payload):
            f["clear"] = payload.split(b"\r\n")[0].decode(errors="replace")[:40]
    return flows


def show_pods(m):
    """Rows of `warrenctl pod list` of both nodes, and the pods that neither lists. The names of the former."""
    rows, listed = [], set()
    for n, a in m.agents.items():
        for p in a.json("pod", "list"):
            listed.add(p["name"])
            rows.append((m.node_name(n), p["name"], p["state"], short(p.get("identity") or p.get("reason"))))
    rows += [(m.node_name(p.node), p.name, "not in mesh", "") for p in m.pods.values() if p.name not in listed]
    say("PODS (warrenctl pod list, on both nodes)")
    for node, name, state, identity in sorted(rows):
        say("  %-7s %-7s %-12s %-11s %s" % (node, name, state, m.pods[name].ip if name in m.pods else "", identity))
    return listed


def show_conversations(m):
    """Whether the two logs, each written by one end, tell the same."""
    say("WHO TALKED TO WHOM (access logs; namespace/account: proved by certificate)")
    rows = conversations(m)
    width = max((len(text) for (text, _), _ in rows), default=0)
    for (text, error), nodes in rows:
        count, size = max(nodes.values())
        seen = "both logs" if len(nodes) > 1 else "log of " + "".join(nodes)
        if not logs_agree(nodes):
            seen = "LOGS DIFFER: " + ", ".join("%s %d conn, %d B" % (n, *c) for n, c in sorted(nodes.items()))
        say("  %-*s %3d conn %8s  %s%s" % (width, text, count, human(size), seen, "  " + error if error else ""))
    return settled(m)


def show_wire(m, capture, members):
    say("WHAT CROSSED THE LINK BETWEEN THE NODES (tcpdump)")
    flows = wire(m, capture)
    ok = bool(flows)
    for (src, dst, port), f in sorted(flows.items()):
        how = " ".join(sorted(f["tls"])) or ('plaintext: "%s"' % f["clear"] if f["clear"] else "no readable bytes")
        say("  %-7s -> %-7s port %-5d  %d conn, %d packets, %s" % (src, dst, port, len(f["flows"]), f["packets"], how))
        if src in members and dst in members:
            ok = ok and port == 15008 and f["tls"] == {"TLS 1.3"}
    say("  Between enrolled pods: %s." % ("only port 15008, only TLS 1.3" if ok else "NOT only port 15008 with TLS 1.3"))
    return ok


def show(m, lines, capture, started):
    say("Warren: two nodes, %d pods as network namespaces (deploy/samples); took %.1f s" % (len(m.pods), time.monotonic() - started))
    say()
    listed = show_pods(m)
    say()
    say("WHAT WAS RUN")
    for pod, what, answer in lines:
        say("  %-7s %s" % (pod, what))
        say("          %s" % answer)
    say()
    ok = show_conversations(m)
    say()
    return show_wire(m, capture, {p.name for p in m.pods.values()} & listed) and ok


def human(n):
    return "%d B" % n if n < 10240 else "%.0f KiB" % (n / 1024) if n < 10 << 20 else "%.0f MiB" % (n / (1 << 20))


# --- left running ---

def environment(m):
    """What makes `warrenctl pod list` work as typed."""
    return {"PATH": mesh.BUILD + os.pathsep + os.environ.get("PATH", os.defpath), "WARREN_RUN_DIR": m.run_dir, "WARREN_NODE": m.node_name(1)}


def hints(m, here):
    """Commands that work as printed, from any folder. They are not wrapped: somebody copies them."""
    set_up = "export PATH=%s:$PATH WARREN_RUN_DIR=%s WARREN_NODE=%s" % tuple(shlex.quote(v) for v in (mesh.BUILD, m.run_dir, m.node_name(1)))
    print("\nStill running. %s" % ("In this shell:" if here else "In a shell:\n  " + set_up))
    for command in ["warrenctl status", "warrenctl --node=%s pod list" % m.node_name(2), "warrenctl help", "warrenctl prove sleep",
                    "warrenctl --node=%s policy check --from=demo/sleep --to=demo/web-v1:8080" % m.node_name(2),
                    "nsenter --net=%s curl http://10.96.0.10/" % m.pods["sleep"].netns,
                    "nsenter --net=%s tcpdump -ni to-n2 tcp" % m.node_netns(1),
                    "tail -f %s" % " ".join(a.access_log for a in m.agents.values())]:
        print("  " + command)
    print("Edit %s/legacy.yaml, for example its label, or put a policy beside it." % m.config)
    if here:
        print("In another shell first:\n  %s\n`exit` ends the demo." % set_up)
    else:
        print("SIGINT, SIGTERM or the end of stdin ends the demo.")
    sys.stdout.flush()


def run_shell(m):
    """The user's own shell; what it returns says nothing about the demo."""
    # Not ignored, which the shell would inherit: Ctrl-C is for what runs inside.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    shell = subprocess.Popen([os.environ.get("SHELL") or "/bin/sh"], env=dict(os.environ, PS1="warren-demo$ ", **environment(m)))
    try:
        shell.wait()
    finally:
        # Something else ends the demo: an interactive shell puts the terminal back when it is hung up on.
        with contextlib.suppress(subprocess.TimeoutExpired):
            shell.send_signal(signal.SIGHUP)
            shell.wait(1)
        shell.kill()
        shell.wait()
        signal.signal(signal.SIGINT, before)
    return "the shell has ended"


class Told(Exception):
    pass


def wait_until_told():
    """Which of the signals came, or that stdin is at its end. Lines on it mean nothing."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def told(number, frame):
        for n in numbers:
            signal.signal(n, signal.SIG_IGN)
        raise Told(signal.Signals(number).name)

    for n in numbers:
        signal.signal(n, told)
    try:
        # Without one, descriptor 0 is somebody else's.
        while sys.stdin is not None and os.read(0, 4096):
            pass
    except OSError:
        pass
    except Told as e:
        return "%s received" % e
    return "stdin is closed"


def leave_running(m):
    terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    hints(m, terminal)
    return run_shell(m) if terminal else wait_until_told()


def main():
    if os.geteuid() != 0:
        sys.exit("demo: needs root (network namespaces and BPF)")
    started, why = time.monotonic(), None
    with Demo() as m:
        build(m)
        serve(m)
        m.start_agents()
        service = next(d for d in documents() if d["kind"] == "Service")
        capture = m.capture()
        lines, ran = traffic(m, *service["spec"]["clusterIPs"])
        capture.stop()
        # When it does not come to that, what is missing is shown below.
        with contextlib.suppress(mesh.Failure):
            mesh.eventually(lambda: settled(m), 2, "the last lines of the access logs")
        ok = show(m, lines, capture, started) and ran
        if "--shell" in sys.argv:
            why = leave_running(m)
        else:
            say()
            say("Look further: make demo-shell (leaves it running, with a shell inside)")
        sys.stdout.flush()
    if why:
        print("demo: %s; all is removed." % why)
    if not ok:
        sys.exit("demo: not everything held, see above")


if __name__ == "__main__":
    try:
        main()
    except mesh.Failure as e:
        sys.exit("demo: %s" % e)
