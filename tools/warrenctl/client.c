/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the agent over its admin socket: one JSON line there, one back. Called by main.c. */
#include "ctl.h"
#include "engine/base/cleanup.h"

#include <dirent.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ANSWER_MAX (256u * 1024 * 1024)
#define ANSWER_MS 15000

int client_find_node(struct ctl *c, bool quiet)
{
	char names[512] = "";
	struct dirent *d;
	size_t len = 0;
	int found = 0;
	DIR *dir;

	if (c->node)
		return CTL_OK;
	dir = opendir(c->run_dir);
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		found++;
		snprintf(c->node_buf, sizeof(c->node_buf), "%s", d->d_name);
		if (len < sizeof(names))
			len += (size_t)snprintf(names + len, sizeof(names) - len, " %s", d->d_name);
	}
	if (dir)
		closedir(dir);
	if (found == 1) {
		c->node = c->node_buf;
		return CTL_OK;
	}
	if (quiet)
		return found ? CTL_USAGE : CTL_NO_AGENT;
	if (found)
		return ctl_fail(c, CTL_USAGE, "several nodes under %s:%s; name one with --node", c->run_dir, names);
	return ctl_fail(c, CTL_NO_AGENT, "no agent has run here: %s holds no node; is --run-dir right?", c->run_dir);
}

/* Reads to the end of the line or the connection, with a deadline for the whole. */
static int read_answer(int fd, char **ret, const char **ret_why)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, ANSWER_MS) != 1) {
			*ret_why = "the agent does not answer";
			return -ETIMEDOUT;
		}
		if (len + 65536 > size) {
			char *grown = size < ANSWER_MAX ? realloc(text, size * 2 + 131072) : NULL;

			if (!grown) {
				*ret_why = "the answer is too large";
				return -EFBIG;
			}
			text = grown;
			size = size * 2 + 131072;
		}
		n = recv(fd, text + len, size - len - 1, 0);
		if (n < 0) {
			*ret_why = strerror(errno);
			return -errno;
		}
		len += (size_t)n;
		text[len] = 0;
		if (!n || text[len - 1] == '\n')
			break;
	}
	*ret = take_ptr(text);
	return 0;
}

static int unpack(struct ctl *c, const char *text, bool quiet, cJSON **ret)
{
	cJSON *answer = cJSON_Parse(text), *error;

	if (cJSON_IsTrue(cJSON_GetObjectItem(answer, "ok"))) {
		*ret = cJSON_DetachItemFromObject(answer, "result");
		cJSON_Delete(answer);
		if (*ret)
			return CTL_OK;
		answer = NULL;
	}
	error = cJSON_GetObjectItem(answer, "error");
	if (!quiet)
		ctl_fail(c, CTL_REFUSED, "%s", cJSON_IsString(error) ? error->valuestring : "the agent's answer is not understood");
	cJSON_Delete(answer);
	return CTL_REFUSED;
}

int client_call(struct ctl *c, const char *command, cJSON *args, bool quiet, cJSON **ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_free_ char *text = NULL, *answer = NULL;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	cJSON *request = cJSON_CreateObject();
	const char *why = NULL;
	size_t len;
	int r;

	cJSON_AddStringToObject(request, "command", command);
	if (args)
		cJSON_AddItemToObject(request, "args", args);
	text = cJSON_PrintUnformatted(request);
	cJSON_Delete(request);
	r = client_find_node(c, quiet);
	if (r)
		return r;
	if (snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s/agent.sock", c->run_dir, c->node) >= (int)sizeof(un.sun_path))
		return quiet ? CTL_USAGE : ctl_fail(c, CTL_USAGE, "--run-dir: the socket's path is too long");
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		return quiet ? CTL_NO_AGENT :
			       ctl_fail(c, CTL_NO_AGENT, "node %s: no agent at %s: %s", c->node, un.sun_path, strerror(errno));
	len = text ? strlen(text) : 0;
	if (!len || send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len || send(fd, "\n", 1, MSG_NOSIGNAL) != 1 ||
	    read_answer(fd, &answer, &why) < 0)
		return quiet ? CTL_NO_AGENT : ctl_fail(c, CTL_NO_AGENT, "node %s: %s", c->node, why ? why : "connection lost");
	return unpack(c, answer, quiet, ret);
}
