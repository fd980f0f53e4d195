/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access log: one line per connection with ztunnel's field names and order, text (tab separated) or JSON, and at the
 * log level debug one when it opens. Any thread; a full or slow sink never blocks a worker: lines are dropped and
 * counted.
 */
#pragma once
#include "engine/base/addr.h"
#include "engine/model/model.h"
#include "abi/reasons.h"

struct policy_verdict;

enum accesslog_direction { ACCESS_OUTBOUND, ACCESS_INBOUND };

/* Borrowed for the call. NULL or zero port: the field is left out. */
struct accesslog_record {
	struct ip_port src_addr;
	const struct workload *src;
	const char *src_identity; /* only if proven by mTLS */
	struct ip_port dst_addr;  /* next hop (outbound), pod:15008 or pod:port (inbound) */
	const char *hbone_addr;	  /* authority, NULL without a tunnel */
	const struct service *dst_service;
	const struct workload *dst;
	const char *dst_identity;
	enum accesslog_direction direction;
	uint64_t bytes_sent, bytes_recv; /* as the local application sees them */
	uint64_t duration_us;
	enum wr_reason reason;		      /* NONE: completed well; else error="<name>: <text>[: detail]" */
	const char *detail;		      /* NULL, or e.g. "http status: 503" */
	const struct policy_verdict *verdict; /* of a denial: policy, rule and field are said; else NULL */
	bool early;			      /* refused before set-up: the short WARN "connection failed" form */
	bool opened;			      /* set up, of a debug log: nothing is known yet of how it ends */
};

/* `target`: "stdout", "stderr", "off" or a file path (appended, reopened by accesslog_reopen); json chooses the form.
 * 0 or -errno. */
int accesslog_open(const char *target, bool json);
void accesslog_reopen(void);
void accesslog_write(const struct accesslog_record *r);
/* Lines dropped because the sink did not take them. */
uint64_t accesslog_dropped(void);
/* Flushes and closes. */
void accesslog_close(void);
