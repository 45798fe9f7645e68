"""Who may do what: one table of action, role and ownership, which services ask.

What an API key may be used for at all, its scopes, is asked where a request comes in
(`auth.dependencies`); this table then holds for it as for its user.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from app.auth.identity import Identity
from app.core.errors import NotAuthorized
from app.core.roles import Role


class Action(Enum):
    """What a rule is about; each is done to something that a user owns."""

    READ_PRIVATE_USER = auto()
    CHANGE_USER = auto()
    DELETE_USER = auto()
    CHANGE_ROLE = auto()
    DISABLE_USER = auto()
    CHANGE_LIMITS = auto()
    MANAGE_ADDRESSES = auto()
    READ_DRAFT = auto()
    CHANGE_ARTICLE = auto()
    DELETE_ARTICLE = auto()
    IMPORT_ARTICLE = auto()
    MANAGE_MEDIA = auto()
    CHANGE_TAG = auto()
    CHANGE_COMMENT = auto()
    MODERATE_COMMENTS = auto()
    HANDLE_REPORTS = auto()


class Reach(Enum):
    """To whose things something may be done."""

    NOBODYS = auto()
    OWN = auto()
    ANYBODYS = auto()


NOBODYS, OWN, ANYBODYS = Reach


class Reaches(NamedTuple):
    """How far an action goes, for each role."""

    author: Reach
    editor: Reach
    admin: Reach


PERMISSIONS: Mapping[Action, Reaches] = {
    #                                  author    editor    admin
    Action.READ_PRIVATE_USER: Reaches(OWN, OWN, ANYBODYS),
    Action.CHANGE_USER: Reaches(OWN, OWN, ANYBODYS),
    Action.DELETE_USER: Reaches(OWN, OWN, ANYBODYS),
    Action.CHANGE_ROLE: Reaches(NOBODYS, NOBODYS, ANYBODYS),
    Action.DISABLE_USER: Reaches(NOBODYS, NOBODYS, ANYBODYS),
    Action.CHANGE_LIMITS: Reaches(NOBODYS, NOBODYS, ANYBODYS),
    Action.MANAGE_ADDRESSES: Reaches(OWN, OWN, ANYBODYS),
    Action.READ_DRAFT: Reaches(OWN, ANYBODYS, ANYBODYS),
    Action.CHANGE_ARTICLE: Reaches(OWN, ANYBODYS, ANYBODYS),
    Action.DELETE_ARTICLE: Reaches(OWN, ANYBODYS, ANYBODYS),
    Action.IMPORT_ARTICLE: Reaches(OWN, ANYBODYS, ANYBODYS),
    Action.MANAGE_MEDIA: Reaches(OWN, ANYBODYS, ANYBODYS),
    Action.CHANGE_TAG: Reaches(NOBODYS, ANYBODYS, ANYBODYS),
    Action.CHANGE_COMMENT: Reaches(OWN, OWN, OWN),
    # Of an article that one owns.
    Action.MODERATE_COMMENTS: Reaches(OWN, ANYBODYS, ANYBODYS),
    Action.HANDLE_REPORTS: Reaches(NOBODYS, ANYBODYS, ANYBODYS),
}


def _reach(role: Role, action: Action) -> Reach:
    reaches = PERMISSIONS[action]
    return {Role.AUTHOR: reaches.author, Role.EDITOR: reaches.editor, Role.ADMIN: reaches.admin}[
        role
    ]


def roles_to_any(action: Action) -> list[Role]:
    """The roles that may do `action` to the things of any user."""
    return [role for role in Role if _reach(role, action) is ANYBODYS]


def may_to_any(actor: Identity | None, action: Action) -> bool:
    """Whether `actor` may do `action` whoever owns the thing; anonymous (None) never may."""
    return actor is not None and _reach(actor.role, action) is ANYBODYS


def may(actor: Identity | None, action: Action, *, owner_id: int) -> bool:
    """Whether `actor` may do `action` to what `owner_id` owns."""
    if actor is None:
        return False
    reach = _reach(actor.role, action)
    return reach is ANYBODYS or (reach is OWN and actor.id == owner_id)


def require(actor: Identity, action: Action, *, owner_id: int) -> None:
    """Raise NotAuthorized unless `actor` may do `action` to what `owner_id` owns."""
    if not may(actor, action, owner_id=owner_id):
        raise NotAuthorized
