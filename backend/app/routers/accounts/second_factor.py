"""/auth/second-factor: optional authenticator codes at login."""

from fastapi import Depends, status

from app.auth.dependencies import ConfirmingUser, CurrentUser
from app.core.errors import (
    IncorrectCode,
    IncorrectPassword,
    LimitReached,
    SecondFactorEnabled,
    SecondFactorNotEnabled,
    TooManyAttempts,
)
from app.db.dependencies import CurrentDatabase, ReadConnection
from app.http.routing import no_store
from app.routers.responses import create_router, errors
from app.schemas.accounts.second_factor import (
    RecoveryCodeList,
    SecondFactorChange,
    SecondFactorConfirm,
    SecondFactorCreate,
    SecondFactorCreated,
    SecondFactorStatus,
)
from app.services.accounts import second_factor

router = create_router(prefix="/auth/second-factor", tag="auth", dependencies=[Depends(no_store)])

CHANGE_RESPONSES = errors(
    LimitReached, IncorrectPassword, IncorrectCode, SecondFactorNotEnabled, TooManyAttempts
)


@router.get("")
async def read_second_factor(connection: ReadConnection, user: CurrentUser) -> SecondFactorStatus:
    """Read whether a login requires a code, and how many recovery codes are left."""
    return await second_factor.read_second_factor(connection, user=user)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, IncorrectPassword, SecondFactorEnabled, TooManyAttempts),
)
async def create_second_factor(
    database: CurrentDatabase,
    user: ConfirmingUser,
    new: SecondFactorCreate,
) -> SecondFactorCreated:
    """Create a secret for an authenticator; it takes effect when its first code is confirmed."""
    return await second_factor.create_second_factor(database, new=new, user=user)


@router.post(
    "/confirm",
    responses=errors(
        LimitReached, IncorrectCode, SecondFactorEnabled, SecondFactorNotEnabled, TooManyAttempts
    ),
)
async def confirm_second_factor(
    database: CurrentDatabase,
    user: ConfirmingUser,
    form: SecondFactorConfirm,
) -> RecoveryCodeList:
    """Enable the second factor with an authenticator code; returns the recovery codes once."""
    return await second_factor.confirm_second_factor(database, form=form, user=user)


@router.post("/recovery-codes", responses=CHANGE_RESPONSES)
async def renew_recovery_codes(
    database: CurrentDatabase,
    user: ConfirmingUser,
    form: SecondFactorChange,
) -> RecoveryCodeList:
    """Replace the recovery codes; the old ones become invalid."""
    return await second_factor.renew_recovery_codes(database, form=form, user=user)


@router.post("/disable", status_code=status.HTTP_204_NO_CONTENT, responses=CHANGE_RESPONSES)
async def disable_second_factor(
    database: CurrentDatabase,
    user: ConfirmingUser,
    form: SecondFactorChange,
) -> None:
    """Disable the second factor; a login then requires only the password."""
    await second_factor.disable_second_factor(database, form=form, user=user)
