# ruff: noqa: E402 - garbage collection is disabled before the other imports
"""The configuration of gunicorn, which reads this file from the current folder.

Environment variables:

    BIND  the address of the socket (default: 0.0.0.0:8000)

Other settings, such as WEB_CONCURRENCY, are in app/core/config.py.
"""

import gc
import logging
import os
import shutil
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

gc.disable()  # it would take a fifth of the time of loading the application

import uvloop  # noqa: F401 - loaded here, it is shared: 5 MB less in each worker
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from prometheus_client.multiprocess import mark_process_dead
from uvicorn_worker import UvicornWorker

from app import exporter
from app.auth.keys import signing_keys
from app.core import metrics
from app.core.config import Settings, SetupError, get_settings
from app.core.logging import configure_logging
from app.core.plurals import counted
from app.db.connections import Connections
from app.server.capacity import MEGABYTE, memory_limit, usable_processors, worker_count
from app.server.protocol import (
    DRAIN_SECONDS,
    DrainingServer,
    PressroomProtocol,
    drop_new_connections,
)

MAX_DEFAULT_WORKERS = 4
"""Each worker opens its own database connections, so more workers need an explicit setting."""
WORKER_BYTES = 150 * MEGABYTE
"""Memory of a worker after some hours of traffic, rounded up (bench/RESULTS.md)."""
RESERVED_BYTES = 128 * MEGABYTE
"""Memory for the master process, the code that all share, and large request bodies."""
UNSHARED_BYTES = 64 * MEGABYTE
"""Memory of a worker that it does not share with the master process (bench/RESULTS.md)."""
MIN_IMAGE_BYTES = 64 * MEGABYTE


def _read_settings() -> Settings:
    """Return the application's settings; exit with a message if they are invalid."""
    try:
        signing_keys()
        return get_settings()
    except SetupError as error:
        sys.exit(f"pressroom: {error}")


SETTINGS = _read_settings()
if SETTINGS.metrics_port and SETTINGS.metrics_dir is None:
    # The workers and the server of the metrics read it in their own settings.
    os.environ["METRICS_DIR"] = str(exporter.create_directory())
    get_settings.cache_clear()
    SETTINGS = get_settings()

# --- application and socket
wsgi_app = "app.main:create_app()"
bind = os.environ.get("BIND") or "0.0.0.0:8000"
backlog = 2048

# --- processes
workers = SETTINGS.web_concurrency or worker_count(
    processors=usable_processors(),
    memory_bytes=memory_limit(),
    max_workers=MAX_DEFAULT_WORKERS,
    worker_bytes=WORKER_BYTES,
    reserved_bytes=RESERVED_BYTES,
)
os.environ["WEB_CONCURRENCY"] = str(workers)  # each worker knows the connections of all
get_settings.cache_clear()
if memory_limit() is not None and SETTINGS.media_memory_bytes is None:
    # Images get what the workers leave. The workers read their own settings.
    left = (memory_limit() or 0) - RESERVED_BYTES - workers * UNSHARED_BYTES
    os.environ["MEDIA_MEMORY_BYTES"] = str(max(left, MIN_IMAGE_BYTES))
    get_settings.cache_clear()
# The master process loads the application once. Workers share its memory and start quickly. The
# lifespan of each worker creates what must not be shared: connections, threads and jobs. SIGHUP
# replaces the workers but does not load new code; deploy a new container for that.
preload_app = True
# Workers touch a heartbeat file. It is in memory, so that gunicorn does not kill a worker because
# of a slow disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
timeout = 60
# Longer than the drain (app/server/protocol.py) and than the longest request. That waits for
# DATABASE_POOL_TIMEOUT and DATABASE_STATEMENT_TIMEOUT, 20 s together.
graceful_timeout = SETTINGS.graceful_timeout
# Restarts limit memory leaks. The jitter keeps workers from restarting at the same time.
max_requests = 100_000
max_requests_jitter = 10_000
# gunicorn 27 opens a control socket in $HOME, which is read-only in the container.
control_socket_disable = True
proc_name = "pressroom"

# --- connections
# Longer than nginx's keepalive timeout (nginx/templates/edge.conf.template: 2 s). Otherwise nginx
# could send a request on a connection that is being closed. It must not repeat a POST.
keepalive = 75
# gunicorn checks FORWARDED_ALLOW_IPS before it reads this file, and its message does not name it.
# `pressroom migrate`, which runs before, and `pressroom doctor` name it.
forwarded_allow_ips = SETTINGS.forwarded_allow_ips

