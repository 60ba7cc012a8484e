"""A certificate authority and one certificate for this machine's loopback names, made on the spot, or one that is wrong.

    files = Certificates(directory)      # ca.pem, server.crt, server.key; server.pem has key and certificate in one

They are for tests: the keys lie beside the certificates, unencrypted unless told, and nobody else trusts the authority.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    x509 = None  # type: ignore[assignment]  # who only installs servers or lists them makes no certificates

_LIFE = datetime.timedelta(days=2)


class Certificates:
    """The files in `directory`, made at construction unless they are there already.

    Args:
        directory: where; made when missing.
        names: host names that the certificate is for; the first is its common name as well.
        addresses: what else it is for. Without names and addresses it has no subjectAltName, and
            the common name "localhost".
        age: how long ago it was made. Its life is two days.
        own: signed by itself, and by no authority.
        password: encrypts the key.
    """

    def __init__(
        self,
        directory: Path,
        *,
        names: tuple[str, ...] = ("localhost",),
        addresses: tuple[str, ...] = ("127.0.0.1", "::1"),
        age: datetime.timedelta = datetime.timedelta(hours=1),
        own: bool = False,
        password: str | None = None,
    ) -> None:
        self.ca = directory / "ca.pem"
        self.certificate = directory / "server.crt"
        self.key = directory / "server.key"
        self.both = directory / "server.pem"
        if not self.both.exists():
            directory.mkdir(parents=True, exist_ok=True)
            self._make(names, addresses, age, own, password)

    def _make(
        self, names: tuple[str, ...], addresses: tuple[str, ...], age: datetime.timedelta, own: bool, password: str | None
    ) -> None:
        if x509 is None:
            raise RuntimeError("a server with TLS needs the package cryptography here: pip install cryptography")
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority_name = _name("Narrowboat test authority")
        authority = (
            _builder(authority_name, authority_name, authority_key, datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [
            *(x509.DNSName(name) for name in names),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        subject = _name(names[0] if names else "localhost")
        builder = _builder(subject, subject if own else authority_name, key, age)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(
                # Client use as well: the members of a cluster show this certificate to each other.
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
            .sign(key if own else authority_key, hashes.SHA256())
        )
        lock = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
        public = certificate.public_bytes(Encoding.PEM)
        self.ca.write_bytes(authority.public_bytes(Encoding.PEM))
        self.certificate.write_bytes(public)
        for path, content in ((self.key, private), (self.both, private + public)):
            path.touch(mode=0o600)
            path.write_bytes(content)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, age: datetime.timedelta
) -> x509.CertificateBuilder:
    made = datetime.datetime.now(datetime.UTC) - age
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made)
        .not_valid_after(made + _LIFE)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )
