"""/health: probes for orchestrators."""

from fastapi import Depends, status

from app.db.dependencies import CurrentDatabase
from app.http.routing import no_store
from app.routers.responses import create_router
from app.schemas.health import Liveness, Readiness
from app.services import health

router = create_router(prefix="/health", tag="health", dependencies=[Depends(no_store)])


@router.get("")
async def check_health(database: CurrentDatabase) -> Readiness:
    """Check that the process can serve requests, like `/health/ready`."""
    return await health.check_readiness(database)


@router.get("/live", status_code=status.HTTP_200_OK)
async def check_liveness() -> Liveness:
    """Check that the process responds; does not check other services."""
    return Liveness()


@router.get("/ready")
async def check_readiness(database: CurrentDatabase) -> Readiness:
    """Check that the database is reachable and migrated; the error contains the reason."""
    return await health.check_readiness(database)
