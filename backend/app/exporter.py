"""The server of the metrics, a process of its own: `GET /metrics` on METRICS_PORT.

It adds up the files of the other processes, and reads what the database, the disk and the
certificate show. These values are read at most once in ten seconds, with one connection of its own.
A scrape waits for them for three seconds, then answers without them.
"""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn
from cryptography import x509
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from app import __version__
from app.core.config import Settings, SetupError
from app.core.errors import ServiceUnavailable
from app.core.logging import get_logger
from app.core.metrics import GAUGES, SHARED
from app.db.session import Database
from app.services.gauges import COLLECTORS, ContentCounts, Gauge, read_gauges, schema_revision

logger = get_logger(__name__)

MAX_AGE_SECONDS = 10.0
"""How long values are reused."""
TIMEOUT_SECONDS = 5.0
"""How long reading them may take."""
SCRAPE_SECONDS = 3.0
"""How long a scrape waits for them."""
FORGOTTEN_SECONDS = 60.0
"""Older values are not shown."""
STATEMENT_SECONDS = 2.0
RETRY_SECONDS = 10.0
"""How often a port that is taken is tried again."""
PARENT_SECONDS = 1.0
_PREFIX = "pressroom-metrics-"


def create_directory() -> Path:
    """Create a folder for METRICS_DIR, in memory if possible."""
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp creates it for this user only
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=memory if memory.is_dir() else None))


def is_created(directory: Path) -> bool:
    """Return whether `create_directory` has created this folder."""
    return directory.name.startswith(_PREFIX)


class SharedGauges:
    """The gauges of the database, the disk and the certificate, read in the background."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        limited = {
            "database_pool_size": 1,
            "database_pool_timeout": STATEMENT_SECONDS,
            "database_connect_timeout": STATEMENT_SECONDS,
            "database_statement_timeout": STATEMENT_SECONDS,
            "metrics_port": 0,
            "debug": False,
        }
        self._limited = settings.model_copy(update=limited)
        self._database: Database | None = None
        self._counts = ContentCounts()
        self._task: asyncio.Task[None] | None = None
        self._started = self._finished = -FORGOTTEN_SECONDS
        self._known: Sequence[Gauge] = ()
        self._ended: set[asyncio.Task[None]] = set()

    async def read(self) -> Sequence[Gauge]:
        """Return the values. They are read again if they are older than ten seconds."""
        now = time.monotonic()
        if (self._task is None or self._task.done()) and now - self._started > MAX_AGE_SECONDS:
            self._started = now
            self._task = asyncio.create_task(self._refresh())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=SCRAPE_SECONDS)
        age = time.monotonic() - self._finished
        is_late = self._task is not None and not self._task.done()
        if is_late or age > FORGOTTEN_SECONDS:
            return _unavailable()
        return self._known

    async def _refresh(self) -> None:
        disk, certificate, stored = await asyncio.gather(
            self._disk(), self._certificate(), self._stored()
        )
        self._known = [*disk, *certificate, *stored]
        self._finished = time.monotonic()

    async def _stored(self) -> Sequence[Gauge]:
        if self._limited.database_url is None:
            return ()
        if self._database is None:
            self._database = Database.from_settings(self._limited)
            self._database.follow_servers()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                found = await read_gauges(self._database, self._counts)
        except Exception as error:  # noqa: BLE001 - the scrape shows it, and goes on
            if not isinstance(error, (ServiceUnavailable, TimeoutError)):
                logger.warning(f"metrics of the database: {type(error).__name__}")
            self._abandon(self._database)
            self._database = None
            return _unavailable()
        return [
            Gauge("pressroom_database_up", 1),
            *found.gauges,
            *(_up(name, is_up=is_up) for name, is_up in found.collectors.items()),
        ]

    def _abandon(self, database: Database) -> None:
        """Close a database in the background: it may not respond."""

        async def dispose() -> None:
            with suppress(Exception):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await database.dispose()

        task = asyncio.create_task(dispose())
        self._ended.add(task)
        task.add_done_callback(self._ended.discard)

    async def _disk(self) -> Sequence[Gauge]:
        folder = self._settings.media_dir or self._settings.data_dir / "media"
        existing = next(each for each in (folder, *folder.parents) if each.exists())
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                usage = await asyncio.to_thread(shutil.disk_usage, existing)
        except (OSError, TimeoutError):
            return [_up("disk", is_up=False)]
        free = Gauge("pressroom_disk_free_bytes", usage.free, ("media",))
        size = Gauge("pressroom_disk_size_bytes", usage.total, ("media",))
        return [free, size, _up("disk", is_up=True)]

    async def _certificate(self) -> Sequence[Gauge]:
        address = self._settings.metrics_tls_address
        if address is None:
            return ()
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                text = await asyncio.to_thread(
                    ssl.get_server_certificate, (host, int(port)), timeout=STATEMENT_SECONDS
                )
        except (OSError, TimeoutError, ValueError):
            return [_up("certificate", is_up=False)]
        expiry = x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc.timestamp()
        name = "pressroom_certificate_expiry_timestamp_seconds"
        return [Gauge(name, expiry), _up("certificate", is_up=True)]


def _up(collector: str, *, is_up: bool) -> Gauge:
    return Gauge("pressroom_collector_up", float(is_up), (collector,))


def _unavailable() -> list[Gauge]:
    down = [_up(name, is_up=False) for name in COLLECTORS]
    return [Gauge("pressroom_database_up", 0), *down]


class _Families(Collector):
    """The metrics of one scrape."""

    def __init__(self, directory: Path | None, gauges: Sequence[Gauge], revision: str) -> None:
        self._directory = directory
        self._gauges = [*gauges, Gauge("pressroom_build_info", 1, (__version__, revision))]

    def collect(self) -> Iterator[Metric]:
        counted, are_read = _counted(self._directory)
        families: dict[str, GaugeMetricFamily] = {}
        for gauge in [*self._gauges, _up("processes", is_up=are_read)]:
            if gauge.name in counted:
                _add_newest(counted[gauge.name], gauge)
                continue
            if gauge.name not in families:
                text, labels, _ = SHARED.get(gauge.name) or GAUGES[gauge.name]
                families[gauge.name] = GaugeMetricFamily(gauge.name, text, labels=labels)
            families[gauge.name].add_metric(gauge.labels, gauge.value)
        yield from families.values()
        yield from counted.values()


def _counted(directory: Path | None) -> tuple[Mapping[str, Metric], bool]:
    """Return what the processes counted, by name, and whether their files could be read."""
    if directory is None:
        return {}, True
    try:
        collector = MultiProcessCollector(None, path=str(directory))  # type: ignore[no-untyped-call]  # partly typed
        families: Iterable[Metric] = collector.collect()  # type: ignore[no-untyped-call]  # partly typed
        return {each.name: each for each in families}, True
    except (OSError, ValueError, RuntimeError) as error:
        logger.warning(f"the files of METRICS_DIR cannot be read: {error}")
        return {}, False


def _add_newest(family: Metric, gauge: Gauge) -> None:
    """Add the value of a job. The higher one counts: both are the time of its last success."""
    labels = dict(zip(GAUGES[gauge.name].labels, gauge.labels, strict=True))
    known = [sample for sample in family.samples if sample.labels == labels]
    if not known:
        family.add_sample(gauge.name, labels, gauge.value)
    elif known[0].value < gauge.value:
        family.samples.remove(known[0])
        family.add_sample(gauge.name, labels, gauge.value)


class Exporter:
    """The ASGI application."""

    def __init__(self, settings: Settings) -> None:
        self._directory = settings.metrics_dir
        self._gauges = SharedGauges(settings)
        self._revision = schema_revision()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._respond(scope))(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        if scope["path"] != "/metrics":
            return PlainTextResponse("Not Found\n", 404)
        if scope["method"] != "GET":
            return PlainTextResponse("Method Not Allowed\n", 405, {"Allow": "GET"})
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(self._directory, await self._gauges.read(), self._revision))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def listen(settings: Settings) -> socket.socket:
    """Listen on METRICS_PORT. Raises SetupError if that is not possible."""
    host, port = settings.metrics_host, settings.metrics_port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=16)
    except OSError as error:
        raise SetupError(
            f"Cannot serve metrics on {host}:{port} ({error.strerror}); choose another METRICS_PORT"
        ) from error


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve metrics until a signal stops the process."""
    asyncio.run(_serve(settings, listener, parent=None))


