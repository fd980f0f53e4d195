# SPDX-License-Identifier: Apache-2.0
"""Certificates for foreign peers: good ones from the mesh's own CA folder, and each kind of bad one.

Enters: a CA folder (root-cert.pem and root-key.pem, or Istio's ca-cert.pem and ca-key.pem) or None for a CA of another
mesh; leaves: a PEM file with leaf, intermediates and key. Called by the wire and interoperability tests.
"""
import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])


def make_root(name="Another mesh"):
    return make_ca(name)


def make_ca(name, issuer=None, path_length=None, key=None):
    """A CA below `issuer`, or a root."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    above, above_key = issuer or (None, key)
    now = datetime.datetime.utcnow()
    cert = (x509.CertificateBuilder().subject_name(_name(name)).issuer_name(above.subject if above else _name(name)).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - DAY).not_valid_after(now + 5 * DAY)
            .add_extension(x509.BasicConstraints(True, path_length), True)
            .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)
            .sign(above_key, hashes.SHA256()))
    return cert, key


def load_ca(folder):
    for cert, key in (("ca-cert.pem", "ca-key.pem"), ("root-cert.pem", "root-key.pem")):
        if os.path.exists(os.path.join(folder, cert)) and os.path.exists(os.path.join(folder, key)):
            with open(os.path.join(folder, cert), "rb") as f:
                c = x509.load_pem_x509_certificate(f.read())
            with open(os.path.join(folder, key), "rb") as f:
                return c, serialization.load_pem_private_key(f.read(), None)
    raise FileNotFoundError("no CA in " + folder)


def load_leaf(path):
    """What issue() wrote, as an issuer of others: (certificate, key)."""
    with open(path, "rb") as f:
        pem = f.read()
    return x509.load_pem_x509_certificate(pem), serialization.load_pem_private_key(pem, None)


def issue(ca, identity, path, start=-DAY, end=DAY, usages=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
          chain=None, names=(), is_ca=False, critical=None, subject=None):
    """ca: (certificate, key). identity: one URI, several, or None; `names` come beside it. chain: what is presented with the
    leaf, else the issuer if that is no root. critical: the OID of a critical extension that holds NULL. Writes leaf, chain
    and key to `path` (0600), returns it."""
    cert, ca_key = ca
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.utcnow()
    builder = (x509.CertificateBuilder().subject_name(_name(subject) if subject else x509.Name([])).issuer_name(cert.subject).public_key(key.public_key())
               .serial_number(x509.random_serial_number()).not_valid_before(now + start).not_valid_after(now + end)
               .add_extension(x509.BasicConstraints(is_ca, None), True)
               .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), True)
               .add_extension(x509.ExtendedKeyUsage(list(usages)), False))
    if critical:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(critical), b"\5\0"), True)
    uris = [identity] if isinstance(identity, str) else identity or []
    if uris or names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(n) for n in uris] + list(names)), True)
    leaf = builder.sign(ca_key, hashes.SHA256())
    if chain is None:
        chain = [cert] if cert.issuer != cert.subject else []
    pem = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in [leaf, *chain])
    pem += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(pem)
    return path


def write_plugin_ca(folder):
    """An operator's root and intermediate under Istio's file names (an intermediate with an RSA key)."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    os.makedirs(folder, exist_ok=True)
    root, root_key = make_root("Operator root")
    inter, key = make_ca("Operator intermediate", (root, root_key), 0, rsa.generate_private_key(65537, 2048))
    texts = {"root-cert.pem": root.public_bytes(serialization.Encoding.PEM),
             "ca-cert.pem": inter.public_bytes(serialization.Encoding.PEM),
             "cert-chain.pem": inter.public_bytes(serialization.Encoding.PEM),
             "ca-key.pem": key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())}
    for name, pem in texts.items():
        with open(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(pem)
    return root


def root_file(folder):
    return os.path.join(folder, "root-cert.pem")
