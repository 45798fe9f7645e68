"""Webhooks: subscriptions, and who may manage them and gets which events."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import func, null, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import keys, sealing
from app.core import clock
from app.core.config import get_settings
from app.core.enums import EventKind, Role, Scope
from app.models import AuditEvent, User, Webhook, WebhookDelivery
from app.models.integrations.event import Event
from app.services.integrations import webhooks
from app.services.integrations.queueing import is_wanted, may_see
from app.services.integrations.webhooks import MAX_REPLAYED, MAX_WEBHOOKS
from tests.factories import api_key, bearer, create_user, create_webhook

NEW = {"url": "https://example.com/hook", "events": ["article.published", "article.deleted"]}


Rotate = Callable[..., None]


@pytest.fixture
def rotate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rotate]:
    """Return a function that replaces SECRET_KEY and SECRET_KEYS_PREVIOUS."""
    before = get_settings()

    def rotate(current: str, *previous: str) -> None:
        changed = {"secret_key": current, "secret_keys_previous": list(previous)}
        settings = before.model_copy(update=changed)
        monkeypatch.setattr(keys, "get_settings", lambda: settings)
        keys.derived_keys.cache_clear()

    yield rotate
    keys.derived_keys.cache_clear()


async def created(client: httpx.AsyncClient, user: User, **fields: Any) -> dict[str, Any]:
    response = await client.post("/webhooks", json={**NEW, **fields}, headers=bearer(user))
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


class TestSubscriptions:
    async def test_lifecycle(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        headers = bearer(user)
        new = await created(
            client, user, description="Builds", tag="Frost", author_id=user.id, language="de"
        )
        secret = new.pop("secret")
        assert secret.startswith("whsec_")
        assert (new["owner_id"], new["is_active"], new["payload_version"]) == (user.id, True, 1)
        assert new["events"] == ["article.deleted", "article.published"]
        url = f"/webhooks/{new['id']}"
        assert (await client.get(url, headers=headers)).json() == new
        assert (await client.get("/webhooks", headers=headers)).json() == [new]

        changes = {"url": "http://example.org/other", "tag": None, "events": ["media.created"]}
        changed = await client.patch(url, json=changes, headers=headers)
        assert changed.status_code == 200
        assert changed.json() | changes == changed.json()
        assert changed.json()["language"] == "de"
        off = await client.patch(url, json={"is_active": False}, headers=headers)
        assert (off.json()["is_active"], off.json()["disabled_reason"]) == (False, None)

        assert (await client.delete(url, headers=headers)).status_code == 204
        assert (await client.get(url, headers=headers)).status_code == 404
        actions = await session.scalars(
            select(AuditEvent.action).where(AuditEvent.actor_id == user.id).order_by(AuditEvent.id)
        )
        assert list(actions) == [
            "CREATE_WEBHOOK", "UPDATE_WEBHOOK", "UPDATE_WEBHOOK", "DELETE_WEBHOOK"
        ]  # fmt: skip

    async def test_secret_is_stored_encrypted_and_shown_once(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        new = await created(client, user)
        stored = await session.get_one(Webhook, new["id"])
        assert new["secret"] not in stored.sealed_secret
        assert sealing.unseal(stored.sealed_secret, purpose=sealing.WEBHOOK) == new["secret"]
        for path in ("/webhooks", f"/webhooks/{new['id']}"):
            response = await client.get(path, headers=bearer(user))
            assert response.headers["cache-control"] == "no-store"
            assert "whsec_" not in response.text

    async def test_rotation_keeps_the_previous_secret_for_a_day(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        new = await created(client, user)
        url = f"/webhooks/{new['id']}/secret"
        rotated = (await client.post(url, headers=bearer(user))).json()
        assert rotated["secret"] != new["secret"]
        stored = await session.get_one(Webhook, new["id"], populate_existing=True)
        assert stored.previous_secret_until is not None
        assert stored.previous_secret_until - clock.now() <= webhooks.ROTATION
        previous = stored.sealed_previous_secret or ""
        assert sealing.unseal(previous, purpose=sealing.WEBHOOK) == new["secret"]

    async def test_secrets_are_resealed(self, session: AsyncSession, rotate: Rotate) -> None:
        user = await create_user(session)
        webhook, secret = await create_webhook(session, owner=user)
        webhook.sealed_previous_secret = webhook.sealed_secret
        await session.flush()
        assert await webhooks.reseal_all(session) == 0
        rotate("f" * 64, get_settings().secret_key)
        assert await webhooks.reseal_all(session) == 1
        rotate("f" * 64)
        assert sealing.unseal(webhook.sealed_secret, purpose=sealing.WEBHOOK) == secret
        rotate("e" * 64)
        before = webhook.sealed_secret
        assert await webhooks.reseal_all(session) == 0
        assert webhook.sealed_secret == before

    @pytest.mark.parametrize(
        "fields",
        [
            {"url": "ftp://example.com/"},
            {"url": "https://"},
            {"url": "https://example.com/a b"},
            {"url": "https://example.com/größe"},
            {"url": "https://example.com/" + "a" * 2000},
            {"url": "https://user@example.com/"},
            {"url": "https://[/"},
            {"url": "https://example.com:99999/"},
            {"events": []},
            {"events": ["article.published", "article.published"]},
            {"events": ["article.exploded"]},
            {"tag": ""},
            {"tag": "#"},
            {"language": "xx-invalid-xx"},
            {"author_id": 0},
            {"payload_version": 2},
            {"secret": "whsec_mine"},
            {"owner_id": 1},
            {"is_active": False},
        ],
    )
    async def test_invalid_input(
        self, client: httpx.AsyncClient, session: AsyncSession, fields: dict[str, Any]
    ) -> None:
        headers = bearer(await create_user(session))
        response = await client.post("/webhooks", json={**NEW, **fields}, headers=headers)
        assert response.status_code == 422, response.text

    async def test_number_is_limited(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        for _ in range(MAX_WEBHOOKS):
            await create_webhook(session, owner=user)
        response = await client.post("/webhooks", json=NEW, headers=bearer(user))
        assert (response.status_code, response.json()["code"]) == (409, "too_many_webhooks")

    async def test_enabling_makes_pending_deliveries_due(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        webhook, _ = await create_webhook(session, owner=user)
        webhook.is_active, webhook.failures = False, 7
        webhook.disabled_reason, webhook.failing_since = "no connection", clock.now()
        late = clock.now() + webhooks.ROTATION
        delivery = WebhookDelivery(
            webhook_id=webhook.id, kind="test", attempts=9, next_attempt_at=late
        )
        session.add(delivery)
        await session.flush()
        url = f"/webhooks/{webhook.id}"
        on = await client.patch(url, json={"is_active": True}, headers=bearer(user))
        body = on.json()
        assert (body["failures"], body["failing_since"], body["disabled_reason"]) == (0, None, None)
        await session.refresh(delivery)
        assert delivery.attempts == 0
        assert delivery.next_attempt_at is not None
        assert delivery.next_attempt_at <= clock.now()


class TestAccess:
    async def test_users_manage_only_their_own(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        owner, other = await create_user(session), await create_user(session, role=Role.EDITOR)
        new = await created(client, owner)
        base = f"/webhooks/{new['id']}"
        span = {"since": "2026-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"}
        for method, path, json in (
            ("GET", "", None),
            ("PATCH", "", {"is_active": False}),
            ("DELETE", "", None),
            ("POST", "/secret", None),
            ("POST", "/test", None),
            ("POST", "/replay", span),
            ("GET", "/deliveries", None),
            ("GET", "/deliveries/1", None),
            ("POST", "/deliveries/1/replay", None),
        ):
            hidden = await client.request(method, base + path, json=json, headers=bearer(other))
            assert (hidden.status_code, hidden.json()["code"]) == (404, "webhook_not_found")
            anonymous = await client.request(method, base + path, json=json)
            assert anonymous.status_code == 401
        assert (await client.get("/webhooks", headers=bearer(other))).json() == []
        refused = await client.get(f"/webhooks?owner={owner.id}", headers=bearer(other))
        assert refused.status_code == 403

    async def test_administrators_manage_all(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        owner, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        new = await created(client, owner)
        others = await created(client, admin)
        headers = bearer(admin)
        listed = (await client.get("/webhooks", headers=headers)).json()
        assert [each["id"] for each in listed] == [others["id"], new["id"]]
        filtered = (await client.get(f"/webhooks?owner={owner.id}", headers=headers)).json()
        assert [each["id"] for each in filtered] == [new["id"]]
        url = f"/webhooks/{new['id']}"
        off = await client.patch(url, json={"is_active": False}, headers=headers)
        assert (off.status_code, off.json()["owner_id"]) == (200, owner.id)

    async def test_api_keys_need_the_scope(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)

        async def statuses(*scopes: Scope) -> list[int]:
            headers = await api_key(session, user=user, scopes=scopes)
            listed = await client.get("/webhooks", headers=headers)
            new = await client.post("/webhooks", json=NEW, headers=headers)
            return [listed.status_code, new.status_code]

        assert await statuses(Scope.ARTICLES_WRITE) == [403, 403]
        assert await statuses(Scope.WEBHOOKS_READ) == [200, 403]
        assert await statuses(Scope.WEBHOOKS_WRITE) == [403, 201]


class TestEvents:
    @pytest.mark.parametrize(
        ("is_public", "user_id", "author_id", "seen"),
        [
            (True, 8, 9, [True, True, True]),
            (False, 8, 9, [False, False, True]),
            (False, 1, 9, [True, False, True]),
            (False, 8, 1, [True, False, True]),
            (False, None, None, [False, False, True]),
        ],
    )
    def test_who_gets_an_event(
        self, *, is_public: bool, user_id: int, author_id: int, seen: list[bool]
    ) -> None:
        event = Event(is_public=is_public, user_id=user_id, data={"author_id": author_id})
        assert [
            may_see(event, user_id=1, role=Role.AUTHOR),
            may_see(event, user_id=2, role=Role.EDITOR),
            may_see(event, user_id=3, role=Role.ADMIN),
        ] == seen

    @pytest.mark.parametrize(
        ("filters", "wanted"),
        [
            ({}, True),
            ({"tag": "FROST"}, True),
            ({"tag": "#first  frost"}, False),
            ({"tag": "Snow"}, False),
            ({"author_id": 7}, True),
            ({"author_id": 8}, False),
            ({"language": "de"}, True),
            ({"language": "en"}, False),
            ({"tag": "Frost", "author_id": 7, "language": "de"}, True),
            ({"tag": "Frost", "author_id": 7, "language": "en"}, False),
            ({"events": ["article.deleted"]}, False),
        ],
    )
    def test_filters(self, filters: dict[str, Any], *, wanted: bool) -> None:
        data = {"tags": ["Apples", "Frost"], "author_id": 7, "language": "de"}
        event = Event(kind=EventKind.ARTICLE_PUBLISHED.value, data=data)
        webhook = Webhook(**{"events": ["article.published"], **filters})
        assert is_wanted(webhook, event) is wanted

    @pytest.mark.parametrize(
        ("filters", "wanted"),
        [
            ({"tag": "Frost"}, True),
            ({"tag": "Snow"}, True),
            ({"tag": "Apples"}, False),
            ({"tag": "Frost", "author_id": 7}, True),
            ({"tag": "Snow", "author_id": 8}, True),
            ({"tag": "Snow", "author_id": 7}, False),
        ],
    )
    def test_change_passes_filters_of_before_or_after(
        self, filters: dict[str, Any], *, wanted: bool
    ) -> None:
        former = {"tags": ["Frost"], "author_id": 7, "language": "de"}
        data = {"tags": ["Snow"], "author_id": 8, "language": "de", "former": former}
        event = Event(kind=EventKind.ARTICLE_UPDATED.value, data=data)
        assert is_wanted(Webhook(events=["article.updated"], **filters), event) is wanted

    def test_events_without_the_property_pass_no_filter(self) -> None:
        event = Event(kind="media.created", user_id=7, data={"bytes": 1})
        for filters in ({"tag": "Frost"}, {"author_id": 7}, {"language": "de"}):
            assert not is_wanted(Webhook(events=["media.created"], **filters), event)


class TestDeliveries:
    async def test_test_message_is_queued(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        webhook, _ = await create_webhook(session, owner=user)
        base = f"/webhooks/{webhook.id}"
        queued = await client.post(f"{base}/test", headers=bearer(user))
        assert queued.status_code == 202
        body = queued.json()
        assert (body["kind"], body["state"], body["event_id"]) == ("test", "pending", None)
        detail = await client.get(f"{base}/deliveries/{body['id']}", headers=bearer(user))
        assert detail.json() == {**body, "log": []}

    async def test_lists_by_state(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        webhook, _ = await create_webhook(session, owner=user)
        now = clock.now()
        for columns in (
            {},
            {"next_attempt_at": null(), "delivered_at": now},
            {"next_attempt_at": null()},
        ):
            session.add(WebhookDelivery(webhook_id=webhook.id, kind="test", **columns))
        await session.flush()
        url = f"/webhooks/{webhook.id}/deliveries"
        every = (await client.get(url, headers=bearer(user))).json()
        assert [each["state"] for each in every] == ["failed", "delivered", "pending"]
        for state in ("failed", "delivered", "pending"):
            found = (await client.get(f"{url}?state={state}", headers=bearer(user))).json()
            assert [each["state"] for each in found] == [state]
        page = await client.get(f"{url}?limit=2", headers=bearer(user))
        assert 'rel="next"' in page.headers["Link"]

    async def test_replaying_one(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        webhook, _ = await create_webhook(session, owner=user)
        other, _ = await create_webhook(session, owner=user)
        done = WebhookDelivery(
            webhook_id=webhook.id,
            kind="test",
            attempts=3,
            first_attempt_at=clock.now(),
            next_attempt_at=null(),
            delivered_at=clock.now(),
        )
        session.add(done)
        await session.flush()
        url = f"/webhooks/{webhook.id}/deliveries/{done.id}"
        before = (await client.get(url, headers=bearer(user))).json()
        again = await client.post(f"{url}/replay", headers=bearer(user))
        assert again.status_code == 202
        assert again.json()["message_id"] == before["message_id"]
        assert (again.json()["state"], again.json()["attempts"]) == ("pending", 0)
        pending = await client.post(f"{url}/replay", headers=bearer(user))
        assert (pending.status_code, pending.json()["code"]) == (409, "delivery_pending")
        wrong = f"/webhooks/{other.id}/deliveries/{done.id}"
        for response in (
            await client.get(wrong, headers=bearer(user)),
            await client.post(f"{wrong}/replay", headers=bearer(user)),
        ):
            assert (response.status_code, response.json()["code"]) == (404, "delivery_not_found")

    async def test_replaying_a_span(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        webhook, _ = await create_webhook(session, owner=user)
        moments = ("08:00", "09:00", "09:30", "10:00")
        for moment in moments:
            created_at = clock.now().fromisoformat(f"2026-11-20T{moment}:00+00:00")
            session.add(
                WebhookDelivery(
                    webhook_id=webhook.id,
                    kind="test",
                    created_at=created_at,
                    next_attempt_at=null(),
                )
            )
        await session.flush()
        url = f"/webhooks/{webhook.id}/replay"
        span = {"since": "2026-11-20T09:00:00Z", "until": "2026-11-20T10:00:00Z"}
        first = await client.post(url, json=span, headers=bearer(user))
        assert (first.status_code, first.json()) == (202, {"deliveries": 2})
        second = await client.post(url, json=span, headers=bearer(user))
        assert second.json() == {"deliveries": 0}
        reverse = {"since": span["until"], "until": span["since"]}
        wrong = await client.post(url, json=reverse, headers=bearer(user))
        assert wrong.status_code == 422
        pending = select(func.count()).where(WebhookDelivery.next_attempt_at.is_not(None))
        assert await session.scalar(pending.where(WebhookDelivery.webhook_id == webhook.id)) == 2
        assert MAX_REPLAYED == 1000
