"""/users/{id}/limits: what a user may create, how much is used, and what administrators set."""

from collections.abc import Sequence

from app.auth.dependencies import Actor, UsersReader
from app.core.errors import NotAuthorized, UserNotFound
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import IfMatch, UserId
from app.routers.responses import (
    CHANGES_VERSION,
    LIMITED,
    NEEDS_SESSION,
    NEEDS_USER,
    READS_VERSION,
    TAKES_JSON,
    create_router,
    errors,
)
from app.schemas.limit import LimitUseResponse, UserLimits, UserLimitsUpdate
from app.services import limits

router = create_router(prefix="/users/{user_id:user_id}/limits", tag="users")


@router.get("", responses=errors(*NEEDS_USER, NotAuthorized, UserNotFound, *READS_VERSION))
async def read_limits(connection: ReadConnection, user: UsersReader, user_id: UserId) -> UserLimits:
    """Read one's limits; another's only as an administrator."""
    return await limits.get_limits(connection, user_id=user_id, actor=user)


@router.get("/use", responses=errors(*NEEDS_USER, NotAuthorized, UserNotFound, *READS_VERSION))
async def read_limit_use(
    connection: ReadConnection, user: UsersReader, user_id: UserId
) -> Sequence[LimitUseResponse]:
    """Read how much of one's limits is used; of another's only as an administrator."""
    return await limits.list_uses(connection, user_id=user_id, actor=user)


@router.put(
    "",
    responses=errors(
        *NEEDS_SESSION, NotAuthorized, UserNotFound, *LIMITED, *CHANGES_VERSION, *TAKES_JSON
    ),
)
async def replace_limits(
    session: WriteSession,
    actor: Actor,
    user_id: UserId,
    new: UserLimitsUpdate,
    precondition: IfMatch,
) -> UserLimits:
    """Give a user limits of their own, as an administrator; others go back to the default."""
    return await limits.replace_limits(
        session, user_id=user_id, new=new, precondition=precondition, actor=actor
    )
