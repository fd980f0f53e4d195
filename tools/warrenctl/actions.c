/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that change something: pods in and out of capture, connections ended, the log level; and `prove`, which
 * sends. An argument comes in, an exit code leaves. Called by main.c through its table.
 */
#include "ctl.h"

#include <stdio.h>
#include <string.h>

static bool is_all(const char *arg)
{
	return !strcmp(arg, "--all") || !strcmp(arg, "all");
}

/* CTL_OK and the result printed, or a code with the reason remembered. */
static int pod_switch(struct ctl *c, const char *command, const char *arg)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	int r;

	if (is_all(arg))
		cJSON_AddTrueToObject(args, "all");
	else
		cJSON_AddStringToObject(args, "name", arg);
	r = client_call(c, command, args, cJSON_Object, &result);
	if (r)
		return r;
	if (!ctl_print_json(c, result))
		printf("%.0f pods\n", number_of(result, "pods"));
	cJSON_Delete(result);
	return CTL_OK;
}

/* Past an agent that is there but stuck nothing is released: it would take the pod back. */
int action_release(struct ctl *c, const char *arg)
{
	int r = arg ? pod_switch(c, "pod release", arg) : ctl_error(c, CTL_USAGE, "pod release: name a pod, or --all");

	if (r == CTL_NO_AGENT)
		r = local_release(c, is_all(arg) ? NULL : arg);
	return r ? ctl_say(c, r) : CTL_OK;
}

int action_enroll(struct ctl *c, const char *arg)
{
	int r = arg ? pod_switch(c, "pod enroll", arg) : ctl_error(c, CTL_USAGE, "pod enroll: name a pod, or --all");

	return r ? ctl_say(c, r) : CTL_OK;
}

int action_close(struct ctl *c, const char *arg)
{
	cJSON *result = NULL;
	int r;

	if (!arg || strcmp(arg, "--unmanaged"))
		return ctl_fail(c, CTL_USAGE,
				"connection close: what: --unmanaged, all that `connection unmanaged` lists");
	r = client_call(c, "connection close", NULL, cJSON_Object, &result);
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		printf("%.0f connections\n", number_of(result, "closed"));
	cJSON_Delete(result);
	return CTL_OK;
}

int action_log_level(struct ctl *c, const char *arg)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	int r;

	if (arg)
		cJSON_AddStringToObject(args, "level", arg);
	r = client_call(c, "log level", args, cJSON_Object, &result);
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		printf("%s\n", text_of(result, "level"));
	cJSON_Delete(result);
	return CTL_OK;
}

/* What cannot be found out has one code of its own: 1 is for what was. */
int action_prove(struct ctl *c, const char *arg)
{
	int r = arg ? local_prove(c, arg) : ctl_error(c, CTL_USAGE, "prove: name a pod");

	if (r == CTL_OK || r == CTL_NOT_SO)
		return r;
	return ctl_say(c, CTL_USAGE);
}
