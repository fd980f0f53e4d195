# SPDX-License-Identifier: Apache-2.0
"""Joining and leaving the mesh under traffic; what is left behind in a pod; pods that vanish; pods that are refused."""
import errno
import json
import os
import re
import socket
import time

import h2.events

import certs
import hbone
from mesh import BPFFS, LABEL, Mesh, SANITIZER, check, eventually, run

FALLBACK = True


def setup():
    m = Mesh("enrol")
    m.agent_options = ["--drain=3s"]
    m.pod("client", 1)
    m.pod("server", 2)
    m.apply(ambient=True)
    m.pods["server"].serve("echo:7", "who:11")
    m.start_agents()
    return m


def listing(agent):
    got = agent.json("pod", "list")
    return got if isinstance(got, list) else next(v for v in got.values() if isinstance(v, list))


def states(agent):
    return {p["name"].split("/")[-1]: p for p in listing(agent)}


def is_enrolled(agent, name):
    p = states(agent).get(name)
    return bool(p) and p.get("state", p.get("status")) == "enrolled"


VOLATILE = re.compile(r"(random|_mem\b|route/flush|stable_secret|neigh|nf_conntrack|tcp_fastopen_key|ipv4.route)")


def inventory(pod):
    """What a pod's namespace holds that an agent could have changed."""
    rules = sorted(pod.sh("ip", "rule").stdout.splitlines() + pod.sh("ip", "-6", "rule").stdout.splitlines())
    routes = pod.sh("ip", "route", "show", "table", "all").stdout + pod.sh("ip", "-6", "route", "show", "table", "all").stdout
    routes = sorted(x for x in routes.splitlines() if "expires" not in x and not x.startswith("multicast"))
    sysctls = sorted(x for x in pod.sh("sysctl", "-a", check_rc=False).stdout.splitlines() if x.startswith("net.") and not VOLATILE.search(x))
    return {"programs": pod.sh("bpftool", "net", "show", check_rc=False).stdout, "qdiscs": pod.sh("tc", "qdisc", "show").stdout,
            "rules": rules, "routes": routes, "sysctls": sysctls,
            "listeners": sorted(x.split()[3] for x in pod.sh("ss", "-Htln").stdout.splitlines()), "links": pod.sh("ip", "-br", "link").stdout}


def differences(a, b):
    out = []
    for k in a:
        if a[k] != b[k]:
            if isinstance(a[k], list):
                out.append("%s: gone %s, new %s" % (k, [x for x in a[k] if x not in b[k]][:5], [x for x in b[k] if x not in a[k]][:5]))
            else:
                out.append("%s: %r -> %r" % (k, a[k], b[k]))
    return out


def test_a_pod_that_left_is_as_before(m):
    p = m.pod("guest", 1)
    before = inventory(p)
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "guest"), 5, "enrolled")
    check(differences(before, inventory(p)), "enrolment changes something that the inventory sees")
    check(p.traffic("ping", m.pods["server"].ip, 7, 10, 10)["ok"], "meshed")
    m.enrol(p, False)
    eventually(lambda: not differences(before, inventory(p)), 8, "as before; now: %s" % differences(before, inventory(p)), step=0.3)
    check("guest" not in states(m.agents[1]), "not listed any more", listing(m.agents[1]))
    check(p.traffic("ping", m.pods["server"].ip, 7, 10, 10)["ok"], "in plaintext, as before")


def flip(m, who):
    """20 times out of and into the mesh; a new connection every 20 ms, one from before the first time."""
    client, server = m.pods["client"], m.pods["server"]
    agent = m.agents[who.node]
    m.enrol(client, False)
    m.enrol(server, False)
    eventually(lambda: not states(m.agents[1]).get("client") and not states(m.agents[2]).get("server"), 10, "both out")
    old = client.client("long", server.ip, 7, 50, 120)
    old.wait_for('"connected": true')
    new = client.client("every", server.ip, 7, 20, 120)
    other = server if who is client else client
    m.enrol(other, True)
    eventually(lambda: is_enrolled(m.agents[other.node], other.name), 5, other.name + " in")
    for _ in range(20):
        m.enrol(who, True)
        eventually(lambda: is_enrolled(agent, who.name), 6, who.name + " in", step=0.03)
        time.sleep(0.1)
        m.enrol(who, False)
        eventually(lambda: not is_enrolled(agent, who.name), 6, who.name + " out", step=0.03)
        time.sleep(0.1)
    m.enrol(who, True)
    eventually(lambda: is_enrolled(agent, who.name), 6, "in at the end")
    new.signal(15)
    r = new.result(40)
    check(r["failed"] == 0 and r["done"] > 50, "no new connection failed", r)
    count = r["done"]
    check(old.running(), "the connection from before the first label lives", old.output()[-300:])
    old.signal(15)
    r = old.result(40)
    check(r["ok"] or r["errno"] == errno.EINTR, "and worked all the time", r)
    return "%d connections, %d messages" % (count, r["messages"])


