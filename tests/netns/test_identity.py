# SPDX-License-Identifier: Apache-2.0
"""The life of identities under traffic: renewal, rotation of the root, revocation, a CA that goes away and comes back.

WR_SOAK=1 (`make soak`) lets the renewals run for five minutes, until at least 40 certificates were seen each way.
"""
import calendar
import datetime
import json
import os
import signal
import subprocess
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import certs
import hbone
import h2.events
from mesh import ROOT, check, eventually, Mesh
from policies import died

FALLBACK = "together"
SOAK = os.environ.get("WR_SOAK") == "1"
TTL = 8  # seconds; renewed after about half of it


def setup():
    m = Mesh("identity")
    m.pod("client", 1)
    m.pod("bystander", 1)
    m.pod("server", 2)
    m.pod("lone", 1, known=False)  # of an address that is bound to no identity
    m.apply()
    m.pods["server"].serve("echo:7")
    m.agent_options = ["--cert-ttl=%ds" % TTL]
    m.start_agents()
    return m


def ping(m, pod="client"):
    return m.pods[pod].traffic("ping", m.pods["server"].ip, 7, 1, 8)["ok"]


def handshake(m, pem):
    m.pods["lone"].sh("timeout", "5", "openssl", "s_client", "-connect", m.pods["server"].ip + ":15008", "-alpn", "h2", "-cert", pem, "-key", pem,
                      check_rc=False, stdin=subprocess.DEVNULL, errors="replace")


def serials(m, node, pod):
    """(own, the peer's) serial numbers of this pod's tunnels whose handshake is complete."""
    rows = [t for t in m.agents[node].json("tunnel", "list") if t["pod"] == "demo/" + pod and t["state"] in ("ready", "draining")]
    return [(t["certificate_serial"], t["peer_certificate_serial"]) for t in rows if "peer_certificate_serial" in t]


def test_one_stream_lives_through_renewals(m):
    """One connection, and new ones all the time, while both ends' certificates are replaced again and again."""
    wanted, seconds = (40, 900) if SOAK else (4, 120)
    stream = m.pods["client"].client("long", m.pods["server"].ip, 7, 50, seconds)
    stream.wait_for("connected")
    others = m.pods["client"].client("every", m.pods["server"].ip, 7, 100, seconds)
    of_client, of_server, replaced = set(), set(), []
    start = time.monotonic()

    def enough():
        # Each side is asked what the other proved to it, so that a serial counts only once it was in a handshake.
        of_server.update(peer for _, peer in serials(m, 1, "client"))
        of_client.update(peer for _, peer in serials(m, 2, "server"))
        # The stream's tunnel is given up long before its certificates expire.
        replaced.extend(t for t in m.agents[1].json("tunnel", "list") if t["state"] == "draining" and t["streams"] and t["age_ms"] < TTL * 1000 * 0.75)
        return len(of_client) >= wanted and len(of_server) >= wanted and time.monotonic() - start >= (300 if SOAK else 0)
    eventually(enough, seconds - 10, "%d distinct certificates each way" % wanted, step=0.2)
    for p in (stream, others):
        p.signal(signal.SIGTERM)
    r = stream.result()
    check(replaced, "its tunnel took no new streams at half of its certificates' time")
    check(r["ok"] and r["messages"] > 20, "the stream lived through %d and %d certificates" % (len(of_client), len(of_server)), r)
    r = others.result()
    check(r["ok"], "no new connection failed", r)
    for agent in m.agents.values():
        check("cannot renew" not in agent.text(), "no renewal failed")


test_one_stream_lives_through_renewals.seconds = 960 if SOAK else 130


