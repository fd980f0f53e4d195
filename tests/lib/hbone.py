# SPDX-License-Identifier: Apache-2.0
"""HBONE from another HTTP/2 stack (python3-h2 over the ssl module): a client and a server for the wire tests.

Enters: a connected socket of a pod and PEM files; leaves: statuses and bytes. Called by tests/netns and tests/interop.
"""
import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

# This h2 wants :path even for CONNECT (RFC 9113 8.5 forbids it there), and tests send what is wrong as it is: no checks.
LAX = {"validate_outbound_headers": False, "validate_inbound_headers": False, "normalize_outbound_headers": False}


def context(server, pem, roots, alpn=("h2",), version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_REQUIRED if roots else ssl.CERT_NONE
    if roots:
        c.load_verify_locations(roots)
    if pem:
        c.load_cert_chain(pem)
    if alpn:
        c.set_alpn_protocols(list(alpn))
    if version:
        c.minimum_version = c.maximum_version = version
    return c


class Client:
    """One tunnel; blocking, one thread."""

    def __init__(self, pod, address, pem, roots, port=15008, timeout=10.0):
        raw = pod.connect(address, port, timeout)
        try:
            self.sock = context(False, pem, roots).wrap_socket(raw)
        except BaseException:
            raw.close()
            raise
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8", **LAX))
        self.h2.initiate_connection()
        self.events = []
        self.closed = False
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def request(self, authority, method="CONNECT", headers=(), end=False):
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method)]
        if method != "CONNECT":
            fields += [(":scheme", "https"), (":path", "/")]
        if authority is not None:
            fields.append((":authority", authority))
        self.h2.send_headers(stream, fields + list(headers), end_stream=end)
        self.flush()
        return stream

    def pump(self, timeout=5.0):
        """Reads once; appends what it means to events. False at the end of the connection."""
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(65536)
        except (socket.timeout, TimeoutError):
            raise TimeoutError("no answer within %.1f s" % timeout)
        except (ConnectionError, ssl.SSLError, OSError):
            data = b""
        if not data:
            self.closed = True
            return False
        for e in self.h2.receive_data(data):
            if isinstance(e, h2.events.DataReceived) and e.flow_controlled_length:
                self.h2.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            self.events.append(e)
        self.flush()
        return True

    def wait(self, kind, stream=None, timeout=10.0):
        end = time.monotonic() + timeout
        while True:
            for i, e in enumerate(self.events):
                if isinstance(e, kind) and (stream is None or getattr(e, "stream_id", None) == stream):
                    return self.events.pop(i)
            if self.closed or not self.pump(max(0.05, end - time.monotonic())):
                return None

    def status(self, stream, timeout=10.0):
        e = self.wait(h2.events.ResponseReceived, stream, timeout)
        return int(dict(e.headers)[":status"]) if e else None

    def response(self, stream, timeout=10.0):
        e = self.wait(h2.events.ResponseReceived, stream, timeout)
        return dict(e.headers) if e else {}

    def send(self, stream, data, end=False):
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def read(self, stream, count, timeout=10.0):
        out = b""
        while len(out) < count:
            e = self.wait(h2.events.DataReceived, stream, timeout)
            if e is None:
                break
            out += e.data
        return out

    def reset(self, stream, code=8):
        self.h2.reset_stream(stream, code)
        self.flush()

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass


class Server:
    """A server agent played by us on a pod's 15008: answers CONNECT as told and keeps what it was sent.

    mode: "echo", "hang" (CONNECT never answered), "mute" (TLS but no SETTINGS), "tcp" (no TLS), "status:N"."""

    def __init__(self, pod, pem=None, roots=None, mode="echo", port=15008):
        self.listener = pod.listen(port)
        self.listener.settimeout(0.2)
        self.context = context(True, pem, roots) if pem else None
        self.mode, self.received, self.requests, self.connections = mode, b"", [], 0
        self.errors = []
        self.pings = 0
        self.live = []
        self.stop = False
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def _accept(self):
        while not self.stop:
            try:
                s, _ = self.listener.accept()
            except (socket.timeout, TimeoutError):
                continue
            except OSError:
                return
            self.connections += 1
            self.live.append(s)
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, raw):
        try:
            raw.settimeout(60)
            if self.mode == "tcp":
                while raw.recv(65536):
                    pass
                return
            s = self.context.wrap_socket(raw, server_side=True)
            self.live.append(s)
            if self.mode == "mute":
                while s.recv(65536):
                    pass
                return
            c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8", **LAX))
            c.initiate_connection()
            s.sendall(c.data_to_send())
            while not self.stop:
                data = s.recv(65536)
                if not data:
                    return
                for e in c.receive_data(data):
                    self._event(c, e)
                s.sendall(c.data_to_send())
        except Exception as e:  # what the peer did to us is what the test looks at
            self.errors.append("%s: %s" % (type(e).__name__, e))
        finally:
            raw.close()

    def _event(self, c, e):
        if isinstance(e, h2.events.RequestReceived):
            self.requests.append(dict(e.headers))
            if self.mode == "hang":
                return
            code = self.mode.partition(":")[2] or "200"
            c.send_headers(e.stream_id, [(":status", code)], end_stream=code != "200")
        elif isinstance(e, h2.events.DataReceived):
            self.received += e.data
            c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            if self.mode == "echo" and e.data:
                c.send_data(e.stream_id, e.data)
        elif isinstance(e, h2.events.StreamEnded) and self.mode == "echo":
            c.end_stream(e.stream_id)
        elif isinstance(e, h2.events.PingReceived):
            self.pings += 1

    def close(self):
        self.stop = True
        self.acceptor.join()
        self.listener.close()
        for s in self.live:
            try:
                s.close()
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
