"""Idempotency keys: a request that its sender repeats is carried out once, and answered alike.

(draft-ietf-httpapi-idempotency-key-header.) The answer is stored in the transaction that it tells
of: a crash leaves both or neither. Until then the transaction holds a lock on the key, so that of
two at once, on whatever replica, the second is told to come back; a rollback frees it.

The lock is taken at a transaction's first statement, for it needs the connection that a handler
does not hold yet while it hashes a password or counts an attempt. A handler that ends the
transaction to wait for something else begins the next one with the lock: two equal requests may
both be prepared, but only one is carried out.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, event, func, select
from sqlalchemy.dialects.postgresql import BYTEA, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import SessionTransaction

from app.auth import sealing
from app.auth.identity import Identity, recheck
from app.auth.keys import derived_keys
from app.core import clock
from app.core.errors import Conflict, IdempotencyKeyReused, RequestInProgress
from app.core.idempotency import AlreadyProcessed, StoredResponse
from app.db.session import Database
from app.models.idempotency_key import IdempotencyKey
from app.services.purging import delete_oldest

KEPT_FOR = timedelta(hours=24)
MAX_BODY_BYTES = 64 * 1024
"""A larger body is not stored: its answer names what it tells of by `Location`."""
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
# Whoever holds the lock has found none that counts: what is there has expired.
_STORE = _STORE.on_conflict_do_update(
    index_elements=[IdempotencyKey.key],
    set_={
        name: _STORE.excluded[name]
        for name in ("fingerprint", "status", "headers", "sealed_body", "created_at")
    },
)


class Claim:
    """The right to carry a request out, the only one under its key; `store` stores its answer."""

    def __init__(
        self, session: AsyncSession, *, names: Sequence[bytes], fingerprints: Sequence[bytes]
    ) -> None:
        """Both may be known by each of our keys; new ones go by the first."""
        self._session = session
        self._names = names
        self._fingerprints = fingerprints

    async def store(self, answer: StoredResponse) -> None:
        """Store the answer in the session's transaction."""
        row = {
            "key": self._names[0],
            "fingerprint": self._fingerprints[0],
            "status": answer.status,
            "headers": dict(answer.headers),
            "sealed_body": _sealed(answer.body),
            "created_at": clock.now(),
        }
        await self._session.execute(_STORE, row)

    def take(self, connection: Connection) -> None:
        """Lock the key until the transaction ends. Raises RequestInProgress, and as `look` does."""
        # The same number, whichever of our keys is the first here and on another replica.
        number = int.from_bytes(min(self._names)[:8], signed=True)
        if not connection.scalar(_TRY_LOCK, {"number": number}):
            raise RequestInProgress(headers={"Retry-After": "1"})
        self.look(connection)

    def look(self, connection: Connection) -> None:
        """Raise AlreadyProcessed, or IdempotencyKeyReused, where the key has an answer.

        Conflict where that cannot be read: SECRET_KEY was changed, and the old one forgotten.
        """
        parameters = {"names": self._names, "since": clock.now() - KEPT_FOR}
        row = connection.execute(_FIND, parameters).first()
        if row is None:
            return
        try:
            body = _unsealed(row.sealed_body)
        except sealing.UnsealError:
            raise Conflict(
                "This Idempotency-Key was used, and its answer cannot be read any more; see what "
                "there is before you choose a new one"
            ) from None
        if not any(hmac.compare_digest(row.fingerprint, mine) for mine in self._fingerprints):
            raise IdempotencyKeyReused
        raise AlreadyProcessed(StoredResponse(row.status, row.headers, body))


async def claim(
    session: AsyncSession,
    *,
    database: Database,
    caller: Identity | None,
    key: str,
    content: Sequence[bytes],
) -> Claim:
    """Claim `key` for a request of this `content`: in each transaction of the session from now on.

    A user's keys are theirs. Nobody's is one with its content: only who can repeat the request,
    password and all, is answered again, and nobody learns which keys others use.

    Raises AlreadyProcessed, IdempotencyKeyReused, RequestInProgress, Conflict; at once where the
    session has begun, else whatever the session is used for first may raise them. Raises
    InvalidToken where the caller's access was withdrawn while the request came in.
    """
    digest = hashlib.sha256(_joined(content)).digest()
    mine = [] if caller is None else [_name_of(caller.id, key)]
    names = mine or _keyed(b"name", key.encode(), digest)
    claimed = Claim(session, names=names, fingerprints=_keyed(b"content", digest))

    def take(session: Any, transaction: SessionTransaction, connection: Connection) -> None:
        if not transaction.nested:
            claimed.take(connection)

    event.listen(session.sync_session, "after_begin", take)
    if session.in_transaction():
        await (await session.connection()).run_sync(claimed.take)
        return claimed
    async with database.autocommit() as lookup:  # spares who repeats it a hash, and an attempt
        if caller is not None:
            await recheck(lookup, caller)
        await lookup.run_sync(claimed.look)
    return claimed


async def was_answered(database: Database, *, user_id: int, key: str) -> bool:
    """Whether the user's key has an answer, whatever the request was."""
    parameters = {"names": [_name_of(user_id, key)], "since": clock.now() - KEPT_FOR}
    async with database.autocommit() as lookup:
        return (await lookup.execute(_FIND, parameters)).first() is not None


async def purge(session: AsyncSession) -> int:
    """Delete a batch of the expired ones; how many."""
    by = IdempotencyKey.created_at
    expired = by <= clock.now() - KEPT_FOR
    return await delete_oldest(session, IdempotencyKey.key, expired, by=by)


def _name_of(user_id: int, key: str) -> bytes:
    """What a user's key is stored by."""
    return hashlib.sha256(_joined((str(user_id).encode(), key.encode()))).digest()


def _sealed(body: bytes | None) -> str:
    """A body as it is stored; nothing of one that is too large."""
    if body is None or len(body) > MAX_BODY_BYTES:
        return ""
    return sealing.seal(body.decode(), purpose=sealing.IDEMPOTENCY)


def _unsealed(stored: str) -> bytes | None:
    """A stored body; None where it was too large. Raises UnsealError."""
    if stored == "":
        return None
    return sealing.unseal(stored, purpose=sealing.IDEMPOTENCY).encode()


def _keyed(*parts: bytes) -> list[bytes]:
    """HMACs under each of our keys: what is sent may hold a password, which a hash would tell."""
    message = _joined(parts)
    return [hmac.digest(secret, message, hashlib.sha256) for secret in derived_keys(PURPOSE)]


def _joined(parts: Sequence[bytes]) -> bytes:
    """The parts as one, and no others give the same."""
    return b"".join(len(part).to_bytes(8) + part for part in parts)