def test_certificate_list(m):
    row = next(c for c in m.agents[1].json("certificate", "list") if c["identity"] == m.pods["client"].identity)
    check(row["serial"].isdigit() and row["not_before"] < row["next_renewal"] < row["not_after"], "serial and times", row)
    check(row["root_rotation"] == "none" and row["crl"] == "none" and row["state"] == "valid", "root and list", row)
    check("PRIVATE" not in json.dumps(row), "no key")
    text = m.agents[1].ctl("certificate", "list").stdout
    check(all(w in text for w in ("RENEWAL", "ROTATION", "CRL", "NOT BEFORE")), "columns", text)
    text = m.agents[1].ctl("status").stdout
    check(text.count("who can read %s can issue every identity" % m.ca) == 1, "status says what the folder means", text)
    with open(os.path.join(ROOT, "README.md")) as f:
        check("`--ca=dir:` means:** whoever can read that folder can issue every identity" in f.read(), "and so does README.md")
    for name in ("root-key.pem", "issued"):
        check(os.stat(os.path.join(m.ca, name)).st_mode & 0o777 == 0o600, "the agents' alone: " + name)


def roots(m):
    with open(certs.root_file(m.ca)) as f:
        return f.read().count("BEGIN CERTIFICATE")


def rotate(m, node, *step):
    return m.agents[node].ctl("certificate", "rotate-root", *step, check_rc=False)


def test_root_rotation_under_traffic(m):
    """Three steps, driven from either node; both agents follow by watching; nothing fails."""
    seconds = 120
    traffic = [m.pods["client"].client("every", m.pods["server"].ip, 7, 50, seconds)]
    old = m.agents[1].json("certificate", "list")[0]["root_pem"]
    r = rotate(m, 1)
    check(r.returncode == 0 and "published" in r.stdout and roots(m) == 2, "published", r)
    check(rotate(m, 2).stdout.startswith("published") and roots(m) == 2, "asking again says the phase, from the other node, too")
    r = rotate(m, 2, "--finish")
    check(r.returncode == 4 and "give the agents" in r.stderr, "too early", r)
    eventually(lambda: rotate(m, 2, "--finish").returncode == 0, 15, "issuing", step=0.5)
    check(m.agents[1].json("certificate", "list")[0]["root_rotation"] == "issuing", "seen on the other node")
    stream = m.pods["client"].client("long", m.pods["server"].ip, 7, 50, seconds)
    r = rotate(m, 1, "--finish")
    check(r.returncode == 4 and "of the old root are still valid" in r.stderr, "the old root's leaves are out", r)
    # A stream on a tunnel of the old root would end with that root; this one begins when all are replaced.
    eventually(lambda: rotate(m, 1, "--finish").returncode == 0, 60, "dropped", step=0.5)
    check(roots(m) == 1 and old not in open(certs.root_file(m.ca)).read(), "the old root is gone")
    check(ping(m), "new connections pass")
    for p in traffic + [stream]:
        p.signal(signal.SIGTERM)
    r = traffic[0].result()
    check(r["ok"], "no connection failed", r)
    check(not os.path.exists(m.ca + "/old-root-key.pem") and not os.path.exists(m.ca + "/next-root-key.pem"), "no key is left over")


test_root_rotation_under_traffic.seconds = 120


def test_revoked_identity_alone_is_cut(m):
    """Within a second, also of a stream that is open; the other pod of the same node goes on."""
    victim = m.pods["client"].connect(m.pods["server"].ip, 7)
    victim.sendall(b"x")
    check(victim.recv(1) == b"x", "open")
    others = m.pods["bystander"].client("every", m.pods["server"].ip, 7, 50, 60)
    stream = m.pods["bystander"].client("long", m.pods["server"].ip, 7, 50, 60)
    stream.wait_for("connected")
    start = time.monotonic()
    # On the other node than the victim's and the server's agent both notice by the folder.
    r = m.agents[2].ctl("certificate", "revoke", m.pods["client"].identity)
    check(" revoked\n" in r.stdout and not r.stdout.startswith("0 "), "revoked", r)
    victim.settimeout(5)
    try:
        victim.recv(1)
        check(False, "the stream is reset")
    except ConnectionResetError:
        took = time.monotonic() - start
    victim.close()
    check(took < 1.0, "within a second", took)
    check(not ping(m), "no new connection of the revoked one")
    counters = m.agents[2].json("status")["counters"]
    check(counters.get("tls_certificate_revoked", 0) >= 1, "counted apart", counters)

    def logged(what):
        return any(what(x) for x in m.agents[2].access() if x.get("error", "").startswith("tls_certificate_revoked"))
    eventually(lambda: logged(lambda x: x.get("src.identity") == m.pods["client"].identity), 5, "the access log names whose stream ended")
    eventually(lambda: logged(lambda x: "claims to be " + m.pods["client"].identity in x["error"]), 5, "and whose handshake failed")
    eventually(lambda: any(x.get("error", "").startswith("tls_refused_by_peer") and x["direction"] == "outbound" for x in m.agents[1].access()), 5,
               "the log of its own node says that the other one did not accept it")
    eventually(lambda: any("revoked-identities" in a and a.endswith(", unless it was revoked") for a in m.agents[1].json("status")["alarms"]), TTL + 5, "its own agent alarms")
    for p in (stream, others):
        p.signal(signal.SIGTERM)
    check(others.result()["ok"] and stream.result()["ok"], "the bystander noticed nothing")
    check("revoked" in m.agents[2].json("certificate", "list")[0]["crl"], "the list shows in certificate list")
    m.agents[1].kill()
    m.agents[1].start()
    check(any("demo/client refused: " in a and "was revoked" in a for a in m.agents[1].json("status")["alarms"]), "an agent that starts is up, with an alarm")
    os.unlink(m.ca + "/revoked-identities")
    eventually(lambda: ping(m), 15, "let back in by taking the line out")
    check(not m.agents[1].json("status")["alarms"], "the alarm is over", m.agents[1].json("status")["alarms"])


