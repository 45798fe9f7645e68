"""How gunicorn runs the application. `gunicorn` alone, in this folder, reads it.

What differs between machines comes from the environment:

    WEB_CONCURRENCY      worker processes (default: what processors and memory allow, 4 at most)
    FORWARDED_ALLOW_IPS  who may say X-Forwarded-For (default: private networks, where nginx is)
    GRACEFUL_TIMEOUT     seconds that requests get to finish at shutdown (default: 30)
"""

import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from uvicorn_worker import UvicornWorker

from app.auth.keys import signing_keys
from app.core.capacity import MEGABYTE, memory_limit, usable_processors, workers_that_fit
from app.core.config import Settings, SetupError, get_settings
from app.core.logging import configure_logging
from app.core.protocol import DRAIN_SECONDS, DrainingServer, PressroomProtocol

MAX_DEFAULT_WORKERS = 4
"""Each worker has connection pools of its own; more processes are a decision, not a default."""
WORKER_BYTES = 150 * MEGABYTE
"""What a worker takes after some hours of traffic, rounded up (bench/RESULTS.md)."""
RESERVED_BYTES = 128 * MEGABYTE
"""For the process that watches over them, and for what large bodies and pictures take meanwhile."""


def _read_settings() -> Settings:
    """The application's settings; unsafe ones stop gunicorn here, with one message and no trace."""
    try:
        signing_keys()
        return get_settings()
    except SetupError as error:
        sys.exit(f"pressroom: {error}")


SETTINGS = _read_settings()

# --- what to serve, and where
wsgi_app = "app.main:create_app()"
bind = os.environ.get("BIND") or "0.0.0.0:8000"
backlog = 2048

# --- processes
workers = int(
    os.environ.get("WEB_CONCURRENCY")
    or workers_that_fit(
        processors=usable_processors(),
        memory=memory_limit(),
        most=MAX_DEFAULT_WORKERS,
        worker=WORKER_BYTES,
        reserve=RESERVED_BYTES,
    )
)
# The application is loaded once, before there are workers: they share that memory, and are there
# at once when one is replaced. What must not be shared (connections, threads, jobs) begins in its
# lifespan, in each worker. SIGHUP replaces the workers, but loads no new code: that is another
# container.
preload_app = True
# A worker says that it lives by touching a file: in memory, so that a slow disk does not get it
# killed.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
timeout = 60
# Longer than the longest request, which waits DATABASE_POOL_TIMEOUT for a connection and
# DATABASE_STATEMENT_TIMEOUT for an answer (20 s), and than the drain (app/core/protocol.py).
graceful_timeout = int(os.environ.get("GRACEFUL_TIMEOUT") or 30)
# A leak, ours or a library's, cannot grow for ever; the jitter keeps workers from restarting at
# the same moment.
max_requests = 100_000
max_requests_jitter = 10_000
# gunicorn 27 opens a control socket under $HOME, which is read-only here and not needed.
control_socket_disable = True
proc_name = "pressroom"

# --- connections
# Longer than nginx keeps an idle connection (nginx/templates/edge.conf.template: 2 s). Were it
# shorter, nginx could send a request on a connection that is just being closed, and a POST, which
# nginx may not repeat, would fail.
keepalive = 75
# The edge overwrites X-Forwarded-For with the address it sees; nobody else can reach this port.
PRIVATE_NETWORKS = "127.0.0.1,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS") or PRIVATE_NETWORKS

# --- logs
# The application writes one line a request itself, without query strings and headers.
accesslog = None
loglevel = SETTINGS.log_level.lower()


class ApplicationLogger(Logger):
    """Hands gunicorn's records to the application's logging: one format, one stream."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        configure_logging(SETTINGS)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True


logger_class = ApplicationLogger


class PressroomWorker(UvicornWorker):
    """uvicorn inside a gunicorn worker, on uvloop and httptools."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": PressroomProtocol,
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        "proxy_headers": True,
        # After the drain, and before gunicorn kills the worker at graceful_timeout: the lifespan
        # has to close its pools.
        "timeout_graceful_shutdown": max(graceful_timeout - DRAIN_SECONDS - 5, 1),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class ties these to gunicorn's own handlers; they too belong to the root logger.
        for name in ("uvicorn", "uvicorn.error"):
            log = logging.getLogger(name)
            log.handlers.clear()
            log.propagate = True

    async def _serve(self) -> None:
        """As the base class, with a server that drains."""
        self.config.app = self.wsgi
        server = DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


worker_class = PressroomWorker


def when_ready(server: Arbiter) -> None:
    """What is loaded stays; and what PostgreSQL has to allow (docs/operations.md)."""
    gc.collect()
    gc.freeze()  # no collection touches these pages, which the workers share
    connections = 2 * SETTINGS.database_pool_size * workers
    server.log.info(
        f"{workers} workers, up to {connections} connections to PostgreSQL for each replica"
    )
