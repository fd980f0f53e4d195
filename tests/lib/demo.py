#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make demo`: two nodes and four pods from deploy/samples, real agents, real traffic, and what happened on one screen.

Enters: the manifests; leaves: text on stdout, nothing on the machine. What is printed is read from the access logs, from
warrenctl and from a capture of the link between the nodes. `--shell` (make demo-shell) leaves it running until Enter.
"""
import collections
import glob
import ipaddress
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import yaml  # noqa: E402
import mesh  # noqa: E402
from mesh import ROOT, Mesh, run  # noqa: E402

SAMPLES = os.path.join(ROOT, "deploy", "samples")
BULK = 128 << 20
REQUESTS = 20
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
            super().close()
            self.clean()


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
    lines = [("sleep", "curl http://%s/ and http://[%s]/ (Service web), %d times" % (vip, vip6, REQUESTS),
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


def conversations(m):
    """(node, direction, source, destination) -> connections, bytes; from the access logs."""
    seen = collections.OrderedDict()
    for n, a in m.agents.items():
        for line in a.access():
            if "direction" not in line:
                continue
            key = (m.node_name(n), line["direction"],
                   short(line.get("src.identity")) if line.get("src.identity") else line.get("src.addr", "?").rsplit(":", 1)[0],
                   short(line.get("dst.identity")) if line.get("dst.identity") else "plaintext", line.get("dst.workload", "?"),
                   line.get("error", ""))
            c = seen.setdefault(key, [0, 0])
            c[0] += 1
            c[1] += int(line.get("bytes_sent", 0)) + int(line.get("bytes_recv", 0))
    return sorted(seen.items())


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
    names = {str(ipaddress.ip_address(a)): p.name for p in m.pods.values() for a in (p.ip, p.ip6)}
    flows = collections.OrderedDict()
    servers = {}
    for src, sport, dst, dport, flags, payload in capture.tcp():
        if flags & 0x12 == 0x02:
            servers[(src, sport, dst, dport)] = (src, dst, dport)
        forward = servers.get((src, sport, dst, dport))
        key = forward or servers.get((dst, dport, src, sport)) or (src, dst, dport)
        f = flows.setdefault((names.get(key[0], key[0]), names.get(key[1], key[1]), key[2]), {"packets": 0, "tls": set(), "clear": "", "flows": set()})
        f["packets"] += 1
        f["flows"].add(frozenset(((src, sport), (dst, dport))))
        version = tls_version(payload)
        if version:
            f["tls"].add(version)
        elif forward and payload and not f["clear"] and re.match(rb"[\x20-\x7e]{8}", payload):
            f["clear"] = payload.split(b"\r\n")[0].decode(errors="replace")[:40]
    return flows


def enrolled(m):
    """Rows of `warrenctl pod list`, of both nodes."""
    rows = []
    for n, a in m.agents.items():
        listing = a.json("pod", "list")
        for p in listing if isinstance(listing, list) else listing.get("pods", listing.get("items", [])):
            rows.append((m.node_name(n), p))
    return rows


def show(m, lines, capture, started):
    print("Warren: two nodes, %d pods as network namespaces, manifests in deploy/samples (%.1f s)\n" % (len(m.pods), time.monotonic() - started))
    print("PODS (warrenctl pod list, on both nodes)")
    listed = set()
    for node, p in enrolled(m):
        name = p.get("name", p.get("pod", "?")).split("/")[-1]
        listed.add(name)
        print("  %-7s %-8s %-10s %-12s %s" % (node, name, p.get("state", p.get("status", "?")), m.pods[name].ip if name in m.pods else "",
                                             short(p.get("identity", p.get("reason", "")))))
    for name in m.pods:
        if name not in listed:
            print("  %-7s %-8s %-10s %-12s" % (m.node_name(m.pods[name].node), name, "no mesh", m.pods[name].ip))
    print("\nWHAT WAS RUN")
    for pod, what, answer in lines:
        print("  %-7s %s\n          %s" % (pod, what, answer))
    print("\nWHO TALKED TO WHOM (both access logs)")
    for (node, direction, src, dst, workload, error), (count, size) in conversations(m):
        print("  %-7s %-8s %s -> %s (%s)  %d conn, %s%s" % (node, direction, src, dst, workload, count, human(size), "  " + error if error else ""))
    print("\nWHAT CROSSED THE LINK BETWEEN THE NODES (its capture, tcpdump)")
    flows = wire(m, capture)
    members = {p.name for p in m.pods.values()} & listed
    ok = bool(flows)
    for (src, dst, port), f in flows.items():
        how = " ".join(sorted(f["tls"])) or ('plaintext: "%s"' % f["clear"] if f["clear"] else "no readable bytes")
        print("  %-7s -> %-7s port %-5d  %d conn, %d packets, %s" % (src, dst, port, len(f["flows"]), f["packets"], how))
        if src in members and dst in members:
            ok = ok and port == 15008 and f["tls"] == {"TLS 1.3"}
    print("  Between enrolled pods: %s." % ("only port 15008, only TLS 1.3" if ok else "NOT only port 15008 with TLS 1.3"))
    return ok


def human(n):
    return "%d B" % n if n < 10240 else "%.0f KiB" % (n / 1024) if n < 10 << 20 else "%.0f MiB" % (n / (1 << 20))


def shell_hints(m):
    ctl = os.path.relpath(os.path.join(mesh.BUILD, "warrenctl"), os.getcwd())
    print("\nStill running. In another shell:")
    for n in m.agents:
        print("  %s --run-dir=%s --node=%s status        # also: pod, workload, service, connection, tunnel, bpf, doctor" % (ctl, m.run_dir, m.node_name(n)))
    print("  nsenter --net=%s curl http://10.96.0.10/" % m.pods["sleep"].netns)
    print("  nsenter --net=%s tcpdump -ni to-n2 tcp" % m.node_netns(1))
    print("  tail -f %s" % " ".join(a.access_log for a in m.agents.values()))
    print("  edit %s/*.yaml  (for example the label of legacy.yaml)" % m.config)
    print("Enter ends it.", flush=True)


def main():
    if os.geteuid() != 0:
        sys.exit("demo: needs root (network namespaces and BPF)")
    started = time.monotonic()
    with Demo() as m:
        build(m)
        serve(m)
        m.start_agents()
        service = next(d for d in documents() if d["kind"] == "Service")
        capture = m.capture()
        lines, ran = traffic(m, *service["spec"]["clusterIPs"])
        capture.stop()
        time.sleep(0.3)
        ok = show(m, lines, capture, started)
        if "--shell" in sys.argv:
            shell_hints(m)
            try:
                sys.stdin.readline()
            except KeyboardInterrupt:
                pass
        else:
            print("\nLook further: make demo-shell (leaves it running and says where to look)")
        if not (ok and ran):
            sys.exit("demo: not everything held, see above")


if __name__ == "__main__":
    try:
        main()
    except mesh.Failure as e:
        sys.exit("demo: %s" % e)
