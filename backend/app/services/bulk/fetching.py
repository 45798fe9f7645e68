"""Download of images from an old site, which may be hostile or broken.

Only public addresses are contacted. The name of a host is resolved once for each connection, all
its addresses are checked, and the connection is made to one of them, so that another answer of the
name server has no effect. Each redirect is a new request with the same checks. Proxies of the
environment are not used.

A file has a time limit for everything, a host has one for all its files, and a host that keeps
failing is not asked again.
"""

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from socket import SOCK_STREAM, getaddrinfo
from typing import NamedTuple, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpcore

from app import __version__
from app.core.threads import FairThreadPool
from app.services.media.uploading import storage_errors

MAX_REDIRECTS = 5
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
_NAT64, _LOCAL_NAT64 = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")
"""Addresses that contain an IPv4 address in their last 32 bits (RFC 6052, RFC 8215)."""

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host."""


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


def is_public(address: Address) -> bool:
    """Return whether an IP address is a public one of the Internet.

    An IPv6 address that contains an IPv4 address, as translators and tunnels use them, is public
    only if that one is.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.teredo is not None or address.is_site_local or address in _LOCAL_NAT64:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


_resolving = FairThreadPool("resolve", size=4, what="names of hosts", max_jobs=1000)
"""Threads of their own: a name server that does not answer must not block other work."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a host. Raises OSError."""
    found = await _resolving.run(lambda: getaddrinfo(host, port, type=SOCK_STREAM))
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class _PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked, never to a name."""

    def __init__(self, resolve: Resolve, allows: Callable[[Address], bool]) -> None:
        self._resolve = resolve
        self._allows = allows
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the base class
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        async with asyncio.timeout(timeout):
            addresses = await self._addresses(host, port)
            for number, address in enumerate(addresses, 1):
                try:
                    return await self._network.connect_tcp(
                        address, port, local_address=local_address, socket_options=socket_options
                    )
                except (httpcore.ConnectError, OSError):
                    if number == len(addresses):
                        raise
        raise NotFetched("the host has no address", is_host=True)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises NotFetched unless all of them are public."""
        try:
            texts = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NotFetched("the name of the host is unknown", is_host=True) from error
        for text in texts:
            if not self._allows(ip_address(text.partition("%")[0])):
                raise NotFetched(f"the host has the address {text}, which is not public")
        return texts[:4]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


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
            network_backend=_PublicOnly(resolve, allows),
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
                        raise NotFetched("the server redirects without an address")
                    url = _joined(url, target)
                    continue
                _require_file(response, max_bytes=max_bytes)
                return await self._receive(response, path, max_bytes=max_bytes)
        raise NotFetched(f"the server redirects more than {MAX_REDIRECTS} times")

    @asynccontextmanager
    async def _request(self, url: str) -> AsyncIterator[httpcore.Response]:
        """Send a request. Raises NotFetched, also for errors while the block reads."""
        target, host = _target(url)
        silence = self.limits.silence_seconds
        try:
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
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise NotFetched("the host does not answer", is_host=True) from error
        except (httpcore.ConnectError, OSError) as error:
            reason = "the certificate is not valid" if _is_certificate(error) else "no connection"
            raise NotFetched(reason, is_temporary=True, is_host=True) from error
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as error:
            raise NotFetched("the server closed the connection", is_temporary=True) from error
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol, ValueError) as error:
            raise NotFetched("the address is not valid") from error

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


def _target(url: str) -> tuple[httpcore.URL, bytes]:
    """Return the URL for httpcore, and the header Host. Raises NotFetched."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
        host = name if ":" in name else name.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise NotFetched("the address is not valid") from None
    scheme = parts.scheme.lower()
    if scheme not in {"http", "https"} or not host:
        raise NotFetched("the address is not one of HTTP")
    if parts.username is not None or parts.password is not None:
        raise NotFetched("the address contains a user name")
    path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    target = _encoded(path)
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[scheme]
    header = shown if port in {None, default} else f"{shown}:{port}"
    return httpcore.URL(
        scheme=scheme.encode(), host=host.encode(), port=port or default, target=target
    ), header.encode()


def _encoded(path: str) -> bytes:
    """Return a path with its query, percent-encoded where it is not."""
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte not in b'"<>\\^`{|}' else f"%{byte:02X}"
        for byte in path.encode(errors="replace")
    ).encode()


def _joined(url: str, target: bytes) -> str:
    try:
        return urljoin(url, target.decode("utf-8", errors="replace"))
    except ValueError:
        raise NotFetched("the server redirects to an address that is not valid") from None


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


def _is_certificate(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
