"""The audit trail is written in the transaction of the action."""

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict
from app.db.session import Database
from app.models import AuditEvent, User
from app.services import audit
from app.services.audit import AuditAction
from tests.factories import PASSWORD, create_user


async def test_failed_action_is_not_recorded(
    database: Database, session: AsyncSession, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        async with database.unit_of_work() as failing:
            user = await create_user(failing)
            audit.record(failing, AuditAction.CREATE_USER, actor_id=None, subject_id=user.id)
            raise Conflict

    with pytest.raises(Conflict):
        await fail()
    assert (await session.scalars(select(AuditEvent))).all() == []
    assert (await session.scalars(select(User))).all() == []
    assert "[AUDIT]" not in capsys.readouterr().out


async def test_failed_login_is_recorded_despite_the_error(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    response = await client.post("/auth/login", data={"username": "nobody", "password": PASSWORD})
    assert response.status_code == 401
    event = (await session.scalars(select(AuditEvent))).one()
    assert event.action == "LOGIN_FAILED"
    assert event.message == "Unknown user failed to log in"
    assert event.request_id == response.json()["request_id"]


@pytest.mark.parametrize("action", AuditAction)
async def test_every_action_has_a_message(
    database: Database, session: AsyncSession, action: AuditAction
) -> None:
    async with database.unit_of_work() as recording:
        audit.record(recording, action, actor_id=1, subject="thing", subject_id=2)
    message = await session.scalar(select(AuditEvent.message))
    assert message is not None
    assert message.startswith("Thing 2 ")
