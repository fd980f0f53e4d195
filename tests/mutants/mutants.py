#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make mutants`: the tests of the policy must fail for each small error that is put into its compiler.

Each mutant is a file of agent/engine, a piece of its text that occurs once, and what takes its place. It is applied to a
copy under build/mutants/, both unit tests are built from that copy, and one of them has to fail. The copy without a
mutant has to pass. Prints one line a mutant; exit 1 when one lives. `mutants.py [PART_OF_A_NAME]`.
"""
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLACE = os.path.join(ROOT, "build", "mutants")
TESTS = ["test_policy", "test_policy_property"]
INDEX, FIND, LOOKUP, MATCH = ("model/%s.c" % n for n in ("policy_index", "policy_find", "value_lookup", "policy_match"))
SET, AUTH, CACHE, TRIE = "model/policy_set.c", "model/peer_auth.c", "model/policy_cache.c", "base/trie.c"

MUTANTS = [
    ("negations of alternatives are constraints", INDEX, "return clauses == 1 || (clauses && !negate);", "return clauses > 0;"),
    ("an alternative without the field is overlooked", INDEX, "if (!n || (repeated &&", "if ((repeated &&"),
    ("the last value of a field is lost", INDEX, "r == 0 && i < policy_field_count(f); i++) {\n\t\tstruct value *v =",
     "r == 0 && i + 1 < policy_field_count(f); i++) {\n\t\tstruct value *v ="),
    ("the last alternative is lost", INDEX, "c.clause < split->n_clauses", "c.clause + 1 < split->n_clauses"),
    ("L7 in ALLOW rules is overlooked", INDEX, "if (!policy_rule_alive(rule, ix->l7))", "if (!rule)"),
    ("what is wanted is refused", INDEX, "each_value(ix, c, g, a, true, add_refused", "each_value(ix, c, g, a, false, add_refused"),
    ("who wants nothing is no candidate", INDEX, "memset(at->unbound, 0xff", "memset(at->unbound, 0"),
    ("bitmaps fold in half", INDEX, "bits[p->numbers[i] / 64] |= 1ull << p->numbers[i] % 64", "bits[p->numbers[i] / 64] |= 1ull << p->numbers[i] % 32"),
    ("the wide lose their order", INDEX, "ix->wide[ix->n_wide++] = entry", "ix->wide[ix->n_wide++] = 0"),
    ("the first candidate of the last word is lost", FIND, "(1ull << s->ix->n_wide % 64) - 1", "(1ull << s->ix->n_wide % 64) - 2"),
    ("ports are not looked up", FIND, "a < ATTRIBUTE_L7", "a < ATTRIBUTE_DESTINATION_PORT"),
    ("what is wanted is taken away", FIND, "take_away(s->left, &v->refused", "take_away(s->left, &v->wanted"),
    ("a later rule is found first", FIND, "if (entry >= s->best)", "if (entry >= s->best && !entry)"),
    ("narrow candidates are forgotten", FIND, "v->narrow.numbers[i] < s->best", "v->narrow.numbers[i] > s->best"),
    ("large fields match what they do not name", FIND, "return value_walk_next(&w);", "return true;"),
    ("an IPv4 range of everything is none", LOOKUP, "v->bits < 96", "v->bits <= 96"),
    ("suffixes are read forwards", LOOKUP, "l->suffixes.backwards = true", "l->suffixes.backwards = false"),
    ("presence is forgotten", LOOKUP, "v = w->text ? l->present : NULL", "v = NULL"),
    ("a key in the middle of a way is lost", TRIE, "if (same == bits)\n\t\t\tbreak;", "if (same == bits && !n->value)\n\t\t\tbreak;"),
    ("the bits of a byte are turned round", TRIE, ">> (7 - i % 8) & 1", ">> (i % 8) & 1"),
    ("a range one bit too long", MATCH, ">> (8 - rest)", ">> (7 - rest)"),
    ("an exact value is a prefix", MATCH, "return !strncmp(m->text, text, len) && !m->text[len];", "return !strncmp(m->text, text, strlen(m->text));"),
    ("L7 counts as matched whatever is asked for", MATCH, "l7_deny == L7_DENY_MATCHES ? L7_MATCHES", "l7_deny != L7_DENY_MATCHES ? L7_MATCHES"),
    ("CUSTOM is allowed", SET, "if (p->action == POLICY_ALLOW)", "if (p->action == POLICY_ALLOW || p->action == POLICY_CUSTOM)"),
    ("closed policies of waypoints close", SET, "if (p->closed && !p->target_ref)", "if (p->closed)"),
    ("the newest wins", AUTH, "return at < bt;", "return at > bt;"),
    ("the cache forgets the port", CACHE, "k->port = subject->destination.port;", "k->port = 0;"),
    ("the cache forgets the source", CACHE, "k->source_class = policy_set_source_class(s, &subject->source);", "k->source_class = NULL;"),
    ("the cache forgets the set", CACHE, "k->set = s->number;", "k->set = 1;"),
    ("the cache forgets the destination", CACHE, "k->destination = subject->destination.ip;", "memset(&k->destination, 0, sizeof(k->destination));"),
    ("the cache forgets who is let in already", CACHE, "k->established = subject->established;", "k->established = 0;"),
    ("the cache remembers nothing", CACHE, "if (!memcmp(&bucket[i].key, &key, len))", "if (!len)"),
    ("each address is a class of its own", CACHE, "k->source_class = policy_set_source_class(s, &subject->source);",
     "memcpy(&k->source_class, subject->source.b + 8, sizeof(k->source_class));"),
    ("what never was valid ends what is open", SET, "&& !v->subject->established", ""),
]


def build(place):
    """The tests of a copy; what is not the policy's comes from the tree."""
    engine = os.path.join(place, "agent/engine")
    sources = sorted(os.path.join(engine, d, f) for d in ("base", "model") for f in os.listdir(os.path.join(engine, d)) if f.endswith(".c"))
    common = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-w", "-I" + os.path.join(ROOT, "include"), "-I" + ROOT]
    objects = []
    for s in sources:
        o = s[:-2] + ".o"
        if not os.path.exists(o):
            subprocess.run([*common, "-c", s, "-o", o], check=True)
        objects.append(o)
    for t in TESTS:
        subprocess.run([*common, os.path.join(ROOT, "tests/unit", t + ".c"), *objects, "-lcmocka", "-lcjson", "-lpthread",
                        "-o", os.path.join(place, t)], check=True)


