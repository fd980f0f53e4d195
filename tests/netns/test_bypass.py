# SPDX-License-Identifier: Apache-2.0
"""No way around the agent, whatever a process in the pod may do: packet and raw sockets, marks, deleted filters, foreign
sources. What counts is what a capture sees on the link between the nodes, behind the node's end of the pod's own link."""
import errno
import ipaddress
import json
import os
import signal
import socket
import struct
import time

from mesh import BPFFS, check, eventually, run
from packets import checksum, clear, ip4, ip6, mac, mesh_and_outsiders, send_raw, syn

FALLBACK = True
PACKET_QDISC_BYPASS = 20
SOL_PACKET = 263
RST = 4
MARKS = (0x57100000, 0x57200000, 0x57300000, 1)
FOREIGN4, FOREIGN6 = "198.51.100.9", "2001:db8:9::9"


def setup():
    return mesh_and_outsiders("bypass")


def counted(m, *reasons):
    now = m.agents[1].counters()
    return [now.get(r, 0) for r in reasons]


# --- what a hostile process sends ---

def segment(src, dst, sport, flags, data=b""):
    """TCP to port 7; the checksum is right, so that a receiver would take it."""
    head = struct.pack("!HHIIBBHHH", sport, 7, 1000, 0, 5 << 4, flags, 65535, 0, 0)
    pseudo = b"".join(ipaddress.ip_address(a).packed for a in (src, dst)) + struct.pack("!II", 20 + len(data), 6)
    return head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data


def packets(src, dst, first):
    """(ether type, IP packet): SYN and bytes of no connection, in both families."""
    out = []
    for i, (flags, data) in enumerate(((2, b""), (0x18, b"PLAINTEXT-BYTES-"))):
        out.append((0x0800, ip4(src.ip, dst.ip, segment(src.ip, dst.ip, first + i, flags, data))))
        out.append((0x86dd, ip6(src.ip6, dst.ip6, segment(src.ip6, dst.ip6, first + i, flags, data), [])))
    return out


def send_frames(pod, frames, bypass):
    """By packet socket; with `bypass` around the pod's own queue and so its programs. How many could be sent."""
    head = mac(pod.mesh.node_netns(pod.node), pod.veth) + mac(pod.netns, "eth0")
    n = 0
    with pod.inside():
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    if bypass:
        s.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    for kind, packet in frames:
        try:
            s.sendto(head + struct.pack("!H", kind) + packet, ("eth0", kind))
            n += 1
        except OSError as e:
            check(e.errno == errno.ENOBUFS and not bypass, "refused at the pod's own interface", e)
    s.close()
    return n


def mapped(src, dst, sport):
    a, b = ("::ffff:" + p.ip for p in (src, dst))
    return [(0x86dd, ip6(a, b, syn(a, b, sport, 7), []))]


def in_clear(m, c, *pods):
    return [p for p in clear(m, c, *pods) if p[4] < 0 or p[4] & 2 or p[5]]


def passed(c, pod):
    """(address, port) that the pod's packets to port 7 came from."""
    return {(p[0], p[1]) for p in c.tcp() if p[0] in (pod.ip, pod.ip6) and p[3] == 7}


def test_packet_sockets(m):
    """The same frames of a pod without the mesh arrive: they are good."""
    client, near, server, plain = (m.pods[x] for x in ("client", "near", "server", "plain"))
    for bypass in (False, True):
        before, = counted(m, "drop_bypass")
        c, local = m.capture(expression="ip or ip6"), m.capture_on(near.netns, "eth0")
        for i, target in enumerate((server, near)):
            send_frames(client, packets(client, target, 43000 + 10 * i) + mapped(client, target, 43005 + 10 * i), bypass)
        time.sleep(0.5)
        c.stop()
        local.stop()
        check(not in_clear(m, c, client) and b"PLAINTEXT-BYTES" not in c.data(), "nothing to the other node, bypass %s" % bypass, in_clear(m, c, client))
        got = [p for p in local.tcp() if p[0] in (client.ip, client.ip6) and p[3] != 15008]
        check(not got and b"PLAINTEXT-BYTES" not in local.data(), "nor to a pod of this node", got)
        after, = counted(m, "drop_bypass")
        check(after >= before + (8 if bypass else 4), "counted on the node's end", before, after)
    c = m.capture()
    check(send_frames(plain, packets(plain, server, 43100), True) == 4, "sent")
    time.sleep(0.5)
    c.stop()
    check(passed(c, plain) == {(a, port) for a in (plain.ip, plain.ip6) for port in (43100, 43101)}, "control: they pass from a pod outside the mesh", c.tcp())


