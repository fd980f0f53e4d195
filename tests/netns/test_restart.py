# SPDX-License-Identifier: Apache-2.0
"""Agents that die and come back, peers that stay away, and the hand-over to a successor."""
import errno
import re
import signal
import socket
import time

from mesh import Failure, Mesh, SANITIZER, check, eventually, run, scaled

FALLBACK = True
DIAL = 4


def setup():
    m = Mesh("restart")
    m.agent_options = ["--dial-timeout=%ds" % DIAL, "--drain=3s"]
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 2, enrolled=False)
    m.plain_vip = m.service("plain", {"app": "plain"}, [("echo", 7, 7)])[0]
    m.apply()
    for p in ("server", "plain"):
        m.pods[p].serve("echo:7", "duplex:9", "last:14")
    m.start_agents()
    return m


def last(pod):
    """(count, errno) of the server's connection that ended last, asked on loopback."""
    with pod.connect("127.0.0.1", 14) as s:
        n, _, _, error = s.recv(200).decode().split()
    return int(n), int(error)


def dropped(m):
    return [a.counters().get("drop_agent_gone", 0) for a in m.agents.values()]


def exchange(m):
    """An attempt made after up: nothing of it is dropped."""
    before = dropped(m)
    r = m.pods["client"].traffic("ping", m.pods["server"].ip, 7, 3, 64)
    check(r["ok"] and dropped(m) == before, "an attempt made after up is served", r, before, dropped(m))
    check(r["seconds"] < (4 if SANITIZER else 1), "within 1 s", r)


def test_killed_20_times_under_traffic(m):
    client, server = m.pods["client"], m.pods["server"]
    c = m.capture(expression="tcp and not port 15008")
    new = client.client("every", server.ip, 7, 25, 300)
    rounds = 20 if not SANITIZER else 6
    for i in range(rounds):
        bulk = client.client("bulk", server.ip, 9, 1 << 30, 0)
        time.sleep(0.15)
        victims = [m.agents[1], m.agents[2]] if i % 3 == 2 else [m.agents[1 + i % 3]]
        for a in victims:
            a.kill()
        time.sleep(0.1)
        for a in victims:
            a.start(wait=False)
        for a in victims:
            a.wait_up()
        exchange(m)
        r = bulk.result(40)
        check(r["ok"] or r["errno"] in (errno.ECONNRESET, errno.EPIPE), "a transfer ends whole or by RST, round %d" % i, r)
    new.signal(signal.SIGTERM)
    r = new.result(60)
    odd = {k: v for k, v in r["errors"].items() if k not in ("Connection reset by peer", "Broken pipe")}
    c.stop()
    check(not odd, "nothing corrupted, refused, or accepted and then stuck", r)
    check(not c.tcp(), "nothing in plaintext", c.tcp()[:4])
    return "%d connections, %d of them reset" % (r["done"] + r["failed"], r["failed"])


def attempt_while_gone(m, victim, others=()):
    client = m.pods["client"]
    victim.kill()
    p = client.client("ping", m.pods["server"].ip, 7, 1, 8)
    time.sleep(1.5)
    check(p.running(), "not refused while agent %d is gone" % victim.node, p.output())
    victim.start()
    up = time.monotonic()
    r = p.result(30)
    check(r["ok"], "completes once the agent is back", r)
    return time.monotonic() - up


def test_attempt_while_the_clients_agent_is_gone(m):
    took = attempt_while_gone(m, m.agents[1])
    check(took < 5, "at the client's next retransmission", took)


def test_attempt_while_the_servers_agent_is_gone(m):
    """Within the dial deadline: the client's agent tries again until the peer is up, never in plaintext."""
    c = m.capture(expression="tcp and not port 15008")
    took = attempt_while_gone(m, m.agents[2])
    c.stop()
    check(took < 2 and not c.tcp(), "soon after the peer is up, only by the tunnel", took, c.tcp()[:4])


def test_peer_stays_away(m):
    client = m.pods["client"]
    m.agents[2].kill()
    before = len(m.agents[1].access())
    c = m.capture(expression="tcp dst port 15008 and tcp[13] == 2")
    start = time.monotonic()
    s = client.connect(m.pods["server"].ip, 7)
    s.settimeout(20)
    try:
        s.sendall(b"x")
        got = s.recv(1)
    except OSError as e:
        got = e.errno
    took = time.monotonic() - start
    s.close()
    c.stop()
    m.agents[2].start()
    check(got == errno.ECONNRESET and took < DIAL + 1, "RST within the dial deadline", got, took)
    # The kernel knocks once a second from the same port: an agent that comes back is to be found sooner.
    check(len({x[1] for x in c.tcp()}) == 3, "dialled anew twice", c.tcp())
    lines = [x for x in m.agents[1].access()[before:] if "error" in x]
    check(lines and re.search(r"dial_|tls_|connect_", lines[-1]["error"]), "with a reason", lines)
    exchange(m)


def test_tunnel_of_a_dead_peer(m):
    """An open connection whose peer agent dies ends by RST when the tunnel is known to be broken."""
    client = m.pods["client"]
    s = client.connect(m.pods["server"].ip, 7)
    s.sendall(b"x")
    s.recv(1)
    m.agents[2].kill()
    s.settimeout(10)
    try:
        got = s.recv(1)
    except OSError as e:
        got = e.errno
    s.close()
    m.agents[2].start()
    check(got == errno.ECONNRESET, "reset at once", got)
    exchange(m)


