"""Typed clients of the Pressroom API: `Client`, and `AsyncClient` for asyncio."""

from . import errors, models
from ._base import Page
from ._core import MemoryStore, Retry, StoredTokens, TokenStore
from ._errors import PressroomError
from ._streaming import CommentEvent, StreamEvent
from .client import AsyncClient, Client

__all__ = [
    "AsyncClient",
    "Client",
    "CommentEvent",
    "MemoryStore",
    "Page",
    "PressroomError",
    "Retry",
    "StoredTokens",
    "StreamEvent",
    "TokenStore",
    "errors",
    "models",
]
__version__ = "0.1.0"