def test_raw_sockets(m):
    client, server = m.pods["client"], m.pods["server"]
    before, = counted(m, "drop_bypass")
    c = m.capture()
    for kind, family in ((0x0800, socket.AF_INET), (0x86dd, socket.AF_INET6)):
        send_raw(client, [p for k, p in packets(client, server, 43200) if k == kind], family)
    time.sleep(0.5)
    c.stop()
    check(not in_clear(m, c, client), "nothing on the link", in_clear(m, c, client))
    check(counted(m, "drop_bypass")[0] >= before + 2, "bytes of no connection are counted; the SYNs went to the agent")


MARKED = """
import errno, socket, sys
for mark in %r:
    for family, address in ((socket.AF_INET, %r), (socket.AF_INET6, %r), (socket.AF_INET6, "::ffff:" + %r)):
        s = socket.socket(family)
        s.setsockopt(socket.SOL_SOCKET, 36, mark)
        s.settimeout(0.3)
        try:
            s.connect((address, 7))
            s.sendall(b"PLAINTEXT-MARKED")
        except OSError as e:
            print(mark, address, e)
        s.close()
print("done")
"""


def test_marks_with_net_raw_alone(m):
    """CAP_NET_RAW, which containers have by default, is enough for SO_MARK; no mark is a way out."""
    client, server = m.pods["client"], m.pods["server"]
    c = m.capture()
    r = client.sh("setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "/usr/bin/python3", "-c",
                  MARKED % (MARKS, server.ip, server.ip6, server.ip))
    c.stop()
    check(r.stdout.endswith("done\n") and "Operation not permitted" not in r.stdout, "the marks could be set", r.stdout, r.stderr)
    check(not clear(m, c, client) and b"PLAINTEXT-MARKED" not in c.data(), "nothing on the link", clear(m, c, client)[:4])


def remove_own_programs(m, pod, number):
    """What NET_ADMIN can do inside: the qdisc goes, and with it what hangs on it. Links cannot be taken from there: the
    test takes their pins instead."""
    pod.sh("tc", "qdisc", "del", "dev", "eth0", "clsact", check_rc=False)
    base = os.path.join(BPFFS, "warren", m.agents[1].name.replace(".", ":"), "v1", "pods", str(number))
    for f in os.listdir(base):
        if not f.endswith("_link"):
            os.unlink(os.path.join(base, f))


def test_without_the_pods_own_programs(m):
    """And the agent's next look at the pod puts them back."""
    client, server = m.pods["client"], m.pods["server"]
    number, (before,) = pod_dump(m, "client")["number"], counted(m, "drop_bypass")
    m.agents[1].process.signal(signal.SIGSTOP)
    try:
        c = m.capture()
        remove_own_programs(m, client, number)
        time.sleep(0.3)  # the kernel takes links away in the background
        for address in (server.ip, server.ip6, "::ffff:" + server.ip):
            try:
                client.connect(address, 7, 0.5).close()
                got = "connected"
            except (socket.timeout, TimeoutError):
                got = "no answer"
            check(got == "no answer", "dropped on the node's end", address, got)
        c.stop()
        check(not clear(m, c, client), "nothing on the link", clear(m, c, client)[:4])
    finally:
        m.agents[1].process.signal(signal.SIGCONT)
    check(counted(m, "drop_bypass")[0] >= before + 3, "counted")
    eventually(lambda: all(x["attached"] for x in pod_dump(m, "client")["links"]), 4, "put back")
    check(client.traffic("ping", server.ip, 7, 3, 8)["ok"], "and carried by the mesh again")


def pod_dump(m, name):
    return next(p for p in m.agents[1].json("bpf", "show")["pods"] if p["name"] == name)


