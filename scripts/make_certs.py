"""Write a certificate for development, certificates/localhost.pem, and its key.

Browsers do not trust it. Existing files are not overwritten. `make certs` runs this in .venv.
"""

from __future__ import annotations

import ipaddress
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER = Path(__file__).resolve().parent.parent / "certificates"
DAYS = 397
"""The maximum lifetime that browsers accept."""


def write_certificate(folder: Path) -> bool:
    """Write a certificate and its key. Return False if one of the files exists."""
    certificate, key_file = folder / "localhost.pem", folder / "localhost-key.pem"
    if certificate.exists() or key_file.exists():
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pressroom, for development")])
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    signed_certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    # Readable by all users: nginx runs as another user, and the key is for development only.
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate.write_bytes(signed_certificate.public_bytes(serialization.Encoding.PEM))
    return True


def main() -> int:
    """Return the exit status, which is 0 also if the files exist."""
    if write_certificate(FOLDER):
        print("Wrote certificates/localhost.pem and localhost-key.pem.")
    else:
        print("certificates/ already has a certificate. Delete it first to create a new one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
