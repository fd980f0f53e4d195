# SPDX-License-Identifier: Apache-2.0
"""The demo shows what it promises, cleans up after itself, runs again after a kill -9 in the middle, and left running it
is a shell in which things work as typed."""
import fcntl
import glob
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time

from mesh import BPFFS, ROOT, STATE, Mesh, Skip, check, eventually

FALLBACK = "together"
DEMO = [sys.executable, os.path.join(ROOT, "tests", "lib", "demo.py")]


def setup():
    m = Mesh("demo", nodes=1)
    m.agents.clear()
    # What a demo leaves behind would be another's: its names are always the same. One module at a time, of all runs.
    m.alone = open(os.path.join(STATE, "demo.lock"), "w")
    fcntl.flock(m.alone, fcntl.LOCK_EX)
    return m


def left():
    pins = [p for n in ("node-1", "node-2") for p in glob.glob(BPFFS + "/warren/" + n)]
    return glob.glob("/run/netns/wr-demo-*") + glob.glob("/run/warren-test/demo") + pins


def demo():
    for _ in range(30):
        r = subprocess.run(DEMO, capture_output=True, text=True, timeout=90)
        if "already running" not in r.stderr:
            return r
        time.sleep(2)
    raise Skip("another demo is running on this machine")


def section(text, title):
    return re.search(r"^%s.*\n((?:  .*\n)+)" % title, text, re.M).group(1).splitlines()


def test_shows_what_happened(m):
    r = demo()
    check(r.returncode == 0 and not r.stderr, "runs", r.stdout[-1500:], r.stderr[-800:])
    for words in ("cluster.local/ns/demo/sa/sleep", "port 15008", "TLS 1.3", 'plaintext: "GET / HTTP/1.1"', "hashes equal",
                  "only port 15008, only TLS 1.3", "enrolled"):
        check(words in r.stdout, "says %r" % words, r.stdout[-3000:])
    lines = r.stdout.splitlines()
    check(len(lines) <= 32 and max(map(len, lines)) <= 80, "one screen", len(lines), max(map(len, lines)), r.stdout)
    check(not [x for x in lines if x != x.rstrip()], "no trailing blanks")
    check(re.match(r"Warren: two nodes, 4 pods .*; took [0-9.]+ s$", lines[0]), "what the time is of", lines[0])
    for title in ("PODS", "WHO TALKED", ):
        rows = section(r.stdout, title)
        check(rows == sorted(rows), "sorted", rows)
    check(not left(), "nothing left behind", left())


def test_who_talked_to_whom(m):
    """The unlabelled caller by name; each conversation once, with both identities, a row for each port; both logs agree."""
    rows = section(demo().stdout, "WHO TALKED")
    ends = [re.match(r"  (.* -> \S+(?: \(\S+\))?) +(\d+) conn +(\d+ \w+)  (.*)$", x).groups() for x in rows]
    check(len({x[0] for x in ends}) == len(ends), "each once", rows)
    by = {x[0]: x for x in ends}
    check(by.get("legacy (10.77.1.11), plaintext -> web-v1:8080", ())[1::2] == ("1", "log of node-2"), "the caller in plaintext", rows)
    tunnelled = [x for x in ends if x[0].startswith("sleep (demo/sleep) -> ")]
    check(len(tunnelled) == len(ends) - 1 and all(x[3] == "both logs" for x in tunnelled), "both ends wrote the same", rows)
    http = [by.get("sleep (demo/sleep) -> web-v%d:8080 (demo/web)" % v) for v in (1, 2)]
    check(all(http) and sum(int(x[1]) for x in http) == 20, "the requests", rows)
    bulk = [x for x in tunnelled if ":9000 (demo/web)" in x[0]]
    check(len(bulk) == 1 and bulk[0][1:3] == ("1", "256 MiB"), "the bulk has a row of its own", rows)