def spoofed(m):
    """From another pod's address and from nobody's: UDP and TCP, both families."""
    server, near = m.pods["server"], m.pods["near"]
    udp = struct.pack("!HHHH", 44000, 7777, 12, 0) + b"fake"
    out = []
    for a, a6 in ((near.ip, near.ip6), (FOREIGN4, FOREIGN6)):
        four, six = bytearray(ip4(a, server.ip, udp)), bytearray(ip6(a6, server.ip6, udp, []))
        four[9] = six[6] = 17
        four[10:12] = b"\0\0"
        four[10:12] = struct.pack("!H", checksum(bytes(four[:20])))
        out += [(0x0800, bytes(four)), (0x86dd, bytes(six)), (0x0800, ip4(a, server.ip, segment(a, server.ip, 44001, 0x10))),
                (0x86dd, ip6(a6, server.ip6, segment(a6, server.ip6, 44001, 0x10), []))]
    return out


def seen_spoofed(c):
    """Packets on the link with our port 44000 or 44001 as their source."""
    return [line for line in c.packets() if ".44000 >" in line or ".44001 >" in line]


def test_foreign_sources(m):
    client = m.pods["client"]
    for bypass in (False, True):
        before, = counted(m, "drop_source_address")
        c = m.capture(expression="ip or ip6")
        check(send_frames(client, spoofed(m), bypass) == 8, "sent: the pod's own programs do not look at sources")
        time.sleep(0.4)
        c.stop()
        check(not seen_spoofed(c), "none on the link", seen_spoofed(c))
        check(counted(m, "drop_source_address")[0] >= before + 8, "counted", before)
    # By ARP, too: the node must not learn that another pod's address is here.
    before, = counted(m, "drop_source_address")
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    me, near = mac(client.netns, "eth0"), m.pods["near"]
    arp = head + me + socket.inet_aton(near.ip) + b"\0" * 6 + socket.inet_aton("10.77.1.1")
    check(send_frames(client, [(0x0806, arp)], True) == 1, "sent")
    eventually(lambda: counted(m, "drop_source_address")[0] > before, 2, "an ARP answer for another's address is dropped")
    check(near.traffic("ping", m.pods["server"].ip, 7, 3, 8)["ok"], "whose owner notices nothing")


def udp_echo(a, b, family):
    """A datagram there and back."""
    address = b.address(family)
    there, here = (p.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) for p in (b, a))
    try:
        there.bind((address, 7070))
        for s in (there, here):
            s.settimeout(3)
        here.sendto(b"hello", (address, 7070))
        data, back = there.recvfrom(100)
        there.sendto(data, back)
        check(here.recvfrom(100)[0] == b"hello" and back[0] == a.address(family), "UDP with its own source", back)
    finally:
        there.close()
        here.close()


def test_normal_traffic_passes(m):
    """TCP by the mesh, UDP, ICMP, neighbours, pods outside the mesh and addresses outside it: not one packet is dropped."""
    client, near, server, plain, outside = (m.pods[x] for x in ("client", "near", "server", "plain", "outside"))
    watched = ("drop_source_address", "drop_bypass", "drop_malformed")
    client.sh("ip", "neigh", "flush", "all")
    before = counted(m, *watched)
    for target in (server, near, plain, outside):
        for family in (4, 6, 46):
            with client.connect(target.address(family), 11) as s:
                check(s.recv(200), "TCP to %s" % target.name)
        for family in (4, 6):
            udp_echo(client, target, family)
            check(client.sh("ping", "-c", "1", "-W", "3", target.address(family), check_rc=False).returncode == 0, "ping to %s" % target.name)
    with plain.connect(client.ip, 11) as s:
        check(s.recv(200).split()[0].decode() == plain.ip, "plaintext into the pod, and its answers")
    check(client.traffic("ping", server.ip, 7, 50, 1000)["ok"], "many messages")
    check(counted(m, *watched) == before, "nothing was dropped", before, counted(m, *watched))


def client_tunnels(m):
    return len([t for t in m.agents[1].json("tunnel", "list") if t["state"] == "ready"])