def test_revoked_serial_is_replaced(m):
    """A leaked key: its certificate is taken back, and the pod has another one at once."""
    def own():
        return next(c["serial"] for c in m.agents[1].json("certificate", "list") if c["identity"] == m.pods["client"].identity)
    serial = own()
    check("1 cert" in m.agents[1].ctl("certificate", "revoke", serial).stdout, "revoked")
    eventually(lambda: own() != serial, 1.5, "replaced")
    eventually(lambda: ping(m), 5, "and serving")
    r = m.agents[1].ctl("certificate", "revoke", "what", check_rc=False)
    check(r.returncode == 4 and "neither a serial" in r.stderr, "nonsense is refused", r)


def is_refused_as_expired(m, c, authority):
    """Whether a new stream on this tunnel is refused because a certificate has expired."""
    def count():
        return m.agents[2].json("status")["counters"].get("certificate_expired", 0)
    before = count()
    c.request(authority)
    return count() > before


def test_without_the_folder_until_expiry(m):
    """Present certificates serve until they expire, then nothing passes in either direction; alarms say why and since when."""
    away, server = m.ca + ".away", m.pods["server"].ip + ":7"
    long_lived = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/long.pem")
    os.rename(m.ca, away)
    try:
        check(ping(m), "certificates serve")
        eventually(lambda: any("cannot open" in a for a in m.agents[1].json("status")["alarms"]), 3, "the folder's alarm")
        # Of whichever is the older: the younger one's may come when the other has expired.
        eventually(lambda: any("serves until" in a and m.pods[name].identity in a for node, name in ((1, "client"), (2, "server"))
                               for a in m.agents[node].json("status")["alarms"]), TTL, "the certificate's alarm")
        check(ping(m), "still serving")
        row = next(c for c in m.agents[2].json("certificate", "list") if c["identity"] == m.pods["server"].identity)
        time.sleep(max(0, calendar.timegm(time.strptime(row["not_after"], "%Y-%m-%dT%H:%M:%SZ")) - 1 - time.time()))
        c = hbone.Client(m.pods["lone"], m.pods["server"].ip, long_lived, certs.root_file(away))
        check(c.status(c.request(server)) == 200, "a caller whose own is good for longer")
        eventually(lambda: is_refused_as_expired(m, c, server), 1.8, "no new stream on its tunnel then", step=0.1)
        c.close()
        expired = eventually(lambda: [c for c in m.agents[1].json("certificate", "list") if c["identity"] == m.pods["client"].identity and c["state"] == "expired"],
                             TTL + 5, "expired")
        check(not ping(m), "then closed", expired)
        eventually(lambda: m.agents[1].json("status")["counters"].get("no_identity", 0) > 0, 5, "with a reason")
        pem = certs.issue(certs.load_ca(away), m.pods["client"].identity, m.dir + "/fresh.pem")
        before = m.agents[2].json("status")["counters"].get("no_identity", 0)

        def nobody():
            handshake(m, pem)
            return m.agents[2].json("status")["counters"].get("no_identity", 0) > before
        # The server's certificate may be younger than the client's.
        eventually(nobody, TTL + 5, "a caller with a good certificate finds nobody, too", step=0.2)
        check(any("its traffic is refused" in a for a in m.agents[1].json("status")["alarms"]), "and an alarm")
        check(not os.path.exists(m.ca), "nobody made a new CA")
    finally:
        os.rename(away, m.ca)
    eventually(lambda: ping(m), 10, "the folder is back")
    eventually(lambda: not m.agents[1].json("status")["alarms"], 5, "and all is well")