# --- logs
# The application logs each request itself, without query strings and headers.
accesslog = None
loglevel = SETTINGS.log_level.lower()


class ApplicationLogger(Logger):
    """Sends gunicorn's log records to the application's handlers, in the same format."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        configure_logging(SETTINGS)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True


logger_class = ApplicationLogger


class PressroomWorker(UvicornWorker):
    """A gunicorn worker with uvicorn, uvloop and httptools."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": PressroomProtocol,
        "ws": "none",  # PressroomProtocol decides
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "proxy_headers": True,
        # It starts after the drain. It ends 5 s before gunicorn kills the worker, so that the
        # lifespan can close its pools.
        "timeout_graceful_shutdown": max(graceful_timeout - DRAIN_SECONDS - 5, 1),
    }

    slot = 0
    """Which files of METRICS_DIR it writes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class attaches gunicorn's handlers; the root logger handles these records.
        for name in ("uvicorn", "uvicorn.error"):
            log = logging.getLogger(name)
            log.handlers.clear()
            log.propagate = True

    async def _serve(self) -> None:
        """Serve like the base class, with a DrainingServer."""
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


worker_class = PressroomWorker


def _stop(server: Arbiter, graceful: bool = True) -> None:
    """Stop the workers as `Arbiter.stop` does, but without new connections meanwhile.

    Not if other processes go on listening: systemd or another supervisor, another master process
    after SIGUSR2, or this one's parent if that failed.
    """
    is_inherited = server.systemd or any(isinstance(each, int) for each in server.cfg.address)
    is_shared = server.reexec_pid or server.master_pid or server.pid != os.getpid()
    if not (is_inherited or is_shared):
        for listener in server.LISTENERS:
            drop_new_connections(listener.sock)
    Arbiter.stop(server, graceful)


def when_ready(server: Arbiter) -> None:
    """Freeze the loaded objects. Log the URLs of pages, and the connections to PostgreSQL.

    Collections in the workers then do not copy these shared pages. Garbage is frozen, too: new
    objects in its place would copy pages, and a collection would delay the start by 0.15 s.
    """
    server.stop = partial(_stop, server)  # gunicorn has no hook before it
    gc.freeze()
    connections = Connections(SETTINGS).per_process * workers if SETTINGS.database_url else 0
    server.log.info(
        f"{counted(workers, 'worker')}, up to {connections} connections to PostgreSQL for each"
        " replica"
    )
    urls = SETTINGS.page_urls(SETTINGS.api_url)
    if urls:
        opened = ", ".join(f"{name.lower()} at {url}" for name, url in urls.items())
        server.log.info(f"open in a browser: {opened}")


def pre_fork(server: Arbiter, worker: PressroomWorker) -> None:
    """Give the worker the files of one that has ended. Start the server of the metrics.

    It is started again with the next worker if it has ended.
    """
    if not SETTINGS.metrics_port:
        return
    used = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in count() if slot not in used)
    exporter.ensure_beside(SETTINGS, inherited=[each.fileno() for each in server.LISTENERS])


def post_fork(server: Arbiter, worker: PressroomWorker) -> None:
    """Collect garbage, also after SIGHUP, when `when_ready` is not called. Record metrics."""
    gc.enable()
    gc.set_threshold(700, 10, 200)  # full collections of 1,000 open streams block for 0.1 s
    if SETTINGS.metrics_dir is not None and SETTINGS.metrics_port:
        metrics.start(SETTINGS.metrics_dir, str(worker.slot))


def child_exit(server: Arbiter, worker: PressroomWorker) -> None:
    """Remove the gauges of a worker that has ended, also if it was killed."""
    if SETTINGS.metrics_dir is not None and SETTINGS.metrics_port:
        mark_process_dead(str(worker.slot), str(SETTINGS.metrics_dir))


def on_exit(server: Arbiter) -> None:
    """Stop the server of the metrics."""
    exporter.stop_beside()
    if SETTINGS.metrics_dir is not None and exporter.is_created(SETTINGS.metrics_dir):
        shutil.rmtree(SETTINGS.metrics_dir, ignore_errors=True)
