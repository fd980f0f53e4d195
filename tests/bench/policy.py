# SPDX-License-Identifier: Apache-2.0
"""What policies cost where they are felt: a push under live connections, and connections set up with and without them.

Enters: the number of rounds and what prints a table; leaves: tables on stdout, and their figures. Called by bench.py. One worker an agent, so that whoever is
not meant by a push waits behind those who are.
"""
import json
import os
import random
import subprocess
import time

from mesh import BUILD, Mesh, eventually

ECHO, HTTP = 7007, 8081
LOAD = os.path.join(BUILD, "bench", "load")
PUSH = {"hbone": (1, 100, 1000, 10000), "plaintext": (1, 100, 1000, 8000)}
# A pod may hold two thirds of the node's descriptors, a plaintext connection takes two: 8,000 need more pods than one.
SERVERS = {"hbone": 1, "plaintext": 3}
WITNESS_S = 2
POLICIES = (0, 10, 1000, 10000)
RULES = 10
IN_A_FILE = 100


def authorization(name, action, rules, app=None):
    spec = dict({"action": action, "rules": rules}, **({"selector": {"matchLabels": {"app": app}}} if app else {}))
    return json.dumps({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                       "metadata": {"name": name, "namespace": "demo"}, "spec": spec})


def mesh_of(clients, plain_clients, servers):
    m = Mesh("policy-bench")
    for name in clients + plain_clients:
        m.pod(name, 1, enrolled=None if name in clients else False)
    for name in servers:
        m.pod(name, 2)
        m.pods[name].start(LOAD, "serve", str(ECHO), str(HTTP)).wait_for("ready")
    m.apply()
    m.agent_options = m.agent_options + ["--workers=1"]
    return m


# --- a push under live connections ---

def witness(m, kind):
    p = m.pods["witness-" + kind].start(LOAD, "witness", m.pods["server0"].ip, str(ECHO), str(WITNESS_S))
    p.wait_for("open")
    return p


def one_push(m, kind, count):
    """`count` connections are allowed, then a policy forbids them all, while somebody else's goes on."""
    servers = [m.pods["server%d" % i].ip for i in range(SERVERS[kind])]
    client = m.pods["client-" + kind]
    forbidden = client.start(LOAD, "watch", ",".join(servers), str(ECHO), str(count))
    forbidden.wait_for("open", 120)
    rest = witness(m, kind).result()["worst_us"]
    beside = witness(m, kind)
    source = {"principals": [client.identity[len("spiffe://"):]]} if kind == "hbone" else {"ipBlocks": [client.ip]}
    renamed = time.monotonic()
    m.write("push.yaml", authorization("push", "DENY", [{"from": [{"source": source}]}]))
    out = forbidden.result()
    stall = beside.result()["worst_us"]
    m.remove_manifest("push.yaml")
    if out["reset"] != count:
        raise RuntimeError("push: of %d %s connections %d were reset, the others ended otherwise" % (count, kind, out["reset"]))
    for ip in servers:
        eventually(lambda: client.outcome(ip, ECHO) == "ok", 10, "the policy is withdrawn from " + ip)
    return {"last_reset_ms": (out["last_s"] - renamed) * 1000, "stall_ms": stall / 1000, "at_rest_ms": rest / 1000}


def push(rounds, table):
    sides = [who + "-" + kind for who in ("client", "witness") for kind in PUSH]
    figures = {}
    with mesh_of([s for s in sides if s.endswith("hbone")], [s for s in sides if s.endswith("plaintext")],
                 ["server%d" % i for i in range(max(SERVERS.values()))]) as m:
        m.start_agents()
        for _ in range(rounds):
            for kind, counts in PUSH.items():
                for count in counts:
                    for name, value in one_push(m, kind, count).items():
                        figures.setdefault("%d %s" % (count, kind), {}).setdefault(name, []).append(value)
    table("push of a policy that forbids live connections", figures)
    return figures


# --- connections set up under policies ---

def rule(draw):
    """The mix of policy_bench.c: 60 % principal, 15 % namespace, 10 % range, 10 % prefix or suffix, 5 % negation."""
    of100, n = draw.randrange(100), draw.randrange(60000)
    if of100 < 60:
        source = {"principals": ["cluster.local/ns/team-%d/sa/service-%d" % (n % 500, n)]}
    elif of100 < 75:
        source = {"namespaces": ["space-%d" % (n % 2000)]}
    elif of100 < 85:
        source = {"ipBlocks": ["172.%d.%d.0/24" % (16 + n % 16, n // 16 % 256)]}
    elif of100 < 90:
        source = {"principals": ["cluster.local/ns/group-%d/*" % n]}
    elif of100 < 95:
        source = {"principals": ["*/sa/job-%d" % n]}
    else:
        source = {"notPrincipals": ["*"]}
    return {"from": [{"source": source}], "to": [{"operation": {"ports": [str(ECHO + draw.randrange(8))]}}]}


def write_policies(m, app, count, client):
    draw = random.Random(count)
    documents = [authorization("%s-%d" % (app, i), "ALLOW", [rule(draw) for _ in range(RULES)], app) for i in range(count - 1)]
    if count:
        documents.append(authorization(app + "-client", "ALLOW", [
            {"from": [{"source": {"principals": [client.identity[len("spiffe://"):]]}}]}], app))
    for i in range(0, count, IN_A_FILE):
        m.write("%s-%d.yaml" % (app, i), *documents[i:i + IN_A_FILE])


def one_set_up(m, server, count, cpu_of):
    def connect(n):
        r = m.pods["client"].sh(LOAD, "connect", server.ip, str(ECHO), str(n), "1")
        return json.loads(r.stdout)

    connect(20)  # the tunnel and the verdict are there
    before = [cpu_of(a.pid) for a in m.agents.values()]
    out = connect(count)
    used = sum(cpu_of(a.pid) - b for a, b in zip(m.agents.values(), before))
    return {"p50_us": out["p50_us"], "p99_us": out["p99_us"], "cpu_ms_per_1000": used / count * 1e6}


def set_up(rounds, table, cpu_of, count=2000):
    apps = {n: "policies%d" % n for n in POLICIES}
    figures = {}
    with mesh_of(["client"], [], list(apps.values())) as m:
        for n, app in apps.items():
            write_policies(m, app, n, m.pods["client"])
        for a in m.agents.values():
            a.start(wait=False)
        for a in m.agents.values():
            a.wait_up(120)
        for _ in range(rounds):
            for n, app in apps.items():
                for name, value in one_set_up(m, m.pods[app], count, cpu_of).items():
                    figures.setdefault("%d policies" % n, {}).setdefault(name, []).append(value)
    table("connections set up one after the other, by policies of %d rules at the destination" % RULES, figures)
    return figures


# --- checks without a network ---

def check():
    """What one policy check costs, no network in between."""
    out = json.loads(subprocess.run([os.path.join(BUILD, "bench", "policy_bench")], capture_output=True, text=True, check=True).stdout)
    print("\npolicy check, microseconds p50/p99/worst%25s%12s%24s%24s%24s" % ("compile ms", "bytes/rule", "peers with a rule", "peers without", "cached"))
    for r in out:
        row = "  %6d policies of 10 rules, %-24s%10.1f%12d" % (r["policies"], r["mix"], r["compile_ms"], r["bytes_per_rule"])
        print(row + "".join("%24s" % "/".join("%.2f" % (r[k][x] / 1000) for x in ("p50", "p99", "worst")) for k in ("named", "strangers", "cached")))
    return out
