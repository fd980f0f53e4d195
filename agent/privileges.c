/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities and process flags (capabilities(7), prctl(2)). Nothing enters, the process leaves with less.
 * Called by node.c. */
#include "privileges.h"
#include "engine/base/cleanup.h"

#include <sys/capability.h>
#include <sys/prctl.h>

/* One that the process was not given stays away: the call that needs it says so. */
static const cap_value_t needed[] = {
	CAP_NET_ADMIN,	      /* tc, rules, routes, sysctls of a pod; IP_TRANSPARENT; SO_MARK */
	CAP_NET_RAW,	      /* SO_MARK and IP_TRANSPARENT where NET_ADMIN is not given in the pod's user namespace */
	CAP_NET_BIND_SERVICE, /* a caller's source port below 1024 */
	CAP_SYS_ADMIN,	      /* setns, mounting bpffs, bpf(2) before 5.8 */
	CAP_BPF,
	CAP_PERFMON,	  /* loading and pinning programs */
	CAP_SYS_PTRACE,	  /* a namespace path below /proc/PID of another user */
	CAP_DAC_OVERRIDE, /* run directory, namespaces and manifests that belong to others */
	CAP_DAC_READ_SEARCH,
};

static int keep_needed(void)
{
	cap_t had = cap_get_proc(), want = cap_init();
	int r = 0;

	if (!had || !want)
		r = -ENOMEM;
	for (size_t i = 0; !r && i < ARRAY_SIZE(needed); i++) {
		cap_flag_value_t has = CAP_CLEAR;

		(void)cap_get_flag(had, needed[i], CAP_PERMITTED, &has);
		if (has == CAP_SET && (cap_set_flag(want, CAP_PERMITTED, 1, &needed[i], CAP_SET) < 0 ||
				       cap_set_flag(want, CAP_EFFECTIVE, 1, &needed[i], CAP_SET) < 0))
			r = -errno;
	}
	if (!r && cap_set_proc(want) < 0)
		r = -errno;
	cap_free(had);
	cap_free(want);
	return r;
}

/* SYS_ADMIN covers BPF and PERFMON, which alone would not do: entering a pod's namespace needs it. */
static const char *missing(void)
{
	cap_t had = cap_get_proc();
	cap_flag_value_t net = CAP_CLEAR, sys = CAP_CLEAR;

	if (had) {
		(void)cap_get_flag(had, CAP_NET_ADMIN, CAP_EFFECTIVE, &net);
		(void)cap_get_flag(had, CAP_SYS_ADMIN, CAP_EFFECTIVE, &sys);
		cap_free(had);
	}
	if (net == CAP_SET)
		return sys == CAP_SET ? NULL : "CAP_SYS_ADMIN";
	return sys == CAP_SET ? "CAP_NET_ADMIN" : "CAP_NET_ADMIN with CAP_SYS_ADMIN";
}

int privileges_reduce(const char **ret_missing)
{
	const char *lack = missing();
	int r;

	if (lack) {
		*ret_missing = lack;
		return -EPERM;
	}
	r = keep_needed();
	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	return 0;
}
