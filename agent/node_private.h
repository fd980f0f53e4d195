/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of agent/ share: node.c (life), lock.c (who may be this node's agent), shutdown.c (its end),
 * hints.c (what the log tells people), denied.c (what the kernel refused), identities.c (CA and certificates),
 * commands.c, policy_commands.c and certificate_commands.c (what warrenctl asks). Everything here belongs to the
 * control thread.
 */
#pragma once
#include "agent/capture/capture.h"
#include "agent/enroll/pods.h"
#include "engine/admin/admin.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/identity/ca.h"
#include "engine/identity/cert_store.h"
#include "engine/identity/trust_keeper.h"
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
	struct trust_keeper *keeper;
	struct capture *capture;
	struct engine *engine;
	struct model *model;
	struct pods *pods;
	struct source *source;
	struct admin *admin;
	struct readiness *readiness;
	struct takeover_pod *inherited;
	size_t n_inherited;
	struct cJSON *without; /* capture_without at the start */
	char *dir, *state_dir, *socket_path, *lock_path;
	char *pins;	    /* the node's folder of pins */
	char *trust_domain; /* the mesh's own at the start; NULL: it names none */
	int lock_fd, pins_fd, readiness_fd;
	struct watch signals;
	struct timer drain, idle;
	uint64_t start_ms;
	bool source_read, said_up, stopping, handed_over;
	bool ca_made;	  /* by this start: the folder held no root */
	bool name_judged; /* --node is some pod's, or was warned of */
	uint64_t handed_over_ms;
};

/* --- node.c --- */
/* Prints one line and returns `error`. */
int node_fail(int error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* sd_notify(3): `text` goes to whom NOTIFY_SOCKET names, if anybody. */
void node_notify(const char *text);
/*
 * Up: the source has been read, and every wanted pod is enrolled or refused. `status` exits 0, /healthz/ready
 * answers 200 and READY=1 is sent by this and nothing else. A refused pod does not hold it up: one tenant's
 * mistake in a manifest must not have systemd or the kubelet end the agent of everybody's pods, nor stop a
 * roll-out. Whom an operator must help (pods_alarms) stands in `status` as an alarm. Else *ret_why (borrowed)
 * says what is missing.
 */
bool node_is_up(struct node *n, const char **ret_why);
/* What --source-binding says. */
enum source_binding node_source_binding(const struct node *n);

/* --- lock.c; each prints what is wrong and returns -errno --- */
/* The run directory's folders and paths. */
int node_make_dirs(struct node *n);
/* Both locks; waits for a predecessor with --takeover only. -EBUSY: another agent of this node runs. */
int node_lock(struct node *n);
/* Lets go of what it has of them. */
void node_unlock(struct node *n);

/* --- shutdown.c --- */
/* SIGTERM and SIGINT stop the loop as soon as nothing is left to wait for, SIGHUP reopens the access log. 0
 * or -errno. */
int node_watch_signals(struct node *n);
/* The successor has the listeners: lock, doors and new connections are its own from here. */
void node_hand_over(struct node *n);

/* --- hints.c --- */
/* One line: who this is and with what it starts. */
void node_say_start(const struct node *n);
/* Warns once when pods name other nodes and none names this one. */
void node_hint_name(struct node *n);
/* At the end: warns of the pods that stay captured, and says how they get out. */
void node_say_left(const struct node *n);

/* --- denied.c --- */
/* Has the engine tell what the kernel refuses. 0, or -errno after a line that says why. */
int node_watch_denials(struct node *n);

/* --- identities.c --- */
/* CA, trust and certificates; what is wrong is printed. 0 or -errno. */
int node_start_identities(struct node *n);
void node_stop_identities(struct node *n);
/* source_config.aliases: other names of the trust domain that peers may have from now on. */
void node_aliases_changed(void *arg, char *const *aliases, size_t count, bool widen);

/* --- commands.c, policy_commands.c, certificate_commands.c; 0 or -ENOMEM --- */
struct node_command {
	const char *name; /* as warrenctl sends it */
	admin_handler fn; /* its arg is the node */
};
int node_register(struct node *n, const struct node_command *commands, size_t count);
int node_register_commands(struct node *n);
int node_register_policy_commands(struct node *n);
int node_register_certificate_commands(struct node *n);
