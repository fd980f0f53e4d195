#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Keeps the named types of a C dump of kernel BTF, with what they contain. In: the dump on stdin, names as arguments.
Out: the definitions in the dump's order, for vmlinux.h. Called by hand, see the comment there."""
import re
import sys

def definitions(text):
    """Yields (names, body) for each top-level declaration of the dump."""
    for block in re.split(r"\n\n", text):
        block = block.strip()
        m = re.match(r"(?:struct|union|enum) (\w+) \{", block)
        t = re.match(r"typedef .*?(\w+)(?:\[\d+\])*;$", block, re.S)
        if m:
            yield m.group(1), block
        elif t:
            yield t.group(1), block

def main(wanted):
    defs = dict(definitions(sys.stdin.read()))
    keep, todo = set(), list(wanted)
    while todo:
        name = todo.pop()
        if name in keep or name not in defs:
            continue
        keep.add(name)
        # A pointer needs no more than a forward declaration, which C makes itself.
        body = re.sub(r"(?:struct|union) \w+ \*+", "", defs[name])
        todo += re.findall(r"^(?:typedef\s+)?(?:\s*const\s+)?\s*(?:struct |union |enum )?(\w+) ", body, re.M)
    print("\n\n".join(body for name, body in defs.items() if name in keep))

main(sys.argv[1:])