def test_builds_no_more_than_it_needs(m):
    r = subprocess.run(["make", "-n", "B=build/nowhere", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    check(r.returncode == 0 and "-o build/nowhere/warren-agent" in r.stdout and "build/nowhere/tests/traffic" in r.stdout, "what it runs", r.stderr)
    check("tests/unit" not in r.stdout and "tests/bpf" not in r.stdout and "test_" not in r.stdout, "no tests", r.stdout[-1500:])


class Left:
    """A demo that stays, started from another folder; its output as it comes."""

    def __init__(self, terminal):
        env = {k: v for k, v in os.environ.items() if not k.startswith("WARREN_") and k != "ENV"}
        for _ in range(30):
            self.fd, inside = pty.openpty() if terminal else (None, subprocess.PIPE)
            self.process = subprocess.Popen(DEMO + ["--shell"], cwd="/", stdin=inside, stdout=inside, stderr=inside if terminal else subprocess.STDOUT,
                                            env=dict(env, SHELL="/bin/sh"), preexec_fn=self.own_terminal if terminal else None)
            if terminal:
                os.close(inside)
            else:
                self.fd = self.process.stdout.fileno()
            os.set_blocking(self.fd, False)
            self.text = ""
            eventually(lambda: "Still running" in self.read() or self.process.poll() is not None, 60, "it stays")
            if "already running" not in self.text:
                return
            time.sleep(2)
        raise Skip("another demo is running on this machine")

    @staticmethod
    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def read(self):
        try:
            self.text += os.read(self.fd, 65536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:
            pass
        return self.text

    def type(self, line):
        os.write(self.fd, line.encode() + b"\n")

    def end(self, code=0):
        eventually(lambda: self.read() is not None and self.process.poll() is not None, 30, "it ends")
        self.read()
        check(self.process.returncode == code, "in order", self.process.returncode, self.text[-1500:])
        check(not left(), "nothing left behind", left())
        return self.text

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


def test_shell_on_a_terminal(m):
    with Left(terminal=True) as d:
        eventually(lambda: "warren-demo$ " in d.read(), 10, "a prompt")
        d.type("warrenctl pod list; warrenctl --node=node-2 pod list; pwd; echo at=$WARREN_NODE")
        eventually(lambda: "at=node-1\n" in d.read(), 10, "commands as typed")
        answer = d.text[d.text.rindex("\nNAMESPACE"):]
        check("\nNAMESPACE" in d.text and re.search(r"^demo +sleep +enrolled ", d.text, re.M) and re.search(r"^demo +web-v1 +enrolled ", answer, re.M),
              "both nodes", d.text[-2000:])
        d.type("sh -c 'echo runs=now; sleep 100'")
        eventually(lambda: "\nruns=now\n" in d.read(), 10, "something runs inside")
        os.write(d.fd, b"\x03")
        # What is typed is echoed at once, also before the prompt: what is looked for must not be what is typed.
        d.type("echo still=$((1 + 1))")
        eventually(lambda: "still=2\n" in d.read(), 10, "Ctrl-C is for what runs inside")
        d.type("warrenctl status > /dev/null; echo rc=$?")
        eventually(lambda: "rc=0\n" in d.read(), 10, "and the agents are there")
        d.type("exit 3")
        check("the shell has ended" in d.end(), "says why it ended", d.text[-500:])


def test_hints_work_as_printed(m):
    """From any folder, in a shell that knows nothing but what is printed."""
    with Left(terminal=False) as d:
        eventually(lambda: "ends the demo" in d.read(), 10, "all of it")
        commands = re.findall(r"^  ((?:export|warrenctl|nsenter|tail) .*)$", d.text, re.M)
        check(len(commands) >= 6 and commands[0].startswith("export "), "commands", d.text[-1500:])
        for c in commands[1:]:
            r = subprocess.run(["timeout", "3", "sh", "-c", commands[0] + "\n" + c], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
                               env={"PATH": os.environ["PATH"]})
            goes_on = " tcpdump " in c or c.startswith("tail ")
            check(r.returncode == (124 if goes_on else 0) and (r.stdout or " tcpdump " in c), c, r)
        d.process.stdin.write(b"not a command\n")
        d.process.stdin.flush()
        time.sleep(0.5)
        check(d.process.poll() is None, "a line on stdin is nothing")
        d.process.stdin.close()
        check("demo: stdin is closed; all is removed." in d.end(), "says why it ended", d.text[-500:])


def test_ends_by_signal(m):
    for number in (signal.SIGTERM, signal.SIGINT):
        with Left(terminal=False) as d:
            eventually(lambda: "ends the demo" in d.read(), 10, "all of it")
            d.process.send_signal(number)
            check("demo: %s received; all is removed." % number.name in d.end(), "says why it ended", d.text[-500:])
    with Left(terminal=True) as d:
        eventually(lambda: "warren-demo$ " in d.read(), 10, "a prompt")
        d.process.send_signal(signal.SIGTERM)
        d.end(128 + signal.SIGTERM)


def test_again_after_kill(m):
    p = subprocess.Popen(DEMO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: glob.glob(BPFFS + "/warren/node-1") or p.poll() is not None, 30, "an agent of the demo runs")
    p.send_signal(signal.SIGKILL)
    p.wait()
    r = demo()
    check(r.returncode == 0, "the next run works", r.stdout[-1500:], r.stderr[-800:])
    check(not left(), "nothing left behind", left())


for test in (test_shows_what_happened, test_who_talked_to_whom, test_shell_on_a_terminal, test_hints_work_as_printed, test_ends_by_signal,
             test_again_after_kill):
    test.seconds = 150
