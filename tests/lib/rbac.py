# SPDX-License-Identifier: Apache-2.0
"""Random sets of AuthorizationPolicies, and what they are in Envoy's own terms (envoy.config.rbac.v3).

Enters: a random generator; leaves: manifests, subjects, and for a set the two RBACs that Istio's sidecar would put before
an opaque port: DENY first, then ALLOW if there is any. Called by tests/interop/test_envoy_rbac.py.
"""
import re

DOMAINS = ["cluster.local", "other.org"]
NAMESPACES = ["front", "frontier", "back", "jobs", "shop"]
ACCOUNTS = ["web", "api", "web2"]
PORTS = ["80", "8080", "9090", "65535"]
SOURCES = ["10.1.0.1", "10.1.0.200", "10.1.7.9", "172.16.5.4", "fd00::1", "fd00:1::5"]
DESTINATIONS = {4: ["10.9.0.1", "10.9.1.1"], 6: ["fd99::1", "fd99:1::1"]}
RANGES = SOURCES[:3] + ["10.1.0.0/24", "10.1.0.128/25", "10.0.0.0/8", "0.0.0.0/0", "172.16.0.0/13", "fd00::/64", "fd00::/16", "::/0"]
TARGETS = ["10.9.0.1", "10.9.0.0/23", "fd99::/32", "fd99:1::1", "10.9.1.0/24"]


def identity(domain, namespace, account):
    return "spiffe://%s/ns/%s/sa/%s" % (domain, namespace, account)


def subjects(r, n):
    """Callers with or without identity, over both families."""
    out = []
    for i in range(n):
        source = r.choice(SOURCES)
        s = {"source": source, "destination": r.choice(DESTINATIONS[6 if ":" in source else 4]), "port": int(r.choice(PORTS))}
        if r.random() < 0.75:
            s["identity"] = identity(r.choice(DOMAINS + DOMAINS[:1]), r.choice(NAMESPACES), r.choice(ACCOUNTS))
        out.append(s)
    return out


# --- random documents ---

def pattern(r, text):
    """The text, or a part of it with a star, or presence."""
    at = r.randrange(1, len(text))
    return r.choices([text, text[:at] + "*", "*" + text[at:], "*"], [6, 2, 2, 1])[0]


def principal(r):
    return pattern(r, identity(r.choice(DOMAINS + DOMAINS[:1]), r.choice(NAMESPACES), r.choice(ACCOUNTS))[len("spiffe://"):])


VALUES = {
    "principals": principal,
    "namespaces": lambda r: pattern(r, r.choice(NAMESPACES)),
    "serviceAccounts": lambda r: r.choice([r.choice(NAMESPACES) + "/", ""]) + r.choice(ACCOUNTS),
    "trustDomains": lambda r: pattern(r, r.choice(DOMAINS)),
    "ipBlocks": lambda r: r.choice(RANGES),
    "ports": lambda r: r.choice(PORTS),
    "methods": lambda r: r.choice(["GET", "POST"]),
    "destination.ip": lambda r: r.choice(TARGETS),
}
KEYS = {"source.principal": "principals", "source.namespace": "namespaces", "source.ip": "ipBlocks", "source.serviceAccount": "serviceAccounts",
        "source.trustDomain": "trustDomains", "destination.port": "ports", "destination.ip": "destination.ip"}


def values(r, kind):
    return [VALUES[kind](r) for _ in range(r.choice([1, 1, 2, 3]))]


def negated(name):
    return "not" + name[0].upper() + name[1:]


def fields(r, kinds, n):
    return {(negated(k) if r.random() < 0.3 else k): values(r, k) for k in r.sample(kinds, n)}


def source(r):
    kinds = ["principals", "namespaces", "ipBlocks", "trustDomains"] if r.random() < 0.8 else ["serviceAccounts", "ipBlocks", "trustDomains"]
    return {"source": fields(r, kinds, r.choice([1, 1, 2]))}


def operation(r):
    return {"operation": fields(r, ["ports", "methods"], 2) if r.random() < 0.06 else fields(r, ["ports"], 1)}


def condition(r):
    key = r.choice(list(KEYS))
    names = r.choice([["values"], ["values"], ["notValues"], ["values", "notValues"]])
    return dict({"key": key}, **{n: values(r, KEYS[key]) for n in names})


def rule(r):
    parts = {"from": lambda: [source(r) for _ in range(r.choice([1, 1, 2]))], "to": lambda: [operation(r) for _ in range(r.choice([1, 2]))],
             "when": lambda: [condition(r) for _ in range(r.choice([1, 1, 2]))]}
    return {k: parts[k]() for k in r.choices([["from"], ["to"], ["when"], ["from", "to"], ["from", "when"], []], [8, 2, 4, 3, 3, 0.3])[0]}


