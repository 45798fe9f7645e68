"""/users: read, update and delete accounts. Registration is in routers.accounts.registration."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response, status

from app.auth.dependencies import (
    Actor,
    ConfirmingUser,
    RequiredUsersViewer,
    UsersActor,
    UsersViewer,
)
from app.auth.identity import Identity
from app.core.errors import (
    EmailTaken,
    IncorrectCode,
    IncorrectPassword,
    LastAdmin,
    LimitReached,
    NotAuthorized,
    PasswordRequired,
    SessionRequired,
    TooManyAttempts,
    UsernameTaken,
    UserNotFound,
)
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.caching import last_modified
from app.routers.parameters import IfMatch, Page, UserId
from app.routers.responses import create_router, errors
from app.schemas.accounts.user import (
    RoleChange,
    UserDeletion,
    UserDeletionQuery,
    UserPrivate,
    UserPublic,
    UserReplace,
    UserUpdate,
)
from app.services.accounts import users

router = create_router(prefix="/users", tag="users")

CHANGE_ERRORS = (PasswordRequired, SessionRequired, UserNotFound, EmailTaken, UsernameTaken)
DELETION_RESPONSES = errors(
    LimitReached,
    NotAuthorized,
    PasswordRequired,
    IncorrectPassword,
    IncorrectCode,
    UserNotFound,
    LastAdmin,
    TooManyAttempts,
)


@router.get("", response_model=list[UserPrivate | UserPublic])
async def list_users(
    connection: ReadConnection, viewer: UsersViewer, page: Page, response: Response
) -> Sequence[UserPublic]:
    """List users by id; administrators also see private fields."""
    listed = await users.list_users(connection, page=page, viewer=viewer)
    response.headers.update(last_modified(users.visible_update_times(listed)))
    return listed


@router.get("/me", response_model=UserPrivate)
async def read_own_user(user: RequiredUsersViewer) -> Identity:
    """Read your own account."""
    return user


@router.patch(
    "/me",
    responses=errors(LimitReached, *CHANGE_ERRORS),
)
async def update_own_user(
    session: WriteSession, actor: UsersActor, changes: UserUpdate, precondition: IfMatch
) -> UserPrivate:
    """Update fields of your own account; for the email, use `POST /users/me/email`."""
    return await users.update_user(
        session, user_id=actor.id, changes=changes, actor=actor, precondition=precondition
    )


@router.get(
    "/{user_id:user_id}", response_model=UserPrivate | UserPublic, responses=errors(UserNotFound)
)
async def read_user(connection: ReadConnection, viewer: UsersViewer, user_id: UserId) -> UserPublic:
    """Read a user; private fields are visible to the user and to administrators."""
    return await users.get_user(connection, user_id=user_id, viewer=viewer)


@router.put(
    "/{user_id:user_id}",
    responses=errors(LimitReached, NotAuthorized, *CHANGE_ERRORS),
)
async def replace_user(
    session: WriteSession,
    actor: UsersActor,
    user_id: UserId,
    new: UserReplace,
    precondition: IfMatch,
) -> UserPrivate:
    """Replace an account. Only administrators may change other accounts.

    To change your own email, use `POST /users/me/email`.
    """
    return await users.update_user(
        session, user_id=user_id, changes=new, actor=actor, precondition=precondition
    )


@router.delete(
    "/{user_id:user_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=DELETION_RESPONSES,
)
async def delete_user(
    *,
    session: WriteSession,
    database: CurrentDatabase,
    actor: ConfirmingUser,
    user_id: UserId,
    query: Annotated[UserDeletionQuery, Query()],
    precondition: IfMatch,
    confirmation: UserDeletion | None = None,
) -> None:
    """Delete an account; its articles go to the trash or to another author.

    Your own account requires its password in the body, and a code if it has a second factor.
    Administrators delete other accounts without a body.
    """
    await users.delete_user(
        session,
        database=database,
        user_id=user_id,
        query=query,
        confirmation=confirmation,
        actor=actor,
        precondition=precondition,
    )


@router.patch(
    "/{user_id:user_id}/role",
    responses=errors(LimitReached, NotAuthorized, UserNotFound, LastAdmin),
)
async def change_role(
    session: WriteSession, actor: Actor, user_id: UserId, change: RoleChange, precondition: IfMatch
) -> UserPrivate:
    """Change the role of a user, as an administrator; `If-Match` is the user's ETag."""
    return await users.change_role(
        session, user_id=user_id, role=change.role, actor=actor, precondition=precondition
    )


@router.post(
    "/{user_id:user_id}/disable",
    responses=errors(LimitReached, NotAuthorized, UserNotFound, LastAdmin),
)
async def disable_user(session: WriteSession, actor: Actor, user_id: UserId) -> UserPrivate:
    """Disable a user immediately, as an administrator; their content stays."""
    return await users.disable_user(session, user_id=user_id, actor=actor)


@router.post(
    "/{user_id:user_id}/enable", responses=errors(LimitReached, NotAuthorized, UserNotFound)
)
async def enable_user(session: WriteSession, actor: Actor, user_id: UserId) -> UserPrivate:
    """Enable a disabled user, as an administrator."""
    return await users.enable_user(session, user_id=user_id, actor=actor)
