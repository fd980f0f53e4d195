#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: Warren beside no mesh, a plain relay pair and an Envoy mutual-TLS pair, in one run on one topology; and
what policies cost (policy.py).

Enters: the built binaries; leaves: tables on stdout and build/bench.json, which holds what this run has measured. Every figure is
the median of interleaved rounds with its spread; ratios come first. Envoy plays what a pair of sidecars does: tcp_proxy, mutual
TLS 1.3, P-256, no resumption, one worker, in the pods' namespaces. `--tables NAME,...` of proxy, check, push, set-up, or policy for
all but the first (`make bench TABLES=...`), `--rounds N` (5), `--only CASE,...` of the first, `--quick`.
"""
import argparse
import glob
import ipaddress
import json
import os
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import certs  # noqa: E402
import envoy  # noqa: E402
import policy  # noqa: E402
from mesh import BUILD, Mesh, eventually, run  # noqa: E402

IPERF, HTTP, ECHO = 5201, 8081, 7007
# Further addresses of the server's pod, as many to a round, so that each connection there needs a tunnel of its own.
FRESH, FRESH_EACH, FRESH_ROUNDS = "10.77.2.128", 20, 6
TICK = os.sysconf("SC_CLK_TCK")
LOAD, RELAY = (os.path.join(BUILD, "bench", n) for n in ("load", "relay"))
# (figure of Warren across nodes) over (the same of the Envoy pair), and what the ratio is to be.
TARGETS = [("gbit_1", ">=", 1.2), ("gbit_8", ">=", 1.2), ("cpu_s_per_gib", "<=", 0.8), ("p50_us", "<=", 0.7), ("p99_us", "<=", 0.7),
           ("cpu_ms_per_1000_requests_64", "<=", 0.6), ("cpu_ms_per_1000_connections_serial", "<=", 0.12),
           ("cpu_ms_per_1000_connections_16", "<=", 0.1)]


class Case:
    def __init__(self, name, client, server, address, offset=0):
        self.name, self.client, self.server, self.address, self.offset = name, client, server, address, offset
        self.proxies, self.figures = [], {}

    def note(self, name, value):
        self.figures.setdefault(name, []).append(value)

    def run(self, *args, seconds=60):
        full = ["nsenter", "--net=" + self.client.netns, *[str(a) for a in args]]
        r = subprocess.run(full, capture_output=True, text=True, timeout=seconds)
        if r.returncode:
            raise RuntimeError("%s: %s: %s" % (self.name, " ".join(full), r.stderr[-400:] + r.stdout[-400:]))
        return r.stdout


def cpu_of(pid):
    """Seconds on a CPU of all threads (schedstat counts nanoseconds where stat counts ticks)."""
    total = 0
    for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
        try:
            with open(path) as f:
                total += int(f.read().split()[0])
        except OSError:
            pass  # a thread that has just ended
    return total / 1e9


def machine_cpu():
    with open("/proc/stat") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / TICK


def memory_kib(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        text = f.read()
    return tuple(int(re.search(r"^%s:\s+(\d+)" % k, text, re.M).group(1)) for k in ("Rss", "Anonymous"))


def measured(case, per, work, *labels):
    """Runs work() and notes the CPU of the proxies and of the machine, per unit of what it returns."""
    before, machine = [cpu_of(p()) for p in case.proxies], machine_cpu()
    amount = work()
    used = sum(cpu_of(p()) - b for p, b in zip(case.proxies, before))
    if case.proxies:
        case.note(labels[0], used / amount * per)
    case.note("machine_" + labels[0], (machine_cpu() - machine) / amount * per)


def throughput(case, streams, seconds):
    out = json.loads(case.run("iperf3", "-J", "-c", case.address, "-p", IPERF + case.offset, "-t", seconds, "-P", streams))
    got = out["end"]["sum_received"]
    case.note("gbit_%d" % streams, got["bits_per_second"] / 1e9)
    return got["bytes"] / (1 << 30)


def requests(case, connections, seconds):
    out = case.run("wrk", "-t1", "-c%d" % connections, "-d%ds" % seconds,
                   "http://%s:%d/" % (case.address, HTTP + case.offset))
    n = int(re.search(r"(\d+) requests in", out).group(1))
    case.note("requests_per_s_%d" % connections, n / seconds)
    return n


def connections(case, count, at_once):
    out = json.loads(case.run(LOAD, "connect", case.address, ECHO + case.offset, count, at_once))
    case.note("connections_per_s_%s" % ("serial" if at_once == 1 else at_once), out["per_second"])
    return count


def fresh(case, number):
    """A tunnel for each connection: Warren has one to each address, Envoy's pair makes one anyway."""
    first, apart = case.address, []
    if case.name == "warren":
        first, apart = str(ipaddress.ip_address(FRESH) + number * FRESH_EACH), ["apart"]
    case.run(LOAD, "connect", first, ECHO + case.offset, FRESH_EACH, 1, *apart)
    return FRESH_EACH


