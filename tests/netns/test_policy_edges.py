# SPDX-License-Identifier: Apache-2.0
"""Policy where something else changes at the same time: pods that leave and come back, an agent that hands over, files
that are moved while they are read; and what the command line says of pods that no policy is enforced for."""
import json
import os
import shutil
import threading
import time

from mesh import Mesh, check, eventually, run
from policies import Policies, authorization, deny_from, died, peer

FALLBACK = "together"
APPLIES_S = 1.0  # from the rename to the last byte: what is promised


def setup():
    m = Mesh("edges")
    m.agent_options = ["--drain=10s"]
    m.pod("client", 1)
    m.pod("other", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.vips = m.service("server", {"app": "server"}, [("echo", 80, 7)])
    m.apply()
    m.pods["server"].serve("echo:7", "echo:8")
    m.start_agents()
    return m


def opened(pod, address, port=7):
    s = pod.connect(address, port)
    s.sendall(b"x")
    check(s.recv(1) == b"x", "open from " + pod.name)
    return s


def state(m, pod):
    return next((p["state"] for p in m.agents[2].json("pod", "list") if p["name"] == pod.name), None)


def state_now(agent, pod):
    """Of an agent that may not be there yet."""
    r = agent.ctl("-j", "pod", "list", check_rc=False)
    return next((p["state"] for p in json.loads(r.stdout) if p["name"] == pod.name), None) if r.returncode == 0 else None


def set_enrolled(m, pod, wanted):
    m.enrol(pod, wanted)
    eventually(lambda: state(m, pod) == ("enrolled" if wanted else "draining"), 5, "%s %s" % (pod.name, "enrolled" if wanted else "leaves"))
    time.sleep(0.3)  # beyond the moment in which it could come back as though it had never gone


def test_connections_from_before_the_pod_left_and_came_back(m):
    """They run on while it drains; once it is back its policies are for them, too."""
    client, other, server = m.pods["client"], m.pods["other"], m.pods["server"]
    with Policies(m) as p:
        cut, kept = opened(client, server.ip), opened(other, server.ip)
        set_enrolled(m, server, False)
        m.enrol(server, True)
        eventually(lambda: state(m, server) == "enrolled", 5, "back in the mesh")
        p.write(deny_from("not-client", client))
        check(died(cut, APPLIES_S) == "reset", "what is no longer allowed is reset")
        check(died(kept, 0.3) is None, "and nobody else")
        kept.close()
    cut.close()


def test_connections_of_an_agent_that_has_handed_over(m):
    """They are the old agent's until they end, and under the policies as they are now."""
    client, other, server, agent = m.pods["client"], m.pods["other"], m.pods["server"], m.agents[2]
    cut, kept = opened(client, server.ip), opened(other, server.ip)
    old = agent.process
    agent.start(wait=False, extra=["--takeover"])
    eventually(lambda: "a successor has taken over" in old.output(), 15, "handed over")
    agent.wait_up()
    with Policies(m, deny_from("not-client", client)):
        check(died(cut, APPLIES_S) == "reset", "what is no longer allowed is reset")
        check(died(kept, 0.3) is None, "and nobody else")
    check("cannot keep the last good configuration" not in old.output() + agent.text(), "one of the two keeps the state", old.output())
    kept.close()
    cut.close()
    eventually(lambda: not old.running(), 10, "the old agent ends")


def test_a_successor_without_the_folder(m):
    """It has what its predecessor read last, policies included, and leaves it the connections that are open."""
    client, other, server, agent = m.pods["client"], m.pods["other"], m.pods["server"], m.agents[2]
    with Policies(m, deny_from("not-client", client)):
        kept, old = opened(other, server.ip), agent.process
        os.rename(m.config, m.config + ".away")
        try:
            agent.start(wait=False, extra=["--takeover"])
            eventually(lambda: "a successor has taken over" in old.output(), 15, "handed over")
            agent.wait_up()
            check(agent.text().count("demo/server: enrolled") == 1, "with the pod", agent.text())
            check(client.outcome(server.ip) == "reset" and other.outcome(server.ip) == "ok", "and its policy")
            check(died(kept, 0.3) is None, "what was open goes on")
        finally:
            os.rename(m.config + ".away", m.config)
    eventually(lambda: client.outcome(server.ip) == "ok", 5, "the folder is read again")
    kept.close()
    eventually(lambda: not old.running(), 10, "the old agent ends")


def test_files_renamed_while_they_are_read(m):
    """A policy is in the folder at every moment, under one name or another: it is in force at every moment."""
    client, server = m.pods["client"], m.pods["server"]
    document = deny_from("always", client, selector={"app": "server"})
    names = [os.path.join(m.config, n) for n in ("a-first.yaml", "z-last.yaml")]
    stop = threading.Event()

    def rename():
        at = 0
        while not stop.is_set():
            os.rename(names[at], names[1 - at])
            at = 1 - at
            time.sleep(0.001)

    for i in range(300):
        m.write("filler-%d.yaml" % i, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "filler-%d" % i, "namespace": "demo"}})
    m.write(os.path.basename(names[0]), document)
    eventually(lambda: client.outcome(server.ip, 7) == "reset", 5, "in force")
    thread = threading.Thread(target=rename)
    thread.start()
    try:
        seen = [client.outcome(server.ip, 7) for _ in range(1500)]
    finally:
        stop.set()
        thread.join()
    check(set(seen) == {"reset"}, "never open", {o: seen.count(o) for o in set(seen)})
    for name in os.listdir(m.config):
        if name.startswith(("filler-", "a-first", "z-last")):
            m.remove_manifest(name)
    eventually(lambda: client.outcome(server.ip, 7) == "ok", 5, "gone when its file is")


