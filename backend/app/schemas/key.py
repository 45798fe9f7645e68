"""Public keys in JWK format (RFC 7517)."""

from typing import Literal

from app.schemas.types import MAY_BE_ABSENT, Output


class JsonWebKey(Output):
    """A public key: `n` and `e` for RSA, or `crv`, `x` and `y` for an elliptic curve."""

    model_config = MAY_BE_ABSENT

    kid: str
    kty: Literal["RSA", "EC"]
    use: Literal["sig"]
    alg: Literal["RS256", "ES256"]
    n: str | None = None
    e: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None


class JsonWebKeySet(Output):
    """A set of public keys (RFC 7517 §5)."""

    keys: list[JsonWebKey]
