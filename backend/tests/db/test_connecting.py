"""Connections to one of several hosts, and to servers with TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.core import config, database_url
from app.core.config import PROJECT_DIR
from app.core.errors import ServiceUnavailable
from app.db.connecting import connect, connect_to, refused_setting
from app.db.session import Database
from tests.certificates import Certificates
from tests.databases import execute

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
NOBODY = "/nonexistent"


def normalize(url: str) -> str:
    return database_url.normalize(url, password=None, folder=PROJECT_DIR)


@pytest.fixture
def address(database_url: str) -> tuple[str, int]:
    """Return host and port of the test server: a directory of a socket, or a name."""
    url = make_url(database_url)
    return str(url.query.get("host") or url.host), url.port or 5432


class TestSeveralHosts:
    async def connect(self, url: str, address: tuple[str, int], *first: str, **options: Any) -> str:
        """Connect to one of the hosts; return the name of the database."""
        hosts = [(each, address[1]) for each in first]
        return await self._connect(url, *hosts, address, **options)

    async def connect_after(
        self, host: str, port: int, url: str, address: tuple[str, int], **options: Any
    ) -> str:
        """Connect to one of two servers; return the name of the database."""
        return await self._connect(url, (host, port), address, **options)

    async def _connect(self, url: str, *addresses: tuple[str, int], **options: Any) -> str:
        of_database = make_url(url)
        arguments: dict[str, Any] = {
            "host": [host for host, _ in addresses],
            "port": [port for _, port in addresses],
            "user": of_database.username,
            "password": of_database.password,
            "database": of_database.database,
            "timeout": 2,
        }
        connection = await connect(**arguments, **options)
        try:
            return str(await connection.fetchval("SELECT current_database()"))
        finally:
            await connection.close()

    @pytest.mark.parametrize("attributes", ["any", "primary", "read-write", "prefer-standby"])
    async def test_next_host_is_used_if_one_refuses(
        self, database_url: str, address: tuple[str, int], attributes: str
    ) -> None:
        options = {"target_session_attrs": attributes}
        found = await self.connect(database_url, address, NOBODY, **options)
        assert found == make_url(database_url).database

    async def test_next_host_is_used_if_one_does_not_respond(
        self, database_url: str, address: tuple[str, int]
    ) -> None:
        """The first host must not use up the whole timeout."""
        accepted = asyncio.Event()

        async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set()
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
        async with silent:
            port = silent.sockets[0].getsockname()[1]
            assert await self.connect_after("127.0.0.1", port, database_url, address)
            assert accepted.is_set()

    @pytest.mark.parametrize("state", ["", "53300", "57P01", "57P03", "08006"])
    async def test_next_host_is_used_if_one_is_full_or_ends(
        self, database_url: str, address: tuple[str, int], state: str
    ) -> None:
        async with server_that_refuses(state) as port:
            found = await self.connect_after("127.0.0.1", port, database_url, address)
        assert found == make_url(database_url).database

    async def test_next_host_is_not_used_if_one_refuses_the_password(
        self, database_url: str, address: tuple[str, int]
    ) -> None:
        async with server_that_refuses("28P01") as port:
            with pytest.raises(ServiceUnavailable):
                await self.connect_after("127.0.0.1", port, database_url, address)

    async def test_name_that_is_invalid_is_skipped(
        self, database_url: str, address: tuple[str, int]
    ) -> None:
        found = await self.connect(database_url, address, "a..b")
        assert found == make_url(database_url).database

    async def test_full_host_is_named_if_others_have_other_attributes(
        self, database_url: str, address: tuple[str, int]
    ) -> None:
        async with server_that_refuses("53300") as port:
            with pytest.raises(ServiceUnavailable) as error:
                await self.connect_after(
                    "127.0.0.1", port, database_url, address, target_session_attrs="standby"
                )
        assert isinstance(error.value.__cause__, asyncpg.TooManyConnectionsError)

    @pytest.mark.parametrize("attributes", ["standby", "read-only"])
    async def test_host_with_other_attributes_is_not_used(
        self, database_url: str, address: tuple[str, int], attributes: str
    ) -> None:
        with pytest.raises(ServiceUnavailable):
            await self.connect(database_url, address, target_session_attrs=attributes)

    async def test_read_only_server_is_not_used_for_writing(
        self, database_url: str, address: tuple[str, int]
    ) -> None:
        name = make_url(database_url).database
        setting = f"ALTER DATABASE {name} SET default_transaction_read_only"
        await asyncio.to_thread(execute, database_url, f"{setting} = on")
        try:
            assert await self.connect(database_url, address, target_session_attrs="read-only")
            with pytest.raises(ServiceUnavailable):
                await self.connect(database_url, address, target_session_attrs="read-write")
        finally:
            reset = ("SET default_transaction_read_only = off", f"{setting} TO DEFAULT")
            await asyncio.to_thread(execute, database_url, *reset)

    async def test_both_pools_use_the_next_host(
        self, database_url: str, address: tuple[str, int]
    ) -> None:
        host, port = address
        url = make_url(database_url).set(host=None, port=None)
        url = url.set(query={"host": f"{NOBODY},{host}", "port": f"{port},{port}"})
        settings = config.get_settings().model_copy(
            update={"database_url": normalize(url.render_as_string(hide_password=False))}
        )
        database = Database.from_settings(settings)
        try:
            async with database.unit_of_work() as session:
                await session.connection()
            assert database.reader is not None
        finally:
            await database.dispose()


@asynccontextmanager
async def server_that_refuses(state: str) -> AsyncIterator[int]:
    """Refuse connections with a SQLSTATE, or close them without one; yield the port."""
    values = [b"FATAL", b"FATAL", state.encode(), b"refused"]
    fields = b"".join(b"%c%s\0" % field for field in zip(b"SVCM", values, strict=True))
    message = b"E" + (len(fields) + 5).to_bytes(4) + fields + b"\0"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):  # the client has closed the connection
            if await reader.readexactly(8) == SSL_REQUEST:
                writer.write(b"N")
                await reader.readexactly(8)
            if state:
                writer.write(message)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def tls_server(certificates: Certificates) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Speak PostgreSQL up to the first message inside TLS; yield the port, and these messages."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server)
    messages: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readexactly(8) == SSL_REQUEST
            writer.write(b"S")
            await writer.start_tls(context)
            messages.append(await reader.readexactly(8))
        except (OSError, EOFError):
            pass  # the client has refused the certificate
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], messages


class TestTls:
    async def messages(self, certificates: Certificates, host: str, query: str) -> list[bytes]:
        async with tls_server(certificates) as (port, messages):
            url = normalize(f"postgresql://u:p@{host}:{port}/d?{query}")
            with pytest.raises(ServiceUnavailable) as error:  # the server closes after a message
                await connect_to(url, timeout=5)
            assert bool(refused_setting(error.value, "DATABASE_URL")) is not bool(messages)
            return messages

    async def test_full_verification_needs_authority_and_name(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", "/nonexistent")  # as in the container
        verify = "sslmode=verify-full"
        own = f"sslrootcert={certificates.authority}"
        assert await self.messages(certificates, "localhost", f"{verify}&{own}")
        assert not await self.messages(certificates, "127.0.0.1", f"{verify}&{own}")
        assert not await self.messages(certificates, "localhost", verify)
        assert not await self.messages(certificates, "localhost", "sslrootcert=system")
        assert await self.messages(certificates, "127.0.0.1", f"sslmode=verify-ca&{own}")

    async def test_authorities_of_the_system_are_trusted(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from app.db import connecting

        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        connecting._system_context.cache_clear()
        try:
            assert await self.messages(certificates, "localhost", "sslmode=verify-full")
            assert not await self.messages(certificates, "127.0.0.1", "sslmode=verify-full")
            assert await self.messages(certificates, "127.0.0.1", "sslmode=verify-ca")
        finally:
            connecting._system_context.cache_clear()

    async def test_encryption_without_verification(self, certificates: Certificates) -> None:
        assert await self.messages(certificates, "127.0.0.1", "sslmode=require")