def made(pipe):
    try:
        os.mkfifo(pipe)
        return True
    except FileExistsError:
        return False


def test_a_disk_that_hangs(m):
    """What the agent keeps for its successor comes after what is due now: a pipe that nobody reads stands in for the disk."""
    client, server = m.pods["client"], m.pods["server"]
    cut = opened(client, server.ip)
    pipe = os.path.join(m.run_dir, m.agents[2].name, "state", "resources.json.tmp")
    eventually(lambda: made(pipe), 5, "nothing is being kept at the moment")
    m.write("policies.yaml", deny_from("not-client", client))
    got = died(cut, APPLIES_S)
    cut.close()
    with open(pipe, "rb") as disk:
        disk.read()
    m.write("policies.yaml")
    check(got == "reset", "in force while the disk hangs", got)
    eventually(lambda: client.outcome(server.ip, 7) == "ok", 5, "and gone with it")


def test_no_verdict_before_all_is_read(m):
    """An agent that starts with nothing kept from before: nobody is let in, and no pod called enrolled, until the last policy is read."""
    client, plain, server, agent = m.pods["client"], m.pods["plain"], m.pods["server"], m.agents[2]
    for i in range(2000):
        m.write("filler-%04d.yaml" % i, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "filler-%d" % i, "namespace": "demo"}})
    m.write("z-last.yaml", authorization("nobody", rules=[], selector={"app": "server"}))
    eventually(lambda: client.outcome(server.ip) == "reset", 5, "in force")
    for _ in range(3):
        agent.kill()
        shutil.rmtree(os.path.join(m.run_dir, agent.name, "state"))
        agent.start(wait=False)
        seen, up = [], 0
        while up < 3:
            seen += [pod.outcome(server.ip, timeout=0.2) for pod in (client, plain)]
            check("ok" not in seen and agent.process.running(), "nobody is let in", seen)
            if state_now(agent, server) == "enrolled":
                r = agent.ctl("policy", "check", "--from=demo/client", "--to=demo/server:7", check_rc=False)
                check("DENIED  policy_no_allow" in r.stdout, "enrolled, and judged", r.stdout, r.stderr)
                up += agent.up()
        check("reset" in seen, "the agent answers", seen)
    for name in os.listdir(m.config):
        if name.startswith(("filler-", "z-last")):
            m.remove_manifest(name)
    eventually(lambda: client.outcome(server.ip) == "ok", 5, "gone when its file is")


