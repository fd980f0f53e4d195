/* SPDX-License-Identifier: Apache-2.0 */
/* What assemble.c, and workload.c and service.c that make its objects, share. */
#pragma once
#include "assemble.h"

/* The uid of a pod's workload, to be freed. NULL: out of memory. */
char *assemble_uid(const struct assembly *a, const struct resource *pod);
/* The workload of a pod. NULL: out of memory. */
struct workload *assemble_workload(const struct assembly *a, const struct store *s, const struct resource *pod);
/* Adds the ports that the pod's probes and handlers name. 0 or -ENOMEM. */
int assemble_probes(struct workload *w, const cJSON *spec);
/* A service with its endpoints, which are workloads as published: those go first. NULL: out of memory. */
struct service *assemble_service(const struct assembly *a, const struct store *st, const struct resource *r);
