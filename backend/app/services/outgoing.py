"""Connections to hosts that users name: only public addresses are contacted.

The name of a host is resolved once for each connection, all its addresses are checked, and the
connection is made to one of them. So another answer of the name server has no effect.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from socket import SOCK_STREAM, getaddrinfo
from typing import Any
from urllib.parse import urlsplit

import httpcore

from app.core.threads import FairThreadPool

_NAT64 = IPv6Network("64:ff9b::/96")
"""Addresses that contain an IPv4 address in their last 32 bits (RFC 6052)."""
_NOT_PUBLIC = (
    IPv4Network("168.63.129.16/32"),  # gives virtual machines of Azure their configuration
    IPv4Network("192.0.0.0/24"),  # of protocols (RFC 6890); 192.0.0.192 has metadata of Oracle
    IPv4Network("192.88.99.0/24"),  # former relays (RFC 7526)
    IPv6Network("64:ff9b:1::/48"),  # local translators (RFC 8215)
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
"""Addresses that `is_global` calls global in some versions of Python."""

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host."""


class NotContacted(Exception):
    """A host was not contacted. The message contains the reason."""

    is_host = False
    """Whether the host has no address, rather than one that is refused."""


class NotResolved(NotContacted):
    """A host has no address, or one that is refused. The message may contain that address."""

    def __init__(self, reason: str, *, is_host: bool = False) -> None:
        super().__init__(reason)
        self.is_host = is_host


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
        if address.teredo is not None or address.is_site_local:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


_resolving = FairThreadPool("resolve", size=4, what="names of hosts", max_jobs=1000)
"""Threads of their own: a name server that does not answer must not block other work."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a host. Raises OSError."""
    found = await _resolving.run(lambda: getaddrinfo(host, port, type=SOCK_STREAM))
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class TooMuchReceived(Exception):
    """A server has sent more than the limit."""


class _BoundedStream(httpcore.AsyncNetworkStream):
    """A connection that fails if too much is received after something was sent.

    httpcore skips interim responses, such as 103. Parsing them without an end would delay requests.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._remaining = max_bytes

    def allow(self, max_bytes: int) -> None:
        """Accept this much until something is sent again."""
        self._remaining = max_bytes

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the base class
    ) -> bytes:
        part = await self._stream.read(max_bytes, timeout)
        self._remaining -= len(part)
        if self._remaining < 0:
            raise TooMuchReceived
        return part

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the base class
    ) -> None:
        self._remaining = self._max_bytes
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the base class
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _BoundedStream(stream, self._max_bytes)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def allow_body(response: httpcore.Response, max_bytes: int) -> None:
    """Receive a body of this length, although less is accepted before it (`PublicOnly`).

    Chunks may take as much again.
    """
    stream = response.extensions["network_stream"]
    if isinstance(stream, _BoundedStream):
        stream.allow(2 * max_bytes)


class PublicOnly(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that were checked, never to a name. Raises NotResolved.

    With `max_received_bytes`, reading raises TooMuchReceived if more follows what was sent.
    """

    def __init__(
        self,
        resolve: Resolve,
        allows: Callable[[Address], bool],
        *,
        max_received_bytes: int | None = None,
    ) -> None:
        self._resolve = resolve
        self._allows = allows
        self._max_received_bytes = max_received_bytes
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
                    stream = await self._network.connect_tcp(
                        address, port, local_address=local_address, socket_options=socket_options
                    )
                except (httpcore.ConnectError, OSError):
                    if number == len(addresses):
                        raise
                else:
                    limit = self._max_received_bytes
                    return stream if limit is None else _BoundedStream(stream, limit)
        raise NotResolved("the host has no address", is_host=True)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises NotResolved unless all of them are public."""
        try:
            texts = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise NotResolved("the name of the host is unknown", is_host=True) from error
        for text in texts:
            if not self._allows(ip_address(text.partition("%")[0])):
                raise NotResolved(f"the host has the address {text}, which is not public")
        return texts[:4]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def parse_target(url: str) -> tuple[httpcore.URL, bytes]:
    """Return the URL for httpcore, and the header Host. Raises NotContacted."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
        host = name if ":" in name else name.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise NotContacted("the URL is not valid") from None
    scheme = parts.scheme.lower()
    if scheme not in {"http", "https"} or not host or port == 0:
        raise NotContacted("the address is not one of HTTP")
    if parts.username is not None or parts.password is not None:
        raise NotContacted("the address contains a user name")
    target = _encoded((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
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


def is_certificate_error(error: BaseException | None) -> bool:
    """Return whether an error of a connection is about the certificate of the server."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