def dial_agents_port(m, pod, target, port):
    """What the caller reads, and the line about it of the agent of node 1."""
    lines = len(m.agents[1].access())
    try:
        with pod.connect(target.ip, port, 3) as s:
            s.settimeout(5)
            if port == 15008:
                s.sendall(b"not TLS at all, not at all\r\n\r\n")
            got = s.recv(100)
    except ConnectionResetError:
        got = b""

    def line():
        return [x for x in m.agents[1].access()[lines:] if x["dst.addr"] == "%s:%d" % (target.ip, port) and "error" in x]
    return got, eventually(line, 3, "a reason in the log of its own agent, %s to %s:%d" % (pod.name, target.name, port))[0]["error"]


def told_late(m):
    """The other agent's access lines, also of connections that have only just ended."""
    eventually(lambda: not m.agents[2].json("connection", "list"), 5, "nothing is open")
    time.sleep(0.5)
    return m.agents[2].access()


def test_capture_ports(m):
    """Dialled at one's own pod or another, from inside the mesh or outside: accepted and closed with a reason, and never the other agent's."""
    client, near, server, plain = (m.pods[x] for x in ("client", "near", "server", "plain"))
    before, known = client_tunnels(m), {x["src.addr"] for x in told_late(m)}
    for pod, target in ((client, client), (client, near), (client, server), (plain, near)):
        for port in (15001, 15006):
            got, error = dial_agents_port(m, pod, target, port)
            check(got == b"" and error.startswith("illegal_port:"), "%s to %s:%d" % (pod.name, target.name, port), got, error)
        got, error = dial_agents_port(m, pod, target, 15008)
        straight = pod is plain or target is client
        check(error.startswith("tls_" if straight else "illegal_port:"), "15008 ends in the own agent, %s to %s" % (pod.name, target.name), error)
        check(got[:1] in (b"", b"\x15"), "which says no more than an alert", got)
    heard = [x for x in told_late(m) if x["src.addr"] not in known]
    check(client_tunnels(m) == before, "no tunnel", client_tunnels(m), before)
    check(not heard, "and the other node heard nothing", heard)
    for port in (15001, 15006, 15008):
        for address, option in (("::", None), ("127.0.0.1", socket.SO_REUSEADDR), (client.ip, socket.SO_REUSEPORT), ("0.0.0.0", socket.SO_REUSEPORT)):
            s = client.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            try:
                if option:
                    s.setsockopt(socket.SOL_SOCKET, option, 1)
                s.bind((address, port))
                s.listen(1)
                got = "listens"
            except OSError as e:
                got = e.errno
            s.close()
            check(got == errno.EADDRINUSE, "an app that tries later", address, port, got)


def test_a_link_without_an_end(m):
    """A second interface that the node has no end of: pod list and doctor say so, and why."""
    p = m.pod("shared", 1)
    m.write_pod(p)
    eventually(lambda: link_of_or_none(m, "shared") == "enforced", 8, "enrolled")
    node = os.path.basename(m.node_netns(1))
    run("ip", "-n", node, "link", "add", "mv0", "link", "to-n2", "netns", p.ns, "type", "macvlan")
    try:
        text = eventually(lambda: (lambda t: t if t.startswith("partly: mv0") else None)(link_of(m, "shared")), 4, "pod list says so")
        check("no end of its own" in text, "and why", text)
        rows = [x for x in m.agents[1].json("doctor") if "demo/shared" in x["needed_for"]]
        check(rows and not rows[0]["present"] and "mv0" in json.dumps(rows), "doctor, too", rows)
    finally:
        p.sh("ip", "link", "del", "mv0")
    eventually(lambda: link_of(m, "shared") == "enforced", 4, "over with it")
    m.remove_manifest("pod-shared.yaml")
    eventually(lambda: link_of_or_none(m, "shared") is None, 5, "gone")