def test_a_folder_that_goes_away(m):
    """Away, a file in its place, unmounted, emptied: all that is in force stays so, with an alarm, and nobody is cut."""
    client, other, server, agent = m.pods["client"], m.pods["other"], m.pods["server"], m.agents[2]
    away = m.config + ".away"

    def take(how):
        os.rename(m.config, away)
        if how == "a file":
            open(m.config, "w").close()
        elif how == "emptied":
            shutil.copytree(away, m.config)
            settled()
            for name in os.listdir(m.config):
                os.unlink(os.path.join(m.config, name))
        elif how == "unmounted":
            os.mkdir(m.config)
            run("mount", "--bind", away, m.config)
            settled()
            run("umount", m.config)

    def settled():
        eventually(lambda: "ALARM" not in agent.ctl("status").stdout, 5, "the folder is there")
        time.sleep(1.2)  # what is watched is looked at once a second

    def give_back(how):
        if how == "a file":
            os.unlink(m.config)
        elif how != "away":
            os.rmdir(m.config)
        os.rename(away, m.config)

    with Policies(m, deny_from("not-client", client, selector={"app": "server"})):
        check(client.outcome(server.ip) == "reset", "in force")
        kept = opened(other, server.ip)
        for how in "away", "a file", "emptied", "unmounted":
            take(how)
            try:
                eventually(lambda: "ALARM" in agent.ctl("status").stdout, 5, "an alarm: " + how)
                check(client.outcome(server.ip) == "reset" and other.outcome(server.ip) == "ok", "what was in force stays: " + how)
                check(died(kept, 0.2) is None, "nobody is cut: " + how)
            finally:
                give_back(how)
            settled()
        kept.close()
    check(client.outcome(server.ip) == "ok", "and follows the folder again")


def test_a_refused_update_over_a_restart(m):
    """The last good version is what counts, also for an agent that only ever saw the mistake in the folder."""
    client, server, agent = m.pods["client"], m.pods["server"], m.agents[2]
    rule = {"to": [{"operation": {"ports": ["8"]}}]}
    with Policies(m, authorization("lock", "DENY", [rule], selector={"app": "server"})) as p:
        p.write(authorization("lock", "DENY", [dict(rule, form=[])], selector={"app": "server"}))
        for _ in range(2):
            check(client.outcome(server.ip, 8) == "reset" and client.outcome(server.ip, 7) == "ok", "the last good version")
            check("its last good version stays in force" in agent.ctl("policy", "show", "lock").stdout, "and it is said")
            agent.kill()
            agent.start()
        check(client.outcome(server.ip, 8) == "reset" and client.outcome(server.ip, 7) == "ok", "after two restarts")


def test_options_of_policy(m):
    """What the documents leave open is as the agent's options say."""
    client, server, agent = m.pods["client"], m.pods["server"], m.agents[2]
    bad = authorization("typo", "ALOW", [{}], namespace="istio-system")
    gets = authorization("gets", "DENY", [{"to": [{"operation": {"methods": ["GET"]}}]}])
    for options, of_bad, of_gets in (([], "ok", "reset"), (["--bad-mesh-policy=deny", "--l7-deny=ignore"], "reset", "ok")):
        agent.kill()
        agent.start(extra=options)
        with Policies(m, bad):
            check(client.outcome(server.ip) == of_bad, "a bad policy of the mesh", options)
            check("AuthorizationPolicy/istio-system/typo never was valid" in agent.ctl("status").stdout, "an alarm either way", agent.ctl("status").stdout)
        with Policies(m, gets):
            check(client.outcome(server.ip) == of_gets, "a DENY of what only HTTP shows", options)
    agent.kill()
    agent.start()


def test_a_pod_that_calls_itself(m):
    """By its own address it never leaves the pod, which no policy is about; by a Service's it is a caller like any other."""
    server = m.pods["server"]
    with Policies(m, peer("STRICT")):
        for address, port in ((server.ip, 7), (server.ip6, 7), ("127.0.0.1", 7), (m.vips[0], 80), (m.vips[1], 80)):
            check(server.outcome(address, port) == "ok", "to itself by " + address, server.outcome(address, port))
    with Policies(m, deny_from("not-itself", server)):
        for address in (server.ip, server.ip6, "127.0.0.1"):
            check(server.outcome(address, 7) == "ok", "by " + address)
        for address in m.vips:
            check(server.outcome(address, 80) in ("reset", "refused"), "denied by " + address)


def test_check_of_the_agents_own_ports(m):
    client = m.pods["client"]
    for port in (15001, 15006):
        check(client.outcome(m.pods["server"].ip, port) in ("reset", "refused"), "a port of the agent's")
        r = m.agents[2].ctl("policy", "check", "--from=demo/client", "--to=demo/server:%d" % port, check_rc=False)
        check(r.returncode == 1 and "illegal_port" in r.stdout, "and so it is said", r.stdout + r.stderr)
