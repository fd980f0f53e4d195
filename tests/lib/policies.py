# SPDX-License-Identifier: Apache-2.0
"""Policies of a test, written as a user would and gone with it. Called by tests/netns."""
import json
import os
import socket
import time

from mesh import BUILD, Process, eventually


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


def deny_from(name, *pods, **kw):
    return authorization(name, "DENY", [{"from": [{"source": {"principals": [principal(p) for p in pods]}}]}], **kw)


class Policies:
    """The policies of one test; gone with it, and seen to be gone."""
    version = 0

    def __init__(self, m, *documents):
        self.m, self.documents = m, documents

    def __enter__(self):
        self.write(*self.documents)
        return self

    def write(self, *documents):
        """Returns once the agent has read this very version."""
        Policies.version += 1
        marker = "version-%d" % Policies.version
        self.m.write("policies.yaml", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": marker, "namespace": "demo"}}, *documents)
        eventually(lambda: marker in {r["name"] for r in self.m.agents[2].json("config", "list")}, 5, "the policies are read")

    def __exit__(self, *exc):
        self.write()


def died(s, seconds):
    """What ends the connection within that time: "reset", "eof", or None when it lives."""
    s.settimeout(seconds)
    try:
        return "eof" if s.recv(1) == b"" else "bytes"
    except ConnectionResetError:
        return "reset"
    except (socket.timeout, TimeoutError):
        return None


class Trace:
    """`policy trace` of an agent while this lasts."""

    def __init__(self, m, node=2):
        self.m, self.agent = m, m.agents[node]

    def __enter__(self):
        self.process = Process(self.m, "trace", [os.path.join(BUILD, "warrenctl"), "--run-dir=" + self.m.run_dir, "--node=" + self.agent.name, "-j", "policy", "trace"])
        time.sleep(0.5)  # until it has asked once
        return self

    def rows(self, reason=None):
        """What it has shown, of denials those with this reason."""
        rows = [json.loads(x) for x in self.process.output().splitlines() if x.endswith("}")]
        return [r for r in rows if not reason or r.get("reason") == reason]

    def __exit__(self, *exc):
        self.process.kill()