def test_client_labelled_20_times(m):
    return flip(m, m.pods["client"])


def test_server_labelled_20_times(m):
    return flip(m, m.pods["server"])


def test_open_connection_at_unlabel_drains_then_resets(m):
    client, server = m.pods["client"], m.pods["server"]
    for who in (client, server):
        eventually(lambda: is_enrolled(m.agents[1], "client") and is_enrolled(m.agents[2], "server"), 8, "both in")
        s = client.connect(server.ip, 7)
        s.sendall(b"a")
        check(s.recv(1) == b"a", "meshed")
        start = time.monotonic()
        m.enrol(who, False)
        got = None
        while time.monotonic() - start < 12:
            try:
                s.sendall(b"b")
                if s.recv(1) != b"b":
                    got = "end of file"
                    break
            except OSError as e:
                got = e.errno
                break
            time.sleep(0.05)
        lived = time.monotonic() - start
        s.close()
        m.enrol(who, True)
        check(got in (errno.ECONNRESET, errno.EPIPE), "ends by RST, %s left" % who.name, got, lived)
        check(2.5 < lived < 6, "lives for the drain of 3 s", lived)


def test_new_connection_at_once_after_unlabel(m):
    """While the old ones drain, new ones bypass."""
    client, server = m.pods["client"], m.pods["server"]
    eventually(lambda: is_enrolled(m.agents[1], "client") and is_enrolled(m.agents[2], "server"), 8, "both in")
    old = client.connect(server.ip, 7)
    old.sendall(b"a")
    old.recv(1)
    c = m.capture()
    m.enrol(client, False)
    eventually(lambda: not is_enrolled(m.agents[1], "client"), 3, "draining")
    check(client.traffic("ping", server.ip, 7, 5, 5)["ok"], "new one works")
    c.stop()
    check([p for p in c.tcp() if p[0] == client.ip and p[3] == 7], "and went past the agent")
    old.close()
    m.enrol(client, True)
    eventually(lambda: is_enrolled(m.agents[1], "client"), 8, "in again")


def test_label_off_and_on_again(m):
    """Faster than a drain begins: the pod is in again at once, not after the drain of its open connection."""
    client, server = m.pods["client"], m.pods["server"]
    eventually(lambda: is_enrolled(m.agents[1], "client") and is_enrolled(m.agents[2], "server"), 8, "both in")
    drains = m.agents[1].text().count("demo/client: draining")
    held = client.connect(server.ip, 7)
    held.sendall(b"a")
    held.recv(1)
    m.enrol(client, False)
    time.sleep(0.06)
    m.enrol(client, True)
    eventually(lambda: m.agents[1].text().count("demo/client: draining") > drains and is_enrolled(m.agents[1], "client"), 1.5, "in again")
    c = m.capture()
    check(client.traffic("ping", server.ip, 7, 5, 5)["ok"], "new one works")
    c.stop()
    held.close()
    check(not [p for p in c.tcp() if p[0] == client.ip and p[3] == 7], "by the tunnel")


def veths(m, node):
    return run("ip", "-n", os.path.basename(m.node_netns(node)), "-br", "link").stdout


def test_deleted_pod_lets_go(m):
    """The node's end of a deleted pod's veth goes within a second or two."""
    p = m.pod("mortal", 1)
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "mortal"), 5, "enrolled")
    s = p.connect(m.pods["server"].ip, 7)
    s.sendall(b"x")
    s.recv(1)
    s.close()
    check(p.veth + "@" in veths(m, 1), "veth there before")
    m.delete_pod_netns(p)
    eventually(lambda: p.veth + "@" not in veths(m, 1), 3, "the node's end is gone", step=0.1)
    m.remove_manifest("pod-mortal.yaml")
    eventually(lambda: "mortal" not in states(m.agents[1]), 5, "forgotten")


def pins(m, node):
    return os.listdir(os.path.join(BPFFS, "warren", m.agents[node].name.replace(".", ":"), "v1", "pods"))


