# SPDX-License-Identifier: Apache-2.0
"""The mesh's own ConfigMap names the trust domain where no option does: certificates, identities and policies follow it,
also over a restart without the folder; a change waits for the next start."""
import json
import os

import certs
import hbone
from mesh import Mesh, check, eventually

FALLBACK = False


def config_map(domain):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": "trustDomain: %s\ntrustDomainAliases: [old.example]\naccessLogFile: /dev/stdout\n" % domain}}


def setup():
    m = Mesh("trust")
    m.pod("client", 1)
    m.pod("server", 2)
    m.pod("plain", 1, enrolled=False)
    m.apply()
    m.write("mesh.yaml", config_map("mesh.example"))
    m.pods["server"].serve("echo:7")
    m.start_agents()
    return m


def identities(m, node):
    return {x["identity"] for x in json.loads(m.agents[node].ctl("-j", "certificate", "list").stdout)}


def talks(m):
    with m.pods["client"].connect(m.pods["server"].ip, 7) as s:
        s.sendall(b"x")
        return s.recv(1) == b"x"


def test_the_domain_is_the_meshs(m):
    check(talks(m), "through the tunnel")
    check(identities(m, 1) == {m.pods["client"].identity.replace("cluster.local", "mesh.example")}, "certificates", identities(m, 1))
    tunnels = json.loads(m.agents[2].ctl("-j", "tunnel", "list").stdout)
    check([t["peer_identity"].split("/")[2] for t in tunnels] == ["mesh.example"], "the peer's", tunnels)


def test_an_alias_names_the_same_account(m):
    """A caller of a former name of the mesh is let in, also from an address whose pod is known by the present name."""
    plain, server = m.pods["plain"], m.pods["server"]
    for domain, account, wanted in (("old.example", "plain", 200), ("mesh.example", "plain", 200), ("old.example", "client", 401), ("other.example", "plain", None)):
        pem = certs.issue(certs.load_ca(m.ca), "spiffe://%s/ns/demo/sa/%s" % (domain, account), m.dir + "/caller.pem")
        try:
            c = hbone.Client(plain, server.ip, pem, certs.root_file(m.ca))
            got = c.status(c.request(server.ip + ":7"))
            c.close()
        except OSError:
            got = None
        check(got == wanted, "%s of %s" % (account, domain), got)


def test_a_change_waits_for_the_next_start(m):
    m.write("mesh.yaml", config_map("new.example"))
    said = "trustDomain new.example is not in use: until the agent is restarted it is mesh.example"
    eventually(lambda: all(said in a.text() for a in m.agents.values()), 5, "said")
    check(talks(m) and {x.split("/")[2] for x in identities(m, 1)} == {"mesh.example"}, "as before", identities(m, 1))


def test_the_next_start_without_the_folder(m):
    """What was read last is what counts, for the trust domain, too."""
    os.rename(m.config, m.config + ".away")
    try:
        for a in m.agents.values():
            a.stop()
            a.start()
        check(talks(m) and {x.split("/")[2] for x in identities(m, 1)} == {"new.example"}, "the last one", identities(m, 1))
    finally:
        os.rename(m.config + ".away", m.config)
