"""What administrators read about the server: the audit trail, the mail queue and the settings."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import String, bindparam, case, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core.config import SECRETS, Settings
from app.db.reading import Reader
from app.db.selection import Selection
from app.models.accounts.user import User
from app.models.audit import AuditEvent
from app.models.mail import Mail
from app.schemas.audit import AuditEventResponse, AuditQuery
from app.schemas.mail import MailQuery, MailResponse, MailState
from app.services.pages.keyset import Keyset, keyset, read_page
from app.services.pages.paging import ListPage

_EVENT = Selection.of(AuditEventResponse, AuditEvent, actor=User.username)
_EVENTS = select(*_EVENT.columns).join(User, User.id == AuditEvent.actor_id, isouter=True)
_FILTERS: Mapping[str, InstrumentedAttribute[Any]] = {
    "action": AuditEvent.action,
    "actor_id": AuditEvent.actor_id,
    "subject": AuditEvent.subject_type,
    "subject_id": AuditEvent.subject_id,
}


@lru_cache
def _events(given: frozenset[str]) -> Keyset[AuditEventResponse]:
    """Return the list with these filters: a statement with all of them would use no index."""
    conditions = (
        column == bindparam(name, type_=column.type)
        for name, column in _FILTERS.items()
        if name in given
    )
    return keyset("audit trail", _EVENT, _EVENTS.where(*conditions), AuditEvent.id)


_MAIL_STATE = case(
    (Mail.sent_at.is_not(None), literal(MailState.SENT.value)),
    (Mail.next_attempt_at.is_not(None), literal(MailState.WAITING.value)),
    else_=literal(MailState.FAILED.value),
)
_MAIL = Selection.of(MailResponse, Mail, state=_MAIL_STATE)
_WANTED = bindparam("state", type_=String)
_HAS_STATE = or_(_WANTED.is_(None), _MAIL_STATE == _WANTED)
_MAILS = keyset("mails", _MAIL, select(*_MAIL.columns).where(_HAS_STATE), Mail.id)


async def list_events(
    reader: Reader, *, query: AuditQuery, user: Identity
) -> ListPage[AuditEventResponse]:
    """List recorded actions, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.OPERATE, owner_id=user.id)
    filters = {
        "action": query.action,
        "actor_id": query.actor,
        "subject": query.subject,
        "subject_id": query.subject_id,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    listing = _events(frozenset(given))
    return await read_page(reader, listing, query=query, parameters=given, of=given)


async def list_mails(reader: Reader, *, query: MailQuery, user: Identity) -> ListPage[MailResponse]:
    """List queued and sent mails, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.OPERATE, owner_id=user.id)
    state = query.state and query.state.value
    return await read_page(reader, _MAILS, query=query, parameters={"state": state}, of=state or "")


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
