/* SPDX-License-Identifier: Apache-2.0 */
/* Every limit of the data path in one place, each with what stands behind it. No implementation file. */
#pragma once

/* One DATA frame's payload and the scratch it is read into: with its 9-byte header fifteen full TLS records, which is
 * what one gathered write holds. One recv, one frame, one send; a quarter of it cost 5 % more CPU per byte. */
#define LIMIT_FRAME_PAYLOAD (15 * 16384 - 9)
/* Plaintext decrypted before it is parsed; one round of one tunnel. */
#define LIMIT_PLAINTEXT_BYTES (128 * 1024)
/* Records of one read, however little is in each: a byte in a record of its own costs as much as a thousand in one. */
#define LIMIT_RECORDS 256
/* Ciphertext gathered into one write. */
#define LIMIT_GATHER_BYTES (256 * 1024)
/* Bytes one tunnel may send before the other events of its worker are looked at. */
#define LIMIT_FLUSH_BYTES (1024 * 1024)
/* Frames that begin or end streams and are worked on in one round of a worker: each may cost a dial or a close, and
 * everybody else waits for that long. A tunnel gets half of what is left of them, and at least one, whenever it reads
 * and once more at the end of the round; the rest of what it has read waits for the next. */
#define LIMIT_TURNS_A_ROUND 64
/* Connections of a removed pod that are ended in one round at the end of its drain. */
#define LIMIT_ENDS_A_ROUND 256
/* Descriptors that resets close in one round of a worker: more wait for the next ones. Twice as many a round each time
 * that the first has waited for so long, so that busy rounds do not put a reset off for ever. */
#define LIMIT_CLOSES_A_ROUND 32
#define LIMIT_CLOSE_MS 100
/* Bytes one plain relay may move before others get their turn. */
#define LIMIT_RELAY_ROUND_BYTES (512 * 1024)
/* Bytes one plain relay reads ahead of a slow reader once a quarter of the buffer budget is used. */
#define LIMIT_RELAY_SCARCE_BYTES 4096
/* From this share of its time at work on a worker gets no more connections that another accepted. */
#define LIMIT_WORKER_BUSY_PERCENT 90
/* Waiting awake (--busy-poll): so many short waits in a row begin it. Whoever keeps the CPU for so long ends it for a
 * while: a wake-up would have taken the CPU from them, asking again does not. */
#define LIMIT_POLL_STREAK 8
/* Bytes in one piece that are bulk traffic, which no waiting awake is for. */
#define LIMIT_POLL_BYTES (16 * 1024)
#define LIMIT_POLL_YIELDED_US 500
#define LIMIT_POLL_PAUSE_US 10000
#define LIMIT_POLL_PAUSE_MAX_US 100000
/* Connections accepted from one listener per event: then the other sockets get their turn. */
#define LIMIT_ACCEPT_BATCH 64
/* Pause after EMFILE/ENFILE/ENOMEM on accept (counter limit_descriptors). */
#define LIMIT_ACCEPT_BACKOFF_MS 100
/* Descriptors kept free for dials, certificates, admin: connections beyond are reset (counter limit_connections). */
#define LIMIT_RESERVED_FDS 256
/* Unfinished inbound handshakes per pod and worker; more are closed (counter limit_handshakes). */
#define LIMIT_HANDSHAKES 1024
/* Inbound tunnels of one address to one pod and worker: honest peers need one per thread or thousand streams. More are
 * closed (counter limit_tunnels). */
#define LIMIT_TUNNELS_PER_PEER 256
/* A SYN that met a node whose agent was just starting was dropped, and the kernel sends the next one a second later
 * (RFC 6298): a tunnel is dialled anew after this long, then after twice as long, and left to the kernel after that. */
#define LIMIT_KNOCK_MS 200
#define LIMIT_KNOCKS 2
/* How long what somebody said before a reset may wait for room on its way; then the reset goes without it. */
#define LIMIT_LAST_WORDS_MS 1000
/* How long what a deleted pod's tunnels have sent may wait for its peer. */
#define LIMIT_LAST_BYTES_MS 500
/* Deadline of an inbound TLS handshake together with SETTINGS, and of an app's accept. */
#define LIMIT_HANDSHAKE_MS 10000
#define LIMIT_APP_CONNECT_MS 10000
/* TLS handshake messages a peer may send on one connection: the handshake's own, tickets, key updates. */
#define LIMIT_TLS_MESSAGES 256

/* Certificates a peer may present, and all their bytes: leaf, a few intermediates, cross-signed roots (else
 * tls_chain_limit). */
