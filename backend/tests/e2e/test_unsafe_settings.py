"""Promise: production refuses to start with unsafe settings, in one message that names them all."""

from collections.abc import Callable

import pytest

from tests.e2e.processes import (
    GUNICORN,
    HOST,
    Checkout,
    Process,
    free_port,
    pressroom,
    said,
)

pytestmark = pytest.mark.e2e

UNSAFE = {
    "ENVIRONMENT": "production",
    "DEBUG": "true",
    "ALLOWED_HOSTS": "*",
    "CORS_ORIGINS": "https://ok.example.com,https://*.example.com",
}
PROBLEMS = ("SECRET_KEY is missing", "DEBUG", "ALLOWED_HOSTS", "CORS_ORIGINS", "DATABASE_URL")
SECRETS = {
    "short": "SECRET_KEY is shorter than 32 bytes",
    "development-only-secret-that-production-refuses": "SECRET_KEY is the example",
}


def by_gunicorn(checkout: Checkout, **settings: str) -> Process:
    arguments = (*GUNICORN, "--bind", f"{HOST}:{free_port()}")
    return Process(arguments, checkout=checkout, settings=settings)


def by_command(checkout: Checkout, **settings: str) -> Process:
    return pressroom(checkout, "serve", "--port", str(free_port()), **settings)


@pytest.mark.parametrize("start", [by_gunicorn, by_command])
def test_one_message_names_every_problem(checkout: Checkout, start: Callable[..., Process]) -> None:
    starts = [UNSAFE, *({**UNSAFE, "SECRET_KEY": secret} for secret in SECRETS)]
    processes = [start(checkout, **settings) for settings in starts]
    try:
        for process, problem in zip(processes, [PROBLEMS[0], *SECRETS.values()], strict=True):
            assert process.wait() not in {0, None}
            for expected in (problem, *PROBLEMS[1:]):
                assert expected in said(process)
            assert "Traceback" not in process.log
            assert said(process).count("unsafe for ENVIRONMENT=production") == 1
    finally:
        for process in processes:
            process.kill()
