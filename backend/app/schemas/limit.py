"""Limits of a user: what they are, how much is used, and what an administrator sets."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StrictInt

from app.core.limits import ADDRESS_KINDS, MAX_AMOUNT, LimitKind
from app.schemas.types import Input, Output, WithoutPoint


def _of_users(kind: LimitKind) -> LimitKind:
    if kind in ADDRESS_KINDS:
        raise ValueError("is counted by client address; only the setting LIMITS changes it")
    return kind


UserLimitKind = Annotated[LimitKind, AfterValidator(_of_users)]
Amount = Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT), WithoutPoint]


class LimitResponse(Output):
    """A limit: a rate where it has `seconds`, else a total."""

    kind: LimitKind
    amount: int | None
    """null: no limit."""
    default: int | None
    """The amount for the user's role, which counts unless an administrator has set another."""
    seconds: int | None
    """The window within which the amount can be used again."""


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
    """How much of a limit is used at this moment."""

    kind: LimitKind
    used: int
    amount: int | None
    seconds: int | None


class UserLimitsUpdate(Input):
    """Amounts by kind; what is not named goes back to the default."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limits": {"comments": 1200}}]})

    limits: dict[UserLimitKind, Amount]