def policy(r, name):
    action = r.choice(["ALLOW", "ALLOW", "DENY"])
    rules = [rule(r) for _ in range(r.choice([1, 2, 3] if action == "DENY" else [0, 1, 2, 3, 3]))]
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": name, "namespace": r.choice(["shop", "istio-system"])},
            "spec": {"action": action, "rules": rules}}


def policy_set(r):
    return [policy(r, "p%d" % i) for i in range(r.choice([1, 2, 2, 3, 4]))]


# --- as Envoy says it ---

def matcher(text, prefix):
    """A string match of a whole URI of which `prefix` comes before the text; a suffix stands for itself."""
    if text == "*":
        return {"safe_regex": {"regex": ".+"}}
    if text.startswith("*"):
        return {"suffix": text[1:]}
    return {"prefix": prefix + text[:-1]} if text.endswith("*") else {"exact": prefix + text}


def piece(text):
    """One piece of a URI as a regular expression."""
    return "[^/]+" if text == "*" else "[^/]*".join(re.escape(t) for t in text.split("*"))


def named(m):
    return {"authenticated": {"principal_name": m}}


def cidr(text):
    address, _, bits = text.partition("/")
    return {"address_prefix": address, "prefix_len": int(bits or (128 if ":" in address else 32))}


def principal_id(kind, value, namespace):
    if kind == "principals":
        return named(matcher(value, "spiffe://"))
    if kind == "namespaces":
        return named({"safe_regex": {"regex": "spiffe://[^/]+/ns/%s/sa/[^/]+" % piece(value)}})
    if kind == "serviceAccounts":
        ns, account = value.split("/") if "/" in value else (namespace, value)
        return named({"safe_regex": {"regex": "spiffe://[^/]+/ns/%s/sa/%s" % (re.escape(ns), re.escape(account))}})
    if kind == "trustDomains":
        return named({"safe_regex": {"regex": "spiffe://%s/.*" % piece(value)}})
    return {"remote_ip": cidr(value)}


def permission(kind, value, _):
    return {"destination_port": int(value)} if kind == "ports" else {"destination_ip": cidr(value)}


def one_field(make, words, kind, list_, negate, namespace):
    """words: Envoy's names of or, not and their lists."""
    either = {words["or"]: {words["list"]: [make(kind, v, namespace) for v in list_]}}
    return {words["not"]: either} if negate else either


PRINCIPAL = {"or": "or_ids", "and": "and_ids", "list": "ids", "not": "not_id"}
PERMISSION = {"or": "or_rules", "and": "and_rules", "list": "rules", "not": "not_rule"}


def clause(make, words, namespace, entry, conditions):
    """One entry of from or to, with the conditions that go with it."""
    all_ = []
    for name, list_ in entry.items():
        kind = name if name in VALUES else name[3].lower() + name[4:]
        if kind != "methods":  # in a DENY it counts as matched
            all_.append(one_field(make, words, kind, list_, kind != name, namespace))
    for c in conditions:
        all_ += [one_field(make, words, KEYS[c["key"]], c[n], n == "notValues", namespace) for n in ("values", "notValues") if n in c]
    return {words["and"]: {words["list"]: all_ or [{"any": True}]}}


def envoy_policy(rule_, namespace):
    when = rule_.get("when", [])
    of_source = [c for c in when if c["key"].startswith("source.")]
    of_target = [c for c in when if not c["key"].startswith("source.")]
    return {"principals": [clause(principal_id, PRINCIPAL, namespace, f["source"], of_source) for f in rule_.get("from", [{"source": {}}])],
            "permissions": [clause(permission, PERMISSION, namespace, t["operation"], of_target) for t in rule_.get("to", [{"operation": {}}])]}


def has_method(rule_):
    return any("methods" in n.lower() for t in rule_.get("to", []) for n in t["operation"])


def envoy_rbacs(set_):
    """(DENY, ALLOW), each None when the set has none."""
    out = []
    for action in ("DENY", "ALLOW"):
        chosen = [p for p in set_ if p["spec"]["action"] == action]
        policies = {"%s-%d" % (p["metadata"]["name"], i): envoy_policy(rule_, p["metadata"]["namespace"])
                    for p in chosen for i, rule_ in enumerate(p["spec"]["rules"]) if action == "DENY" or not has_method(rule_)}
        out.append({"action": action, "policies": policies} if chosen else None)
    return out