def holders(agent, inode):
    """The agent's descriptors of this namespace."""
    fds = "/proc/%d/fd/" % agent.pid
    return [f for f in os.listdir(fds) if os.path.exists(fds + f) and os.stat(fds + f).st_ino == inode]


def swap(p, old, new):
    """The path of the pod's namespace names another one from now on; its own one lives on under another name."""
    run("ip", "netns", "add", os.path.basename(new))
    open(old, "w").close()
    run("mount", "--bind", p.netns, old)
    run("umount", "-l", p.netns)
    run("mount", "--bind", new, p.netns)


def test_path_that_is_gone_or_names_another(m):
    """Under a live tunnel: its peer hears GOAWAY, the stream ends by a reset; nothing holds the namespace, no pin is left, and
    what lives on is as it was before the mesh."""
    agent, held = m.agents[2], pins(m, 2)
    caller = m.pod("caller", 1, enrolled=False)
    pem = certs.issue(certs.load_ca(m.ca), caller.identity, os.path.join(m.dir, "caller.pem"))
    for how in "gone", "another":
        p = m.pod("swapped-" + how, 2)
        old, new = p.netns + "-old", p.netns + "-new"
        app = p.serve("echo:7")
        before, inode = inventory(p), os.stat(p.netns).st_ino
        m.write_pod(p)
        eventually(lambda: is_enrolled(agent, p.name), 5, "enrolled")
        check(holders(agent, inode) and len(pins(m, 2)) == len(held) + 1, "held while it is enrolled")
        c = hbone.Client(caller, p.ip, pem, certs.root_file(m.ca))
        s = c.request(p.ip + ":7")
        check(c.status(s) == 200, "a stream")
        m.delete_pod_netns(p) if how == "gone" else swap(p, old, new)
        e = c.wait(h2.events.ConnectionTerminated)
        check(e and e.error_code == 0 and e.last_stream_id == s, "GOAWAY", e)
        # By hand: this client's session is closed for it by the GOAWAY.
        c.sock.settimeout(5)
        rest = b"".join(iter(lambda: c.sock.recv(65536), b""))
        check(rest[:13] == b"\0\0\4\3\0" + s.to_bytes(4, "big") + (10).to_bytes(4, "big"), "RST_STREAM CONNECT_ERROR, and the tunnel's end", rest)
        eventually(lambda: sorted(pins(m, 2)) == sorted(held), 3, "no pin is left: %s" % pins(m, 2))
        eventually(lambda: not holders(agent, inode), 3, "nor a descriptor")
        m.remove_manifest("pod-%s.yaml" % p.name)
        eventually(lambda: p.name not in states(agent), 5, "forgotten")
        if how == "gone":
            app.kill()
            eventually(lambda: p.veth + "@" not in veths(m, 2), 3, "the node's end is gone", step=0.1)
            continue
        p.netns = old
        check(not differences(before, inventory(p)), "as before", differences(before, inventory(p)))
        for name in (p.ns, os.path.basename(old), os.path.basename(new)):
            run("ip", "netns", "del", name)


def test_deleted_pod_whose_peer_is_silent(m):
    """The other node does not answer any more, and what was sent to it waits: that holds nothing, either."""
    p = m.pod("late", 1)
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "late"), 5, "enrolled")
    nft = ["nsenter", "--net=" + m.node_netns(1), "nft"]
    with p.connect(m.pods["server"].ip, 7) as s:
        s.sendall(b"x")
        s.recv(1)
        run(*nft, "add table inet silent; add chain inet silent f { type filter hook forward priority 0; policy drop; }")
        s.sendall(b"y" * 1000)
    try:
        m.delete_pod_netns(p)
        eventually(lambda: p.veth + "@" not in veths(m, 1), 5, "the node's end is gone", step=0.1)
    finally:
        run(*nft, "delete table inet silent")
    m.remove_manifest("pod-late.yaml")
    eventually(lambda: "late" not in states(m.agents[1]), 5, "forgotten")


def test_pod_deleted_while_the_agent_is_dead(m):
    p = m.pod("ghost", 1)
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "ghost"), 5, "enrolled")
    m.agents[1].kill()
    m.delete_pod_netns(p)
    m.remove_manifest("pod-ghost.yaml")
    eventually(lambda: p.veth + "@" not in veths(m, 1), 3, "the pins alone hold no namespace", step=0.1)
    m.agents[1].start()
    eventually(lambda: "ghost" not in m.agents[1].ctl("-j", "bpf", "show").stdout, 5, "its pins are gone")


