"""Dispatch of due mails to the connections of a process."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from app.core.config import Settings
from app.core.errors import PressroomError
from app.core.logging import get_logger
from app.db.session import Database
from app.services.accounts.mail_delivery import Claim, SendMail, claim_due, deliver

logger = get_logger(__name__)

POLL_SECONDS = 1.0
"""How often due mails are looked for while others are being delivered."""
SLOW_SECONDS = 10.0
"""Duration from which on a delivery is slow."""


class _Delivery(NamedTuple):
    domain: str
    started_at: float

    @property
    def is_slow(self) -> bool:
        return time.monotonic() - self.started_at >= SLOW_SECONDS


_Deliveries = dict["asyncio.Task[None]", _Delivery]


class MailDispatcher:
    """Delivers due mails, several at the same time.

    Of several connections, one is reserved for urgent mails. At most half of them are used for one
    recipient domain. Domains whose last delivery was slow come after all others. So mails to a slow
    domain do not delay other mails.
    """

    def __init__(
        self, database: Database, *, settings: Settings, send: SendMail, connections: int = 1
    ) -> None:
        self._database = database
        self._settings = settings
        self._send = send
        self._connections = connections
        self._slow_domains: set[str] = set()
        self._next_urgent_check = 0.0

    async def deliver_due(self) -> int:
        """Deliver mails until none is due and none is being delivered; return how many.

        Raises ServiceUnavailable if the database is not available.
        """
        running: _Deliveries = {}
        count = 0
        try:
            while True:
                error = await self._start_due(running)
                if not running:
                    break
                await asyncio.wait(
                    running, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                count += self._collect(running)
            if error is not None:
                raise error
            return count
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _start_due(self, running: _Deliveries) -> PressroomError | None:
        """Start deliveries while mails are due and connections are free; return an error.

        The deliveries in progress continue after an error of the database.
        """
        try:
            while (claim := await self._claim(running)) is not None:
                task = asyncio.create_task(self._deliver(claim))
                running[task] = _Delivery(claim.domain, time.monotonic())
        except PressroomError as error:
            return error
        return None

    async def _claim(self, running: _Deliveries) -> Claim | None:
        if len(running) >= self._connections:
            return None
        others_first = self._busy_domains(running, slow_limit=1)
        now = time.monotonic()
        if now >= self._next_urgent_check:
            claim = await claim_due(self._database, is_urgent=True, excluded_domains=others_first)
            if claim is not None:
                return claim
            self._next_urgent_check = now + POLL_SECONDS  # no index finds urgent mails
        if self._connections > 1 and len(running) >= self._connections - 1:
            return None
        claim = await claim_due(self._database, excluded_domains=others_first)
        busy = self._busy_domains(running)
        if claim is None and len(busy) < len(others_first):
            claim = await claim_due(self._database, excluded_domains=busy)
        return claim

    def _busy_domains(
        self, running: _Deliveries, *, slow_limit: int | None = None
    ) -> Collection[str]:
        """Return the domains with as many deliveries as allowed; `slow_limit` for slow domains."""
        limit = max(1, self._connections // 2)
        counts = Counter(delivery.domain for delivery in running.values())
        slow = self._slow_domains | {each.domain for each in running.values() if each.is_slow}
        return [
            domain
            for domain, count in counts.items()
            if count >= limit or (slow_limit is not None and domain in slow and count >= slow_limit)
        ]

    async def _deliver(self, claim: Claim) -> None:
        """Deliver a mail. Other mails must not fail with it."""
        try:
            await deliver(self._database, claim, settings=self._settings, send=self._send)
        except PressroomError as error:  # its claim expires, and another attempt follows
            logger.warning(f"mail {claim.mail_id} not delivered: {type(error).__name__}")
        except Exception:
            logger.exception(f"mail {claim.mail_id} not delivered")

    def _collect(self, running: _Deliveries) -> int:
        """Remove the completed deliveries, and remember which domains are slow; return how many."""
        completed = [task for task in running if task.done()]
        for task in completed:
            delivery = running.pop(task)
            if delivery.is_slow:
                self._slow_domains.add(delivery.domain)
            else:
                self._slow_domains.discard(delivery.domain)
        return len(completed)
