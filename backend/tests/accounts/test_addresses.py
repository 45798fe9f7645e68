"""Postal addresses: access by the owner and by administrators."""

from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.enums import Role
from app.models import Address, AuditEvent
from tests.factories import bearer, create_address, create_user

ADDRESS: dict[str, Any] = {
    "label": "home",
    "line1": "12 St James's Square",
    "city": "London",
    "postal_code": "SW1Y 4JH",
    "country": "GB",
}


async def test_owner_can_create_list_replace_and_delete(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    url, headers = f"/users/{user.id}/addresses", bearer(user)

    created = await client.post(url, json=ADDRESS, headers=headers)
    assert created.status_code == 201
    address = created.json()
    assert {field: address[field] for field in ADDRESS} == ADDRESS
    assert address["line2"] is None
    assert address["region"] is None
    assert address["user_id"] == user.id
    assert (await client.get(url, headers=headers)).json() == [address]

    moved = {**ADDRESS, "line1": "1 Rue X", "city": "Paris", "country": "FR", "region": "IdF"}
    replaced = await client.put(f"{url}/{address['id']}", json=moved, headers=headers)
    assert replaced.status_code == 200
    assert {field: replaced.json()[field] for field in moved} == moved
    assert replaced.json()["updated_at"] > replaced.json()["created_at"]

    assert (await client.delete(f"{url}/{address['id']}", headers=headers)).status_code == 204
    assert (await client.get(url, headers=headers)).json() == []
    actions = (await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))).all()
    assert actions == ["CREATE_ADDRESS", "UPDATE_ADDRESS", "DELETE_ADDRESS"]


async def test_replacement_clears_omitted_fields(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    address = await create_address(session, user=user)
    bare = {field: ADDRESS[field] for field in ("label", "line1", "city", "country")}
    url = f"/users/{user.id}/addresses/{address.id}"
    response = await client.put(url, json=bare, headers=bearer(user))
    assert response.json()["postal_code"] is None


@pytest.mark.parametrize("role", [Role.AUTHOR, Role.EDITOR])
async def test_other_users_cannot_read_or_change_addresses(
    client: httpx.AsyncClient, session: AsyncSession, role: Role
) -> None:
    user, other = await create_user(session), await create_user(session, role=role)
    address = await create_address(session, user=user)
    url, headers = f"/users/{user.id}/addresses", bearer(other)
    for response in (
        await client.get(url, headers=headers),
        await client.post(url, json=ADDRESS, headers=headers),
        await client.put(f"{url}/{address.id}", json=ADDRESS, headers=headers),
        await client.delete(f"{url}/{address.id}", headers=headers),
    ):
        assert response.status_code == 403
    assert await session.scalar(select(Address.label)) == "home"


async def test_administrator_can_manage_addresses(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
    url, headers = f"/users/{user.id}/addresses", bearer(admin)
    address = (await client.post(url, json=ADDRESS, headers=headers)).json()
    assert (await client.get(url, headers=headers)).json() == [address]
    assert (await client.delete(f"{url}/{address['id']}", headers=headers)).status_code == 204


async def test_anonymous_client_is_refused(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    assert (await client.get(f"/users/{user.id}/addresses")).status_code == 401
    assert (await client.post(f"/users/{user.id}/addresses", json=ADDRESS)).status_code == 401


async def test_address_of_another_user_is_not_found_under_own_url(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user, other = await create_user(session), await create_user(session)
    address = await create_address(session, user=other)
    url = f"/users/{user.id}/addresses/{address.id}"
    for response in (
        await client.get(url, headers=bearer(user)),
        await client.put(url, json=ADDRESS, headers=bearer(user)),
        await client.delete(url, headers=bearer(user)),
    ):
        assert response.status_code == 404
        assert response.json()["code"] == "address_not_found"


async def test_unknown_user_is_404(client: httpx.AsyncClient, session: AsyncSession) -> None:
    admin = await create_user(session, role=Role.ADMIN)
    response = await client.post("/users/999999/addresses", json=ADDRESS, headers=bearer(admin))
    assert response.status_code == 404
    assert response.json()["code"] == "user_not_found"
    listed = await client.get("/users/999999/addresses", headers=bearer(admin))
    assert listed.status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("country", "gb"),
        ("country", "XX"),
        ("country", "GBR"),
        ("country", None),
        ("label", ""),
        ("label", "x" * 51),
        ("line1", " "),
        ("line1", "a\u0000b"),
        ("line2", ""),
        ("city", "x" * 101),
        ("postal_code", "x" * 21),
        ("planet", "Earth"),
        ("user_id", 1),
    ],
)
async def test_invalid_input_is_rejected(
    client: httpx.AsyncClient, session: AsyncSession, field: str, value: object
) -> None:
    user = await create_user(session)
    response = await client.post(
        f"/users/{user.id}/addresses", json={**ADDRESS, field: value}, headers=bearer(user)
    )
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", field]
