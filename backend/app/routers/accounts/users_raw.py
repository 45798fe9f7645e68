"""/raw/users: the users API in raw SQL, for comparison. See services/accounts/users_raw.py."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response, status

from app.auth.dependencies import ConfirmingUser, CurrentClient, UsersActor, UsersViewer
from app.core.errors import (
    EmailTaken,
    NotAuthorized,
    TooManyAttempts,
    UsernameTaken,
    UserNotFound,
)
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.caching import last_modified
from app.routers.accounts.users import CHANGE_ERRORS, DELETION_RESPONSES
from app.routers.idempotency import idempotent
from app.routers.parameters import IfMatch, Page, UserId
from app.routers.responses import create_router, errors
from app.schemas.accounts.user import (
    UserCreate,
    UserDeletion,
    UserDeletionQuery,
    UserPrivate,
    UserPublic,
    UserReplace,
)
from app.services.accounts import users, users_raw

router = create_router(prefix="/raw/users", tag="raw SQL reference")


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(EmailTaken, UsernameTaken, TooManyAttempts),
    dependencies=[idempotent()],
)
async def create_user_raw(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, new: UserCreate
) -> UserPrivate:
    """Register a user."""
    return await users_raw.create_user(session, database=database, client=client, new=new)


@router.get("", response_model=list[UserPrivate | UserPublic])
async def list_users_raw(
    connection: ReadConnection, viewer: UsersViewer, page: Page, response: Response
) -> Sequence[UserPublic]:
    """List users by id; administrators also see private fields."""
    listed = await users_raw.list_users(connection, page=page, viewer=viewer)
    response.headers.update(last_modified(users.visible_update_times(listed)))
    return listed


@router.get(
    "/{user_id:user_id}", response_model=UserPrivate | UserPublic, responses=errors(UserNotFound)
)
async def read_user_raw(
    connection: ReadConnection, viewer: UsersViewer, user_id: UserId
) -> UserPublic:
    """Read a user; private fields are visible to the user and to administrators."""
    return await users_raw.get_user(connection, user_id=user_id, viewer=viewer)


@router.put(
    "/{user_id:user_id}",
    responses=errors(NotAuthorized, *CHANGE_ERRORS),
)
async def replace_user_raw(
    session: WriteSession,
    actor: UsersActor,
    user_id: UserId,
    new: UserReplace,
    precondition: IfMatch,
) -> UserPrivate:
    """Replace an account. Only administrators may change other accounts."""
    return await users_raw.update_user(
        session, user_id=user_id, changes=new, actor=actor, precondition=precondition
    )


@router.delete(
    "/{user_id:user_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=DELETION_RESPONSES,
)
async def delete_user_raw(
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
    await users_raw.delete_user(
        session,
        database=database,
        user_id=user_id,
        query=query,
        confirmation=confirmation,
        actor=actor,
        precondition=precondition,
    )