def test_clock_skew_is_named(m):
    pem = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/early.pem", start=certs.DAY, end=2 * certs.DAY)
    before = m.agents[2].json("status")["counters"].get("tls_certificate_not_yet_valid", 0)
    handshake(m, pem)
    eventually(lambda: m.agents[2].json("status")["counters"].get("tls_certificate_not_yet_valid", 0) > before, 5, "its own reason")
    eventually(lambda: any("clock skew" in json.dumps(line) for line in m.agents[2].access()), 5, "said in the log")


def test_no_new_stream_after_expiry(m):
    """A caller's certificate expires while its tunnel is open: the stream it has goes on, the next one is refused with a reason."""
    authority = m.pods["server"].ip + ":7"
    # Validity ends with a full second, and the tunnel is given up a second after that at the earliest.
    time.sleep(1.05 - time.time() % 1)
    pem = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/short.pem", end=certs.DAY / 86400)
    c = hbone.Client(m.pods["lone"], m.pods["server"].ip, pem, certs.root_file(m.ca))
    first = c.request(authority)
    check(c.status(first) == 200, "the first stream")
    eventually(lambda: is_refused_as_expired(m, c, authority), 1.8, "refused", step=0.1)
    c.send(first, b"still here")
    eventually(lambda: any(x["src"].startswith(m.pods["lone"].ip) and x["bytes_recv"] == 10 for x in m.agents[2].json("connection", "list")), 5,
               "the first stream goes on")
    c.close()


def test_notice_at_half_life(m):
    """A server's GOAWAY comes while a caller's certificate is still good, refuses no stream, and the streams go on."""
    seconds = 6
    time.sleep(1.05 - time.time() % 1)
    end = time.time() + seconds
    pem = certs.issue(certs.load_ca(m.ca), m.pods["client"].identity, m.dir + "/half.pem", end=certs.DAY * seconds / 86400)
    c = hbone.Client(m.pods["lone"], m.pods["server"].ip, pem, certs.root_file(m.ca))
    s = c.request(m.pods["server"].ip + ":7")
    check(c.status(s) == 200, "a stream")
    e = c.wait(h2.events.ConnectionTerminated, timeout=seconds)
    check(e and e.error_code == 0 and e.last_stream_id == 0x7fffffff, "notice", e)
    check(end - seconds + 1.5 < time.time() < end - 1, "between its beginning and its end", end - time.time())
    # By hand: this client's session is closed for it by the GOAWAY.
    c.sock.sendall((5).to_bytes(3, "big") + b"\0\0" + s.to_bytes(4, "big") + b"after")
    eventually(lambda: any(x["src"].startswith(m.pods["lone"].ip) and x["bytes_recv"] == 5 for x in m.agents[2].json("connection", "list")), 5, "the stream goes on")
    c.close()


def test_age_of_tunnels(m):
    """--tunnel-max-age: a stream goes on, the tunnel takes no more, the next connection has another."""
    a = m.agents[1]
    for x in m.agents.values():
        x.kill()
        x.options = ["--cert-ttl=1h"] + (["--tunnel-max-age=1s"] if x is a else [])
    m.start_agents()
    try:
        s = m.pods["client"].connect(m.pods["server"].ip, 7)
        s.sendall(b"x")
        check(s.recv(1) == b"x", "open")
        eventually(lambda: a.json("status")["counters"].get("tunnel_max_age", 0) > 0, 5, "counted")
        check(any(t["state"] == "draining" and t["streams"] for t in a.json("tunnel", "list")), "the old tunnel takes no more", a.json("tunnel", "list"))
        check(ping(m), "a new connection")
        s.sendall(b"y")
        check(s.recv(1) == b"y", "the old one goes on")
        s.close()
    finally:
        for x in m.agents.values():
            x.kill()
            x.options = []
        m.start_agents()