def one_round(case, seconds, count, number):
    measured(case, 1, lambda: throughput(case, 1, seconds), "cpu_s_per_gib")
    measured(case, 1, lambda: throughput(case, 8, seconds), "cpu_s_per_gib_8")
    out = json.loads(case.run(LOAD, "ping", case.address, ECHO + case.offset, 5000 if seconds > 1 else 2000))
    for k, v in out.items():
        case.note(k, v)
    for c in (1, 64):
        measured(case, 1e6, lambda: requests(case, c, seconds), "cpu_ms_per_1000_requests_%d" % c)
    for at_once, name in ((1, "serial"), (16, "16")):
        measured(case, 1e6, lambda: connections(case, count, at_once), "cpu_ms_per_1000_connections_" + name)
    if case.name in ("warren", "envoy"):
        measured(case, 1e6, lambda: fresh(case, number), "cpu_ms_per_1000_connections_fresh_tunnel")


def memory(case, count):
    """Idle, with `count` connections open, and 30 s after they closed: both proxies together."""
    idle = [memory_kib(p()) for p in case.proxies]
    holder = case.client.start(LOAD, "hold", case.address, str(ECHO + case.offset), str(count), "600", name="hold-" + case.name)
    holder.wait_for("open", 60)
    time.sleep(1)
    held = [memory_kib(p()) for p in case.proxies]
    holder.kill()
    time.sleep(30)
    after = [memory_kib(p()) for p in case.proxies]
    case.note("rss_idle_mib_each", max(r for r, _ in idle) / 1024)
    case.note("anonymous_idle_mib_each", max(a for _, a in idle) / 1024)
    case.note("kib_per_open_connection", sum(h[0] - i[0] for h, i in zip(held, idle)) / count)
    case.note("mib_over_idle_after_close", max(a[0] - i[0] for a, i in zip(after, idle)) / 1024)


def more_addresses(m, pod):
    addresses = [str(ipaddress.ip_address(FRESH) + i) for i in range(FRESH_EACH * FRESH_ROUNDS)]
    run("nsenter", "--net=" + m.node_netns(pod.node), "ip", "route", "add", FRESH + "/25", "dev", pod.veth)
    run("ip", "-n", pod.ns, "-batch", "-", input="".join("address add %s/32 dev eth0\n" % a for a in addresses))
    d = pod.manifest()
    d["status"]["podIPs"] += [{"ip": a} for a in addresses]
    m.write("pod-%s.yaml" % pod.name, d)


def set_up():
    m = Mesh("bench")
    for name, node in (("client", 1), ("near", 1), ("idle1", 1), ("idle2", 1), ("server", 2), ("idle3", 2), ("idle4", 2), ("idle5", 2)):
        m.pod(name, node)
    for name, node in (("dclient", 1), ("dserver", 2), ("rclient", 1), ("rserver", 2), ("eclient", 1), ("eserver", 2)):
        m.pod(name, node, enrolled=False)
    m.apply()
    more_addresses(m, m.pods["server"])
    for name in ("server", "near", "dserver", "rserver", "eserver"):
        p = m.pods[name]
        p.start("iperf3", "-s", "-p", str(IPERF))
        p.start(LOAD, "serve", str(ECHO), str(HTTP)).wait_for("ready")
    m.agent_options = m.agent_options + ["--workers=1"]
    m.start_agents()
    return m


