#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every source file begins with its licence and says what it is for. Called by make check and tests/run."""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNEL = re.compile(r"^(bpf|include/abi)/")
bad = []
files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True).stdout.split()
for name in files:
    path = os.path.join(ROOT, name)
    if not os.path.isfile(path) or name.startswith("vmlinux/"):
        continue
    source = name.endswith((".c", ".h", ".py", ".sh", ".mk", ".yaml")) or name in ("Makefile", "tests/run")
    if not source or "/corpus/" in name or "/testdata/" in name:
        continue
    with open(path, errors="replace") as f:
        head = f.read(1000)
    m = re.search(r"SPDX-License-Identifier: (.+?)(?: \*/)?$", head, re.M)
    if not m:
        bad.append("%s: no SPDX-License-Identifier" % name)
        continue
    want = "(GPL-2.0-only OR BSD-2-Clause)" if KERNEL.match(name) else "Apache-2.0"
    if m.group(1).strip("() ") != want.strip("()"):
        bad.append("%s: licence is %s, not %s" % (name, m.group(1), want))
    elif name.endswith((".c", ".h")) and "/*" not in head[m.end():] and "//" not in head[m.end():]:
        bad.append("%s: no opening comment" % name)
print("\n".join(bad) if bad else "spdx: ok")
sys.exit(1 if bad else 0)
