#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Makefile does what its help says: each target is listed, install puts both programs in place, V and SAN have their effect,
and deps installs what is missing and only that. Called by make check and tests/run with the build folder."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
PROMISED = {"help", "demo", "demo-shell", "test", "test-san", "bench", "check", "fmt", "install", "deps"}
# Of make itself, which calls this, and of what would change its output.
CLEAN = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "V", "SAN", "B", "DESTDIR", "PREFIX")}
bad = []


def check(condition, *text):
    if not condition:
        bad.append(" ".join(str(t) for t in text))


def run(*args, **kw):
    return subprocess.run(args, cwd=ROOT, capture_output=True, text=True, **dict({"env": CLEAN}, **kw))


def help_lists_the_targets():
    r = run("make", "help")
    with open(os.path.join(ROOT, "Makefile")) as f:
        phony = re.search(r"^\.PHONY: (.*)$", f.read(), re.M).group(1).split()
    listed = re.findall(r"^  ([a-z-]+) +\S", r.stdout, re.M)
    check(r.returncode == 0 and sorted(listed) == sorted(phony), "help lists", listed, "of", phony)
    check(PROMISED <= set(listed), "help does not list", PROMISED - set(listed))


def install_has_both_programs():
    with tempfile.TemporaryDirectory() as d:
        r = run("make", "B=" + BUILD, "DESTDIR=" + d, "PREFIX=/usr", "install")
        for name in ("warren-agent", "warrenctl"):
            path = os.path.join(d, "usr", "sbin", name)
            check(os.access(path, os.X_OK) and run(path, "--version").stdout.startswith(name + " "), "install:", name, r.stdout, r.stderr)


def commands_are_shown_on_demand():
    with tempfile.TemporaryDirectory() as d:
        target = d + "/agent/engine/base/dir.o"
        quiet = run("make", "B=" + d, target)
        check(quiet.returncode == 0 and quiet.stdout == "  CC      agent/engine/base/dir.c\n", "without V:", quiet.stdout, quiet.stderr)
        os.unlink(target)
        loud = run("make", "V=1", "B=" + d, target)
        check(loud.returncode == 0 and re.search(r"^\S+ .*-Werror .*-c agent/engine/base/dir\.c -o ", loud.stdout, re.M), "V=1:", loud.stdout, loud.stderr)


# Never -n with a target whose recipe calls make: make runs such lines all the same.
def sanitizers_have_a_folder_each():
    for name, flag in (("address", "-fsanitize=address,undefined"), ("thread", "-fsanitize=thread")):
        r = run("make", "-Bn", "SAN=" + name, "build/san-%s/agent/main.o" % name)
        check(flag in r.stdout and "-o build/san-%s/agent/main.o" % name in r.stdout, "SAN=" + name, r.stdout, r.stderr)


class Distribution:
    """Its package tools, played: what is there, what there could be, and what they are told to do."""
    SCRIPTS = {"dpkg-query": 'for p in $INSTALLED; do echo "installed $p"; done; echo "config-files gone"',
               "apt-cache": 'case " $OFFERED " in *" $2 "*) echo "  Candidate: 1.0";; *) echo "  Candidate: (none)";; esac',
               "apt-get": 'echo "apt-get $*" >> "$CALLS"; exit ${FAILS:-0}', "id": 'echo ${USER_ID:-0}'}

    def __init__(self, folder):
        self.folder, self.calls = folder, folder + "/calls"
        for name, text in self.SCRIPTS.items():
            with open(os.path.join(folder, name), "w", opener=lambda p, f: os.open(p, f, 0o755)) as f:
                f.write("#!/bin/sh\n%s\n" % text)
        with open(os.path.join(ROOT, "tests/lib/deps.sh")) as f, open(folder + "/deps.sh", "w") as g:
            g.write(f.read())
        with open(folder + "/packages.txt", "w") as f:
            f.write("one\nold|new\nthree\ngone\n")

    def deps(self, installed, offered="one old three gone", **env):
        with open(self.calls, "w"):
            pass
        r = run("sh", self.folder + "/deps.sh", env=dict(CLEAN, PATH=self.folder + ":" + CLEAN["PATH"], CALLS=self.calls, INSTALLED=installed,
                                                         OFFERED=offered, **env))
        with open(self.calls) as f:
            return r, re.findall(r"^apt-get install .*? -?-?no-install-recommends (.*)$", f.read(), re.M)


def deps_installs_what_is_missing():
    with tempfile.TemporaryDirectory() as folder:
        d = Distribution(folder)
        r, got = d.deps("one new three gone")
        check((r.returncode, r.stdout, r.stderr, got) == (0, "", "", []), "deps with all there:", r, got)
        r, got = d.deps("one")
        check(r.returncode == 0 and got == ["old three gone"] and r.stdout == "deps: installing: old three gone\n", "deps:", r, got)
        r, got = d.deps("one three gone", offered="new")
        check(r.returncode == 0 and got == ["new"], "deps, the second of two names:", r, got)
        r, got = d.deps("one three gone", offered="")
        check(r.returncode == 1 and not got and "this distribution has no package old|new" in r.stderr, "deps, none of two names:", r, got)
        r, got = d.deps("one", USER_ID="1000")
        check(r.returncode == 1 and not got and "run as root: apt-get install old three gone" in r.stderr, "deps without root:", r, got)
        r, got = d.deps("one", FAILS="1")
        check(r.returncode == 1 and "could not read the package lists; missing: old|new three gone" in r.stderr, "deps without a network:", r, got)


for f in (help_lists_the_targets, install_has_both_programs, commands_are_shown_on_demand, sanitizers_have_a_folder_each, deps_installs_what_is_missing):
    f()
print("\n".join(bad) if bad else "targets: ok")
sys.exit(1 if bad else 0)
