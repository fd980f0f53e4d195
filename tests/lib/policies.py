# SPDX-License-Identifier: Apache-2.0
"""AuthorizationPolicy and PeerAuthentication as documents, for the tests that write them."""


def authorization(name, action="ALLOW", rules=None, selector=None, namespace="demo", **extra):
    spec = dict({"action": action}, **({"rules": rules} if rules is not None else {}))
    if selector:
        spec["selector"] = {"matchLabels": selector}
    spec.update(extra)
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def peer(mode, name="default", namespace="demo", selector=None, ports=None):
    spec = {"mtls": {"mode": mode}}
    if selector:
        spec["selector"] = {"matchLabels": selector}
    if ports:
        spec["portLevelMtls"] = {str(k): {"mode": v} for k, v in ports.items()}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def principal(pod):
    return pod.identity[len("spiffe://"):]