def test_nothing_reaches_a_strict_pod(m):
    """The same frames and marked sockets at a pod that demands mutual TLS, of the own node and of another."""
    client, near, server = (m.pods[x] for x in ("client", "near", "server"))
    m.write("strict.yaml", {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": m.namespace},
                            "spec": {"mtls": {"mode": "STRICT"}}})
    eventually(lambda: all(p["mtls"] == "strict" for a in m.agents.values() for p in a.json("bpf")["pods"]), 5, "the kernels know")
    try:
        for target in (near, server):
            c = m.capture_on(target.netns, "eth0", "ip or ip6")
            for bypass in (False, True):
                send_frames(client, packets(client, target, 43500 + 10 * bypass) + mapped(client, target, 43505 + 10 * bypass), bypass)
            for family in (socket.AF_INET, socket.AF_INET6):
                send_raw(client, [p for k, p in packets(client, target, 43530) if (k == 0x0800) == (family == socket.AF_INET)], family)
            send_frames(client, spoofed(m), True)
            client.sh("setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw", "/usr/bin/python3", "-c",
                      MARKED % (MARKS, target.ip, target.ip6, target.ip))
            time.sleep(0.4)
            c.stop()
            got = [p for p in c.tcp() if p[2] in (target.ip, target.ip6) and p[3] == 7 and p[0] in (client.ip, client.ip6, FOREIGN4, FOREIGN6)]
            # A kernel's bare RST for a socket that is gone carries nothing, and opens nothing.
            got = [p for p in got if p[4] != RST or p[5]]
            check(not got and b"PLAINTEXT" not in c.data(), "nothing in plaintext at %s" % target.name, got[:4])
            check(client.traffic("ping", target.ip, 7, 3, 8)["ok"], "by mutual TLS it is reached")
    finally:
        m.remove_manifest("strict.yaml")


# --- the command ---

def prove(m, name, *options, node=1):
    r = m.agents[node].ctl(*options, "prove", name, check_rc=False)
    return r.returncode, r.stdout, r.stderr


def node_state(m):
    ns = m.node_netns(1)
    return run("nsenter", "--net=" + ns, "sh", "-c", "tc qdisc show; for d in $(ls /sys/class/net); do tc filter show dev $d ingress; done").stdout


def test_prove(m):
    before, connections = node_state(m), m.agents[1].json("connection", "list")
    held = m.pods["client"].connect(m.pods["server"].ip, 7)
    code, out, err = prove(m, "client")
    check(code == 0 and not err, "nothing got through", code, out, err)
    check("0 of 29 probes got through" in out and " YES" not in out, "said so", out)
    for part in ("packet socket past the queue, IPv4, SYN", "raw socket, IPv6, bytes", "foreign source", "v4-mapped", "mark 0x57200000"):
        check(part in out, "what was tried", part, out)
    code, out, err = prove(m, "demo/client", "-j")
    got = json.loads(out)
    check(code == 0 and got["through"] == 0 and got["drop_source_address"] >= 6 and got["drop_bypass"] >= 8, "as JSON, with what was dropped", got)
    check(sum(p["sent"] == "yes" for p in got["probes"]) >= 28, "most could be sent", got)
    held.sendall(b"still here")
    check(held.recv(20) == b"still here", "the app is not disturbed")
    held.close()
    check(node_state(m) == before, "nothing stays behind", before, node_state(m))
    check(len(m.agents[1].json("connection", "list")) <= len(connections) + 1, "nor in the agent")
    for name in ("nobody", "plain"):
        code, out, err = prove(m, name)
        check(code == 2 and name in err, "what cannot be found out", code, out, err)
    check(m.agents[1].ctl("prove", check_rc=False).returncode == 2, "which pod?")
    check("witness on the node's end of the pod's link" in " ".join(m.agents[1].ctl("prove", "help").stdout.split()), "the help explains it")


def restart_with(m, *options):
    m.agents[1].stop()
    m.agents[1].options = list(options)
    m.agents[1].start()


def link_of(m, name="client"):
    return {p["name"]: p.get("link") for p in m.agents[1].json("pod", "list")}[name]


