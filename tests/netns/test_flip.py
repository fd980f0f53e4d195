# SPDX-License-Identifier: Apache-2.0
"""Policy changed again and again under live connections and new ones: nobody outlives his permission by more than a second,
nobody who stays allowed is cut or refused, and memory comes back. WR_SCALE=10 is the full run: 200 flips, 500 connections."""
import select
import threading
import time

from mesh import LABEL, Mesh, SANITIZER, check, eventually, scaled
from policies import authorization, peer, principal

FALLBACK = False
FLIPS, LIVE, NEW_PER_S = scaled(20, 4), scaled(50, 10), min(200, scaled(40, 10))
OUTLIVES_S = 1.0


def setup():
    m = Mesh("flip")
    m.pod("client", 1)
    m.pod("other", 1)
    m.pod("guest", 1, namespace="guests")
    m.pod("plain", 1, enrolled=False)
    m.pod("server", 2)
    m.apply()
    m.pods["server"].serve("echo:7", "echo:8")
    m.start_agents()
    return m


class Newcomers(threading.Thread):
    """Connections that are always allowed, made at a steady rate; each that fails is kept."""

    def __init__(self, m):
        super().__init__(daemon=True)
        self.m, self.stop, self.failed, self.made = m, threading.Event(), [], 0

    def run(self):
        next_one = time.monotonic()
        while not self.stop.is_set():
            got = self.m.pods["other"].outcome(self.m.pods["server"].ip)
            self.made += 1
            if got != "ok":
                self.failed.append((time.monotonic(), got))
            next_one = max(next_one + 1 / NEW_PER_S, time.monotonic() - 1)
            self.stop.wait(max(0, next_one - time.monotonic()))


def talking(pod, address, port=7):
    s = pod.connect(address, port)
    s.sendall(b"x")
    check(s.recv(1) == b"x", "open")
    return s


def all_reset_within(sockets, seconds):
    """Whether every one of them ends by a reset in time."""
    left, end = set(sockets), time.monotonic() + seconds
    while left and time.monotonic() < end:
        for s in select.select(list(left), [], [], max(0, end - time.monotonic()))[0]:
            try:
                check(s.recv(1) == b"never", "a clean end, or bytes, in the place of a reset")
            except ConnectionResetError:
                left.discard(s)
    return not left


def relabel(m, pod, **labels):
    pod.labels.update(labels)
    for name in [n for n, v in pod.labels.items() if v is None]:
        del pod.labels[name]
    m.write_pod(pod)


def guests_are(m, mode):
    m.write("namespace.yaml", *[{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "labels": {LABEL: label}}}
                                for n, label in (("demo", "ambient"), ("guests", mode))])


def kinds(m):
    """(name, who loses it, at which port, how it is taken, how it is given back)."""
    client, plain, server = m.pods["client"], m.pods["plain"], m.pods["server"]
    deny = authorization("flip", "DENY", [{"from": [{"source": {"principals": [principal(client)]}}]}])
    tier = authorization("tier", "DENY", [{"from": [{"source": {"principals": [principal(client)]}}]}], selector={"tier": "closed"})
    strict = peer("PERMISSIVE", "flip", selector={"app": "server"}, ports={8: "STRICT"})
    m.write("tier.yaml", tier)
    return [
        ("AuthorizationPolicy", client, 7, lambda: m.write("flip.yaml", deny), lambda: m.write("flip.yaml")),
        ("PeerAuthentication of a port", plain, 8, lambda: m.write("flip.yaml", strict), lambda: m.write("flip.yaml")),
        ("label of the pod", client, 7, lambda: relabel(m, server, tier="closed"), lambda: relabel(m, server, tier=None)),
    ]


def flip(m, name, who, port, take, give):
    server = m.pods["server"]
    live = [talking(who, server.ip, port) for _ in range(5)]
    take()
    check(all_reset_within(live, OUTLIVES_S), "%s: all are ended in time" % name)
    check(who.outcome(server.ip, port) in ("reset", "refused"), "%s: and no new one is let in" % name)
    give()
    eventually(lambda: who.outcome(server.ip, port) == "ok", 5, "%s: given back" % name)
    for s in live:
        s.close()


def rss(m):
    return m.agents[2].rss_kib()


def test_flips(m):
    server, other = m.pods["server"], m.pods["other"]
    kept = [talking(other, server.ip) for _ in range(LIVE)]
    newcomers = Newcomers(m)
    ways = kinds(m)
    for way in ways:
        flip(m, *way)
    before = rss(m)
    newcomers.start()
    try:
        for i in range(FLIPS):
            flip(m, *ways[i % len(ways)])
    finally:
        newcomers.stop.set()
        newcomers.join()
    check(newcomers.made and not newcomers.failed, "new connections that are allowed", newcomers.made, newcomers.failed[:5])
    for s in kept:
        s.sendall(b"k")
        check(s.recv(1) == b"k", "live connections that stay allowed")
        s.close()
    # A sanitizer keeps what is freed, on purpose.
    if not SANITIZER:
        eventually(lambda: rss(m) - before < 4096, 15, "memory comes back")


def test_namespace_leaves_and_returns(m):
    """Callers whose namespace leaves the mesh prove nothing any more: what demands an identity refuses them, and no others."""
    guest, other, server = m.pods["guest"], m.pods["other"], m.pods["server"]
    m.write("flip.yaml", authorization("identities", rules=[{"from": [{"source": {"principals": ["*"]}}]}], selector={"app": "server"}))
    eventually(lambda: m.pods["plain"].outcome(server.ip) == "reset", 5, "in force")
    kept = talking(other, server.ip)
    for _ in range(scaled(3, 1)):
        check(guest.outcome(server.ip) == "ok", "a guest of the mesh")
        guests_are(m, "none")
        eventually(lambda: guest.outcome(server.ip) == "reset", 5, "outside it is nobody")
        guests_are(m, "ambient")
        eventually(lambda: guest.outcome(server.ip) == "ok", 10, "and a guest again")
    kept.sendall(b"k")
    check(kept.recv(1) == b"k", "nobody else notices")
    kept.close()
    m.remove_manifest("flip.yaml")
