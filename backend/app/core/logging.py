"""Logging by structlog: readable lines in development, one JSON object a line in production.

Foreign records (uvicorn, gunicorn, SQLAlchemy, Alembic) pass through the same processors.
"""

import logging
import sys
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from app.core.config import Environment, Settings

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_id() -> str | None:
    """The id of the request being served, or None outside of one."""
    return _request_id.get()


def bind_request_id(value: str) -> None:
    """Make `value` the request id of this task and what it awaits."""
    _request_id.set(value)


def _add_request_id(logger: Any, method_name: str, event: EventDict) -> EventDict:
    current = request_id()
    if current is not None:
        event.setdefault("request_id", current)
    return event


def _drop_what_the_line_says(logger: Any, method_name: str, event: EventDict) -> EventDict:
    """For people: the request line has these facts in its sentence already."""
    for fact in ("method", "path", "status", "seconds"):
        event.pop(fact, None)
    return event


def _console() -> Processor:
    """Plain traces: structlog's own, by rich, show every local variable, passwords too."""
    return structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def configure_logging(settings: Settings) -> None:
    """Send every log record of the process to standard output in the environment's format."""
    production = settings.environment is Environment.PRODUCTION
    shared: list[Processor] = [
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if production
        else [_drop_what_the_line_says, _console()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return logger
