/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every frame of the peer, seen on the wire before nghttp2 parses it, which drops many without a word: does it cost
 * more than the tunnel's budget, and may its stream still speak? Bytes come in; how far they may be parsed, and the
 * error code of what ends the connection there, leave. Called by h2.c.
 */
#include "h2_guard.h"
#include "engine/base/limits.h"

#include <nghttp2/nghttp2.h>
#include <string.h>

#define FRAME_HEADER 9

struct head {
	uint32_t length, id;
	uint8_t type, flags;
};

static struct head decode(const uint8_t *b)
{
	return (struct head){.length = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2],
			     .type = b[3],
			     .flags = b[4],
			     .id = ((uint32_t)b[5] & 0x7f) << 24 | (uint32_t)b[6] << 16 | (uint32_t)b[7] << 8 | b[8]};
}

static bool is_padded_data(const struct head *h)
{
	return h->type == NGHTTP2_DATA && h->flags & NGHTTP2_FLAG_PADDED && h->length;
}

/* RFC 9113 10.5.1: header blocks of any size are legal, and of no use here. NULL, or the limit. */
static const char *block_exceeds(struct h2_guard *g, const struct head *h)
{
	if (h->type == NGHTTP2_CONTINUATION) {
		g->block += h->length;
		g->continuations++;
	} else {
		g->block = h->type == NGHTTP2_HEADERS ? h->length : 0;
		g->continuations = 0;
	}
	if (g->block > LIMIT_HEADER_BLOCK)
		return "LIMIT_HEADER_BLOCK";
	return g->continuations > LIMIT_CONTINUATIONS ? "LIMIT_CONTINUATIONS" : NULL;
}

/* DATA that carries bytes is what a tunnel is for, and pays for other frames. */
static bool affordable(struct h2_guard *g, const struct head *h)
{
	size_t padding = is_padded_data(h) ? 1 + (size_t)g->head[FRAME_HEADER] : 0;

	if (h->type == NGHTTP2_DATA && h->length > padding) {
		h2_budget_credit(&g->budget, 0, h->length - padding);
		return true;
	}
	return h2_budget_take(&g->budget, h->type == NGHTTP2_SETTINGS ? LIMIT_SETTINGS_COST : 1, h->length);
}

static uint32_t judge(struct h2_guard *g, const struct head *h)
{
	uint32_t error = g->server ? h2_ids_frame(&g->ids, h->id, h->type, h->flags) : NGHTTP2_NO_ERROR;

	if (error)
		return error;
	g->limit = block_exceeds(g, h);
	if (!g->limit && !affordable(g, h))
		g->limit = "LIMIT_CONTROL_BURST";
	return g->limit ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_NO_ERROR;
}

/* Frames that make their receiver dial, shut down or close, or look at every stream. */
static bool is_turn(const struct head *h)
{
	return h->type == NGHTTP2_HEADERS || h->type == NGHTTP2_RST_STREAM || h->type == NGHTTP2_SETTINGS ||
	       (h->type == NGHTTP2_DATA && h->flags & NGHTTP2_FLAG_END_STREAM);
}

/* Collects a frame's header from data. True when it is complete. */
static bool take_head(struct h2_guard *g, const uint8_t *data, size_t len, size_t *at, struct head *ret)
{
	while (*at < len) {
		size_t more;

		g->head[g->have++] = data[(*at)++];
		if (g->have < FRAME_HEADER)
			continue;
		*ret = decode(g->head);
		more = is_padded_data(ret);
		if (g->have < FRAME_HEADER + more)
			continue;
		g->left = ret->length - (uint32_t)more;
		g->have = 0;
		return true;
	}
	return false;
}

void h2_guard_init(struct h2_guard *g, bool server, uint64_t now_ms)
{
	memset(g, 0, sizeof(*g));
	h2_budget_init(&g->budget, now_ms);
	g->server = server;
	g->preface = server ? NGHTTP2_CLIENT_MAGIC_LEN : 0;
}

size_t h2_guard_pass(struct h2_guard *g, const uint8_t *data, size_t len, uint64_t now_ms, unsigned *turns,
		     uint32_t *ret_error)
{
	size_t at = g->preface < len ? g->preface : len;

	h2_budget_fill(&g->budget, now_ms);
	g->preface -= (uint8_t)at;
	while (at < len) {
		size_t payload = g->left < len - at ? g->left : len - at, start;
		struct head h;
		uint32_t error;

		g->left -= (uint32_t)payload;
		at += payload;
		start = at;
		if (!g->left && !*turns)
			return at;
		if (g->left || !take_head(g, data, len, &at, &h))
			continue;
		error = judge(g, &h);
		if (error) {
			*ret_error = error;
			return start;
		}
		*turns -= is_turn(&h);
	}
	return len;
}