def relay_pair(m):
    c, s = m.pods["rclient"], m.pods["rserver"]
    far = s.start(RELAY, *["%d:127.0.0.1:%d" % (p + 20000, p) for p in (IPERF, HTTP, ECHO)], name="relay-far")
    near = c.start(RELAY, *["%d:%s:%d" % (p + 10000, s.ip, p + 20000) for p in (IPERF, HTTP, ECHO)], name="relay-near")
    for p in (far, near):
        p.wait_for("ready")
    return [lambda: near.popen.pid, lambda: far.popen.pid]


def envoy_listener(port, host, target, tls_in, tls_out):
    cluster = {"name": "c%d" % port, "type": "STATIC", "connect_timeout": "5s",
               # Envoy's default of 1,024 connections would end the comparison, not the proxy.
               "circuit_breakers": {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000,
                                                    "max_requests": 100000}]},
               "load_assignment": {
        "cluster_name": "c%d" % port, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
            "address": target[0], "port_value": target[1]}}}}]}]}}
    chain = {"filters": [{"name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "p%d" % port, "cluster": "c%d" % port}}]}
    if tls_in:
        chain["transport_socket"] = tls_in
    if tls_out:
        cluster["transport_socket"] = tls_out
    return {"name": "l%d" % port, "address": {"socket_address": {"address": host, "port_value": port}},
            "enable_reuse_port": False, "tcp_backlog_size": 4096, "filter_chains": [chain]}, cluster


def envoy_tls(kind, pem, roots):
    """Mutual TLS 1.3, no resumption; Envoy leaves the order of TLS 1.3 suites to BoringSSL: AES-128-GCM first with AES-NI."""
    common = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                             "ecdh_curves": ["X25519", "P-256"]},
              "tls_certificates": [{"certificate_chain": {"filename": pem}, "private_key": {"filename": pem}}],
              "validation_context": {"trusted_ca": {"filename": roots}}}
    base = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
    if kind == "in":
        config = {"@type": base + "DownstreamTlsContext", "common_tls_context": common, "require_client_certificate": True,
                  "disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True}
    else:
        config = {"@type": base + "UpstreamTlsContext", "common_tls_context": common, "max_session_keys": 0}
    return {"name": "tls", "typed_config": config}


def envoy_pair(m):
    c, s = m.pods["eclient"], m.pods["eserver"]
    ca, roots = certs.load_ca(m.ca), certs.root_file(m.ca)
    pids = []
    for pod, far in ((s, True), (c, False)):
        pem = certs.issue(ca, pod.identity, os.path.join(m.dir, pod.name + ".pem"))
        pairs = [envoy_listener(p + 20000, "0.0.0.0", ("127.0.0.1", p), envoy_tls("in", pem, roots), None) if far else
                 envoy_listener(p + 10000, "0.0.0.0", (s.ip, p + 20000), None, envoy_tls("out", pem, roots))
                 for p in (IPERF, HTTP, ECHO)]
        path = os.path.join(m.dir, pod.name + "-envoy.json")
        with open(path, "w") as f:
            json.dump({"static_resources": {"listeners": [x for x, _ in pairs], "clusters": [x for _, x in pairs]}}, f)
        e = pod.start(envoy.binary(), "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "-l", "error", "--disable-hot-restart",
                      name=pod.name + "-envoy")
        pids.append(lambda e=e: e.popen.pid)
    def answers():
        try:
            k = c.connect("127.0.0.1", ECHO + 10000, 1)
            k.sendall(b"x")
            return k.recv(1) == b"x"
        except OSError:
            return False
    eventually(answers, 15, "Envoy pair carries bytes")
    return pids


def cases(m, only):
    p = m.pods
    agents = [lambda: m.agents[1].process.popen.pid, lambda: m.agents[2].process.popen.pid]
    found = [Case("direct", p["dclient"], p["dserver"], p["dserver"].ip), Case("warren", p["client"], p["server"], p["server"].ip),
             Case("warren-same-node", p["client"], p["near"], p["near"].ip), Case("relay", p["rclient"], p["rserver"], "127.0.0.1", 10000),
             Case("envoy", p["eclient"], p["eserver"], "127.0.0.1", 10000)]
    found = [c for c in found if not only or c.name in only]
    for c in found:
        if c.name == "warren":
            c.proxies = agents
        elif c.name == "warren-same-node":
            c.proxies = agents[:1]
        elif c.name == "relay":
            c.proxies = relay_pair(m)
        elif c.name == "envoy":
            c.proxies = envoy_pair(m)
    return found


def median(case, name):
    v = case.figures.get(name)
    return statistics.median(v) if v else None


def show(found):
    by_name = {c.name: c for c in found}
    if "warren" in by_name and "envoy" in by_name:
        print("\nWarren across nodes over the Envoy pair, same run (target)")
        for name, sense, limit in TARGETS:
            a, b = median(by_name["warren"], name), median(by_name["envoy"], name)
            if not a or not b:
                continue
            met = a / b >= limit if sense == ">=" else a / b <= limit
            print("  %-40s %6.2f  (%s %g)  %s" % (name, a / b, sense, limit, "met" if met else "MISSED"))
        w = by_name["warren"]
        for name, limit in (("rss_idle_mib_each", 12), ("anonymous_idle_mib_each", 4), ("kib_per_open_connection", 3),
                            ("mib_over_idle_after_close", 1)):
            v = median(w, name)
            if v is not None:
                print("  %-40s %6.2f  (<= %g)  %s" % (name, v, limit, "met" if v <= limit else "MISSED"))
    names = sorted({n for c in found for n in c.figures})
    print("\n%-44s" % "median [min..max]" + "".join("%24s" % c.name for c in found))
    for n in names:
        row = "%-44s" % n
        for c in found:
            v = c.figures.get(n)
            row += "%24s" % ("%.4g [%.4g..%.4g]" % (statistics.median(v), min(v), max(v)) if v else "-")
        print(row)


def show_rows(title, rows):
    """`rows`: what was measured on -> figure -> its values, the same figures in each row."""
    names = list(next(iter(rows.values())))
    print("\n%s: median [min..max]\n%20s" % (title, "") + "".join("%28s" % n for n in names))
    for of, figures in rows.items():
        v = [figures[n] for n in names]
        print("%20s" % of + "".join("%28s" % ("%.4g [%.4g..%.4g]" % (statistics.median(x), min(x), max(x))) for x in v), flush=True)


def proxy(a, out):
    rounds, seconds, count = (1, 1, 300) if a.quick else (a.rounds, 2, 1000)
    m = set_up()
    found = []
    try:
        found = cases(m, [x for x in a.only.split(",") if x])
        # The idle figures are taken first, with four pods a node and one connection made.
        for c in found:
            c.run(LOAD, "connect", c.address, ECHO + c.offset, 1, 1)
        if not a.quick:
            for c in found:
                if c.name in ("warren", "envoy"):
                    memory(c, 2000)
        for r in range(rounds):
            for c in found:
                one_round(c, seconds, count, r % FRESH_ROUNDS)
            print("round %d of %d" % (r + 1, rounds), flush=True)
    finally:
        # Also what an interrupted run has measured so far.
        if any(c.figures for c in found):
            show(found)
            out.update({c.name: c.figures for c in found})
        m.close()


def check(a, out):
    out["policy"] = policy.check()


def push(a, out):
    out["policy_push"] = policy.push(1 if a.quick else a.rounds, show_rows)


def policy_set_up(a, out):
    out["policy_set_up"] = policy.set_up(1 if a.quick else a.rounds, show_rows, cpu_of)


TABLES = {"check": check, "push": push, "set-up": policy_set_up, "proxy": proxy}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--tables", default="policy,proxy")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--only", default="")
    a.add_argument("--quick", action="store_true")
    a = a.parse_args()
    wanted = a.tables.replace("policy", "check,push,set-up").split(",")
    unknown = [t for t in wanted if t not in TABLES]
    if unknown:
        sys.exit("bench: no table is called %r; there are %s, and policy for all but the last" % (unknown[0], ", ".join(TABLES)))
    out = {}
    try:
        for name in wanted:
            TABLES[name](a, out)
    finally:
        if out:
            with open(os.path.join(BUILD, "bench.json"), "w") as f:
                json.dump(out, f, indent=1)


if __name__ == "__main__":
    main()
