"""Construction of forged tokens, without code of the application."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any
from uuid import uuid4

from app.auth.keys import signing_keys
from app.core.config import get_settings
from app.models import User, UserSession

Json = dict[str, Any]


def segment(part: object) -> str:
    """Encode one part of a token: bytes unchanged, other values as JSON."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsegment(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def changed(original: Json, changes: Json) -> Json:
    """Return `original` with `changes`; None removes a key."""
    return {name: value for name, value in (original | changes).items() if value is not None}


class Forger:
    """Creates tokens for a user and a session, by default signed with the server's secret.

    With the correct secret, the change of a test is the only defect of the token.
    """

    def __init__(self, user: User, login: UserSession) -> None:
        self.user_id, self.session_id = user.id, login.id

    def header(self, **changes: Any) -> Json:
        valid = {
            "alg": get_settings().jwt_algorithm.value,
            "typ": "at+jwt",
            "kid": signing_keys().current.id,
        }
        return changed(valid, changes)

    def claims(self, **changes: Any) -> Json:
        now = int(time.time())
        valid = {
            "iss": "pressroom",
            "aud": "pressroom-api",
            "sub": str(self.user_id),
            "sid": str(self.session_id),
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": uuid4().hex,
        }
        return changed(valid, changes)

    def token(
        self,
        *,
        header: Json | None = None,
        claims: Json | bytes | None = None,
        key: bytes | None = None,
        digest: str = "sha256",
    ) -> str:
        """Return a token with an HMAC, by default with the server's secret."""
        secret = get_settings().secret_key.encode() if key is None else key
        signed = ".".join(
            (
                segment(self.header() if header is None else header),
                segment(self.claims() if claims is None else claims),
            )
        )
        signature = hmac.digest(secret, signed.encode(), getattr(hashlib, digest))
        return f"{signed}.{segment(signature)}"

    def with_header(self, **changes: Any) -> str:
        return self.token(header=self.header(**changes))

    def with_claims(self, **changes: Any) -> str:
        return self.token(claims=self.claims(**changes))

    def unsigned(self, **header: Any) -> str:
        return f"{segment(self.header(**header))}.{segment(self.claims())}."
