"""Who may do what: one table of action, role and ownership, which services ask."""

from enum import Enum, auto

from app.auth.identity import Identity
from app.core.errors import NotAuthorized
from app.core.roles import Role


class Action(Enum):
    """What a rule is about; each is done to something that a user owns."""

    READ_PRIVATE_USER = auto()
    CHANGE_USER = auto()
    DELETE_USER = auto()
    MANAGE_ADDRESSES = auto()
    READ_DRAFT = auto()
    CHANGE_ARTICLE = auto()
    DELETE_ARTICLE = auto()


_ANYBODYS: dict[Role, frozenset[Action]] = {
    Role.AUTHOR: frozenset(),
    Role.EDITOR: frozenset({Action.READ_DRAFT, Action.CHANGE_ARTICLE, Action.DELETE_ARTICLE}),
    Role.ADMIN: frozenset(Action),
}
"""What each role may do to what belongs to others; to their own, everybody may do everything."""


def may_to_any(actor: Identity | None, action: Action) -> bool:
    """Whether `actor` may do `action` whoever owns the thing; anonymous (None) never may."""
    return actor is not None and action in _ANYBODYS[actor.role]


def may(actor: Identity | None, action: Action, *, owner_id: int) -> bool:
    """Whether `actor` may do `action` to what `owner_id` owns."""
    return may_to_any(actor, action) or (actor is not None and actor.id == owner_id)


def require(actor: Identity, action: Action, *, owner_id: int) -> None:
    """Raise NotAuthorized unless `actor` may do `action` to what `owner_id` owns."""
    if not may(actor, action, owner_id=owner_id):
        raise NotAuthorized
