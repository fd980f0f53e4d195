/* SPDX-License-Identifier: Apache-2.0 */
/* `certificate rotate-root` and `certificate revoke`: the agent does it on its CA's folder. Called by main.c. */
#include "ctl.h"

#include <stdio.h>

int certificate_rotate(struct ctl *c, const char *arg)
{
	cJSON *args = cJSON_CreateObject(), *result = NULL;
	int r;

	if (arg)
		cJSON_AddStringToObject(args, "step", arg);
	r = client_call(c, "certificate rotate-root", args, cJSON_Object, &result);
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		printf("%s: %s\n", text_of(result, "phase"), text_of(result, "next"));
	cJSON_Delete(result);
	return CTL_OK;
}

int certificate_revoke(struct ctl *c, const char *arg)
{
	cJSON *args, *result = NULL;
	int r;

	if (!arg)
		return ctl_fail(c, CTL_USAGE, "certificate revoke: name a serial number or a SPIFFE identity");
	args = cJSON_CreateObject();
	cJSON_AddStringToObject(args, "what", arg);
	r = client_call(c, "certificate revoke", args, cJSON_Object, &result);
	if (r)
		return ctl_say(c, r);
	if (!ctl_print_json(c, result))
		printf("%.0f certificate%s revoked\n", number_of(result, "revoked"),
		       number_of(result, "revoked") == 1 ? "" : "s");
	cJSON_Delete(result);
	return CTL_OK;
}