def passes(place):
    env = dict(os.environ, WR_SCALE="0.05")
    for t in TESTS:
        try:
            if subprocess.run([os.path.join(place, t)], env=env, capture_output=True, timeout=60).returncode:
                return t
        except subprocess.TimeoutExpired:
            return t + " (no end)"
    return None


def copy(origin, place):
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(origin, place)


def try_mutant(mutant, clean):
    name, file, old, new = mutant
    place = os.path.join(PLACE, "mutant")
    copy(clean, place)
    path = os.path.join(place, "agent/engine", file)
    with open(path) as f:
        text = f.read()
    if text.count(old) != 1:
        return "%s: the text to replace occurs %d times in %s: mend the list in tests/mutants/mutants.py" % (name, text.count(old), file)
    with open(path, "w") as f:
        f.write(text.replace(old, new))
    os.unlink(path[:-2] + ".o")
    build(place)
    killer = passes(place)
    print("%-8s %-55s %s" % ("caught" if killer else "LIVES", name, killer or file), flush=True)
    return None if killer else "%s: no test fails: add the case that tells it" % name


def main():
    chosen = [m for m in MUTANTS if len(sys.argv) < 2 or sys.argv[1] in m[0]]
    clean = os.path.join(PLACE, "clean")
    shutil.rmtree(clean, ignore_errors=True)
    for d in ("base", "model"):
        shutil.copytree(os.path.join(ROOT, "agent/engine", d), os.path.join(clean, "agent/engine", d))
    build(clean)
    killer = passes(clean)
    if killer:
        sys.exit("mutants: %s fails without a mutant: see that first" % killer)
    bad = [b for b in (try_mutant(m, clean) for m in chosen) if b]
    print("\n".join(bad + ["%d mutants, %d caught" % (len(chosen), len(chosen) - len(bad))]))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
