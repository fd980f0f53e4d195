/* SPDX-License-Identifier: Apache-2.0 */
/* All resources by key, each with its state; what was last good stays in force. Private to source/. */
#pragma once
#include "resource.h"
#include "yaml.h"

/* Field of the dump: whether an older version counts. What cannot be parsed has it, true or not. */
#define STORE_KEPT "last_good_in_force"
/* Field of the dump: what cannot be read there names a policy, or could not even be looked at. */
#define STORE_MAY_BE_POLICY "may_be_policy"
/* Disturbed reads one after the other before what none of them saw counts as gone. */
#define STORE_MISSES 5

/* What the documents of one file became. All zeroes: nothing is known of it. */
struct store_held {
	struct resource **list; /* borrowed from the store: each was seen by its last read */
	size_t n;
	bool whole; /* all its documents, and nothing else, are in the list: not when one was not to be had */
};

struct store {
	struct table resources;	       /* key -> struct resource */
	struct cJSON *problems;	       /* files that were not or could not be read or parsed: [{file,line,reason}] */
	struct cJSON *before;	       /* those of the read before, which have been said */
	struct unreadable *unreadable; /* of this round, what may be a policy */
	size_t n_unreadable;
	uint64_t version;	    /* of the tree that changed last */
	struct store_held *holding; /* takes note of what is put; NULL: nobody does */
	bool changed;
	bool disturbed; /* the folder changed during this read */
	bool outlived;	/* since this read something is in force that the folder does not say any more */
	bool quiet;	/* nothing is logged: somebody else will judge the same documents aloud */
};

/* A read of the folder: begin, one store_put for each document, store_put_broken for each that could not be parsed,
 * store_keep_file for each file that could not be read, end. */
void store_begin(struct store *s);
/* Takes over `tree`. */
void store_put(struct store *s, const char *file, int line, cJSON *tree);
/* What is put from now on is noted in `held`, in place of what it had; NULL: no more. */
void store_hold(struct store *s, struct store_held *held);
/* As if the same documents of the same file were put again. False, and nothing is done, when that cannot be said: some
 * were not to be had, or another file had one of the names first this time. */
bool store_see_again(const struct store_held *held);
void store_held_done(struct store_held *held);
/* A document of this file cannot be parsed, or the file cannot be read (-errno): what the file held before, and is not
 * seen again elsewhere, stays. What may be a policy counts, at the end, as one of the whole mesh that never was valid,
 * unless a policy that the file held explains it. A policy that is gone in the same round stays, too. */
void store_put_broken(struct store *s, const char *file, const struct yaml_error *error);
void store_keep_file(struct store *s, const char *file, int e);
/* Of the resource that stands for it then, to be freed. */
char *store_unreadable_key(const char *file);
/* Something in the folder is not read on purpose: worth a line of the list, but nothing is wrong. */
void store_pass_over(struct store *s, const char *folder, const char *reason);
/* The folder changed while it was read: what was not seen may have been on its way from one file to another. */
void store_disturbed(struct store *s);
/* What was not seen is gone; after a disturbed read only if that has been so for STORE_MISSES of them. */
void store_end(struct store *s);
void store_done(struct store *s);
size_t store_count(const struct store *s);
/* store_file.c: writes the resources in force to path, atomically, with the source they came from; reads them back at
 * start. 0 or -errno; -ESTALE: they are another source's; -EBADMSG: the file is not as it was written. */
int store_save(const struct store *s, const char *path, const char *source);
int store_load(struct store *s, const char *path, const char *source);
/* Every resource and every problem as source_dump() lists them. */
cJSON *store_dump(const struct store *s);
/* A row's beginning: kind, namespace, name, file, line, state, reason if there is one, STORE_KEPT if it is refused. */
cJSON *resource_row(const struct resource *r, const char *state, const char *reason);
/* Puts items with "file" and "line" in the order of the manifests, which is the same each time. */
void store_sort(cJSON *array);
