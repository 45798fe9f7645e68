"""The keys of this installation, as sets: the first signs or seals, all are believed.

Access tokens are signed with SECRET_KEY itself (HS256) or with a pair of keys (RS256, ES256), and
name theirs by `kid`. Everything else takes keys derived from SECRET_KEY, one for each purpose, so
that nothing made for one purpose can pass for another.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk
from jose.backends.base import Key

from app.core.config import PROJECT_DIR, Algorithm, Settings, SetupError, get_settings

MIN_RSA_BITS = 2048


class SigningKey(NamedTuple):
    """A key for access tokens. `public` is its JWK (RFC 7517), None for a shared secret."""

    id: str
    signs: Key | None
    verifies: Key
    public: Mapping[str, str] | None


class SigningKeys(NamedTuple):
    """All keys whose tokens are believed, by `kid`, and the one that signs new ones."""

    algorithm: Algorithm
    current: SigningKey
    by_id: Mapping[str, SigningKey]


@lru_cache(maxsize=1)
def signing_keys() -> SigningKeys:
    """The keys that the settings name, read once. Raises SetupError for a file that is no key."""
    settings = get_settings()
    keys = _secrets(settings) if settings.jwt_algorithm is Algorithm.HS256 else _pairs(settings)
    return SigningKeys(settings.jwt_algorithm, keys[0], {key.id: key for key in reversed(keys)})


def public_keys() -> list[Mapping[str, str]]:
    """The JWKs of all keys that have a public half; none where a secret signs."""
    return [key.public for key in signing_keys().by_id.values() if key.public is not None]


@lru_cache(maxsize=16)
def derived_keys(purpose: str) -> tuple[bytes, ...]:
    """Keys of 32 bytes for `purpose`: SECRET_KEY's first, then those of SECRET_KEYS_PREVIOUS."""
    settings = get_settings()
    message = f"pressroom {purpose}".encode()
    return tuple(
        hmac.digest(secret.encode(), message, hashlib.sha256)
        for secret in (settings.secret_key, *settings.secret_keys_previous)
    )


def _secrets(settings: Settings) -> list[SigningKey]:
    return [
        SigningKey(id=secret_id(secret), signs=key, verifies=key, public=None)
        for secret in (settings.secret_key, *settings.secret_keys_previous)
        for key in [jwk.construct(secret, Algorithm.HS256)]
    ]


def secret_id(secret: str) -> str:
    """The `kid` of a secret; it tells nothing about it."""
    return hashlib.sha256(b"pressroom kid:" + secret.encode()).hexdigest()[:16]


def _pairs(settings: Settings) -> list[SigningKey]:
    assert settings.jwt_private_key_file is not None  # noqa: S101 - the settings see to it
    current = read_pair(settings.jwt_private_key_file, settings.jwt_algorithm)
    if current.signs is None:
        raise SetupError(f"JWT_PRIVATE_KEY_FILE: {settings.jwt_private_key_file} is a public key")
    previous = settings.jwt_previous_key_files
    return [current, *(read_pair(path, settings.jwt_algorithm) for path in previous)]


def read_pair(path: Path, algorithm: Algorithm) -> SigningKey:
    """The key in a PEM file; it signs where the file has the private half.

    A path that is not absolute starts at the project: `keys/…` is the same on the host and in the
    containers, where that folder is mounted at the root. Raises SetupError where the file cannot be
    read, or has no key for `algorithm`.
    """
    try:
        pem = (PROJECT_DIR / path).read_bytes()
    except OSError as error:
        raise SetupError(f"The key {path} cannot be read ({error.strerror})") from error
    try:
        if b"PRIVATE KEY-----" in pem:
            private = serialization.load_pem_private_key(pem, password=None)
            public = private.public_key()
        else:
            private, public = None, serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SetupError(f"{path} is no PEM with an unencrypted key") from error
    if not _fits(public, algorithm):
        raise SetupError(f"{path} has no key for {algorithm}: {_WANTED[algorithm]}")
    verifies = jwk.construct(_public_pem(public), algorithm)
    fields = {name: _text(value) for name, value in verifies.to_dict().items()}
    identifier = _thumbprint(fields)
    return SigningKey(
        id=identifier,
        signs=None if private is None else jwk.construct(pem.decode(), algorithm),
        verifies=verifies,
        public={**fields, "kid": identifier, "use": "sig", "alg": algorithm.value},
    )


_WANTED = {
    Algorithm.RS256: f"RSA with at least {MIN_RSA_BITS} bits",
    Algorithm.ES256: "the elliptic curve P-256",
}


def _fits(public: Any, algorithm: Algorithm) -> bool:
    if algorithm is Algorithm.RS256:
        return isinstance(public, rsa.RSAPublicKey) and public.key_size >= MIN_RSA_BITS
    return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)


def _public_pem(public: Any) -> str:
    pem: bytes = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _thumbprint(fields: Mapping[str, str]) -> str:
    """RFC 7638: the same name for a key wherever it is computed."""
    required = {name: fields[name] for name in sorted(fields) if name in {"crv", "e", "kty", "n"}}
    if fields["kty"] == "EC":
        required |= {"x": fields["x"], "y": fields["y"]}
    digest = hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def new_pair(algorithm: Algorithm) -> bytes:
    """A fresh private key for `algorithm`, as PEM (PKCS #8, unencrypted)."""
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm is Algorithm.RS256:
        private = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