async def _serve(settings: Settings, listener: socket.socket, *, parent: int | None) -> None:
    config = uvicorn.Config(
        Exporter(settings),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        limit_concurrency=20,
    )
    server = uvicorn.Server(config)
    watch = asyncio.create_task(_watch(server, parent)) if parent is not None else None
    await server.serve(sockets=[listener])
    if watch is not None:
        watch.cancel()


async def _watch(server: uvicorn.Server, parent: int) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 - nothing in this process sets an event
        await asyncio.sleep(PARENT_SECONDS)
    server.should_exit = True


_child: int | None = None


def ensure_beside(settings: Settings, *, inherited: Sequence[int] = ()) -> None:
    """Start the server in a fork of this process, unless it runs. It ends with this process.

    `inherited` are file descriptors that the fork closes: other sockets that listen.
    """
    global _child  # noqa: PLW0603 - one for each process
    if _child is not None:
        with suppress(ProcessLookupError):
            os.kill(_child, 0)
            return
    parent = os.getpid()
    _child = os.fork()
    if _child:
        return
    try:
        for descriptor in inherited:
            os.close(descriptor)
        _run_beside(settings, parent)
    except BaseException as error:  # noqa: BLE001 - a fork must not return to its caller
        logger.warning(f"the server of the metrics ended: {type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        os._exit(0)


def stop_beside() -> None:
    """Stop the server that `ensure_beside` started."""
    if _child is not None:
        with suppress(ProcessLookupError):
            os.kill(_child, signal.SIGTERM)


def _run_beside(settings: Settings, parent: int) -> None:
    for number in signal.valid_signals():
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal; the parent decides
    signal.signal(signal.SIGTERM, _exit)
    is_reported = False
    while True:
        try:
            listener = listen(settings)
            break
        except SetupError as error:
            if not is_reported:
                logger.warning(f"{error}. The service goes on without metrics")
            is_reported = True
        time.sleep(RETRY_SECONDS)
        if os.getppid() != parent:
            return
    asyncio.run(_serve(settings, listener, parent=parent))


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(0)
