"""Idempotency keys: a repeated request is executed once and gets the stored response.

The behavior follows draft-ietf-httpapi-idempotency-key-header. The response is stored in the
transaction of the request, so a crash leaves both or neither. The transaction holds an advisory
lock on the key. A concurrent request with the same key gets 409 with Retry-After, on any replica.
A rollback releases the lock.

The lock is acquired at the first statement of a transaction. Before that, a handler that hashes a
password or counts an attempt holds no connection. A handler that ends its transaction acquires the
lock again in the next one. Two equal requests may both start, but only one is executed.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, event, func, select
from sqlalchemy.dialects.postgresql import BYTEA, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import SessionTransaction

from app.auth import sealing
from app.auth.identity import Identity, recheck
from app.auth.keys import derived_keys
from app.core import clock
from app.core.errors import Conflict, IdempotencyKeyReused, RequestInProgress
from app.db.session import Database
from app.models.idempotency_key import IdempotencyKey
from app.services.purging import Batch, delete_oldest

RETENTION = timedelta(hours=24)
MAX_BODY_BYTES = 64 * 1024
"""Larger bodies are not stored. The `Location` header of the response names the resource."""
PURPOSE = "idempotency key"

_TRY_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger)))
_FIND = select(
    IdempotencyKey.fingerprint,
    IdempotencyKey.status,
    IdempotencyKey.headers,
    IdempotencyKey.sealed_body,
).where(
    IdempotencyKey.key.in_(bindparam("names", type_=BYTEA, expanding=True)),
    IdempotencyKey.created_at > bindparam("since"),
)
_STORE = insert(IdempotencyKey)
# The lock holder has found no valid row, so a conflicting row has expired.
_STORE = _STORE.on_conflict_do_update(
    index_elements=[IdempotencyKey.key],
    set_={
        name: _STORE.excluded[name]
        for name in ("fingerprint", "status", "headers", "sealed_body", "created_at")
    },
)


class StoredResponse(NamedTuple):
    """The response to an idempotent request."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    """None if the body was too large to store: the created resource is read again."""


LoadBody = Callable[[StoredResponse], Awaitable[StoredResponse]]
"""Completes a stored response without a body.

Raises PressroomError if the created resource can no longer be read.
"""


class AlreadyProcessed(Exception):
    """The request was processed before: send `response` again and change nothing."""

    def __init__(self, response: StoredResponse, load_body: LoadBody | None) -> None:
        super().__init__()
        self.response = response
        self.load_body = load_body


class Claim:
    """The exclusive right to execute a request under its key; `store` stores the response."""

    def __init__(
        self,
        session: AsyncSession,
        *,
        names: Sequence[bytes],
        fingerprints: Sequence[bytes],
        load_body: LoadBody | None,
    ) -> None:
        """Both sequences contain one value per secret key; new rows use the first one."""
        self._session = session
        self._names = names
        self._fingerprints = fingerprints
        self._load_body = load_body

    async def store(self, answer: StoredResponse) -> None:
        """Store the response in the session's transaction."""
        row = {
            "key": self._names[0],
            "fingerprint": self._fingerprints[0],
            "status": answer.status,
            "headers": dict(answer.headers),
            "sealed_body": _encrypt_body(answer.body),
            "created_at": clock.now(),
        }
        await self._session.execute(_STORE, row)

    def lock(self, connection: Connection) -> None:
        """Lock the key until the transaction ends.

        Raises RequestInProgress, and the errors of `raise_if_answered`.
        """
        # The minimum does not depend on the order of the secret keys, so replicas agree on it.
        number = int.from_bytes(min(self._names)[:8], signed=True)
        if not connection.scalar(_TRY_LOCK, {"number": number}):
            raise RequestInProgress
        self.raise_if_answered(connection)

    def raise_if_answered(self, connection: Connection) -> None:
        """Raise AlreadyProcessed or IdempotencyKeyReused if the key has a stored response.

        Raises Conflict if the response cannot be decrypted, because SECRET_KEY was replaced.
        """
        parameters = {"names": self._names, "since": clock.now() - RETENTION}
        row = connection.execute(_FIND, parameters).first()
        if row is None:
            return
        try:
            body = _decrypt_body(row.sealed_body)
        except sealing.UnsealError:
            raise Conflict(
                "This Idempotency-Key was used, and its response can no longer be read. Check "
                "whether the resource exists before you repeat the request with a new key"
            ) from None
        if not any(hmac.compare_digest(row.fingerprint, known) for known in self._fingerprints):
            raise IdempotencyKeyReused
        raise AlreadyProcessed(StoredResponse(row.status, row.headers, body), self._load_body)


