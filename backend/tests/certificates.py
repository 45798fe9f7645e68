"""Certificates for tests of TLS."""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Certificates:
    """An authority, and a certificate for `host` that it has signed.

    They have the extensions that `VERIFY_X509_STRICT` requires, the default since Python 3.13.
    """

    def __init__(
        self, folder: Path, *, host: str = "localhost", age: dt.timedelta = dt.timedelta(0)
    ) -> None:
        self.authority, self.server = folder / "ca.pem", folder / "server.pem"
        now = dt.datetime.now(dt.UTC) - age
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
        server = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        for subject, key, path in (
            (issuer, keys[0], self.authority),
            (server, keys[1], self.server),
        ):
            builder = (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(issuer)
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - dt.timedelta(days=1))
                .not_valid_after(now + dt.timedelta(days=5))
                .add_extension(x509.BasicConstraints(subject is issuer, None), critical=True)
                .add_extension(authority_key, critical=False)
                .add_extension(
                    x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
                )
            )
            if subject is server:
                names = [x509.DNSName(host)]
                builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            else:
                builder = builder.add_extension(SIGNS_CERTIFICATES, critical=True)
            signed = builder.sign(keys[0], hashes.SHA256())
            pem = signed.public_bytes(serialization.Encoding.PEM)
            private = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            path.write_bytes(pem if subject is issuer else pem + private)
