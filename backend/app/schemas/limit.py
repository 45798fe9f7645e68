"""Limits of a user, their use, and overrides by administrators."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StrictInt, WithJsonSchema

from app.core.limits import ADDRESS_KINDS, MAX_AMOUNT, LimitKind
from app.schemas.types import Input, Output, WithoutPoint


def _of_users(kind: LimitKind) -> LimitKind:
    if kind in ADDRESS_KINDS:
        raise ValueError("applies to client addresses; use the setting LIMITS to change it")
    return kind


UserLimitKind = Annotated[
    LimitKind,
    AfterValidator(_of_users),
    WithJsonSchema(
        {"type": "string", "enum": [kind.value for kind in LimitKind if kind not in ADDRESS_KINDS]}
    ),
]
Amount = Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT), WithoutPoint]


class LimitResponse(Output):
    """A limit: a rate if `seconds` is set, otherwise a total."""

    kind: LimitKind
    amount: int | None
    """null means no limit."""
    default: int | None
    """The amount for the user's role, which applies unless an administrator has overridden it."""
    seconds: int | None
    """The window in seconds after which the whole amount is available again."""


class UserLimits(Output):
    """All limits of a user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "limits": [
                        {"kind": "comments", "amount": 1200, "default": 600, "seconds": 3600},
                        {"kind": "drafts", "amount": 2000, "default": 2000, "seconds": None},
                    ]
                }
            ]
        }
    )

    limits: Sequence[LimitResponse]


class LimitUseResponse(Output):
    """The current use of a limit."""

    kind: LimitKind
    used: int
    amount: int | None
    seconds: int | None


class UserLimitsUpdate(Input):
    """Amounts by kind; kinds that are not listed use the default."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"comments": 1200}}]})

    limits: dict[UserLimitKind, Amount]
