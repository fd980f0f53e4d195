# SPDX-License-Identifier: Apache-2.0
"""Policy changed again and again under live connections and new ones: nobody outlives his permission by more than a second,
nobody who stays allowed is cut or refused, and memory comes back. WR_SCALE=10 is the full run: 200 flips, 500 connections."""
import select
import threading
import time

from mesh import LABEL, Mesh, SANITIZER, check, eventually, scaled
from policies import authorization, peer, principal

LOAD = "alone"
FALLBACK = "together"
FLIPS, LIVE, NEW_PER_S = scaled(20, 4), scaled(50, 10), min(200, scaled(40, 10))
OUTLIVES_S = 1.0


def setup():
    m = Mesh("flip")
    m.agent_options = ["--drain=100ms"]  # who leaves the mesh loses what he had by it at once
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
    left, end, poll = {s.fileno(): s for s in sockets}, time.monotonic() + seconds, select.poll()
    for number in left:
        poll.register(number, select.POLLIN)
    while left and time.monotonic() < end:
        for number, _ in poll.poll(1000 * max(0, end - time.monotonic())):
            try:
                check(left[number].recv(1) == b"never", "a clean end, or bytes, in the place of a reset")
            except ConnectionResetError:
                poll.unregister(number)
                del left[number]
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
    client, plain, guest, server = (m.pods[n] for n in ("client", "plain", "guest", "server"))
    deny = authorization("flip", "DENY", [{"from": [{"source": {"principals": [principal(client)]}}]}])
    tier = authorization("tier", "DENY", [{"from": [{"source": {"principals": [principal(client)]}}]}], selector={"tier": "closed"})
    strict = peer("PERMISSIVE", "flip", selector={"app": "server"}, ports={8: "STRICT"})
    nobody = authorization("nobody", "DENY", [{"from": [{"source": {"notPrincipals": ["*"], "ipBlocks": [guest.ip]}}]}], selector={"app": "server"})
    m.write("standing.yaml", tier, nobody)
    return [
        ("AuthorizationPolicy", client, 7, lambda: m.write("flip.yaml", deny), lambda: m.write("flip.yaml")),
        ("PeerAuthentication of a port", plain, 8, lambda: m.write("flip.yaml", strict), lambda: m.write("flip.yaml")),
        ("label of the pod", client, 7, lambda: relabel(m, server, tier="closed"), lambda: relabel(m, server, tier=None)),
        ("label of the caller's namespace", guest, 7, lambda: guests_are(m, "none"), lambda: guests_are(m, "ambient")),
    ]


def flip(m, name, who, port, take, give):
    server = m.pods["server"]
    live = [talking(who, server.ip, port) for _ in range(5)]
    take()
    check(all_reset_within(live, OUTLIVES_S), "%s: all are ended in time" % name)
    eventually(lambda: who.outcome(server.ip, port) in ("reset", "refused"), 1, "%s: and no new one is let in" % name)
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


class Intruders(threading.Thread):
    """Connections of one pod, made one after the other as fast as it goes; those that were let in are kept."""

    def __init__(self, m, pod):
        super().__init__(daemon=True)
        self.pod, self.address, self.stop, self.open, self.refused = pod, m.pods["server"].ip, threading.Event(), [], 0

    def run(self):
        while not self.stop.is_set():
            s = None
            try:
                s = self.pod.connect(self.address, 7)
                s.sendall(b"x")
                if s.recv(1) == b"x":
                    self.open.append(s)
                    continue
            except OSError:
                pass
            self.refused += 1
            if s:
                s.close()


def test_none_slips_in(m):
    """Connections that are being made while the policy changes, tunnelled and plaintext: judged before or after, and ended either way."""
    callers = [m.pods["client"], m.pods["plain"]]
    deny = authorization("flip", "DENY", [{"from": [{"source": {"ipBlocks": [p.ip for p in callers]}}]}], selector={"app": "server"})
    opened = 0
    for _ in range(min(10, scaled(10, 2))):
        intruders = [Intruders(m, p) for p in callers for _ in range(2)]
        for i in intruders:
            i.start()
        time.sleep(0.2)
        m.write("flip.yaml", deny)
        time.sleep(OUTLIVES_S)
        for i in intruders:
            i.stop.set()
        for i in intruders:
            i.join()
        live = [s for i in intruders for s in i.open]
        check(all(i.open and i.refused for i in intruders), "some came before and some after", [(len(i.open), i.refused) for i in intruders])
        check(all_reset_within(live, 0.1), "none outlives the change, of %d" % len(live))
        opened += len(live)
        for s in live:
            s.close()
        m.write("flip.yaml")
        for p in callers:
            eventually(lambda: p.outcome(m.pods["server"].ip) == "ok", 5, "given back")
    return "%d connections" % opened


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
