/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One table of reasons for every drop, deny, bypass and refusal. BPF counters, access log, counters and warrenctl all
 * use these codes; the text name is the enumerator's second column. Codes are stable: append only.
 */
#pragma once

#define WR_REASONS(X)                                                                                                  \
	X(NONE, "none", "no reason: the normal path")                                                                  \
	/* counted by BPF */                                                                                           \
	X(CAPTURED_OUT, "captured_out", "outbound connection handed to the agent")                                     \
	X(CAPTURED_IN, "captured_in", "inbound plaintext connection handed to the agent")                              \
	X(BYPASS_OUTSIDE, "bypass_outside_mesh", "destination outside the mesh ranges")                                \
	X(BYPASS_UNENROLLED, "bypass_unenrolled", "destination is a known pod that is not enrolled")                   \
	X(BYPASS_EXCLUDED, "bypass_excluded_port", "port excluded from capture")                                       \
	X(BYPASS_OLD, "bypass_older_than_enrolment", "connection older than enrolment")                                \
	X(BYPASS_DRAINING, "bypass_draining", "pod is being un-enrolled, new connections pass")                        \
	X(BYPASS_AGENT_GONE, "bypass_agent_gone", "agent gone and --on-agent-loss=open")                               \
	X(DROP_AGENT_GONE, "drop_agent_gone", "no agent is listening in this pod")                                     \
	X(DROP_CONN_LOST, "drop_connection_lost", "captured connection whose agent end no longer exists")              \
	X(DROP_FRAGMENT, "drop_fragment", "fragment: TCP flags cannot be read")                                        \
	X(DROP_MALFORMED, "drop_malformed", "headers cannot be parsed")                                                \
	X(DROP_FOREIGN_SOCKET, "drop_foreign_socket", "a socket that is not the agent's holds a capture port")         \
	X(DROP_ASSIGN_FAILED, "drop_assign_failed", "kernel refused to hand the packet to the listener")               \
	X(DROP_SPOOFED_MARK, "drop_spoofed_mark", "packet on lo carries our mark but did not come from us")            \
	/* outbound and inbound proxies */                                                                             \
	X(NO_ENDPOINT, "no_healthy_upstream", "service has no usable endpoint for this port")                          \
	X(ILLEGAL_PORT, "illegal_port", "destination is one of the mesh's own ports")                                  \
	X(LOOP, "recursive_call", "call to the agent's own listener")                                                  \
	X(NO_IDENTITY, "no_identity", "no valid certificate for this workload")                                        \
	X(DIAL_TIMEOUT, "dial_timeout", "next hop did not answer before the dial deadline")                            \
	X(DIAL_REFUSED, "dial_refused", "next hop refused the connection")                                             \
	X(DIAL_FAILED, "dial_failed", "next hop unreachable")                                                          \
	X(TLS_TIMEOUT, "tls_timeout", "TLS handshake missed its deadline")                                             \
	X(TLS_VERSION, "tls_version", "peer does not speak TLS 1.3")                                                   \
	X(TLS_NO_CERT, "tls_no_client_certificate", "peer presented no certificate")                                   \
	X(TLS_UNKNOWN_CA, "tls_unknown_ca", "peer certificate is not signed by a trusted root")                        \
	X(TLS_EXPIRED, "tls_certificate_expired", "peer certificate is expired")                                       \
	X(TLS_BAD_CERT, "tls_bad_certificate", "peer certificate is malformed, or too weak")                           \
	X(TLS_TRUST_DOMAIN, "tls_trust_domain", "peer identity is of another trust domain")                            \
	X(TLS_WRONG_IDENTITY, "tls_wrong_identity", "server identity is not the expected one")                         \
	X(TLS_ALPN, "tls_alpn", "peer does not offer ALPN h2")                                                         \
	X(TLS_PROTOCOL, "tls_protocol", "peer broke the TLS protocol")                                                 \
	X(H2_TIMEOUT, "h2_timeout", "no HTTP/2 SETTINGS before the deadline")                                          \
	X(H2_PROTOCOL, "h2_protocol", "peer broke the HTTP/2 protocol")                                                \
	X(H2_PING_TIMEOUT, "h2_ping_timeout", "peer does not answer PING")                                             \
	X(H2_GOAWAY, "h2_goaway", "peer sent GOAWAY")                                                                  \
	X(CONNECT_TIMEOUT, "connect_timeout", "CONNECT was not answered before the deadline")                          \
	X(CONNECT_STATUS, "connect_status", "CONNECT answered with a status other than 200")                           \
	X(BAD_METHOD, "bad_method", "request method is not CONNECT")                                                   \
	X(BAD_AUTHORITY, "bad_authority", "authority is missing, malformed or names another pod")                      \
	X(UNKNOWN_DESTINATION, "unknown_destination", "destination not known to this node")                            \
	X(APP_REFUSED, "app_refused", "application refused the connection")                                            \
	X(APP_TIMEOUT, "app_timeout", "application did not accept in time")                                            \
	X(APP_UNREACHABLE, "app_unreachable", "application could not be dialled")                                      \
	X(CLIENT_RESET, "client_reset", "reset by the client")                                                         \
	X(SERVER_RESET, "server_reset", "reset by the server")                                                         \
	X(TUNNEL_LOST, "tunnel_lost", "the tunnel to the peer agent broke")                                            \
	X(PEER_RESET, "peer_reset", "stream reset by the peer agent")                                                  \
	X(POD_REMOVED, "pod_removed", "pod was removed or un-enrolled")                                                \
	X(SHUTDOWN, "agent_shutdown", "agent is shutting down")                                                        \
	X(LIMIT_FDS, "limit_descriptors", "descriptor limit reached")                                                  \
	X(LIMIT_CONNS, "limit_connections", "connection table full")                                                   \
	X(LIMIT_STREAMS, "limit_streams", "stream limit of the tunnel reached")                                        \
	X(LIMIT_BUFFER, "limit_buffer", "agent-wide buffer budget exhausted")                                          \
	X(LIMIT_HANDSHAKES, "limit_handshakes", "too many unfinished handshakes")                                      \
	X(SOURCE_PORT_CLASH, "source_port_clash",                                                                      \
	  "caller's address and port already in use, own address used instead")                                        \
	X(INTERNAL, "internal", "out of memory or a bug")                                                              \
	X(DROP_NOT_FROM_AGENT, "drop_not_from_agent", "packet from outside for a connection between app and agent")    \
	X(LIMIT_TUNNELS, "limit_tunnels", "too many tunnels from one address")                                         \
	/* policy and identity */                                                                                      \
	X(MTLS_REQUIRED, "mtls_required", "plaintext to a port that demands mutual TLS")                               \
	X(POLICY_DENY, "policy_deny", "a DENY policy matched")                                                         \
	X(POLICY_NO_ALLOW, "policy_no_allow", "ALLOW policies apply and none of them matched")                         \
	X(POLICY_INVALID, "policy_invalid", "a policy that never was valid closes this workload")                      \
	X(SRC_IDENTITY_MISMATCH, "src_identity_mismatch",                                                              \
	  "the caller's address belongs to a workload of another identity")                                            \
	X(SOURCE_UNBOUND, "source_unbound", "the caller's address belongs to no single workload: not compared")        \
	X(PROBE, "probe", "probe of this node's kubelet: no policy asked")                                             \
	X(DROP_SOURCE, "drop_source_address", "packet of a pod with an address that is not its own")                   \
	X(DROP_BYPASS, "drop_bypass", "connection of a pod to the mesh that did not come from the agent")              \
	X(TLS_NOT_YET_VALID, "tls_certificate_not_yet_valid", "peer certificate is not valid yet: clock skew?")        \
	X(TLS_REVOKED, "tls_certificate_revoked", "peer certificate is revoked")                                       \
	X(TLS_CRL, "tls_crl_unavailable", "the revocation list that was configured has never been read")               \
	X(CERT_EXPIRED, "certificate_expired", "a certificate of this tunnel expired while it was open")               \
	X(TUNNEL_AGE, "tunnel_max_age", "the tunnel is older than --tunnel-max-age")                                   \
	X(H2_FLOOD, "h2_flood", "peer sent more control frames than a tunnel needs")                                   \
	X(UNMANAGED_CLOSED, "unmanaged_closed", "connection older than enrolment, ended on demand")                    \
	X(TLS_SPIFFE_MISSING, "tls_spiffe_id_missing", "peer certificate names nobody: it has no URI")                 \
	X(TLS_SPIFFE_SEVERAL, "tls_spiffe_id_several", "peer certificate has several URIs, and may have only one")     \
	X(TLS_SPIFFE_MALFORMED, "tls_spiffe_id_malformed",                                                             \
	  "the URI of the peer certificate is not spiffe://DOMAIN/ns/NAME/sa/NAME")                                    \
	X(TLS_LEAF_IS_CA, "tls_leaf_is_ca", "peer presented a CA's certificate as its own")                            \
	X(TLS_ISSUER_NOT_CA, "tls_issuer_not_ca", "peer certificate is signed by one that is no CA's")                 \
	X(TLS_KEY_USAGE, "tls_key_usage", "peer certificate is not meant for this end of a connection")                \
	X(TLS_PATH_LENGTH, "tls_path_length", "more CAs in the peer's chain than one of them allows below it")         \
	X(TLS_EXTENSION, "tls_critical_extension", "peer's chain holds a critical extension that is not known here")   \
	X(TLS_CHAIN_LIMIT, "tls_chain_limit", "peer presented more certificates than it may")                          \
	X(TLS_REFUSED, "tls_refused_by_peer", "peer did not accept the certificate that it was shown")

enum wr_reason {
#define WR_REASON_ENUM(id, name, text) WR_REASON_##id,
	WR_REASONS(WR_REASON_ENUM)
#undef WR_REASON_ENUM
		WR_REASON_MAX_
};
