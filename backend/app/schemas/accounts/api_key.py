"""API keys: creation and list."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from app.core import clock
from app.core.enums import Scope
from app.schemas.accounts.passwords import Password
from app.schemas.page import CursorQuery
from app.schemas.types import Id, Input, Line, Output

MAX_LIFETIME = timedelta(days=3653)
"""Ten years. A key that should last longer has no `expires_at`."""

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def _as_rfc_3339(value: Any) -> Any:
    """Accept only RFC 3339 timestamps. Pydantic would also accept Unix seconds, for example."""
    if value is not None and not (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        raise ValueError("must look like 2030-01-31T12:00:00Z, with an offset from UTC")
    return value


def _in_the_future(moment: datetime) -> datetime:
    now = clock.now()
    if not now < moment <= now + MAX_LIFETIME:
        raise ValueError("must be in the future, and within ten years")
    return moment.astimezone(UTC)


def _unique(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes):
        raise ValueError("must name each scope once")
    return sorted(scopes)


Scopes = Annotated[
    list[Scope],
    Field(min_length=1, max_length=len(Scope), json_schema_extra={"uniqueItems": True}),
    AfterValidator(_unique),
]
FutureMoment = Annotated[
    AwareDatetime, BeforeValidator(_as_rfc_3339), AfterValidator(_in_the_future)
]


class ApiKeyCreate(Input):
    """Name, scopes and expiry of a new key. Without `expires_at`, it does not expire.

    A key outlives the session that creates it, so the password is required.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Deployment",
                    "scopes": ["articles:read"],
                    "password": "correct horse battery",
                }
            ]
        }
    )

    name: Annotated[str, Line(100)]
    scopes: Scopes
    expires_at: FutureMoment | None = None
    password: Password


class ApiKeyResponse(Output):
    """An API key without its secret; `hint` contains its first characters."""

    id: int
    name: str
    hint: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class UserApiKey(ApiKeyResponse):
    """An API key with its user, for administrators."""

    user_id: int
    username: str


class ApiKeyCreated(ApiKeyResponse):
    """A new API key. Only this response contains `key`."""

    key: str


class ApiKeyQuery(CursorQuery):
    """Filter and page of the list of all users' keys."""

    user: Id | None = None