async def claim(
    session: AsyncSession,
    *,
    database: Database,
    caller: Identity | None,
    key: str,
    content: Sequence[bytes],
    load_body: LoadBody | None = None,
) -> Claim:
    """Claim `key` for a request with this `content` in all further transactions of the session.

    `load_body` completes a response that was too large to store.

    Keys of users are separate. A key of an anonymous client is combined with the content. Only a
    client that repeats the complete request, including a password, gets the stored response. The
    response does not reveal which keys other clients use.

    Raises AlreadyProcessed, IdempotencyKeyReused, RequestInProgress, Conflict. If the session has
    not begun, its first statement may raise them. Raises InvalidToken if the caller's access was
    revoked during the request.
    """
    digest = hashlib.sha256(_encode_parts(content)).digest()
    user_keys = [] if caller is None else [_key_hash(caller.id, key)]
    names = user_keys or _hmacs(b"name", key.encode(), digest)
    claimed = Claim(
        session, names=names, fingerprints=_hmacs(b"content", digest), load_body=load_body
    )

    def lock(session: Any, transaction: SessionTransaction, connection: Connection) -> None:
        if not transaction.nested:
            claimed.lock(connection)

    event.listen(session.sync_session, "after_begin", lock)
    if session.in_transaction():
        await (await session.connection()).run_sync(claimed.lock)
        return claimed
    # An early lookup saves a repeated request the hashing of a password and a counted attempt.
    async with database.autocommit() as lookup:
        if caller is not None:
            await recheck(lookup, caller)
        await lookup.run_sync(claimed.raise_if_answered)
    return claimed


async def was_answered(database: Database, *, user_id: int, key: str) -> bool:
    """Return whether a response is stored for the user's key, for any request."""
    parameters = {"names": [_key_hash(user_id, key)], "since": clock.now() - RETENTION}
    async with database.autocommit() as lookup:
        return (await lookup.execute(_FIND, parameters)).first() is not None


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of expired keys; return how many."""
    column = IdempotencyKey.created_at
    expired = column <= clock.now() - RETENTION
    return await delete_oldest(session, batch, IdempotencyKey.key, expired, order_by=column)


def _key_hash(user_id: int, key: str) -> bytes:
    """Return the hash under which a user's key is stored."""
    return hashlib.sha256(_encode_parts((str(user_id).encode(), key.encode()))).digest()


def _encrypt_body(body: bytes | None) -> str:
    """Encrypt a body for storage; return "" for a body that is too large."""
    if body is None or len(body) > MAX_BODY_BYTES:
        return ""
    return sealing.seal(body.decode(), purpose=sealing.IDEMPOTENCY)


def _decrypt_body(stored: str) -> bytes | None:
    """Decrypt a stored body; return None if it was too large. Raises UnsealError."""
    if stored == "":
        return None
    return sealing.unseal(stored, purpose=sealing.IDEMPOTENCY).encode()


def _hmacs(*parts: bytes) -> list[bytes]:
    """Return an HMAC per secret key. A plain hash of a request could reveal its password."""
    message = _encode_parts(parts)
    return [hmac.digest(secret, message, hashlib.sha256) for secret in derived_keys(PURPOSE)]


def _encode_parts(parts: Sequence[bytes]) -> bytes:
    """Return an unambiguous concatenation of the parts, each prefixed with its length."""
    return b"".join(len(part).to_bytes(8) + part for part in parts)
