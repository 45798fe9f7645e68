"""What administrators read about the server: the audit trail, the mail queue and the settings."""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    String,
    and_,
    bindparam,
    case,
    literal,
    select,
    true,
)

from app.auth.identity import COMMAND_LINE, Identity, recheck
from app.auth.permissions import Action, require
from app.core.config import SECRETS, Settings
from app.core.streams import Deadline
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import Database
from app.models.accounts.user import User
from app.models.audit import AuditEvent
from app.models.mail import Mail
from app.schemas.audit import AuditEventResponse, AuditFilter, AuditQuery
from app.schemas.mail import MailQuery, MailResponse, MailState
from app.services.pages.keyset import Keyset, keyset, read_page
from app.services.pages.paging import ListPage

_EVENT = Selection.of(AuditEventResponse, AuditEvent, actor=User.username)
_EVENTS = select(*_EVENT.columns).join(User, User.id == AuditEvent.actor_id, isouter=True)
_AT = AuditEvent.occurred_at
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "action": AuditEvent.action == bindparam("action", type_=String),
    "actor": AuditEvent.actor_id == bindparam("actor", type_=BigInteger),
    "subject": AuditEvent.subject_type == bindparam("subject", type_=String),
    "subject_id": AuditEvent.subject_id == bindparam("subject_id", type_=BigInteger),
    "since": bindparam("since", type_=_AT.type) <= _AT,
    "until": bindparam("until", type_=_AT.type) > _AT,
}
"""The condition of each filter of AuditFilter."""
EXPORT_BATCH = 1000


@lru_cache
def _events(given: frozenset[str]) -> Keyset[AuditEventResponse]:
    """Return the list with these filters: a statement with all of them would use no index."""
    conditions = (condition for name, condition in _FILTERS.items() if name in given)
    return keyset("audit trail", _EVENT, _EVENTS.where(*conditions), AuditEvent.id)


_MAIL_STATE = case(
    (Mail.sent_at.is_not(None), literal(MailState.SENT.value)),
    (Mail.next_attempt_at.is_not(None), literal(MailState.WAITING.value)),
    else_=literal(MailState.FAILED.value),
)
_MAIL = Selection.of(MailResponse, Mail, state=_MAIL_STATE)
_MAILS: Mapping[MailState | None, Keyset[MailResponse]] = {
    state: keyset("mails", _MAIL, select(*_MAIL.columns).where(condition), Mail.id)
    for state, condition in {
        None: true(),
        MailState.SENT: Mail.sent_at.is_not(None),
        MailState.WAITING: and_(Mail.sent_at.is_(None), Mail.next_attempt_at.is_not(None)),
        MailState.FAILED: and_(Mail.sent_at.is_(None), Mail.next_attempt_at.is_(None)),
    }.items()
}
"""The list of each state: a condition on a parameter would use no index."""


async def list_events(
    reader: Reader, *, query: AuditQuery, user: Identity
) -> ListPage[AuditEventResponse]:
    """List recorded actions, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.OPERATE, owner_id=user.id)
    given = _given(query)
    listing = _events(frozenset(given))
    return await read_page(reader, listing, query=query, parameters=given, of=given)


def _given(query: AuditFilter) -> Mapping[str, Any]:
    values = ((name, getattr(query, name)) for name in _FILTERS)
    return {name: value for name, value in values if value is not None}


async def export_events(
    database: Database, *, query: AuditFilter, user: Identity, deadline: Deadline | None = None
) -> AsyncIterator[bytes]:
    """Return recorded actions as NDJSON, newest first, in batches. Raises NotAuthorized."""
    require(user, Action.OPERATE, owner_id=user.id)
    return _export(database, query, user, deadline)


async def _export(
    database: Database, query: AuditFilter, user: Identity, deadline: Deadline | None
) -> AsyncIterator[bytes]:
    """Yield the batches until `deadline`. The user is checked again before each one.

    Raises InvalidToken, NotAuthorized and RequestTimedOut. This closes the connection, so that the
    client notices the incomplete export.
    """
    given = _given(query)
    listing = _events(frozenset(given))
    statement, parameters = listing.first, {**given, "limit": EXPORT_BATCH}
    while rows := await database.reader.execute(statement, parameters):
        if deadline is not None:
            deadline.check()
        if user is not COMMAND_LINE:
            async with database.autocommit() as primary:
                user = await recheck(primary, user)
            require(user, Action.OPERATE, owner_id=user.id)
        events = map(listing.selection.read, rows)
        yield b"".join(event.model_dump_json().encode() + b"\n" for event in events)
        statement, parameters["place_0"] = listing.after, rows[-1].place_0


async def list_mails(reader: Reader, *, query: MailQuery, user: Identity) -> ListPage[MailResponse]:
    """List queued and sent mails, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.OPERATE, owner_id=user.id)
    listing = _MAILS[query.state]
    return await read_page(reader, listing, query=query, parameters={}, of=query.state or "")


class SettingValue(NamedTuple):
    """A setting. `value` is None for a secret."""

    name: str
    value: str | None
    is_set: bool
    """Whether the environment sets it; otherwise it has its default."""


def list_settings(settings: Settings, *, user: Identity) -> Sequence[SettingValue]:
    """List all settings by name, without the values of secrets. Raises NotAuthorized."""
    require(user, Action.OPERATE, owner_id=user.id)
    return [
        SettingValue(
            name.upper(),
            None if name in SECRETS else _text(getattr(settings, name)),
            name in settings.model_fields_set,
        )
        for name in sorted(Settings.model_fields)
    ]


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{name}={each}" for name, each in value.items())
    return str(value)
