# SPDX-License-Identifier: Apache-2.0
"""What crosses the link and who is let in: seen from outside, by a capture, openssl s_client and another HTTP/2 stack."""
import contextlib
import datetime
import errno
import ipaddress
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import time

import certs
import hbone
import h2.events
import h2.settings
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from demo import tls_version
from mesh import Mesh, SANITIZER, check, eventually, run, scaled

FALLBACK = True
DAY = datetime.timedelta(days=1)


def setup():
    m = Mesh("wire")
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.pod_without_agent(m.pod("lone", 2))
    m.vips = m.service("server", {"app": "server"}, [("echo", 80, 7)])
    m.apply()
    m.pods["server"].serve("echo:7", "duplex:9", "who:11", "rst:12")
    m.pods["plain"].serve("echo:7")
    m.start_agents()
    m.root = certs.root_file(m.ca)
    m.good = certs.issue(certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/good.pem")
    return m


def test_only_15008_with_tls13(m):
    client, server = m.pods["client"], m.pods["server"]
    secret = b"SECRET-OF-THE-APP-"
    c = m.capture()
    for address, port in ((server.ip, 7), (server.ip6, 7), (m.vips[0], 80), (m.vips[1], 80)):
        with client.connect(address, port) as s:
            s.sendall(secret * 10)
            s.recv(1000)
    client.traffic("bulk", server.ip, 9, scaled(8 << 20), scaled(8 << 20))
    with m.pods["plain"].connect(server.ip, 7) as s:
        s.sendall(b"IN-CLEAR-FROM-OUTSIDE")
        s.recv(100)
    c.stop()
    members = {client.ip, client.ip6, server.ip, server.ip6}
    between = [p for p in c.tcp() if p[0] in members and p[2] in members]
    check(between, "the capture saw the connections")
    odd = [p for p in between if 15008 not in (p[1], p[3])]
    check(not odd, "between enrolled pods nothing but 15008", odd[:5])
    versions = {v for v in (tls_version(p[5]) for p in between) if v}
    check(versions == {"TLS 1.3"}, "TLS 1.3", versions)
    check(secret not in c.data(), "the app's bytes are not readable on the link")
    check(b"IN-CLEAR-FROM-OUTSIDE" in c.data(), "the capture can see clear text: an unlabelled pod's")


def s_client(m, *args):
    r = m.pods["plain"].sh("openssl", "s_client", "-connect", m.pods["server"].ip + ":15008", "-alpn", "h2", "-quiet", "-no_ign_eof",
                           "-CAfile", m.root, *args, check_rc=False, input="PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", timeout=20, errors="replace")
    return r


def refused(m, reason, *args):
    before = reason_count(m.agents[2], reason)
    r = s_client(m, *args)
    said = eventually(lambda: reason_count(m.agents[2], reason) > before, 3,
                      "counted and logged as %s; client saw: %s" % (reason, (r.stderr or "")[-300:]))
    check(said, reason)
    check(not r.stdout, "not one byte of HTTP/2", r.stdout)


def reason_count(agent, reason):
    return sum(line.get("error", "").startswith(reason + ":") or line.get("error", "") == reason for line in agent.access()) + \
        agent.text().count(reason)


def test_accepted_with_a_good_certificate(m):
    r = m.pods["plain"].sh("sh", "-c", "(printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0'; sleep 0.5) | openssl s_client -connect %s:15008 -alpn h2 "
                           "-CAfile %s -cert %s -key %s" % (m.pods["server"].ip, m.root, m.good, m.good), check_rc=False, errors="replace")
    text = r.stdout + r.stderr
    check("TLSv1.3" in text and "ALPN protocol: h2" in text and "Verify return code: 0" in text, "handshake with a good certificate", text[-1500:])


def test_refused_without_certificate(m):
    refused(m, "tls_no_client_certificate")


def test_refused_of_another_ca(m):
    pem = certs.issue(certs.make_root(), m.pods["client"].identity, m.dir + "/other-ca.pem")
    refused(m, "tls_unknown_ca", "-cert", pem, "-key", pem)


def test_refused_of_another_trust_domain(m):
    pem = certs.issue(certs.load_ca(m.ca), "spiffe://other.example/ns/demo/sa/client", m.dir + "/other-td.pem")
    refused(m, "tls_trust_domain", "-cert", pem, "-key", pem)


def test_refused_expired(m):
    pem = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/expired.pem", start=-2 * DAY, end=-DAY)
    refused(m, "tls_certificate_expired", "-cert", pem, "-key", pem)


def test_refused_tls12(m):
    refused(m, "tls_version", "-tls1_2", "-cert", m.good, "-key", m.good)


def test_refused_by_the_caller(m):
    """A caller that does not believe us is no caller of an unknown CA: the log must not send anybody after its certificate."""
    certs.write_plugin_ca(m.dir + "/not-ours")
    refused(m, "tls_refused_by_peer", "-cert", m.good, "-key", m.good, "-CAfile", certs.root_file(m.dir + "/not-ours"), "-verify_return_error")


def turned_away(m, pem, reason, detail):
    """A caller with these certificates hears nothing of HTTP/2; the counter and its access line say what is wrong with them."""
    agent = m.agents[2]
    before = agent.json("status")["counters"].get(reason, 0)
    got = b""
    with m.pods["plain"].connect(m.pods["server"].ip, 15008) as raw:
        here = "%s:%d" % raw.getsockname()
        try:
            with hbone.context(False, pem, m.root).wrap_socket(raw) as s:
                s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                got = s.recv(100)
        except OSError:
            pass  # an alert, or the reset that overtook it
    check(got == b"", "not one byte of HTTP/2: " + detail, got)
    line = eventually(lambda: next((x for x in agent.access() if x.get("src.addr") == here), None), 3, "access line")
    check(line["error"].startswith(reason + ": ") and detail in line["error"], "which fault it was: " + detail, line)
    counters = agent.json("status")["counters"]
    check(counters.get(reason, 0) == before + 1, "counted as " + reason, before, counters)


def test_refused_for_its_name(m):
    """One URI, and that a whole SPIFFE ID of a trust domain that the root may vouch for (SPIFFE X509-SVID 2)."""
    ca, me = certs.load_ca(m.ca), m.pods["plain"].identity
    for uris, reason, detail in ((None, "tls_spiffe_id_missing", "no SPIFFE URI"),
                                 ([me, "spiffe://other.example/ns/demo/sa/plain"], "tls_spiffe_id_several", "several URIs"),
                                 ([me, me], "tls_spiffe_id_several", "several URIs"),
                                 (me + "\0.evil", "tls_spiffe_id_malformed", "a NUL byte"),
                                 (me + "/more", "tls_spiffe_id_malformed", "extra pieces"),
                                 (me + "/", "tls_spiffe_id_malformed", "an empty piece"),
                                 (me.replace("/demo/", "//"), "tls_spiffe_id_malformed", "an empty piece"),
                                 (me.replace("plain", "%70lain"), "tls_spiffe_id_malformed", "percent-encoding"),
                                 (me.replace("spiffe:", "https:"), "tls_spiffe_id_malformed", "scheme"),
                                 (me.replace("cluster.local", "other.example"), "tls_trust_domain", "roots may not vouch for it, claims to be spiffe://other.example/")):
        turned_away(m, certs.issue(ca, uris, m.dir + "/zoo.pem"), reason, detail)


def test_refused_for_its_chain(m):
    ca, me, pem = certs.load_ca(m.ca), m.pods["plain"].identity, m.dir + "/zoo.pem"
    leaf = certs.load_leaf(certs.issue(ca, me, m.dir + "/leaf.pem", subject="leaf"))
    last = certs.make_ca("last", ca, 0)
    below = certs.make_ca("below the last", last)
    wide = [x509.DNSName("a" * 60 + ".example") for _ in range(1000)]
    for kw, issuer, reason, detail in (({"is_ca": True}, ca, "tls_leaf_is_ca", "a CA certificate is no workload's"),
                                       ({"chain": [leaf[0]]}, leaf, "tls_issuer_not_ca", "invalid CA certificate"),
                                       ({"usages": [ExtendedKeyUsageOID.SERVER_AUTH]}, ca, "tls_key_usage", "extended key usage is not for clients"),
                                       ({"chain": [below[0], last[0]]}, below, "tls_path_length", "path length constraint exceeded"),
                                       ({"critical": "1.3.6.1.4.1.55555.1"}, ca, "tls_critical_extension", "unhandled critical extension"),
                                       ({"chain": [last[0]] * 10}, last, "tls_chain_limit", "too many certificates"),
                                       ({"names": wide}, ca, "tls_chain_limit", "more than 64 KiB")):
        turned_away(m, certs.issue(issuer, me, pem, **kw), reason, detail)
    # What the faults above are the only difference from.
    for kw, issuer in (({}, ca), ({"chain": [last[0]] * 9}, last), ({"names": wide[:700]}, ca), ({"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]}, ca)):
        c = hbone.Client(m.pods["plain"], m.pods["server"].ip, certs.issue(issuer, me, pem, **kw), m.root)
        check(c.status(c.request(m.pods["server"].ip + ":7")) == 200, "let in", kw.keys())
        c.close()


def dial(m, **kw):
    return hbone.Client(m.pods["plain"], m.pods["server"].ip, m.good, m.root, **kw)


def test_other_stack_gets_200_and_data(m):
    c = dial(m)
    s = c.request(m.pods["server"].ip + ":7", headers=[
        ("baggage", "k8s.cluster.name=x,k8s.namespace.name=demo"), ("forwarded", 'for="%s:5"' % m.pods["plain"].ip),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")])
    answer = c.response(s)
    check(answer.get(":status") == "200", "200", answer)
    check("k8s.namespace.name=demo" in answer.get("baggage", ""), "the destination's baggage", answer)
    blob = os.urandom(100000)
    for at in range(0, len(blob), 16384):
        c.send(s, blob[at:at + 16384])
    check(c.read(s, len(blob)) == blob, "data both ways")
    c.send(s, b"", end=True)
    check(c.wait(h2.events.StreamEnded, s), "END_STREAM for the app's FIN")
    c.close()


def test_other_stack_ipv6(m):
    c = hbone.Client(m.pods["plain"], m.pods["server"].ip6, m.good, m.root)
    s = c.request("[%s]:7" % m.pods["server"].ip6)
    check(c.status(s) == 200, "200 by IPv6")
    c.close()


def test_statuses(m):
    server = m.pods["server"].ip
    c = dial(m)
    for authority, method, wanted, why in ((server + ":7", "GET", 400, "another method"), ("nonsense", "CONNECT", 400, "no port"),
                                           (server + ":0x", "CONNECT", 400, "bad port"), (m.pods["plain"].ip + ":7", "CONNECT", 400, "another pod"),
                                           (server + ":4444", "CONNECT", 503, "nobody listens"), (server + ":15008", "CONNECT", 503, "the mesh's own port"),
                                           ("nobody.demo.svc.cluster.local:80", "CONNECT", 503, "unknown name"),
                                           (server + ":7", "CONNECT", 200, "a good one on the same tunnel")):
        s = c.request(authority, method, end=method == "GET")
        try:
            got = c.response(s, 3)
        except TimeoutError as e:
            got = {":status": e}
        check(got.get(":status") == str(wanted), "%s: %s %s is answered %d" % (why, method, authority, wanted), got)
        check(wanted == 200 or ("baggage" not in got and c.wait(h2.events.StreamEnded, s)), "a refusal says nothing else, and ends", got)
    c.close()


def test_forms_of_the_authority(m):
    """Address and port, or name and port; IPv6 in brackets, in any spelling; always the address of the tunnel."""
    ip, ip6, host = m.pods["server"].ip, m.pods["server"].ip6, "server.%s.svc.cluster.local" % m.namespace
    long6 = ipaddress.ip_address(ip6).exploded.upper()
    for address, rows in ((ip, ((ip + ":7", 200), ("[::ffff:%s]:7" % ip, 200), (host + ":80", 200), (host.upper() + ":80", 200), (host, 400), (host + ":7", 503),
                                (ip, 400), (ip + ":", 400), (ip + ":0", 400), (ip + ":65536", 400), ("[%s]:7" % ip, 400), ("x@%s:7" % ip, 400),
                                ("[%s]:7" % ip6, 400), ("127.0.0.1:7", 400), (ip + ":15001", 503), (ip + ":15006", 503))),
                          (ip6, (("[%s]:7" % ip6, 200), ("[%s]:7" % long6, 200), (host + ":80", 200), (ip6 + ":7", 400), ("[%s]" % ip6, 400),
                                 ("[%s:7" % ip6, 400), (ip + ":7", 400), ("[::1]:7", 400)))):
        c = hbone.Client(m.pods["plain"], address, m.good, m.root)
        for authority, wanted in rows:
            check(c.status(c.request(authority)) == wanted, "%s over %s: %d" % (authority, address, wanted))
        c.close()


def test_bytes_with_a_request_that_fails(m):
    """A client that does not wait for the answer: it is the same answer, with the same reason."""
    authority = m.pods["server"].ip + ":4445"
    c = dial(m)
    s = c.h2.get_next_available_stream_id()
    c.h2.send_headers(s, [(":method", "CONNECT"), (":authority", authority)])
    c.h2.send_data(s, b"early")
    c.flush()
    check(c.wait(h2.events.ResponseReceived, s), "an answer", c.events)
    c.close()
    line = eventually(lambda: [x for x in m.agents[2].access() if x.get("dst.hbone_addr") == authority], 3, "access line")[-1]
    check("app_refused" in line["error"] and "503" in line["error"], "its reason", line)


def through(m, pod, authority, headers):
    """One short connection of a foreign client; its access line, in text as ztunnel writes it."""
    c = hbone.Client(pod, m.pods["server"].ip, m.good, m.root)
    here = "src.addr=%s:%d " % c.sock.getsockname()[:2]
    s = c.request(authority, headers=headers, end=True)
    check(c.status(s) == 200, "200")
    c.wait(h2.events.StreamEnded, s)
    c.close()

    def line():
        with open(m.agents[2].access_log) as f:
            return next((x for x in f if here in x), None)
    return eventually(line, 3, "access line")


def test_access_line_of_a_foreign_client(m):
    """Names and order of ztunnel's fields; a caller the model does not know is named in its own words, and only in them."""
    server, host = m.pods["server"], "server.%s.svc.cluster.local" % m.namespace
    stranger = m.pod("stranger", 1, enrolled=False, known=False)
    said = [("baggage", "k8s.cluster.name=west,k8s.namespace.name=shop"), ("baggage", "k8s.deployment.name=web,service.name=web,service.version=v1"),
            ("forwarded", 'for="%s:1";host=%s' % (stranger.ip, host))]
    line = through(m, stranger, host + ":80", said)
    fields = line.rstrip("\n").split("\t")[-1]
    want = (r'src\.addr=%s:\d+ src\.workload="web" src\.namespace="shop" src\.identity="%s" src\.cluster="west" dst\.addr=%s:15008 '
            r'dst\.hbone_addr=%s:80 dst\.service="%s" dst\.workload="server" dst\.namespace="demo" dst\.identity="%s" dst\.cluster="Kubernetes" '
            r'direction="inbound" bytes_sent=0 bytes_recv=0 duration="\d+ms"$' %
            (stranger.ip, m.pods["plain"].identity, server.ip, host, host, server.identity))
    check(re.match(want, fields), "the whole line", fields)
    line = through(m, m.pods["plain"], server.ip + ":7", said + [("forwarded", "host=kubernetes.default.svc.cluster.local")])
    check('src.workload="plain" src.namespace="demo"' in line and 'src.cluster="Kubernetes"' in line and "web" not in line, "a known caller is named by the model", line)
    line = through(m, stranger, server.ip + ":7", [("baggage", 'service.name=a"b,k8s.namespace.name=x\ty,k8s.cluster.name=a b'), ("forwarded", "host=plain.demo.svc.cluster.local")])
    check("src.workload" not in line and "src.namespace" not in line and "src.cluster" not in line, "nothing that is no name", line)
    check('dst.service="%s"' % host in line, "a Service that has no such pod: the one whose port it is", line)
    check('dst.service="%s"' % host in through(m, stranger, server.ip + ":7", []), "no word of a Service: the same")
    check("dst.service" not in through(m, stranger, server.ip + ":11", []), "a port of no Service")


def test_malformed_requests_are_stream_errors(m):
    """RFC 9113 8.1.1: RST_STREAM PROTOCOL_ERROR for the stream alone; a skipped stream identifier ends the tunnel (5.1.1)."""
    c = dial(m)
    for why, headers in (("connection header", [("connection", "close")]), ("upper case", [("X-Up", "1")]),
                         ("te", [("te", "gzip")]), ("CONNECT with :path", [(":path", "/")]), ("unknown pseudo header", [(":nonsense", "1")])):
        s = c.request(m.pods["server"].ip + ":7", headers=headers)
        e = c.wait(h2.events.StreamReset, s)
        check(e and e.error_code == 1, "%s: RST_STREAM PROTOCOL_ERROR" % why, e)
    s = c.request(m.pods["server"].ip + ":7")
    check(c.status(s) == 200, "the tunnel lives on")
    c.h2.highest_outbound_stream_id = 101
    check(c.status(c.request(m.pods["server"].ip + ":7")) == 200, "identifiers may be skipped")
    c.sock.sendall(b"\0\0\1\1\4" + (99).to_bytes(4, "big") + b"\x82")
    e = c.wait(h2.events.ConnectionTerminated)
    check(e and e.error_code == 1, "but not be used afterwards", e)
    c.close()


def test_reset_becomes_rst_stream_and_back(m):
    c = dial(m)
    s = c.request(m.pods["server"].ip + ":12")
    check(c.status(s) == 200, "200")
    c.send(s, b"x")
    e = c.wait(h2.events.StreamReset, s)
    check(e and e.error_code == 10, "the app's RST is RST_STREAM CONNECT_ERROR", e)
    c.close()


def test_ping_is_answered(m):
    c = dial(m)
    c.h2.ping(b"12345678")
    c.flush()
    e = c.wait(h2.events.PingAckReceived)
    check(e and e.ping_data == b"12345678", "PING ACK", e)
    c.close()


def test_odd_but_lawful_clients(m):
    """What other HTTP/2 stacks do and RFC 9113 allows: padding, empty and one-byte DATA, headers twice or in another order."""
    server = m.pods["server"].ip
    c = dial(m)
    s = c.request(server + ":7", headers=[("x-other", "1"), ("traceparent", "nonsense"), ("baggage", "a=b"), ("baggage", "k8s.namespace.name=x"),
                                          ("forwarded", "for=unknown"), ("host", "elsewhere")])
    check(c.status(s) == 200, "headers in any order, twice, and with odd values")
    c.h2.send_data(s, b"padded", pad_length=200)
    for i in range(50):
        c.h2.send_data(s, b"")
    c.flush()
    check(c.read(s, 6) == b"padded", "padding is not data")
    c.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10, h2.settings.SettingCodes.HEADER_TABLE_SIZE: 0,
                          h2.settings.SettingCodes.MAX_FRAME_SIZE: 20000})
    c.flush()
    c.wait(h2.events.SettingsAcknowledged)
    text = bytes(range(250)) * 20
    for i in range(0, len(text)):
        c.h2.send_data(s, text[i:i + 1])
    c.flush()
    c.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    c.flush()
    check(c.read(s, len(text)) == text, "5,000 DATA frames of a byte, through windows that shrink and grow")
    c.h2.increment_flow_control_window(1 << 20)
    c.send(s, b"", end=True)
    check(c.wait(h2.events.StreamEnded, s), "END_STREAM")
    s = c.request("server.%s.svc.cluster.local:80" % m.namespace)
    check(c.status(s) == 200, "a Service's name and port")
    s = c.request(server + ":11", end=True)
    check(c.status(s) == 200 and c.read(s, 5), "END_STREAM on HEADERS: the app's answer still comes")
    c.close()


def test_request_ends_before_the_app_accepts(m):
    """END_STREAM while the app's accept queue is full: FIN waits for the connection, which is neither lost nor taken for made."""
    p = m.pods["server"]
    listener = p.listen(4000, 0)
    filler = p.connect("127.0.0.1", 4000)
    c = dial(m)
    s = c.request(p.ip + ":4000", end=True)
    try:
        check(False, "no answer before the app has accepted", c.status(s, 0.7))
    except TimeoutError:
        pass
    listener.accept()[0].close()
    check(c.status(s) == 200, "200 once it has")
    app = listener.accept()[0]
    check(app.recv(1) == b"", "FIN reaches the app")
    app.sendall(b"answer")
    check(c.read(s, 6) == b"answer", "and its answer the client")
    for x in (app, listener, filler, c):
        x.close()


def accept_and_reset(m, port, ask):
    """The app says something and resets while its agent is stopped between its connect and the answer to that."""
    p, agent = m.pods["server"], m.agents[2].process
    with p.listen(port, 0) as listener, p.connect("127.0.0.1", port):
        asked = ask()
        eventually(lambda: any(str(port) in str(row) for row in m.agents[2].json("connection", "list")), 5, "on its way to the app")
        agent.signal(signal.SIGSTOP)
        try:
            listener.accept()[0].close()
            app = listener.accept()[0]
            app.sendall(b"words")
            app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            app.close()
        finally:
            agent.signal(signal.SIGCONT)
    return asked


def test_app_that_accepts_and_resets(m):
    """It was a connection, with what the app said and its reset, and no refusal."""
    p = m.pods["server"]
    c = dial(m)
    s = accept_and_reset(m, 4001, lambda: c.request(p.ip + ":4001"))
    check(c.status(s) == 200 and c.read(s, 5) == b"words", "200 and words", c.events)
    e = c.wait(h2.events.StreamReset, s)
    check(e and e.error_code == 10, "and RST_STREAM CONNECT_ERROR", e)
    c.close()
    with accept_and_reset(m, 4002, lambda: m.pods["plain"].connect(p.ip, 4002)) as near:
        check(near.recv(5) == b"words", "words in plaintext")
        try:
            got = near.recv(1)
        except OSError as e:
            got = e.errno
        check(got == errno.ECONNRESET, "and a reset", got)


def test_key_exchange_and_server_name(m):
    """A client that offers only P-384 or P-256 (HelloRetryRequest or not), or names the server by an address or a name."""
    for args in (("-groups", "P-384"), ("-groups", "P-256"), ("-groups", "X448:P-384"), ("-servername", "10.1.2.3"), ("-servername", "app.example"),
                 ("-noservername",), ("-ciphersuites", "TLS_AES_256_GCM_SHA384")):
        r = m.pods["plain"].sh("openssl", "s_client", "-connect", m.pods["server"].ip + ":15008", "-alpn", "http/1.1,h2", "-CAfile", m.root,
                               "-cert", m.good, "-key", m.good, *args, check_rc=False, input="", timeout=20, errors="replace")
        text = r.stdout + r.stderr
        check("ALPN protocol: h2" in text and "Verify return code: 0" in text, "handshake with " + " ".join(args), text[-1500:])
        check("New Session Ticket arrived" not in text, "no session tickets")


def test_settings(m):
    """What either role announces (ztunnel.md 2.3; windows and streams by design.md 4), and that a server means it."""
    code = h2.settings.SettingCodes
    seen = {}

    class Looks(hbone.Server):
        def _event(self, c, e):
            if isinstance(e, h2.events.RemoteSettingsChanged):
                seen.update({k: v.new_value for k, v in e.changed_settings.items()})
            super()._event(c, e)

    lone = m.pods["lone"]
    both = {code.INITIAL_WINDOW_SIZE: 256 << 10, code.MAX_FRAME_SIZE: 1 << 20}
    with Looks(lone, certs.issue(certs.load_ca(m.ca), lone.identity, m.dir + "/settings.pem"), m.root) as s, m.pods["client"].connect(lone.ip, 7) as k:
        k.sendall(b"hello")
        check(k.recv(5) == b"hello", "served", s.errors)
    check(seen == {**both, code.ENABLE_PUSH: 0, code.MAX_HEADER_LIST_SIZE: 16 << 10}, "a client's", seen)
    c = dial(m)
    e = c.wait(h2.events.RemoteSettingsChanged)
    got = {k: v.new_value for k, v in e.changed_settings.items()}
    check(got == {**both, code.MAX_CONCURRENT_STREAMS: 1000, code.MAX_HEADER_LIST_SIZE: 64 << 10}, "a server's", got)
    big = c.request(m.pods["server"].ip + ":7", headers=[("x-%d" % i, "y" * 1000) for i in range(60)])
    check(c.status(big) == 200, "60 KiB of header fields")
    check(c.h2.outbound_flow_control_window == 16 << 20, "the connection's window", c.h2.outbound_flow_control_window)
    c.close()


def test_client_hello(m):
    """No server name (there is none to say); X25519 without a second try; nothing to resume (ztunnel.md 2.1)."""
    lone = m.pods["lone"]
    said = []
    s = hbone.Server(lone, certs.issue(certs.load_ca(m.ca), lone.identity, m.dir + "/hello.pem"), m.root)
    s.context.sni_callback = lambda tls, name, context: said.append((name, tls.session_reused))
    c = m.capture(expression="tcp dst port 15008")
    with s, m.pods["client"].connect(lone.ip, 7) as k:
        k.sendall(b"hello")
        check(k.recv(5) == b"hello", "served", s.errors)
    hello = next(x[5] for x in c.stop().tcp() if x[2] == lone.ip and x[5][:1] == b"\x16")
    check(said == [(None, False)], "no name, no session", said)
    check(hello[5:6] == b"\1" and b"h2" in hello, "a ClientHello with ALPN h2", hello)
    check(b"\0\x1d\0\x20" in hello, "a key share for X25519", hello)


def test_broken_http2_ends_the_tunnel_only(m):
    c = dial(m)
    c.sock.sendall(b"\xff" * 400)
    while c.pump(5):
        pass
    c2 = dial(m)
    check(c2.status(c2.request(m.pods["server"].ip + ":7")) == 200, "the next tunnel works")
    c2.close()


def test_certificates_on_disk(m):
    for name in os.listdir(m.ca):
        with open(os.path.join(m.ca, name), errors="replace") as f:
            if "PRIVATE KEY" in f.read():
                check(os.stat(os.path.join(m.ca, name)).st_mode & 0o777 == 0o600, "%s is 0600" % name)
    for a in m.agents.values():
        text = a.ctl("-j", "certificate", "list").stdout + a.text() + a.ctl("config", "dump", check_rc=False).stdout
        check("PRIVATE KEY" not in text, "no private key in dumps or logs")
        check(m.pods["client" if a.node == 1 else "server"].identity in text, "the pod's certificate is listed")


def test_wrong_server_identity_gets_no_byte(m):
    """A server with a valid certificate of another pod answers on an enrolled pod's address."""
    lone = m.pods["lone"]
    ca = certs.load_ca(m.ca)
    for identity, wanted in ((m.pods["client"].identity, False), ("spiffe://other.example/ns/demo/sa/lone", False), (lone.identity, True)):
        s = hbone.Server(lone, certs.issue(ca, identity, m.dir + "/lone.pem"), m.root)
        try:
            # The reset may come before connect has returned.
            with m.pods["client"].connect(lone.ip, 7) as c:
                c.sendall(b"data-of-the-client")
                got = c.recv(18)
        except OSError as e:
            got = e.errno
        s.close()
        if wanted:
            check(got == b"data-of-the-client", "the right identity is served", got, s.errors)
            check({"baggage", "forwarded", "traceparent"} <= set(s.requests[0]), "the three headers", s.requests)
            check(s.requests[0][":authority"] == lone.ip + ":7" and ":path" not in s.requests[0], "CONNECT form", s.requests)
        else:
            check(got == errno.ECONNRESET and not s.received and not s.requests, "nothing for " + identity, got, s.requests)
    eventually(lambda: [x for x in m.agents[1].access() if "tls_wrong_identity" in x.get("error", "")], 3, "reason in the log")


def test_server_status_becomes_a_reset(m):
    lone = m.pods["lone"]
    s = hbone.Server(lone, certs.issue(certs.load_ca(m.ca), lone.identity, m.dir + "/lone2.pem"), m.root, mode="status:503")
    try:
        got = m.pods["client"].connect(lone.ip, 7).recv(1)
    except OSError as e:
        got = e.errno
    s.close()
    check(got == errno.ECONNRESET, "503 from the peer resets the app", got)
    eventually(lambda: [x for x in m.agents[1].access() if "connect_status" in x.get("error", "") and "503" in x["error"]], 3, "status in the log")


def test_the_request_of_the_agent(m):
    """ztunnel's CONNECT: two pseudo-headers, three headers, a host when it was a Service, a new trace for each; no server name."""
    client, heard, names = m.pods["client"], m.pod("heard", 2, labels={"app": "heard"}), []
    m.pod_without_agent(heard)
    m.write("heard.yaml", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "heard", "namespace": "demo"},
                           "spec": {"selector": {"app": "heard"}, "clusterIP": "10.96.3.1", "ports": [{"port": 80, "targetPort": 7}]}})
    eventually(lambda: any(s["name"] == "heard" and s["endpoints"] for s in m.agents[1].json("service", "list")), 5, "known")
    with hbone.Server(heard, certs.issue(certs.load_ca(m.ca), heard.identity, m.dir + "/heard.pem"), m.root) as server:
        server.context.sni_callback = lambda sock, name, context: names.append(name)
        sources = []
        for address, port in ((heard.ip, 7), ("10.96.3.1", 80)):
            with client.connect(address, port) as s:
                sources.append("%s:%d" % s.getsockname())
                s.sendall(b"x")
                check(s.recv(1) == b"x", "served")
    check(names == [None] and server.connections == 1, "one tunnel, without a server name", names, server.connections)
    traces = [r.pop("traceparent", "") for r in server.requests]
    check(all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", t) for t in traces) and len({x[3:35] for x in traces}) == 2, "traces", traces)
    want = {":method": "CONNECT", ":authority": heard.ip + ":7",
            "baggage": "k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.pod.name=client,service.name=client,service.version=latest"}
    check(server.requests == [dict(want, forwarded='for="%s"' % sources[0]),
                              dict(want, forwarded='for="%s";host=heard.demo.svc.cluster.local' % sources[1])], "nothing else", server.requests)
    m.remove_manifest("heard.yaml")


def test_server_ends_then_cancels(m):
    """END_STREAM, RST_STREAM NO_ERROR (RFC 9113 8.1, as Envoy does), and the tunnel closed: a slow app reads everything, then FIN."""
    lone = m.pods["lone"]
    blob = os.urandom(3 << 20)

    class Ends(hbone.Server):
        def _serve(self, raw):
            super()._serve(raw)
            s = self.live[-1]
            s.shutdown(socket.SHUT_WR)
            s.settimeout(5)
            try:
                # Closed with window updates unread, the kernel would reset, and take back what it has not delivered.
                while s.recv(65536):
                    pass
            except OSError:
                pass
            s.close()

        def _event(self, c, e):
            if isinstance(e, h2.events.RequestReceived):
                c.send_headers(e.stream_id, [(":status", "200")])
                self.left, self.stream, self.done = blob, e.stream_id, False
            while getattr(self, "left", b"") or not getattr(self, "done", True):
                n = min(len(self.left), c.local_flow_control_window(self.stream), c.max_outbound_frame_size)
                if self.left and not n:
                    return
                c.send_data(self.stream, self.left[:n], end_stream=n == len(self.left))
                self.left = self.left[n:]
                if not self.left:
                    c.reset_stream(self.stream, 0)
                    self.done = self.stop = True

    got = b""
    with Ends(lone, certs.issue(certs.load_ca(m.ca), lone.identity, m.dir + "/lone3.pem"), m.root) as s, m.pods["client"].connect(lone.ip, 7) as c:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        time.sleep(1)
        try:
            while True:
                data = c.recv(65536)
                if not data:
                    break
                got += data
        except OSError as e:
            check(False, "FIN, not %s, after %d of %d bytes" % (e, len(got), len(blob)), s.errors)
    check(got == blob, "every byte", len(got))


def test_last_words_of_a_server(m):
    """A server ends all streams at once and resets the tunnel, while callers still speak: what was read and waits for a
    later round is heard, too."""
    lone, streams, word = m.pods["lone"], 400, b"the last word"

    class Ends(hbone.Server):
        open = ()

        def _event(self, c, e):
            if isinstance(e, h2.events.RequestReceived):
                if not self.open:
                    c.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1000})
                c.send_headers(e.stream_id, [(":status", "200")])
                self.open += (e.stream_id,)
            elif isinstance(e, h2.events.DataReceived):
                self.received += e.data
                if len(self.received) >= 3 * streams:
                    self.end_all(c)

        def end_all(self, c):
            for i in self.open:
                c.send_data(i, word, end_stream=True)
                c.reset_stream(i, 0)
            self.live[-1].sendall(c.data_to_send())
            self.live[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.live[-1].close()

    with Ends(lone, certs.issue(certs.load_ca(m.ca), lone.identity, m.dir + "/lone5.pem"), m.root) as s:
        callers = []
        for n in range(streams):
            callers.append(m.pods["client"].connect(lone.ip, 7))
            callers[-1].setblocking(False)
            eventually(lambda: n or s.open, 5, "the first is open")
        eventually(lambda: len(s.open) == streams, 5, "all are open")
        texts = dict.fromkeys(callers, b"")
        while callers:
            for k in list(callers):
                try:
                    part = k.recv(100)
                except BlockingIOError:
                    with contextlib.suppress(OSError):
                        k.send(b"y")
                    continue
                except OSError:
                    part = b""
                texts[k] += part
                if not part:
                    callers.remove(k)
        check(s.connections == 1, "one tunnel", s.connections)
        heard = list(texts.values()).count(word)
        for k in texts:
            k.close()
        check(heard == streams, "every caller hears it", heard, s.errors)


def test_goaway_with_a_lower_last_stream(m):
    """Streams that the peer has not taken are asked for again on another tunnel (RFC 9113 6.8)."""
    lone = m.pods["lone"]

    class Leaves(hbone.Server):
        def _event(self, c, e):
            if isinstance(e, h2.events.RequestReceived) and self.connections == 1:
                c.close_connection(0, last_stream_id=0)
                return
            super()._event(c, e)

    with Leaves(lone, certs.issue(certs.load_ca(m.ca), lone.identity, m.dir + "/lone4.pem"), m.root) as s, m.pods["client"].connect(lone.ip, 7) as c:
        c.sendall(b"again")
        check(c.recv(5) == b"again" and s.connections == 2, "served by a second tunnel", s.connections, s.errors)


def test_next_hop_of_a_failed_dial(m):
    """While nobody listens on 15008 the log still says what was dialled, not only for whom."""
    lone = m.pods["lone"]
    c = m.pods["client"].connect(lone.ip, 7)
    here = "%s:%d" % c.getsockname()
    time.sleep(0.3)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    c.close()
    line = eventually(lambda: next((x for x in m.agents[1].access() if x.get("src.addr") == here), None), 3, "access line")
    check(line["dst.addr"] == lone.ip + ":15008" and line["dst.hbone_addr"] == lone.ip + ":7", "next hop and authority", line)