def test_refusable_since_the_agent_died(m):
    """A sidecar was injected meanwhile: the pod is let out of capture, not held there without anyone who listens."""
    p = m.pod("meshless", 1)
    before = inventory(p)
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "meshless"), 5, "enrolled")
    m.agents[1].kill()
    d = p.manifest()
    d["metadata"]["annotations"]["sidecar.istio.io/status"] = "{}"
    m.write("pod-meshless.yaml", d)
    m.agents[1].start()
    got = states(m.agents[1])["meshless"]
    check(got["state"] == "refused" and "sidecar" in got["reason"], "refused", got)
    check(p.traffic("ping", m.pods["server"].ip, 7, 3, 3, seconds=10)["ok"], "works, in plaintext")
    check(not differences(before, inventory(p)), "as before", differences(before, inventory(p)))
    m.remove_manifest("pod-meshless.yaml")


def test_namespace_made_anew_is_enrolled_anew(m):
    p = m.pod("phoenix", 1)
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "phoenix"), 5, "enrolled")
    m.delete_pod_netns(p)
    eventually(lambda: p.veth + "@" not in veths(m, 1), 3, "gone", step=0.1)
    m.make_pod_netns(p)
    c = None
    eventually(lambda: "15001" in p.sh("ss", "-Htln").stdout, 6, "listeners in the new namespace")
    eventually(lambda: is_enrolled(m.agents[1], "phoenix"), 3, "enrolled again")
    c = m.capture()
    check(p.traffic("ping", m.pods["server"].ip, 7, 5, 5)["ok"], "works")
    c.stop()
    check(not [x for x in c.tcp() if x[0] == p.ip and x[3] == 7], "meshed")
    m.remove_manifest("pod-phoenix.yaml")


def test_addresses_found_follow_the_namespace(m):
    """A pod whose status names no address: listed with those of its namespace, as they are now."""
    p = m.pod("nomad", 1)
    d = p.manifest()
    del d["status"]["podIP"], d["status"]["podIPs"]
    m.write("pod-nomad.yaml", d)
    addresses = lambda: sorted(states(m.agents[1]).get("nomad", {}).get("addresses", []))
    eventually(lambda: addresses() == sorted([p.ip, p.ip6]), 5, "found; listed: %s" % addresses())
    m.delete_pod_netns(p)
    eventually(lambda: p.veth + "@" not in veths(m, 1), 3, "gone", step=0.1)
    first, p.ip, p.ip6 = p.ip, "10.77.1.222", "fd77:1::de"
    m.make_pod_netns(p)
    eventually(lambda: addresses() == sorted([p.ip, p.ip6]), 6, "made anew with others")
    check(p.traffic("ping", m.pods["server"].ip, 7, 5, 5)["ok"], "works")
    p.sh("ip", "address", "add", first + "/32", "dev", "eth0")
    eventually(lambda: first in addresses(), 3, "one more, while it runs")
    m.remove_manifest("pod-nomad.yaml")
    eventually(lambda: "nomad" not in states(m.agents[1]), 5, "forgotten")


def test_address_of_two_pods(m):
    """The older one keeps it, and the log names both, once."""
    server = m.pods["server"]
    d = m.pod("thief", 2).manifest()
    d["metadata"]["labels"][LABEL] = "none"
    d["status"] = {"podIP": server.ip}
    d["metadata"]["creationTimestamp"] = "2024-05-01T10:00:01Z"
    kept = server.manifest()
    kept["metadata"]["creationTimestamp"] = "2024-05-01T10:00:00Z"
    m.write("pod-server.yaml", kept)
    m.write("pod-thief.yaml", d)
    words = "%s is claimed by pods demo/server and demo/thief" % server.ip
    eventually(lambda: words in m.agents[1].text(), 3, "the log says so: %s" % m.agents[1].text()[-500:])
    m.write("services.yaml", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other", "namespace": "demo"},
                              "spec": {"clusterIP": "10.96.1.7", "ports": [{"port": 80}]}})
    eventually(lambda: "10.96.1.7" in m.agents[1].ctl("-j", "service", "list").stdout, 3, "another round")
    check(m.agents[1].text().count(words) == 1, "said once")
    c = m.capture()
    check(m.pods["client"].traffic("ping", server.ip, 7, 5, 5)["ok"], "works")
    c.stop()
    check(not [p for p in c.tcp() if p[3] == 7], "by the tunnel, to the older pod's identity")
    m.remove_manifest("pod-thief.yaml")
    m.write_pod(server)


