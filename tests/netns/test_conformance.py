# SPDX-License-Identifier: Apache-2.0
"""The rows of the conformance table (tests/policy, which see) that are marked e2e, through real agents: one mesh with all
who appear in the table; for each group its documents, and for each of its rows a connection."""
import glob
import ipaddress
import json
import os
import subprocess
import tempfile

import yaml

from mesh import BUILD, ROOT, Mesh, check, eventually

FALLBACK = "together"
FOLDER = os.path.join(ROOT, "tests", "policy")
APPLIES_S = 1.0  # what is promised from the document's rename on
PORTS = [8080, 9090, 7070]


def read(name):
    with open(os.path.join(FOLDER, name)) as f:
        return yaml.safe_load(f)


def setup():
    m = Mesh("conformance", namespace="shop")
    for p in read("cast.yaml")["pods"]:
        pod = m.pod(p["name"], int(p["ip"].split(".")[2]), p.get("labels"), p["account"], False if p.get("plaintext") else None,
                    namespace=p["namespace"])
        check((pod.ip, ipaddress.ip_address(pod.ip6)) == (p["ip"], ipaddress.ip_address(p["ip6"])), "the address that the table says of " + pod.name,
              pod.ip, pod.ip6)
    m.apply()
    for pod in m.pods.values():
        if pod.node == 2:
            pod.serve(*["echo:%d" % p for p in PORTS])
    m.start_agents()
    m.groups = 0
    return m


def manifest(entry):
    key = entry.get("policy") or entry["peer"]
    meta = dict(zip(("namespace", "name"), key.split("/")))
    if "created" in entry:
        meta["creationTimestamp"] = entry["created"]
    if "dry_run" in entry:
        meta["annotations"] = {"istio.io/dry-run": entry["dry_run"]}
    return dict({"apiVersion": entry.get("api", "security.istio.io/v1"), "kind": "AuthorizationPolicy" if "policy" in entry else "PeerAuthentication",
                 "metadata": meta}, **({"spec": entry["spec"]} if "spec" in entry else {}))


def write(m, policies):
    """Returns once the server's agent has read them, and whatever else is in the file."""
    m.groups += 1
    mark = "group-%d" % m.groups
    m.write("policies.yaml", *[manifest(p) for p in policies],
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": mark, "namespace": "shop"}})
    eventually(lambda: mark in m.agents[2].ctl("config", "list").stdout, 5, "the documents of " + mark, 0.01)


def wanted(row):
    if row["warren"] == "allow":
        return ["ok"]
    # The kernel answers plaintext where only mutual TLS is allowed; the agent ends what it has accepted.
    return ["reset", "refused"] if row["warren"] == "mtls_required" else ["reset"]


def wrong(m, row):
    """What was seen instead; None when all is well."""
    seen = []

    def right():
        target = m.pods[row.get("to", "shop")]
        seen.append(m.pods[row["from"]].outcome(target.address(6 if row.get("over") else 4), row.get("port", 8080)))
        return seen[-1] in wanted(row)

    try:
        eventually(right, APPLIES_S)
    except AssertionError:
        return "%s: %s, not %s" % (row["name"], seen[-1], row["warren"])
    return None


def judge(m, theme):
    rows, bad = 0, []
    for group in read(theme)["groups"]:
        chosen = [r for r in group["rows"] if r.get("e2e")]
        if not chosen:
            continue
        write(m, group["policies"])
        rows += len(chosen)
        bad += [w for w in (wrong(m, r) for r in chosen) if w]
    check(not bad, "%d of %d rows" % (len(bad), rows), *bad)
    return "%d rows" % rows


def test_the_table(m):
    """What it holds; all of it is judged by tests/unit/test_policy_conformance."""
    themes = [os.path.basename(p) for p in glob.glob(os.path.join(FOLDER, "*.yaml")) if not p.endswith("/cast.yaml")]
    groups = [g for t in themes for g in read(t)["groups"]]
    rows = [r for g in groups for r in g["rows"]]
    here = {"test_" + t[:-5] for t in themes if any(r.get("e2e") for g in read(t)["groups"] for r in g["rows"])}
    check(here <= set(globals()), "each theme with rows for agents has a test here", here - set(globals()))
    for g in groups:
        check(g["source"] and (not g.get("mesh") or not any(r.get("e2e") for r in g["rows"])), "settings of the mesh are options of the agent", g)
    refused = [r for g in groups for r in g["rows"] if any("refused" in p for p in g["policies"])]
    differ = [r for r in rows if "sidecar" in r or "ambient" in r]
    return "%d rows; sidecar or ambient differ in %d, %d of them because the document is refused" % (
        len(rows), len(differ), len([r for r in differ if r in refused]))


def test_lint(m):
    """Of every document of the table the command line alone says what an agent says: what it becomes, and why."""
    judged = 0
    for theme in sorted(glob.glob(os.path.join(FOLDER, "*.yaml"))):
        for group in read(os.path.basename(theme)).get("groups", []):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
                yaml.safe_dump_all([manifest(p) for p in group["policies"]], f)
                f.flush()
                r = subprocess.run([os.path.join(BUILD, "warrenctl"), "-j", "policy", "lint", "-f", f.name], capture_output=True, text=True)
            rows = {(x["kind"][0], x["namespace"] + "/" + x["name"]): x for x in json.loads(r.stdout)}
            check(r.returncode == (1 if any("refused" in p for p in group["policies"]) else 0), "the exit code", group["policies"], r.returncode)
            for p in group["policies"]:
                row = rows["AP"["peer" in p], p.get("policy") or p["peer"]]
                said = " ".join([row.get("reason", "")] + [w["reason"] for w in row.get("warnings") or []])
                check(row["state"] == "refused" if "refused" in p else row["state"] != "refused", "what it becomes", p, row)
                check(p.get("refused", p.get("warned", "")) in said, "why", p, row)
                judged += 1
    return "%d documents" % judged


def test_modes(m):
    return judge(m, "modes.yaml")


def test_from(m):
    return judge(m, "from.yaml")


def test_accounts(m):
    return judge(m, "accounts.yaml")


def test_to(m):
    return judge(m, "to.yaml")


def test_when(m):
    return judge(m, "when.yaml")


def test_not(m):
    return judge(m, "not.yaml")


def test_l7(m):
    return judge(m, "l7.yaml")


def test_order(m):
    return judge(m, "order.yaml")


def test_dry_run(m):
    return judge(m, "dry_run.yaml")


def test_scope(m):
    return judge(m, "scope.yaml")


def test_refused(m):
    return judge(m, "refused.yaml")
