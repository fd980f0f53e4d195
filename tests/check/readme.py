#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""README.md tells of what there is: its map's folders, make's targets, the programs' options and commands, in both directions
where it claims to be complete. Called by make check and tests/run with the build folder."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
bad = []


def check(condition, *text):
    if not condition:
        bad.append("README.md: " + " ".join(str(t) for t in text))


def output(program, *args):
    return subprocess.run([os.path.join(ROOT, BUILD, program), *args], capture_output=True, text=True).stdout


def mapped(rows):
    """The folders that the rows of the map name; beside `a/b`, `c` means a/c."""
    out = set()
    for row in rows:
        base = ""
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            name = name.rstrip("/").removesuffix("/*.c")
            inner = os.path.join(base, name)
            if base and os.path.isdir(os.path.join(ROOT, inner)):
                name = inner
            out.add(name)
            base = os.path.dirname(name)
    return out


def folders(*places):
    return {os.path.relpath(e.path, ROOT) for p in places for e in os.scandir(os.path.join(ROOT, p)) if e.is_dir() and not e.name.startswith((".", "__"))}


def read(name):
    with open(os.path.join(ROOT, name)) as f:
        return f.read()


text = read("README.md")
told = mapped([x for x in text.splitlines() if x.startswith("| `")])
wrong = {t for t in told if not os.path.isdir(os.path.join(ROOT, t))}
check(told and not wrong, "no such folder:", sorted(wrong))
there = folders("agent", "agent/engine", "include", "tests", "tools", "deploy")
missing = {t for t in there - told if not any(o.startswith(t + "/") for o in told)}
check(not missing, "not in its map:", sorted(missing))

options, commands = output("warren-agent", "--help"), output("warrenctl", "help")
for name in sorted(set(re.findall(r"`[^`]*?(--[a-z][a-z0-9-]*)", text))):
    check(re.search(r"%s\b" % name, options + commands), "no program has the option", name)
words = {(a, b) for a, b in re.findall(r"^  ([a-z]+) ([a-z-]+)", commands, re.M)}
for obj, command in re.findall(r"`warrenctl\s+([a-z]+)(?:\s+([a-z][a-z-]*))?", text):
    check(any(o == obj and command in ("", c, "list", "show") for o, c in words) or (obj, command) == ("prove", ""), "no command", obj, command)
targets = re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.M)
for name in re.findall(r"\bmake ([a-z-]+)", text):
    check(name in targets, "no target", name)
print("\n".join(bad) if bad else "readme: ok")
sys.exit(1 if bad else 0)
