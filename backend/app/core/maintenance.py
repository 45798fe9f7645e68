"""Maintenance mode as this process knows it. `services.maintenance` reads it every second."""

import asyncio
from datetime import datetime


class MaintenanceState:
    """Whether the server is in maintenance, and the sentence that refused writes get."""

    def __init__(self) -> None:
        self.message: str | None = None
        """The sentence; None unless the server is in maintenance."""
        self.since: datetime | None = None
        self._ended = asyncio.Event()
        self._ended.set()

    def set(self, message: str | None, since: datetime | None) -> None:
        """Remember what the database says. Without a message, the maintenance has ended."""
        self.message, self.since = message, since
        if message is None:
            self._ended.set()
        else:
            self._ended.clear()

    async def wait_for_end(self) -> None:
        """Return when the server is not in maintenance."""
        await self._ended.wait()
