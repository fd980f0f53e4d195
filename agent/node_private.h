/* SPDX-License-Identifier: Apache-2.0 */
/* What node.c (life) and commands.c (what warrenctl asks) share. */
#pragma once
#include "agent/capture/capture.h"
#include "agent/enroll/pods.h"
#include "engine/admin/admin.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/identity/ca.h"
#include "engine/io/loop.h"
#include "engine/model/model.h"
#include "engine/proxy/engine.h"
#include "engine/source/source.h"
#include "options.h"

struct takeover_pod;

struct node {
	struct options o;
	struct loop *loop;
	struct ca *ca;
	struct cert_store *certs;
	struct capture *capture;
	struct engine *engine;
	struct model *model;
	struct pods *pods;
	struct source *source;
	struct admin *admin;
	struct readiness *readiness;
	struct takeover_pod *inherited;
	size_t n_inherited;
	char *dir, *state_dir, *socket_path, *lock_path;
	int lock_fd;
	struct watch signals;
	struct timer drain, idle;
	uint64_t start_ms;
	bool source_read, said_up, stopping, handed_over;
	uint64_t handed_over_ms;
};

/* True when all wanted pods are enrolled; else *ret_why says what is missing. */
bool node_is_up(struct node *n, const char **ret_why);
bool node_ready(void *arg, const char **ret_why);
void node_stop(struct node *n);
void node_hand_over(struct node *n);
int node_register_commands(struct node *n);
