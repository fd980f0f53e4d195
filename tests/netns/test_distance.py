# SPDX-License-Identifier: Apache-2.0
"""How far a peer is decides over the congestion control of its tunnels: one pod's packets take a slow way."""
import fcntl
import os
import select
import signal
import struct
import threading
import time

from mesh import Mesh, Namespace, Skip, check, eventually, run

FALLBACK = False
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
DELAY_S = 0.005


def tun(netns):
    """A device in that namespace whose packets come out of, and go into, a descriptor."""
    with Namespace(netns):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"slow", IFF_TUN | IFF_NO_PI))
    ns = os.path.basename(netns)
    run("ip", "-n", ns, "link", "set", "slow", "up")
    run("nsenter", "--net=" + netns, "sysctl", "-qw", "net.ipv4.conf.slow.rp_filter=0", "net.ipv4.conf.all.rp_filter=0")
    return fd


class SlowWay:
    """What leaves node 1 for that address reaches node 2 a while later."""

    def __init__(self, m, address):
        self.near, self.far = tun(m.node_netns(1)), tun(m.node_netns(2))
        run("ip", "-n", os.path.basename(m.node_netns(1)), "route", "add", address + "/32", "dev", "slow")
        self.on = True
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def carry(self):
        waiting = []
        while self.on:
            left = max(0, waiting[0][0] - time.monotonic()) if waiting else 0.2
            if select.select([self.near], [], [], left)[0]:
                waiting.append((time.monotonic() + DELAY_S, os.read(self.near, 65536)))
            while waiting and waiting[0][0] <= time.monotonic():
                os.write(self.far, waiting.pop(0)[1])

    def close(self):
        self.on = False
        self.thread.join()
        os.close(self.near)
        os.close(self.far)


def setup():
    m = Mesh("distance")
    m.pod("client", 1)
    m.pod("near", 2)
    m.pod("far", 2)
    m.apply()
    for n in ("near", "far"):
        m.pods[n].serve("echo:7")
    m.start_agents()
    return m


def of_tunnels(m, server):
    """What both ends have, or all that were seen when one is not alone."""
    return [{t["congestion"] for t in m.agents[node].json("tunnel", "list") if "%s:15008" % server.ip == t["remote" if node == 1 else "local"]}
            for node in (1, 2)]


def opened(m, server):
    s = m.pods["client"].connect(server.ip, 7)
    s.sendall(b"x")
    check(s.recv(1) == b"x", "a tunnel to " + server.name)
    return s


def test_near_and_far(m):
    """A system that paces does so on the way to far peers only; `system` leaves it alone, and so does any other system."""
    system = m.pods["client"].sh("cat", "/proc/sys/net/ipv4/tcp_congestion_control").stdout.strip()
    if not os.path.exists("/dev/net/tun"):
        raise Skip("no /dev/net/tun to make a slow way of")
    near, far = m.pods["near"], m.pods["far"]
    way = SlowWay(m, far.ip)
    try:
        with opened(m, far):
            check(of_tunnels(m, far) == [{system}, {system}], "far: the system's " + system, of_tunnels(m, far))
        # A busy machine may take a millisecond for what is near: then a new tunnel is made.
        seen = []
        for _ in range(20):
            with opened(m, near):
                seen.append(of_tunnels(m, near))
            if not system.startswith("bbr") or all(len(x) == 1 and not x & {system} for x in seen[-1]):
                break
            for a in m.agents.values():
                a.kill()
            for a in m.agents.values():
                a.start()
        paced = system.startswith("bbr")
        check(all(bool(x) and (x <= {"cubic", "reno"} if paced else x == {system}) for x in seen[-1]), "near", seen)
        for a in m.agents.values():
            a.kill()
        for a in m.agents.values():
            a.start(extra=["--tunnel-congestion=system"])
        with opened(m, near):
            check(of_tunnels(m, near) == [{system}, {system}], "near, as the system", of_tunnels(m, near))
    finally:
        way.close()


def test_successor_chooses_anew(m):
    """The listeners that it takes over have what its predecessor chose."""
    client, near = m.pods["client"], m.pods["near"]
    system = client.sh("cat", "/proc/sys/net/ipv4/tcp_congestion_control").stdout.strip()
    other = next((c for c in client.sh("cat", "/proc/sys/net/ipv4/tcp_available_congestion_control").stdout.split() if c != system), None)
    if not other:
        raise Skip("the kernel has one congestion control only")
    for a in m.agents.values():
        a.kill()
        a.start(extra=["--tunnel-congestion=" + other])
    with opened(m, near):
        check(of_tunnels(m, near) == [{other}, {other}], "the predecessor's", of_tunnels(m, near))
    for a in m.agents.values():
        old = a.process
        a.start(wait=False, extra=["--tunnel-congestion=system", "--takeover"])
        eventually(lambda: "a successor has taken over" in old.output(), 15, "the successor has the listeners")
        old.signal(signal.SIGTERM)
        eventually(lambda: not old.running(), 20, "the predecessor ends")
        a.wait_up()
    with opened(m, near):
        check(of_tunnels(m, near) == [{system}, {system}], "the successor's", of_tunnels(m, near))