#define LIMIT_CHAIN_CERTS 10
#define LIMIT_CHAIN_BYTES (64 * 1024)
/* Trust domains that the roots may vouch for: our own and its aliases (else the ConfigMap or the option is refused). */
#define LIMIT_TRUST_DOMAINS 64
/* A tunnel whose certificate is about to expire still lives this long before the next one is dialled. */
#define LIMIT_TUNNEL_LIFE_MIN_MS 1000

/* HTTP/2 (RFC 9113): what we announce and accept. */
#define LIMIT_STREAMS_PER_TUNNEL 1000
#define LIMIT_STREAMS_BEFORE_SETTINGS 100
/* Frames other than DATA that wait for a peer to read: more than all streams of a tunnel cause; then it ends
 * (h2_flood). Answers to PING and SETTINGS among them. */
#define LIMIT_FRAMES_QUEUED (8 * LIMIT_STREAMS_PER_TUNNEL)
#define LIMIT_ACKS_QUEUED 1000
/* Frames of a peer that carry no bytes: so many at once and so many a millisecond, each kibibyte of theirs counted as
 * one more; beyond, the tunnel ends (h2_flood). A stream that was accepted gives back what it costs to open and end it,
 * so that connections may come and go as fast as they can. DATA gives one for each kibibyte and, of ours, some for each
 * frame, as there are peers that answer each by two WINDOW_UPDATEs. */
#define LIMIT_CONTROL_BURST 10000
#define LIMIT_CONTROL_PER_MS 10
#define LIMIT_CONTROL_BYTES 1024
#define LIMIT_CONTROL_PER_STREAM 2
#define LIMIT_CONTROL_PER_DATA_SENT 4
/* New windows are applied to every stream of the tunnel. */
#define LIMIT_SETTINGS_COST 20
/* One block of header fields, on the wire and unpacked, and the frames it may go on in; more ends the tunnel
 * (h2_flood). */
#define LIMIT_HEADER_BLOCK (64 * 1024)
#define LIMIT_CONTINUATIONS 8
#define LIMIT_STREAM_WINDOW_START (256 * 1024)
#define LIMIT_STREAM_WINDOW_MAX (4 * 1024 * 1024)
#define LIMIT_CONNECTION_WINDOW (16 * 1024 * 1024)
#define LIMIT_MAX_FRAME_SIZE (1024 * 1024)
#define LIMIT_HEADER_LIST (16 * 1024)
#define LIMIT_HEADER_VALUE 1024
/* PING after this much silence, and the tunnel is given up without an answer in twice that. */
#define LIMIT_PING_MS 10000
#define LIMIT_PING_TIMEOUT_MS 20000
/* A pooled tunnel without streams is closed after this. */
#define LIMIT_POOL_IDLE_MS 300000
/* The same when its server allows no streams at all: another connection may fare better. */
#define LIMIT_POOL_FULL_IDLE_MS 2000
/* Between the notice and the final GOAWAY of a tunnel that is given up: streams on their way are still served. */
#define LIMIT_GOAWAY_NOTICE_MS 1000
/* First pause before a refused next hop is tried again; doubled up to the maximum. */
#define LIMIT_RETRY_FIRST_MS 20
#define LIMIT_RETRY_MAX_MS 250
/* A round trip below this is within one data centre: no timers between bursts (--tunnel-congestion=auto). */
#define LIMIT_NEAR_US 1000
/* Unsent bytes in the kernel's queue of a tunnel: beyond, the apps wait instead of the queue growing. */
#define LIMIT_NOTSENT_BYTES (512 * 1024)
/* Source ports tried first for inbound dials, from here to 65535: outside the usual ip_local_port_range, so the caller
 * does not use them. */
#define LIMIT_SOURCE_PORT_FIRST 61000
#define LIMIT_SOURCE_PORT_TRIES 8
/* Sockets made ahead in a pod's namespace with one switch of namespaces, at most. */
#define LIMIT_SOCKET_BATCH 16

/* Policy. Verdicts remembered by a worker. */
#define LIMIT_VERDICTS_CACHED 4096
/* Different denials counted apart by a worker; more are counted together. */
#define LIMIT_TALLY_ROWS 4096
/* Latest verdicts that a worker keeps while somebody traces. */
#define LIMIT_TRACE 256
/* Open connections that are judged anew in one round of a worker after policies changed: those who are not meant wait
 * for that long. After this time all that are left are judged at once. */
#define LIMIT_RECHECKS_A_ROUND 128
#define LIMIT_RECHECK_MS 500
/* How long a caller whose address is another identity's waits for newer configuration. */
#define LIMIT_OWNER_WAIT_MS 2000
