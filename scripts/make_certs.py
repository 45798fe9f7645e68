"""Write a certificate for development, certificates/localhost.pem, and its key.

No browser trusts it. Never overwrites one. Run by `make certs`, in .venv.
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
"""As long as browsers believe any certificate."""


def make(folder: Path) -> bool:
    """Write the pair; False where there is one."""
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
    signed = (
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
    # Readable by all: nginx has a user of its own in its container, and this key protects nothing.
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return True


def main() -> int:
    """Return the exit status: 0 also where there is a pair already, which stays as it is."""
    if make(FOLDER):
        print("Wrote certificates/localhost.pem and localhost-key.pem.")
    else:
        print("certificates/ has a pair already, which stays; delete it first for a new one.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
