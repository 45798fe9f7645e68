"""Permissions: one table of actions and roles, which the services check.

`auth.dependencies` checks the scopes of an API key. After that, this table applies to the key as
to its user.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from app.auth.identity import Identity
from app.core.enums import Role
from app.core.errors import NotAuthorized


class Action(Enum):
    """Actions that need a permission. Each applies to an object that a user owns."""

    READ_PRIVATE_USER = auto()
    CHANGE_USER = auto()
    DELETE_USER = auto()
    CHANGE_ROLE = auto()
    DISABLE_USER = auto()
    RESET_CREDENTIALS = auto()
    OPERATE = auto()
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
    MANAGE_WEBHOOKS = auto()


class Access(Enum):
    """The objects to which an action is allowed: none, the user's own, or any."""

    NONE = auto()
    OWN = auto()
    ANY = auto()


NONE, OWN, ANY = Access


class RoleAccess(NamedTuple):
    """The access of each role."""

    author: Access
    editor: Access
    admin: Access


PERMISSIONS: Mapping[Action, RoleAccess] = {
    #                                  author    editor    admin
    Action.READ_PRIVATE_USER: RoleAccess(OWN, OWN, ANY),
    Action.CHANGE_USER: RoleAccess(OWN, OWN, ANY),
    Action.DELETE_USER: RoleAccess(OWN, OWN, ANY),
    Action.CHANGE_ROLE: RoleAccess(NONE, NONE, ANY),
    Action.DISABLE_USER: RoleAccess(NONE, NONE, ANY),
    Action.RESET_CREDENTIALS: RoleAccess(NONE, NONE, ANY),
    # The pages of administrators and commands: mails, jobs, audit events, counters.
    Action.OPERATE: RoleAccess(NONE, NONE, ANY),
    Action.CHANGE_LIMITS: RoleAccess(NONE, NONE, ANY),
    Action.MANAGE_ADDRESSES: RoleAccess(OWN, OWN, ANY),
    Action.READ_DRAFT: RoleAccess(OWN, ANY, ANY),
    Action.CHANGE_ARTICLE: RoleAccess(OWN, ANY, ANY),
    Action.DELETE_ARTICLE: RoleAccess(OWN, ANY, ANY),
    Action.IMPORT_ARTICLE: RoleAccess(OWN, ANY, ANY),
    Action.MANAGE_MEDIA: RoleAccess(OWN, ANY, ANY),
    Action.CHANGE_TAG: RoleAccess(NONE, ANY, ANY),
    Action.CHANGE_COMMENT: RoleAccess(OWN, OWN, OWN),
    # The owner is the owner of the article.
    Action.MODERATE_COMMENTS: RoleAccess(OWN, ANY, ANY),
    Action.HANDLE_REPORTS: RoleAccess(NONE, ANY, ANY),
    # Who manages all webhooks may subscribe to the events of all users.
    Action.MANAGE_WEBHOOKS: RoleAccess(OWN, OWN, ANY),
}


def _access(role: Role, action: Action) -> Access:
    access = PERMISSIONS[action]
    return {Role.AUTHOR: access.author, Role.EDITOR: access.editor, Role.ADMIN: access.admin}[role]


def roles_allowed_on_any(action: Action) -> list[Role]:
    """Return the roles that may perform `action` on any user's objects."""
    return [role for role in Role if _access(role, action) is ANY]


def may_on_any(actor: Identity | None, action: Action) -> bool:
    """Return whether `actor` may perform `action` on any user's objects; False for None."""
    return actor is not None and _access(actor.role, action) is ANY


def may(actor: Identity | None, action: Action, *, owner_id: int) -> bool:
    """Return whether `actor` may perform `action` on objects of the user `owner_id`."""
    if actor is None:
        return False
    access = _access(actor.role, action)
    return access is ANY or (access is OWN and actor.id == owner_id)


def require(actor: Identity, action: Action, *, owner_id: int) -> None:
    """Raise NotAuthorized unless `actor` may perform `action` on objects of `owner_id`."""
    if not may(actor, action, owner_id=owner_id):
        raise NotAuthorized
