"""Cursors: opaque, signed positions in a list.

The signature prevents forged cursors, and the use of a cursor with another list.
"""

import hmac
import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256

from app.auth.keys import derived_keys
from app.core.errors import InvalidCursor

PURPOSE = "list cursor"
MAC_BYTES = 12

Scalar = str | int | float | bool | None


def encode_cursor(kind: str, values: Sequence[Scalar]) -> str:
    """Return the cursor for a position; `kind` identifies the list and its filters."""
    payload = json.dumps(list(values), separators=(",", ":"), ensure_ascii=False).encode()
    return urlsafe_b64encode(_mac(derived_keys(PURPOSE)[0], kind, payload) + payload).decode()


def decode_cursor(cursor: str, kind: str) -> list[Scalar]:
    """Return the position in a cursor of this list. Raises InvalidCursor."""
    try:
        raw = b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError as error:
        raise InvalidCursor from error
    mac, payload = raw[:MAC_BYTES], raw[MAC_BYTES:]
    if not any(hmac.compare_digest(mac, _mac(key, kind, payload)) for key in derived_keys(PURPOSE)):
        raise InvalidCursor
    values: list[Scalar] = json.loads(payload)
    return values


def _mac(key: bytes, kind: str, payload: bytes) -> bytes:
    return hmac.digest(key, kind.encode() + b"\0" + payload, sha256)[:MAC_BYTES]
