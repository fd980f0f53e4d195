# SPDX-License-Identifier: Apache-2.0
"""The demo shows what it promises, cleans up after itself, and runs again after a kill -9 in the middle."""
import glob
import os
import signal
import subprocess
import sys
import time

from mesh import BPFFS, ROOT, Mesh, Skip, check, eventually

WAITS = True
DEMO = [sys.executable, os.path.join(ROOT, "tests", "lib", "demo.py")]


def setup():
    m = Mesh("demo", nodes=1)
    m.agents.clear()
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


def test_shows_what_happened(m):
    r = demo()
    check(r.returncode == 0, "runs", r.stdout[-1500:], r.stderr[-800:])
    for words in ("ns/demo/sa/sleep -> cluster.local/ns/demo/sa/web", "port 15008", "TLS 1.3", 'plaintext: "GET / HTTP/1.1"', "hashes equal",
                  "only port 15008, only TLS 1.3", "enrolled"):
        check(words in r.stdout, "says %r" % words, r.stdout[-3000:])
    lines = r.stdout.rstrip().splitlines()
    check(len(lines) <= 50 and max(map(len, lines)) <= 160, "about one screen", len(lines), max(map(len, lines)))
    check(not left(), "nothing left behind", left())


def test_again_after_kill(m):
    p = subprocess.Popen(DEMO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: glob.glob(BPFFS + "/warren/node-1") or p.poll() is not None, 30, "an agent of the demo runs")
    p.send_signal(signal.SIGKILL)
    p.wait()
    r = demo()
    check(r.returncode == 0, "the next run works", r.stdout[-1500:], r.stderr[-800:])
    check(not left(), "nothing left behind", left())


test_shows_what_happened.seconds = test_again_after_kill.seconds = 150
