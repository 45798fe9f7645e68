"""Cryptographic keys. The first key of each set signs or encrypts; all keys verify or decrypt.

Access tokens are signed with SECRET_KEY (HS256) or with a key pair (RS256, ES256). Their `kid`
header names the key. Other features use keys derived from SECRET_KEY, one per purpose. A token
for one purpose is therefore invalid for another.
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
    """A key for access tokens.

    `signer` is None for a public key. `public` is the JWK (RFC 7517), None for a shared secret.
    """

    id: str
    signer: Key | None
    verifier: Key
    public: Mapping[str, str] | None


class SigningKeys(NamedTuple):
    """All keys whose tokens are accepted, by `kid`, and the key that signs new tokens."""

    algorithm: Algorithm
    current: SigningKey
    by_id: Mapping[str, SigningKey]


@lru_cache(maxsize=1)
def signing_keys() -> SigningKeys:
    """Return the configured keys, which are read once. Raises SetupError for an invalid file."""
    settings = get_settings()
    keys = (
        _hs256_keys(settings) if settings.jwt_algorithm is Algorithm.HS256 else _key_pairs(settings)
    )
    return SigningKeys(settings.jwt_algorithm, keys[0], {key.id: key for key in reversed(keys)})


def public_keys() -> list[Mapping[str, str]]:
    """Return the JWKs of all key pairs; an empty list for HS256."""
    return [key.public for key in signing_keys().by_id.values() if key.public is not None]


@lru_cache(maxsize=16)
def derived_keys(purpose: str) -> tuple[bytes, ...]:
    """Derive keys of 32 bytes for `purpose`: from SECRET_KEY, then from SECRET_KEYS_PREVIOUS."""
    settings = get_settings()
    message = f"pressroom {purpose}".encode()
    return tuple(
        hmac.digest(secret.encode(), message, hashlib.sha256)
        for secret in (settings.secret_key, *settings.secret_keys_previous)
    )


def _hs256_keys(settings: Settings) -> list[SigningKey]:
    return [
        SigningKey(id=secret_id(secret), signer=key, verifier=key, public=None)
        for secret in (settings.secret_key, *settings.secret_keys_previous)
        for key in [jwk.construct(secret, Algorithm.HS256)]
    ]


def secret_id(secret: str) -> str:
    """Return the `kid` of a secret, which does not reveal the secret."""
    return hashlib.sha256(b"pressroom kid:" + secret.encode()).hexdigest()[:16]


def _key_pairs(settings: Settings) -> list[SigningKey]:
    assert settings.jwt_private_key_file is not None  # noqa: S101 - validated by Settings
    current = read_key_pair(settings.jwt_private_key_file, settings.jwt_algorithm)
    if current.signer is None:
        raise SetupError(f"JWT_PRIVATE_KEY_FILE: {settings.jwt_private_key_file} is a public key")
    previous = settings.jwt_previous_key_files
    return [current, *(read_key_pair(path, settings.jwt_algorithm) for path in previous)]


def read_key_pair(path: Path, algorithm: Algorithm) -> SigningKey:
    """Read the key in a PEM file; it can sign if the file contains a private key.

    A relative path starts at the project directory. `keys/…` therefore works on the host and in
    the containers, where that folder is mounted at the root. Raises SetupError if the file cannot
    be read or contains no key for `algorithm`.
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
        raise SetupError(f"{path} is not a PEM file with an unencrypted key") from error
    if not _is_suitable(public, algorithm):
        raise SetupError(
            f"{path} contains no key for {algorithm}, which requires {_REQUIREMENTS[algorithm]}"
        )
    verifier = jwk.construct(_public_pem(public), algorithm)
    fields = {name: _decoded(value) for name, value in verifier.to_dict().items()}
    identifier = _thumbprint(fields)
    return SigningKey(
        id=identifier,
        signer=None if private is None else jwk.construct(pem.decode(), algorithm),
        verifier=verifier,
        public={**fields, "kid": identifier, "use": "sig", "alg": algorithm.value},
    )


_REQUIREMENTS = {
    Algorithm.RS256: f"an RSA key of at least {MIN_RSA_BITS} bits",
    Algorithm.ES256: "a key on the elliptic curve P-256",
}


def _is_suitable(public: Any, algorithm: Algorithm) -> bool:
    if algorithm is Algorithm.RS256:
        return isinstance(public, rsa.RSAPublicKey) and public.key_size >= MIN_RSA_BITS
    return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)


def _public_pem(public: Any) -> str:
    pem: bytes = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode()


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _thumbprint(fields: Mapping[str, str]) -> str:
    """Return the JWK thumbprint (RFC 7638), which identifies the key everywhere."""
    required = {name: fields[name] for name in sorted(fields) if name in {"crv", "e", "kty", "n"}}
    if fields["kty"] == "EC":
        required |= {"x": fields["x"], "y": fields["y"]}
    digest = hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def new_private_key(algorithm: Algorithm) -> bytes:
    """Return a new private key for `algorithm` in PEM format (PKCS #8, unencrypted)."""
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
