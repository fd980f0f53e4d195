/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random policy sets, judged by the compiled set, by the cache, by the explanation and by a plain reference: all say
 * the same. WR_SEED repeats a run, WR_SCALE cuts it.
 */
#include "policy_reference.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define SETS 100000
#define SUBJECTS 4
/* One set in so many is large: there rules share values, and bitmaps come into play. */
#define LARGE_EVERY 100

static const char *const reasons[] = {
	[WR_REASON_NONE] = "none",
	[WR_REASON_MTLS_REQUIRED] = "mtls_required",
	[WR_REASON_POLICY_INVALID] = "policy_invalid",
	[WR_REASON_POLICY_DENY] = "policy_deny",
	[WR_REASON_POLICY_NO_ALLOW] = "policy_no_allow",
};

static unsigned long allowed, cases, decisive[ATTRIBUTE_L7 + 1][2];
static struct policy_cache *cache;

/* SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"). */
static uint32_t below(struct chance *c, uint32_t limit)
{
	uint64_t z = (c->state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	z ^= z >> 31;
	return (uint32_t)((z >> 32) * limit >> 32);
}

static double scale(void)
{
	const char *text = getenv("WR_SCALE");

	return text ? atof(text) : 1;
}

/* A field is decisive where the other answer would turn allow round. */
static void count_decisive(struct reference_case *c, bool allow)
{
	for (size_t p = 0; p < c->n_policies; p++) {
		for (size_t r = 0; r < c->policies[p]->n_rules; r++) {
			const struct policy_rule *rule = &c->policies[p]->rules[r];

			for (size_t g = 0; g < rule->n_groups; g++)
				for (size_t i = 0; i < rule->groups[g].n_clauses; i++)
					for (size_t f = 0; f < rule->groups[g].clauses[i].n_fields; f++) {
						c->flip = &rule->groups[g].clauses[i].fields[f];
						if (reference_evaluate(c).allow != allow)
							decisive[c->flip->attribute][c->flip->negate]++;
					}
		}
	}
	c->flip = NULL;
}

static void check_verdict(const char *who, const struct reference_case *c, const struct policy_verdict *got,
			  unsigned long number)
{
	const char *what = reference_differs(c, got);

	if (what)
		fail_msg("set %lu: %s differs from the reference in %s: %s", number, who, what, reasons[got->reason]);
}

static void check_explained(const struct reference_case *c, const struct policy_set *s,
			    const struct policy_verdict *got, unsigned long number)
{
	cJSON *o = policy_explain(s, &c->subject);

	assert_non_null(o);
	if (cJSON_IsTrue(cJSON_GetObjectItem(o, "allow")) != got->allow ||
	    strcmp(cJSON_GetObjectItem(o, "reason")->valuestring, reasons[got->reason]) ||
	    !cJSON_GetObjectItem(o, "would_deny") != !got->would_deny ||
	    !cJSON_GetObjectItem(o, "would_allow") != !got->would_allow)
		fail_msg("set %lu: explained as %s", number, cJSON_PrintUnformatted(o));
	cJSON_Delete(o);
}

static void check_set(struct chance *chance, unsigned long number)
{
	bool large = number % LARGE_EVERY == 0;
	struct reference_case c;
	struct policy_verdict got;
	struct policy_set *s;
	char identity[160];

	chance_case(chance, &c, large ? 60 : 4, large ? 10 : 3);
	s = reference_case_set(&c);
	for (int i = 0; i < SUBJECTS; i++) {
		chance_subject(chance, &c.subject, identity, sizeof(identity));
		policy_evaluate(s, &c.subject, &got);
		check_verdict("policy_evaluate", &c, &got, number);
		cases++;
		allowed += got.allow;
		check_explained(&c, s, &got, number);
		if (!large)
			count_decisive(&c, got.allow);
		assert_int_equal(policy_set_mode(s, c.subject.destination.port),
				 reference_mode(&c, c.subject.destination.port));
		for (int again = 0; again < 2; again++) {
			policy_cache_evaluate(cache, s, &c.subject, &got);
			check_verdict("policy_cache_evaluate", &c, &got, number);
		}
	}
	policy_set_unref(s);
	reference_case_done(&c);
}

static void all_say_the_same(void **state)
{
	const char *seed = getenv("WR_SEED");
	struct chance chance = {.below = below, .state = seed ? strtoull(seed, NULL, 0) : 20250917};
	unsigned long n = (unsigned long)(SETS * scale());

	(void)state;
	print_message("WR_SEED=%llu, %lu sets\n", (unsigned long long)chance.state, n);
	cache = policy_cache_new(64);
	assert_non_null(cache);
	for (unsigned long i = 0; i < n; i++)
		check_set(&chance, i);
	cache = policy_cache_free(cache);
}

/* The sets are worth something only if they go both ways, and each kind of field has its say. */
static void the_sets_are_decisive(void **state)
{
	(void)state;
	print_message("%lu of %lu allowed\n", allowed, cases);
	for (int a = 0; a <= ATTRIBUTE_L7; a++)
		print_message("attribute %d: decisive %lu times, negated %lu\n", a, decisive[a][0], decisive[a][1]);
	assert_in_range(allowed * 100 / cases, 30, 70);
	for (int a = 0; a <= ATTRIBUTE_L7; a++)
		for (int negate = 0; negate < 2; negate++)
			assert_true((double)decisive[a][negate] >= 1000 * scale());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_say_the_same),
		cmocka_unit_test(the_sets_are_decisive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
