#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No unfinished work and no string functions without a bound in what is shipped. Called by make check and tests/run."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORDS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
CALLS = re.compile(r"(?<![\w>.])(strcpy(?!\([^,]+, \")|strcat|sprintf|vsprintf|gets|strtok|tmpnam|mktemp|alloca)\s*\(")
PLACES = re.compile(r"(/home/\w+|/root/|/work/)")
bad = []
for name in subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True).stdout.split():
    path = os.path.join(ROOT, name)
    if not os.path.isfile(path) or name == "tests/check/words.py" or name.startswith("vmlinux/") or "/corpus/" in name:
        continue
    with open(path, "rb") as f:
        raw = f.read()
    if b"\0" in raw:
        continue
    for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
        for what, pattern in (("unfinished", WORDS), ("a path of one machine", PLACES)) + ((("unbounded call", CALLS),) if name.endswith((".c", ".h")) and not name.startswith("tests/") else ()):
            m = pattern.search(line)
            if m:
                bad.append("%s:%d: %s: %s" % (name, number, what, m.group(1)))
print("\n".join(bad) if bad else "words: ok")
sys.exit(1 if bad else 0)
