/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes at a server session that answers every request with 200 and echoes nothing. */
#include "engine/proto/h2.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(void *owner, int32_t id, const struct h2_headers *h, bool end)
{
	struct h2 *h2 = *(struct h2 **)owner;

	(void)end;
	h2_set_stream(h2, id, owner);
	h2_respond(h2, id, h->is_connect && strlen(h->authority) == h->authority_len ? 200 : 400, h->baggage);
}
static void response(void *owner, int32_t id, void *stream, const struct h2_headers *h)
{
	(void)owner, (void)id, (void)stream, (void)h;
}
static void data_event(void *owner, int32_t id, void *stream, const uint8_t *data, size_t len)
{
	(void)stream, (void)data;
	h2_consume(*(struct h2 **)owner, id, len);
}
static void end(void *owner, int32_t id, void *stream)
{
	(void)stream;
	h2_resume(*(struct h2 **)owner, id);
}
static void closed(void *owner, int32_t id, void *stream, uint32_t error)
{
	(void)owner, (void)id, (void)stream, (void)error;
}
static ssize_t pull(void *owner, int32_t id, void *stream, uint8_t *buf, size_t max, bool *ret_eof)
{
	(void)owner, (void)id, (void)stream, (void)buf, (void)max;
	*ret_eof = true;
	return 0;
}
static int emit(void *owner, const uint8_t *data, size_t len)
{
	(void)owner, (void)data, (void)len;
	return 0;
}
static void nothing(void *owner)
{
	(void)owner;
}
static void goaway(void *owner, uint32_t error)
{
	(void)owner, (void)error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct h2_events events = {request, response, data_event, end,	closed, pull,
						emit,	 nothing,  goaway,     nothing, nothing};
	struct h2 *h2;
	unsigned turns = 1;
	ssize_t r;

	if (h2_new(true, &events, &h2, 0, &h2))
		return 0;
	/* With the preface given, the bytes are frames. */
	r = h2_recv(h2, (const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, 0, &turns);
	for (size_t at = 0; r >= 0 && at < size; at += (size_t)r) {
		turns = 1 + at % 3;
		r = h2_recv(h2, data + at, size - at < 100 ? size - at : 100, at, &turns);
		(void)h2_send(h2);
	}
	h2_free(h2);
	return 0;
}
