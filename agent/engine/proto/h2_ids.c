/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that has ended a stream, or skipped its identifier, must not speak on it again (RFC 9113 5.1, 5.1.1), but
 * one whose stream we have reset cannot know that yet. nghttp2 could tell the two apart by keeping every closed stream;
 * two bits for each of the latest do the same. Frames come in, error codes leave. Called by h2_guard.c.
 */
#include "h2_ids.h"

#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <string.h>

static uint64_t bit_of(uint32_t id)
{
	return UINT64_C(1) << (id / 2 % 64);
}

static uint64_t *word_of(uint64_t *bits, uint32_t id)
{
	return &bits[id / 2 % H2_IDS / 64];
}

static bool is_set(uint64_t *bits, uint32_t id)
{
	return *word_of(bits, id) & bit_of(id);
}

/* Makes id the newest; those between it and the last one were skipped. */
static void open_stream(struct h2_ids *ids, uint32_t id)
{
	if ((id - ids->last) / 2 >= H2_IDS) {
		memset(ids->opened, 0, sizeof(ids->opened));
		memset(ids->finished, 0, sizeof(ids->finished));
	} else {
		for (uint32_t i = ids->last + 2; i <= id; i += 2) {
			*word_of(ids->opened, i) &= ~bit_of(i);
			*word_of(ids->finished, i) &= ~bit_of(i);
		}
	}
	*word_of(ids->opened, id) |= bit_of(id);
	ids->last = id;
}

uint32_t h2_ids_frame(struct h2_ids *ids, uint32_t id, uint8_t type, uint8_t flags)
{
	bool speaks = type == NGHTTP2_HEADERS || type == NGHTTP2_DATA, news = id > ids->last;

	if (id % 2 == 0 || (!speaks && type != NGHTTP2_RST_STREAM) || (news && type != NGHTTP2_HEADERS))
		return NGHTTP2_NO_ERROR;
	if (news)
		open_stream(ids, id);
	else if ((ids->last - id) / 2 >= H2_IDS)
		return NGHTTP2_NO_ERROR; /* long ago: what nghttp2 does not know any more it ignores */
	if (speaks && !is_set(ids->opened, id))
		return NGHTTP2_PROTOCOL_ERROR;
	if (speaks && is_set(ids->finished, id))
		return NGHTTP2_STREAM_CLOSED;
	if (!speaks || flags & NGHTTP2_FLAG_END_STREAM)
		*word_of(ids->finished, id) |= bit_of(id);
	return NGHTTP2_NO_ERROR;
}
