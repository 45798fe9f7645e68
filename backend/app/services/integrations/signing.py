"""Secrets and signatures of webhooks, as Standard Webhooks 1.0 define them."""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """Return a random secret."""
    return PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(
    body: bytes, *, message_id: UUID, moment: datetime, signed_with: Iterable[str]
) -> Mapping[str, str]:
    """Return the headers of a message: its id, the time of the attempt, a signature per secret."""
    name, seconds = f"msg_{message_id.hex}", str(int(moment.timestamp()))
    content = f"{name}.{seconds}.".encode() + body
    signatures = (
        b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode()
        for secret in signed_with
    )
    return {
        "webhook-id": name,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix(PREFIX))