def test_modes(m):
    client = m.pods["client"]
    check(link_of(m) == "enforced" and "link" not in [x["name"] for x in m.agents[1].json("doctor")], "enforced is the default")
    try:
        restart_with(m, "--anti-spoof=count")
        check(link_of(m) == "counted", "told", link_of(m))
        before, = counted(m, "drop_source_address")
        c = m.capture(expression="ip or ip6")
        send_frames(client, spoofed(m), False)
        time.sleep(0.4)
        c.stop()
        check(len(seen_spoofed(c)) >= 4, "passed", seen_spoofed(c))
        check(counted(m, "drop_source_address")[0] >= before + 8, "and counted")
        code, out, _ = prove(m, "client")
        check(code == 1 and " YES" in out and " 0 of" not in out, "prove says what gets through", code, out)
        restart_with(m, "--anti-spoof=off")
        check(link_of(m) == "off", "told", link_of(m))
        check(not [x for x in pod_dump(m, "client")["links"] if x["place"] == "link"], "nothing of ours on the node's end", pod_dump(m, "client")["links"])
        check(any("off" in x.get("link", "") and "demo/client" in x["needed_for"] for x in m.agents[1].json("doctor")), "the doctor says so")
        code, out, _ = prove(m, "client")
        check(code == 1 and json.loads(prove(m, "client", "-j")[1])["drop_source_address"] == 0, "prove sees them", code, out)
    finally:
        restart_with(m)
    check(link_of(m) == "enforced" and prove(m, "client")[0] == 0, "enforced again")


def test_dead_agent_stays_closed(m):
    """The program outlives its agent; a release by hand, without one, takes it away."""
    client = m.pods["client"]
    m.agents[1].kill()
    try:
        code, out, err = prove(m, "client")
        check(code == 0 and "enforced" in out, "still in force", code, out, err)
        c = m.capture(expression="ip or ip6")
        send_frames(client, packets(client, m.pods["server"], 43300) + spoofed(m), True)
        time.sleep(0.4)
        c.stop()
        check(not in_clear(m, c, client) and not seen_spoofed(c), "nothing on the link", in_clear(m, c, client))
        m.agents[1].ctl("pod", "release", "client")
        c = m.capture()
        with client.connect(m.pods["outside"].ip, 7) as s:
            s.sendall(b"free")
            check(s.recv(10) == b"free", "free again")
        send_frames(client, packets(client, m.pods["server"], 43310), True)
        time.sleep(0.4)
        c.stop()
        check(passed(c, client) >= {(a, port) for a in (client.ip, client.ip6) for port in (43310, 43311)}, "released: nothing is dropped", c.tcp())
        left = run("nsenter", "--net=" + m.node_netns(1), "sh", "-c", "tc qdisc show dev %s; tc filter show dev %s ingress" % (client.veth, client.veth)).stdout
        check("clsact" not in left and "pod_link" not in left, "nothing of ours on its link", left)
    finally:
        m.agents[1].start()
    check(link_of(m) == "enforced", "enrolled again")


def test_link_made_anew(m):
    """The pod's interface is replaced while it is enrolled: the new one is watched within two seconds."""
    p = m.pod("renewed", 1)
    m.write_pod(p)
    eventually(lambda: link_of_or_none(m, "renewed") == "enforced", 8, "enrolled")
    node = os.path.basename(m.node_netns(1))
    run("ip", "-n", node, "link", "del", p.veth)
    check("none" in link_of(m, "renewed"), "no interface, no link", link_of(m, "renewed"))
    run("ip", "link", "add", p.veth, "netns", node, "type", "veth", "peer", "name", "eth0", "netns", p.ns)
    eventually(lambda: link_of(m, "renewed") == "enforced", 4, "attached again")
    m.delete_pod_netns(p)
    eventually(lambda: run("ip", "-n", node, "link", "show", p.veth, check_rc=False).returncode != 0, 4, "the node's end goes with the pod")
    m.remove_manifest("pod-renewed.yaml")
    m.pods.pop("renewed")


def link_of_or_none(m, name):
    return {p["name"]: p.get("link") for p in m.agents[1].json("pod", "list")}.get(name)


def test_unlabelled_and_labelled(m):
    """Twenty times, with traffic: un-enrolled, the node's end lets everything pass; enrolled, it is watched again."""
    near = m.pods["near"]
    for i in range(20):
        m.enrol(near, i % 2 == 1)
        want = "enforced" if i % 2 else None
        eventually(lambda: link_of_or_none(m, "near") == want, 10, "link %s" % want)
        check(near.traffic("ping", m.pods["server"].ip, 7, 2, 8)["ok"], "TCP goes on")
        check(near.sh("ping", "-c", "1", "-W", "2", m.pods["server"].ip6, check_rc=False).returncode == 0, "ICMP goes on")


test_unlabelled_and_labelled.seconds = 150
