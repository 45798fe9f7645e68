"""Accounts: find them, change roles and limits, disable them, and end sessions."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

from app.auth.identity import Identity
from app.core.conditional import Precondition, entity_tag
from app.core.enums import Role
from app.core.limits import MAX_AMOUNT, USER_KINDS
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.routing import allowed_in_maintenance
from app.schemas.accounts.api_key import ApiKeyQuery
from app.schemas.accounts.user import (
    AccountQuery,
    ArticlesOfDeleted,
    RoleChange,
    UserDeletionQuery,
    UserPrivate,
)
from app.schemas.limit import UserLimits, UserLimitsUpdate
from app.schemas.page import PageQuery
from app.services import limits
from app.services.accounts import api_keys, recovery, second_factor, sessions, users
from app.web.account.second_factor import SECOND_FACTOR
from app.web.administration.access import Administrator
from app.web.administration.labels import LIMITS, ROLES
from app.web.forms import Form, FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.queries import ObjectId, read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import ConfirmedPageUser, PageWriteSession

router = create_router()

USERS = "/studio/admin/users"
PAGE_SIZE = 50
SHOWN_SESSIONS = 20


@router.get(USERS)
async def list_users(request: Request, reader: ReadConnection, user: Administrator) -> Response:
    """List accounts that match the filters."""
    query = read_query(request, AccountQuery, limit=PAGE_SIZE)
    listed = await users.search_accounts(reader, query=query, user=user)
    return page(
        request,
        "administration/users.html",
        accounts=listed.items,
        query=query,
        roles=ROLES,
        following=listed.next,
    )


async def _account(reader: ReadConnection, user_id: int, user: Identity) -> UserPrivate:
    account = await users.get_user(reader, user_id=user_id, viewer=user)
    assert isinstance(account, UserPrivate)  # noqa: S101 - administrators see all fields
    return account


@router.get("/studio/admin/users/{user_id}")
async def show_user(
    request: Request, reader: ReadConnection, user: Administrator, user_id: ObjectId
) -> Response:
    """Show an account with its sessions, keys and limits."""
    account = await _account(reader, user_id, user)
    of_user = PageQuery(limit=SHOWN_SESSIONS)
    shown = await limits.get_limits(reader, user_id=user_id, actor=user)
    keys = await api_keys.list_all_api_keys(reader, query=ApiKeyQuery(user=user_id), user=user)
    return page(
        request,
        "administration/user.html",
        account=account,
        is_self=account.id == user.id,
        sessions=await sessions.list_sessions_of(reader, user_id=user_id, page=of_user, actor=user),
        keys=keys.items,
        limits=shown.limits,
        uses={
            use.kind: use.used
            for use in await limits.list_uses(reader, user_id=user_id, actor=user)
        },
        version=_version(shown),
        roles=ROLES,
        labels=LIMITS,
    )


def _version(shown: UserLimits) -> str:
    return entity_tag(shown.model_dump_json().encode()).strip('"')


@router.post("/studio/admin/users/{user_id}/role")
@form_page("/studio/admin/users/{user_id}")
async def change_role(
    form: SubmittedForm,
    session: PageWriteSession,
    _admin: Administrator,
    user: ConfirmedPageUser,
    user_id: ObjectId,
) -> Response:
    """Change the role of a user, after the password: a session may have been left open."""
    role = form.read(RoleChange).role
    changed = await users.change_role(
        session, user_id=user_id, role=role, actor=user, precondition=Precondition()
    )
    text = _("%(name)s now has the role “%(role)s”.")
    return _to(user_id, text % {"name": changed.username, "role": _(ROLES[Role(role)])})


def _to(user_id: int, flash: str) -> Response:
    return redirect(f"{USERS}/{user_id}", flash=flash)


@router.post("/studio/admin/users/{user_id}/disable")
@form_page("/studio/admin/users/{user_id}")
async def disable(session: PageWriteSession, user: Administrator, user_id: ObjectId) -> Response:
    """Disable an account."""
    await users.disable_user(session, user_id=user_id, actor=user)
    return _to(user_id, _("The account is disabled. Its sessions have ended."))


@router.post("/studio/admin/users/{user_id}/enable")
@form_page("/studio/admin/users/{user_id}")
async def enable(session: PageWriteSession, user: Administrator, user_id: ObjectId) -> Response:
    """Enable a disabled account."""
    await users.enable_user(session, user_id=user_id, actor=user)
    return _to(user_id, _("The account is enabled."))


@router.post("/studio/admin/users/{user_id}/sessions/end")
@form_page("/studio/admin/users/{user_id}")
@allowed_in_maintenance
async def end_sessions(
    session: PageWriteSession, user: Administrator, user_id: ObjectId
) -> Response:
    """End all sessions of a user."""
    await sessions.end_sessions_of(session, user_id=user_id, actor=user)
    return _to(user_id, _("All sessions of this user have ended."))


@router.post("/studio/admin/users/{user_id}/password-link")
@form_page("/studio/admin/users/{user_id}")
async def mail_password_link(
    session: PageWriteSession, user: Administrator, user_id: ObjectId
) -> Response:
    """Send a link to reset the password."""
    await recovery.mail_password_reset(session, user_id=user_id, actor=user)
    return _to(user_id, _("A mail with a link to reset the password is on its way."))


@router.post("/studio/admin/users/{user_id}/second-factor/remove")
@form_page("/studio/admin/users/{user_id}")
async def remove_second_factor(
    session: PageWriteSession, user: ConfirmedPageUser, user_id: ObjectId
) -> Response:
    """Disable the second factor of a user who has lost it. Their own needs password and code."""
    if user_id == user.id:
        return redirect(f"{SECOND_FACTOR}/disable")
    await second_factor.remove_second_factor(session, user_id=user_id, actor=user)
    return _to(user_id, _("The second factor is disabled."))


@router.post("/studio/admin/users/{user_id}/login-limits/reset")
@form_page("/studio/admin/users/{user_id}")
async def reset_login_limits(
    session: PageWriteSession, user: Administrator, user_id: ObjectId
) -> Response:
    """Let a user sign in at once after too many wrong passwords."""
    await recovery.reset_login_limits(session, user_id=user_id, address=None, actor=user)
    return _to(user_id, _("The user may sign in again at once."))


@router.post("/studio/admin/users/{user_id}/limits")
@form_page("/studio/admin/users/{user_id}")
async def change_limits(
    form: SubmittedForm, session: PageWriteSession, user: Administrator, user_id: ObjectId
) -> Response:
    """Replace the limits of a user that differ from the defaults."""
    tag = form.text("version")
    await limits.replace_limits(
        session,
        user_id=user_id,
        new=UserLimitsUpdate.model_validate({"limits": _amounts(form)}),
        precondition=Precondition(frozenset({f'"{tag}"'}) if tag else None),
        actor=user,
    )
    return _to(user_id, _("The limits were saved."))


def _amounts(form: Form) -> Mapping[str, int]:
    """Return the amounts that are not empty. Raises FormError."""
    amounts: dict[str, int] = {}
    errors: dict[str, Any] = {}
    for kind in USER_KINDS:
        name = f"limit-{kind}"
        number = form.number(name)
        if number is not None and number <= MAX_AMOUNT:
            amounts[kind] = number
        elif form.text(name).strip():
            errors[name] = _("Enter a whole number, or leave the field empty")
    if errors:
        raise FormError(None, **errors)
    return amounts


@router.get("/studio/admin/users/{user_id}/delete")
async def confirm_deletion(
    request: Request,
    reader: ReadConnection,
    _admin: Administrator,
    user: ConfirmedPageUser,
    user_id: ObjectId,
) -> Response:
    """Ask what happens to the articles of an account that is deleted."""
    return page(
        request,
        "administration/user_deletion.html",
        account=await _account(reader, user_id, user),
    )


@router.post("/studio/admin/users/{user_id}/delete")
async def delete(
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    _admin: Administrator,
    user: ConfirmedPageUser,
    user_id: ObjectId,
) -> Response:
    """Delete an account of another user."""
    if form.text("articles") == ArticlesOfDeleted.REASSIGN and not form.text("to"):
        raise FormError(to=_("Enter the username of the new author"))
    reassigns = form.text("articles") == ArticlesOfDeleted.REASSIGN
    await users.delete_user(
        session,
        database=database,
        user_id=user_id,
        query=form.read(UserDeletionQuery, **({} if reassigns else {"to": None})),
        confirmation=None,
        actor=user,
        precondition=Precondition(),
    )
    return redirect(USERS, flash=_("The account was deleted."))
