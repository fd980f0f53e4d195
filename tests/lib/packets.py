# SPDX-License-Identifier: Apache-2.0
"""Packets as no TCP of a kernel would send them, and the mesh in which they are sent: pods in it and beside it.
Called by tests/netns/test_leak.py and test_bypass.py."""
import ipaddress
import re
import socket
import struct

from mesh import Mesh, run


def mesh_and_outsiders(name):
    """In the mesh: client and near on node 1, server on node 2. On node 1 without it: plain; beyond its ranges: outside."""
    m = Mesh(name)
    m.agent_options = ["--drain=2s"]
    m.pod("client", 1)
    m.pod("near", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.pod("outside", 2, foreign=True)
    m.apply()
    for p in m.pods.values():
        p.serve("echo:7", "who:11")
    m.start_agents()
    return m


def clear(m, capture, *pods):
    """TCP packets on the link of these pods that are not the tunnel's."""
    ours = {a for p in pods for a in (p.ip, p.ip6)}
    return [p for p in capture.tcp() if (p[0] in ours or p[2] in ours) and 15008 not in (p[1], p[3])]


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


def syn(src, dst, sport, dport, data=b""):
    s, d = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
    head = struct.pack("!HHIIBBHHH", sport, dport, 1000, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = s + d + (struct.pack("!BBH", 0, 6, 20) if len(s) == 4 else struct.pack("!IHBB", 20 + len(data), 0, 0, 6))
    return head[:16] + struct.pack("!H", checksum(pseudo + head + data)) + head[18:] + data


def ip4(src, dst, payload, options=b"", ident=1, flags=0, offset=0):
    ihl = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | ihl, 0, ihl * 4 + len(payload), ident, flags << 13 | offset // 8, 64, 6, 0,
                       ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ip6(src, dst, payload, chain):
    """chain: extension headers, each (number, bytes after its next-header field)."""
    numbers = [n for n, _ in chain] + [6]
    body = b"".join(bytes([numbers[i + 1]]) + data for i, (_, data) in enumerate(chain)) + payload
    return struct.pack("!IHBB", 6 << 28, len(body), numbers[0], 64) + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + body


def send_raw(pod, packets, family=socket.AF_INET):
    with pod.inside():
        s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for p in packets:
        dst = str(ipaddress.ip_address(p[16:20] if family == socket.AF_INET else p[24:40]))
        s.sendto(p, (dst, 0))
    s.close()


def mac(netns, device):
    return bytes.fromhex(re.search(r"link/ether (\S+)", run("nsenter", "--net=" + netns, "ip", "link", "show", device).stdout).group(1).replace(":", ""))
