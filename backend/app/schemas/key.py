"""Public keys, as RFC 7517 writes them."""

from typing import Literal

from app.schemas.types import Output


class JsonWebKey(Output):
    """A public key: `n` and `e` of RSA, or `crv`, `x` and `y` of an elliptic curve."""

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
    """RFC 7517 §5."""

    keys: list[JsonWebKey]
