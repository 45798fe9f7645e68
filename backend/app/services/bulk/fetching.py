"""Download of images from an old site, which may be hostile or broken.

Only public addresses are contacted (services.outgoing). Each redirect is a new request with the
same checks. Proxies of the environment are not used.

A file has a time limit for everything, a host has one for all its files, and a host that keeps
failing is not asked again.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import httpcore

from app import __version__
from app.services.media.uploading import storage_errors
from app.services.outgoing import (
    Address,
    NotContacted,
    PublicOnly,
    Resolve,
    TooMuchReceived,
    allow_body,
    is_certificate_error,
    is_public,
    parse_target,
    resolve,
)

MAX_REDIRECTS = 5
MAX_HEAD_BYTES = 256 * 1024
"""What is received before a file at most: headers, and any number of interim responses."""
USER_AGENT = f"Pressroom/{__version__} (import of images)"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TEMPORARY = frozenset({429, 500, 502, 503, 504})
_OTHER_TYPES = (
    "text/",
    "application/json",
    "application/xhtml",
    "application/pdf",
    "video/",
    "audio/",
)


class NotFetched(Exception):
    """A file was not fetched. The message contains the reason."""

    def __init__(
        self,
        reason: str,
        *,
        is_temporary: bool = False,
        is_host: bool = False,
        is_missing: bool = False,
    ) -> None:
        super().__init__(reason)
        self.is_missing = is_missing
        """Whether the server has no such file."""
        self.is_temporary = is_temporary
        """Whether another attempt may succeed."""
        self.is_host = is_host
        """Whether the host did not answer, rather than answer with an error."""


class FetchLimits(NamedTuple):
    """Limits of one import. What exceeds them remains for the next one."""

    files: int = 50_000
    total_bytes: int = 50 * 1024**3
    at_once: int = 8
    at_once_per_host: int = 4
    file_seconds: float = 60
    """For a file with all its redirects and attempts."""
    silence_seconds: float = 15
    """For a connection, and until the next bytes arrive."""
    host_seconds: float = 4 * 3600
    """For all files of a host."""
    host_failures: int = 10
    """After so many failures in a row without an answer, a host is not asked again."""
    attempts: int = 3
    pause_seconds: float = 1
    """Before the second attempt. Each further pause is twice as long."""


class FetchedFile(NamedTuple):
    """A file that was written to `path`."""

    path: Path
    digest: bytes
    """SHA-256 of its content."""


class _Host:
    """What is known of a host during an import."""

    def __init__(self, limits: FetchLimits) -> None:
        self.slots = asyncio.Semaphore(limits.at_once_per_host)
        self.failures = 0
        self.ends_at: float | None = None


class Fetcher:
    """Downloads files. An asynchronous context manager, which closes its connections.

    `resolve` and `allows` are replaced by tests only: they decide which addresses are contacted.
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        resolve: Resolve = resolve,
        allows: Callable[[Address], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits or FetchLimits()
        self._files = 0
        self._bytes = 0
        self._hosts: dict[str, _Host] = defaultdict(lambda: _Host(self.limits))
        self._slots = asyncio.Semaphore(self.limits.at_once)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(),
            max_connections=2 * self.limits.at_once,
            max_keepalive_connections=self.limits.at_once,
            keepalive_expiry=5,
            network_backend=PublicOnly(resolve, allows, max_received_bytes=MAX_HEAD_BYTES),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def fetch(self, url: str, path: Path, *, max_bytes: int) -> FetchedFile:
        """Download a file to `path`. Raises NotFetched with the reason."""
        host = self._hosts[urlsplit(url).netloc.lower()]
        async with self._slots, host.slots:
            self._require_budget(host)
            self._files += 1
            try:
                async with asyncio.timeout(self.limits.file_seconds):
                    fetched = await self._attempts(url, path, max_bytes=max_bytes)
            except TimeoutError:
                host.failures += 1
                raise NotFetched(
                    f"the file was not complete after {self.limits.file_seconds:g} seconds"
                ) from None
            except NotFetched as error:
                host.failures = host.failures + 1 if error.is_host else 0
                raise
            host.failures = 0
            return fetched

    def _require_budget(self, host: _Host) -> None:
        now = asyncio.get_running_loop().time()
        if host.ends_at is None:
            host.ends_at = now + self.limits.host_seconds
        if host.failures >= self.limits.host_failures:
            raise NotFetched("the host does not answer: it was not asked again")
        if now > host.ends_at:
            raise NotFetched("the time limit of this host is reached: the next import continues")
        if self._files >= self.limits.files or self._bytes >= self.limits.total_bytes:
            raise NotFetched("the limit of this import is reached: the next one continues")

    async def _attempts(self, url: str, path: Path, *, max_bytes: int) -> FetchedFile:
        pause = self.limits.pause_seconds
        for _ in range(self.limits.attempts - 1):
            try:
                return await self._follow(url, path, max_bytes=max_bytes)
            except NotFetched as error:
                if not error.is_temporary:
                    raise
            await asyncio.sleep(pause)
            pause *= 2
        return await self._follow(url, path, max_bytes=max_bytes)

    async def _follow(self, url: str, path: Path, *, max_bytes: int) -> FetchedFile:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._request(url) as response:
                if response.status in _REDIRECTS:
                    target = _header(response, b"location")
                    if not target:
                        raise NotFetched("the server redirects without a URL")
                    url = _joined(url, target)
                    continue
                _require_file(response, max_bytes=max_bytes)
                allow_body(response, max_bytes + MAX_HEAD_BYTES)
                return await self._receive(response, path, max_bytes=max_bytes)
        raise NotFetched(f"the server redirects more than {MAX_REDIRECTS} times")

    @asynccontextmanager
    async def _request(self, url: str) -> AsyncIterator[httpcore.Response]:
        """Send a request. Raises NotFetched, also for errors while the block reads."""
        silence = self.limits.silence_seconds
        try:
            target, host = parse_target(url)
            async with self._pool.stream(
                "GET",
                target,
                headers=[
                    (b"Host", host),
                    (b"User-Agent", USER_AGENT.encode()),
                    (b"Accept", b"image/*, */*;q=0.1"),
                    (b"Accept-Encoding", b"identity"),
                ],
                extensions={
                    "timeout": {
                        "connect": silence,
                        "read": silence,
                        "write": silence,
                        "pool": self.limits.file_seconds,
                    }
                },
            ) as response:
                yield response
        except NotContacted as error:
            raise NotFetched(str(error), is_host=error.is_host) from error
        except TooMuchReceived as error:
            raise NotFetched("the answer is too long") from error
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise NotFetched("the host does not answer", is_host=True) from error
        except (httpcore.ConnectError, OSError) as error:
            reason = (
                "the certificate is not valid" if is_certificate_error(error) else "no connection"
            )
            raise NotFetched(reason, is_temporary=True, is_host=True) from error
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise NotFetched("the server closed the connection", is_temporary=True) from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol, ValueError) as error:
            raise NotFetched("the URL is not valid") from error

    async def _receive(
        self, response: httpcore.Response, path: Path, *, max_bytes: int
    ) -> FetchedFile:
        digest, size = sha256(), 0
        with storage_errors():
            file = await asyncio.to_thread(path.open, "wb")
        with file:
            async for chunk in response.aiter_stream():
                size += len(chunk)
                self._bytes += len(chunk)
                if size > max_bytes:
                    raise NotFetched(_too_large(max_bytes))
                digest.update(chunk)
                with storage_errors():
                    file.write(chunk)
        if not size:
            raise NotFetched("the file is empty")
        return FetchedFile(path, digest.digest())