def write_crl(m, path, *serials, until=certs.DAY):
    """(Embedded CA: its root signs here.)"""
    root, key = certs.load_ca(m.ca)
    now = datetime.datetime.utcnow()
    b = x509.CertificateRevocationListBuilder().issuer_name(root.subject).last_update(now - 2 * certs.DAY).next_update(now + until)
    for serial in serials:
        b = b.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(int(serial)).revocation_date(now - certs.DAY).build())
    with open(path + ".new", "wb") as f:
        f.write(b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    os.rename(path + ".new", path)


def test_a_list_ends_the_callers_side(m):
    """Revoked by a list that the caller's agent alone has: it gives up the server's tunnel, and dials no other; past its nextUpdate, too."""
    path, a = m.dir + "/callers.crl", m.agents[1]
    for x in m.agents.values():
        x.kill()
        x.options = ["--cert-ttl=1h"]
    write_crl(m, path)
    a.options.append("--crl=" + path)
    m.start_agents()
    try:
        s = m.pods["client"].connect(m.pods["server"].ip, 7)
        s.sendall(b"x")
        check(s.recv(1) == b"x", "open")
        server = next(c["serial"] for c in m.agents[2].json("certificate", "list") if c["identity"] == m.pods["server"].identity)
        write_crl(m, path, server, until=-certs.DAY)
        check(died(s, 2) == "reset", "reset")
        eventually(lambda: any(x.get("error", "").startswith("tls_certificate_revoked") and x["direction"] == "outbound" for x in a.access()), 3, "by the caller's agent")
        check(not m.agents[2].json("status")["counters"].get("tls_certificate_revoked", 0), "the server's agent knows nothing of it")
        check(not ping(m), "no new connection")
        check(any("past its nextUpdate" in x for x in a.json("status")["alarms"]), "with an alarm, as the list is old", a.json("status")["alarms"])
        write_crl(m, path)
        eventually(lambda: ping(m), 5, "taken back")
        check(not a.json("status")["alarms"], "and the alarm is over")
        s.close()
    finally:
        for x in m.agents.values():
            x.kill()
            x.options = []
        m.start_agents()


def test_operators_list(m):
    """--crl=FILE: never read denies, a good one serves."""
    path = m.dir + "/operator.crl"
    a = m.agents[2]
    a.kill()
    a.options = ["--crl=" + path]
    a.start()
    try:
        check(not ping(m), "configured and never read: denied")
        eventually(lambda: a.json("status")["counters"].get("tls_crl_unavailable", 0) > 0, 5, "with its own reason")
        check(any(path in text for text in a.json("status")["alarms"]), "and an alarm")
        write_crl(m, path)
        eventually(lambda: ping(m), 5, "good: served")
        check(not a.json("status")["alarms"], "no alarm", a.json("status")["alarms"])
    finally:
        a.kill()
        a.options = []
        a.start()


def test_alias_of_the_trust_domain(m):
    """A caller of a former name of the trust domain is let in where that is an alias, and one of another name never."""
    a = m.agents[2]
    pems = {td: certs.issue(certs.load_ca(m.ca), "spiffe://%s/ns/demo/sa/client" % td, m.dir + "/%s.pem" % td) for td in ("former.name", "other.name")}

    def let_in(td):
        try:
            c = hbone.Client(m.pods["lone"], m.pods["server"].ip, pems[td], certs.root_file(m.ca))
            stream = c.request(m.pods["server"].ip + ":7")
            return c.status(stream) == 200
        except OSError:
            return False
    check(not let_in("former.name"), "no alias: refused")
    a.kill()
    a.options = ["--trust-domain-aliases=older.name,former.name"]
    a.start()
    try:
        check(let_in("former.name"), "an alias: let in")
        check(not let_in("other.name"), "another: refused")
    finally:
        a.kill()
        a.options = []
        a.start()
