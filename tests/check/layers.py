#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom, read from the compiler's own dependency files (BUILD/**/*.d). Called by make check and tests/run.

base <- io, proto, model; source, identity, proxy, telemetry, admin stand on those; nothing of the engine includes agent/*;
tools include only include/** (warrenctl's bpf commands: also the capture's header, which works from the pins alone).
"""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
build = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else "build")
UPPER = {"base", "io", "proto", "model", "identity", "telemetry"}
ENGINE = {
    "base": {"base"},
    "io": {"base", "io"},
    "proto": {"base", "proto", "model"},  # baggage is made of a workload; the model is data
    "model": {"base", "model"},
    "source": UPPER | {"source"},
    "identity": UPPER,
    "telemetry": UPPER,
    "admin": UPPER | {"admin"},
    "proxy": UPPER | {"proxy"},
}
bad = []
seen = 0
for dep in glob.glob(build + "/**/*.d", recursive=True):
    with open(dep) as f:
        words = f.read().replace("\\\n", " ").split()
    files = [os.path.relpath(w, ROOT) if w.startswith("/") else w for w in words if not w.endswith(":")]
    source = next((w for w in files if w.endswith(".c")), None)
    if not source or source.startswith(("/", "..", "tests/")):
        continue
    seen += 1
    headers = [os.path.normpath(w) for w in files if w.endswith(".h") and not os.path.normpath(w).startswith(("/", ".."))]
    for h in headers:
        m = re.match(r"agent/engine/(\w+)/", source)
        if m:
            layer = m.group(1)
            if h.startswith("build"):
                bad.append("%s includes %s: generated code is the agent's" % (source, h))
            elif h.startswith("agent/") and not h.startswith("agent/engine/"):
                bad.append("%s includes %s: the engine knows nothing of the agent" % (source, h))
            else:
                t = re.match(r"(?:include|agent)/engine/(\w+)/", h)
                if t and t.group(1) not in ENGINE.get(layer, set()) and h.startswith("include"):
                    bad.append("%s includes %s: %s may not stand on %s" % (source, h, layer, t.group(1)))
                elif t and h.startswith("agent/") and t.group(1) != layer:
                    bad.append("%s includes %s: a header private to %s" % (source, h, t.group(1)))
        elif source.startswith("tools/"):
            own = os.path.dirname(source) + "/"
            ok = h.startswith(("include/", own)) or (source.startswith("tools/warrenctl/") and h.startswith(("agent/capture/capture.h",)))
            if not ok:
                bad.append("%s includes %s: tools stand on include/ alone" % (source, h))
        elif source.startswith("agent/") and h.startswith("agent/engine/"):
            bad.append("%s includes %s: private to the engine" % (source, h))
for name in glob.glob(ROOT + "/bpf/**/*.[ch]", recursive=True):
    with open(name) as f:
        for inc in re.findall(r'^#include\s+"([^"]+)"', f.read(), re.M):
            if inc.startswith(("engine/", "agent/")):
                bad.append("%s includes %s: kernel programs share include/abi only" % (os.path.relpath(name, ROOT), inc))
if not seen:
    bad.append("no dependency files under %s: build first" % build)
print("\n".join(sorted(set(bad))) if bad else "layers: ok (%d files)" % seen)
sys.exit(1 if bad else 0)