def _joined(url: str, target: bytes) -> str:
    try:
        return urljoin(url, target.decode("utf-8", errors="replace"))
    except ValueError:
        raise NotFetched("the server redirects to a URL that is not valid") from None


def _header(response: httpcore.Response, name: bytes) -> bytes:
    return next((value for key, value in response.headers if key.lower() == name), b"").strip()


def _require_file(response: httpcore.Response, *, max_bytes: int) -> None:
    """Raise NotFetched unless the response may have an image of acceptable size."""
    if response.status != 200:
        raise NotFetched(
            f"the server answered {response.status}",
            is_temporary=response.status in _TEMPORARY,
            is_missing=response.status in {404, 410},
        )
    kind = _header(response, b"content-type").decode("latin-1").partition(";")[0].strip().lower()
    if kind.startswith(_OTHER_TYPES):
        raise NotFetched(f"it is not an image, but {kind[:50]}")
    encoding = _header(response, b"content-encoding").decode("latin-1").lower()
    if encoding not in {"", "identity"}:
        raise NotFetched(f"the server sends it compressed ({encoding[:20]})")
    length = _header(response, b"content-length")
    if length.isdigit() and int(length[:20]) > max_bytes:
        raise NotFetched(_too_large(max_bytes))


def _too_large(max_bytes: int) -> str:
    return f"it is larger than {max_bytes} bytes"