def alarms(m, name):
    r = m.agents[1].ctl("status", check_rc=False)
    check(r.returncode == 0, "a refused pod does not keep the node from being up", r.stdout)
    return [x for x in r.stdout.splitlines() if x.startswith("ALARM: pod demo/%s refused" % name)]


def refusal(m, name, reason, manifest, by_design=False):
    m.write("pod-%s.yaml" % name, manifest)
    try:
        eventually(lambda: states(m.agents[1]).get(name, {}).get("state") == "refused", 5, "refused: %s" % states(m.agents[1]).get(name))
        got = states(m.agents[1])[name]
        check(got["reason"] == reason, "its reason", got)
        check("demo/%s: refused: %s\n" % (name, reason) in m.agents[1].text(), "in the log, too", m.agents[1].text()[-600:])
        check(re.search(r"^demo +%s +refused .* %s$" % (name, re.escape(reason)), m.agents[1].ctl("pod", "list").stdout, re.M), "and as text")
        check(len(alarms(m, name)) == (not by_design), "an alarm if somebody must help", alarms(m, name))
    finally:
        m.remove_manifest("pod-%s.yaml" % name)
        eventually(lambda: name not in states(m.agents[1]), 5, "forgotten")


def test_refused_host_network(m):
    p = m.pod("hostnet", 1)
    d = p.manifest()
    d["spec"]["hostNetwork"] = True
    refusal(m, "hostnet", "hostNetwork: it has no network namespace of its own", d, by_design=True)


def test_refused_node_namespace(m):
    p = m.pod("onnode", 1)
    d = p.manifest()
    d["metadata"]["annotations"]["warren.dev/netns"] = m.node_netns(1)
    refusal(m, "onnode", "its network namespace is the node's own", d)


def test_refused_without_a_namespace(m):
    """A mistake closes the way to a labelled pod, it never opens one in plaintext."""
    p = m.pod("nowhere", 1)
    d = p.manifest()
    del d["metadata"]["annotations"]["warren.dev/netns"]
    p.serve("echo:7")
    refusal(m, "nowhere", "annotation warren.dev/netns is missing: where is its network namespace?", d)
    m.write("pod-nowhere.yaml", d)
    eventually(lambda: states(m.agents[1]).get("nowhere"), 5, "known")
    c = m.capture_on(p.netns, "eth0", "tcp")
    s = m.pods["client"].connect(p.ip, 7, 15)
    try:
        s.sendall(b"secret")
        got = s.recv(1)
    except OSError as e:
        got = e.errno
    s.close()
    c.stop()
    check(got == errno.ECONNRESET, "reset at the deadline", got)
    check(all(15008 in (q[1], q[3]) for q in c.tcp()), "nothing but tries of a tunnel reached it", c.tcp()[:5])
    m.write_pod(p)
    eventually(lambda: is_enrolled(m.agents[1], "nowhere"), 5, "put right: enrolled")
    check(not alarms(m, "nowhere"), "and the alarm is over", alarms(m, "nowhere"))
    check(m.pods["client"].traffic("ping", p.ip, 7, 3, 8)["ok"], "meshed")
    m.remove_manifest("pod-nowhere.yaml")


def test_refused_shared_namespace(m):
    p = m.pod("twin", 1)
    d = p.manifest()
    d["metadata"]["annotations"]["warren.dev/netns"] = m.pods["client"].netns
    refusal(m, "twin", "shares its network namespace with pod client", d)


def test_refused_injected_sidecar(m):
    p = m.pod("sidecar", 1)
    d = p.manifest()
    d["metadata"]["annotations"]["sidecar.istio.io/status"] = "{}"
    refusal(m, "sidecar", "it has an injected sidecar: annotation sidecar.istio.io/status", d, by_design=True)


def test_refused_foreign_socket(m):
    """Whichever of the agent's ports an app holds, on whatever address: it is named, and the pod is as it was."""
    for port, family, address in ((15001, socket.AF_INET6, "::"), (15006, socket.AF_INET, "127.0.0.1"), (15008, socket.AF_INET, "0.0.0.0")):
        p = m.pod("squatter%d" % port, 1)
        s = p.socket(family)
        s.bind((address, port))
        s.listen(1)
        refusal(m, p.name, "port %d is held by another process of the pod" % port, p.manifest())
        s.close()
        check("clsact" not in p.sh("tc", "qdisc", "show").stdout and "1500" not in p.sh("ss", "-Htln").stdout, "undone in reverse")


for _f in (test_client_labelled_20_times, test_server_labelled_20_times):
    _f.seconds = 180
