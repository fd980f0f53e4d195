# SPDX-License-Identifier: Apache-2.0
"""Warren's verdicts on random policy sets beside those of Envoy's network RBAC filter.

All sets are shadow rules of one filter chain, so that one connection to Envoy is judged by every set; its access log says
what each would have done. Addresses come by PROXY protocol, identities by client certificate.
"""
import collections
import json
import os
import random
import re
import socket
import ssl
import struct

import certs
import envoy
import rbac
from mesh import BUILD, Mesh, check, eventually, run, scaled

SETS, SUBJECTS, SEED = scaled(2000), 48, 20240611
PORT = 15443
FILTER = "envoy.filters.network.rbac"


def tls(m):
    return {"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
        "common_tls_context": {"tls_certificates": [{"certificate_chain": {"filename": m.server_pem}, "private_key": {"filename": m.server_pem}}],
                               "validation_context": {"trusted_ca": {"filename": m.roots}}}}}


def shadow(rules, prefix):
    return {"name": FILTER, "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "stat_prefix": "s",
                                             "shadow_rules": rules, "shadow_rules_stat_prefix": prefix}}


def listener(m):
    filters = [shadow(rules, "%d%s_" % (i, rules["action"][0])) for i, s in enumerate(m.sets) for rules in rbac.envoy_rbacs(s) if rules]
    filters.append({"name": "envoy.filters.network.echo",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}})
    log = {"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": m.verdicts,
        "log_format": {"text_format_source": {"inline_string": "%%DOWNSTREAM_REMOTE_PORT%% %%DYNAMIC_METADATA(%s)%%\n" % FILTER}}}}
    kinds = [{"filter_chain_match": {"transport_protocol": "tls"}, "transport_socket": tls(m), "filters": filters},
             {"filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": filters}]
    before = [{"name": "envoy.filters.listener." + n, "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.%s.v3.%s" % (n, t)}}
              for n, t in (("proxy_protocol", "ProxyProtocol"), ("tls_inspector", "TlsInspector"))]
    return {"name": "all", "address": {"socket_address": {"address": "0.0.0.0", "port_value": PORT}}, "listener_filters": before,
            "filter_chains": kinds, "access_log": [log]}


def setup():
    envoy.binary()
    r = random.Random(SEED)
    m = Mesh("rbac", nodes=1)
    del m.agents[1]
    pod = m.pod("judge", 1)
    ca = certs.make_root()
    m.roots, m.verdicts = os.path.join(m.dir, "root.pem"), os.path.join(m.dir, "verdicts.log")
    with open(m.roots, "wb") as f:
        f.write(ca[0].public_bytes(certs.serialization.Encoding.PEM))
    m.server_pem = certs.issue(ca, "spiffe://cluster.local/ns/shop/sa/shop", m.dir + "/server.pem")
    m.sets = [rbac.policy_set(r) for _ in range(SETS)]
    m.subjects = rbac.subjects(r, SUBJECTS)
    m.pems = {i: certs.issue(ca, i, "%s/client-%d.pem" % (m.dir, n)) for n, i in enumerate(sorted({s["identity"] for s in m.subjects if "identity" in s}))}
    m.envoy = envoy.Envoy(pod, {"static_resources": {"listeners": [listener(m)]}})
    return m


def proxy_header(s, port):
    """Version 2, with the subject's addresses; the source port says which subject it is."""
    family = socket.AF_INET6 if ":" in s["source"] else socket.AF_INET
    body = socket.inet_pton(family, s["source"]) + socket.inet_pton(family, s["destination"]) + struct.pack(">HH", port, s["port"])
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + (b"\x21" if family == socket.AF_INET6 else b"\x11") + struct.pack(">H", len(body)) + body


def connect(m, s, port):
    raw = m.pods["judge"].connect("127.0.0.1", PORT)
    raw.sendall(proxy_header(s, port))
    if "identity" in s:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(m.pems[s["identity"]])
        raw = context.wrap_socket(raw)
    with raw:
        # Fewer bytes would leave Envoy waiting for the rest of a TLS header.
        raw.sendall(b"enough to see that it is no TLS")
        check(raw.recv(6) == b"enough", "Envoy serves", s)


def envoys_verdicts(m):
    """subject -> set -> allowed."""
    for i, s in enumerate(m.subjects):
        connect(m, s, 1000 + i)

    def lines():
        with open(m.verdicts) as f:
            return [x for x in f if x.endswith("\n")]

    eventually(lambda: len(lines()) == SUBJECTS, 15, "a line for each connection")
    out = {}
    for line in lines():
        port, _, text = line.partition(" ")
        results = {k: v for k, v in json.loads(text).items() if k.endswith("_shadow_engine_result")}
        denied = {int(k.split("_")[0][:-1]) for k, v in results.items() if v == "denied"}
        out[int(port) - 1000] = [n not in denied for n in range(SETS)]
        check(len(results) == sum(1 for s in m.sets for x in rbac.envoy_rbacs(s) if x), "Envoy judged each of them", len(results))
    return out


def warrens_verdicts(m):
    path = os.path.join(m.dir, "sets.json")
    with open(path, "w") as f:
        json.dump({"sets": m.sets, "subjects": m.subjects}, f)
    rows = run(os.path.join(BUILD, "tests/interop/verdicts"), path, timeout=60).stdout.split()
    return {i: [row[i] == "1" for row in rows] for i in range(SUBJECTS)}


def test_same_verdicts(m):
    theirs, ours = envoys_verdicts(m), warrens_verdicts(m)
    wrong = [(i, n) for i in range(SUBJECTS) for n in range(SETS) if theirs[i][n] != ours[i][n]]
    check(not wrong, "%d of %d verdicts differ" % (len(wrong), SETS * SUBJECTS),
          *["Envoy %s, Warren %s: %s on %s" % (theirs[i][n], ours[i][n], m.subjects[i], json.dumps(m.sets[n])) for i, n in wrong[:3]])
    allowed = sum(map(sum, ours.values())) / (SETS * SUBJECTS)
    check(0.3 < allowed < 0.7, "both verdicts are common", allowed)
    used = collections.Counter(re.findall(r'"(\w+)": \[', json.dumps(m.sets)))
    return "%d sets, %d connections, %d %% allowed; fewest uses of a field: %s" % (SETS, SUBJECTS, 100 * allowed, used.most_common()[-1])
