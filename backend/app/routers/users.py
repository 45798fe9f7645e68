"""/users: registering, reading, changing and deleting accounts."""

from collections.abc import Sequence

from fastapi import status

from app.auth.dependencies import Actor, CurrentUser, Viewer
from app.auth.identity import Identity
from app.core.errors import EmailTaken, NotAuthorized, UsernameTaken, UserNotFound
from app.core.routing import create_router
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import Page, UserId
from app.routers.responses import KNOWS_USER, NEEDS_USER, OPTIONAL_USER, TAKES_JSON, errors
from app.schemas.user import UserCreate, UserPrivate, UserPublic, UserReplace, UserUpdate
from app.services import users

router = create_router(prefix="/users", tag="users")


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(EmailTaken, UsernameTaken, *TAKES_JSON),
)
async def create_user(session: WriteSession, new: UserCreate) -> UserPrivate:
    """Register a user."""
    return await users.create_user(session, new=new)


@router.get(
    "",
    response_model=list[UserPrivate | UserPublic],
    responses=errors(*KNOWS_USER),
    openapi_extra=OPTIONAL_USER,
)
async def list_users(
    connection: ReadConnection, viewer: Viewer, page: Page
) -> Sequence[UserPublic]:
    """List users by id; administrators see the private fields too."""
    return await users.list_users(connection, page=page, viewer=viewer)


@router.get("/me", response_model=UserPrivate, responses=errors(*NEEDS_USER))
async def read_own_user(user: CurrentUser) -> Identity:
    """Read one's own account."""
    return user


@router.patch(
    "/me", responses=errors(*NEEDS_USER, EmailTaken, UsernameTaken, UserNotFound, *TAKES_JSON)
)
async def update_own_user(session: WriteSession, actor: Actor, changes: UserUpdate) -> UserPrivate:
    """Change some of one's own account."""
    return await users.update_user(session, user_id=actor.id, changes=changes, actor=actor)


@router.get(
    "/{user_id:user_id}",
    response_model=UserPrivate | UserPublic,
    responses=errors(*KNOWS_USER, UserNotFound),
    openapi_extra=OPTIONAL_USER,
)
async def read_user(connection: ReadConnection, viewer: Viewer, user_id: UserId) -> UserPublic:
    """Read a user: all of oneself, and for administrators; of others what is public."""
    return await users.get_user(connection, user_id=user_id, viewer=viewer)


@router.put(
    "/{user_id:user_id}",
    responses=errors(
        *NEEDS_USER, NotAuthorized, UserNotFound, EmailTaken, UsernameTaken, *TAKES_JSON
    ),
)
async def replace_user(
    session: WriteSession, actor: Actor, user_id: UserId, new: UserReplace
) -> UserPrivate:
    """Change all of an account; another's only as an administrator."""
    return await users.update_user(session, user_id=user_id, changes=new, actor=actor)


@router.delete(
    "/{user_id:user_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(*NEEDS_USER, NotAuthorized, UserNotFound),
)
async def delete_user(session: WriteSession, actor: Actor, user_id: UserId) -> None:
    """Delete an account with its articles and addresses; another's only as an administrator."""
    await users.delete_user(session, user_id=user_id, actor=actor)