def test_killed_agent_resets_its_own_apps(m):
    """The kernel closes for an agent that is killed: by RST on either side, so that nothing cut off looks complete."""
    client, server, plain = m.pods["client"], m.pods["server"], m.pods["plain"]
    for node, who, to, address in ((1, client, server, server.ip), (2, client, server, server.ip), (1, client, plain, m.plain_vip), (2, plain, server, server.ip)):
        s = who.connect(address, 7)
        s.sendall(b"x")
        s.recv(1)
        before = last(to)[0]
        m.agents[node].kill()
        s.settimeout(10)
        try:
            got = s.recv(1)
        except OSError as e:
            got = e.errno
        s.close()
        check(got == errno.ECONNRESET, "%s to %s: reset, agent %d killed" % (who.name, to.name, node), got)
        eventually(lambda: last(to)[0] > before, 10, "the server's end")
        check(last(to)[1] == errno.ECONNRESET, "%s: reset, agent %d killed" % (to.name, node), last(to))
        m.agents[node].start()
    exchange(m)


def test_successor_loses_no_connection(m):
    client, server = m.pods["client"], m.pods["server"]
    for node in (1, 2):
        for _ in range(2):
            agent = m.agents[node]
            held = client.connect(server.ip, 7)
            new = client.client("every", server.ip, 7, 10, 120)
            time.sleep(0.5)
            old = agent.process
            successor = agent.start(wait=False, extra=["--takeover"])
            time.sleep(0.3)
            old.signal(signal.SIGTERM)
            eventually(lambda: not old.running(), 20, "the old agent of node %d ends" % node)
            eventually(agent.up, 15, "the successor is up")
            check(successor.running(), "the successor runs", successor.output()[-1000:])
            r = run("nsenter", "--net=" + m.node_netns(node), "curl", "-s", "-m", "3", "http://127.0.0.1:15021/healthz/ready", check_rc=False)
            check(r.stdout == "ready\n", "and answers on the readiness port", r)
            time.sleep(0.5)
            new.signal(signal.SIGTERM)
            r = new.result(40)
            # Those still open when the old agent's drain ended may be reset; an exchange here takes milliseconds.
            check(r["failed"] == 0 and r["done"] > 50, "no new connection lost on node %d" % node, r)
            text = old.output()
            check("a successor has taken over: finishing" in text and "until a successor" not in text and "stay captured" not in text,
                  "the old one says what it waits for", text[-600:])
            held.close()
    exchange(m)


def test_second_agent_refuses(m):
    agent = m.agents[1]
    r = run("nsenter", "--net=" + m.node_netns(1), *agent.arguments(), check_rc=False, timeout=20)
    check(r.returncode not in (0, -9) and str(agent.pid) in r.stderr + r.stdout, "a second agent without --takeover names the pid", r)
    exchange(m)


def test_another_run_dir_is_no_other_node(m):
    """The pins are the node's: who has them is named, with its run directory, and goes on serving."""
    agent = m.agents[1]
    for extra in ([], ["--takeover"]):
        start = time.monotonic()
        args = agent.arguments() + ["--run-dir=" + m.dir + "/elsewhere", "--readiness-port=0"] + extra
        r = run("nsenter", "--net=" + m.node_netns(1), *args, check_rc=False, timeout=20)
        words = "another warren-agent of node %s runs (pid %d, run dir %s)" % (agent.name, agent.pid, m.run_dir)
        check(r.returncode == 1 and words in r.stderr and time.monotonic() - start < 5, "refused, with the reason", r)
        check(("no agent of node" in r.stderr) == bool(extra), "--takeover says that nobody is there", r.stderr)
    exchange(m)


def test_takeover_of_nobody(m):
    agent = m.agents[1]
    agent.kill()
    agent.start(extra=["--takeover"])
    check("--takeover: no agent of node %s runs in %s/%s, starting anew" % (agent.name, m.run_dir, agent.name) in agent.text(), "said", agent.text()[-800:])
    exchange(m)


def test_sigterm_without_successor(m):
    """Accepts until the drain ends, then goes; open connections end by RST; the pods stay closed."""
    client, agent = m.pods["client"], m.agents[2]
    s = client.connect(m.pods["server"].ip, 7)
    s.sendall(b"x")
    s.recv(1)
    agent.process.signal(signal.SIGTERM)
    time.sleep(0.5)
    check(client.traffic("ping", m.pods["server"].ip, 7, 3, 8)["ok"], "still accepts while it waits for a successor")
    check("stopping: serving 1 pods (1 connections) until a successor takes over" in agent.text(), "and says so", agent.text()[-500:])
    eventually(lambda: not agent.process.running(), 15, "ends after the drain")
    check(agent.process.popen.returncode in (0, -15), "ends well", agent.process.popen.returncode)
    s.settimeout(5)
    try:
        got = s.recv(1)
    except OSError as e:
        got = e.errno
    check(got == errno.ECONNRESET, "open one: reset", got)
    check("agent_shutdown" in agent.access()[-1].get("error", ""), "and why", agent.access()[-1])
    words = "1 pods stay captured and closed until an agent is back; 'warrenctl --node=%s --run-dir=%s pod release --all' lets them out" % (agent.name, m.run_dir)
    check(words in agent.text().splitlines()[-1], "the last word is what stays", agent.text()[-500:])
    agent.start()
    exchange(m)


test_killed_20_times_under_traffic.seconds = 240
test_successor_loses_no_connection.seconds = 150
