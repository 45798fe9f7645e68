"""/users/{id}/limits: limits of a user, their use, and overrides by administrators."""

from collections.abc import Sequence

from app.auth.dependencies import Actor, RequiredUsersViewer
from app.core.errors import LimitReached, NotAuthorized, UserNotFound
from app.db.dependencies import ReadConnection, WriteSession
from app.routers.parameters import IfMatch, UserId
from app.routers.responses import create_router, errors
from app.schemas.limit import LimitUseResponse, UserLimits, UserLimitsUpdate
from app.services import limits

router = create_router(prefix="/users/{user_id:user_id}/limits", tag="users")


@router.get("", responses=errors(NotAuthorized, UserNotFound))
async def read_limits(
    connection: ReadConnection, user: RequiredUsersViewer, user_id: UserId
) -> UserLimits:
    """Read the limits of a user. Only administrators may read those of other users."""
    return await limits.get_limits(connection, user_id=user_id, actor=user)


@router.get("/use", responses=errors(NotAuthorized, UserNotFound))
async def read_limit_use(
    connection: ReadConnection, user: RequiredUsersViewer, user_id: UserId
) -> Sequence[LimitUseResponse]:
    """Read the use of a user's limits. Only administrators may read that of other users."""
    return await limits.list_uses(connection, user_id=user_id, actor=user)


@router.put("", responses=errors(NotAuthorized, UserNotFound, LimitReached))
async def replace_limits(
    session: WriteSession,
    actor: Actor,
    user_id: UserId,
    new: UserLimitsUpdate,
    precondition: IfMatch,
) -> UserLimits:
    """Override limits of a user, as an administrator; limits not listed use the default."""
    return await limits.replace_limits(
        session, user_id=user_id, new=new, precondition=precondition, actor=actor
    )
