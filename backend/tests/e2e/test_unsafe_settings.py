"""Production does not start with unsafe settings, and names all of them in one message."""

from itertools import chain

import pytest

from tests.processes import (
    GUNICORN,
    HOST,
    Checkout,
    Fork,
    Process,
    free_port,
    output_of,
    pressroom,
)

pytestmark = pytest.mark.e2e

UNSAFE = {
    "ENVIRONMENT": "production",
    "DEBUG": "true",
    "ALLOWED_HOSTS": "*",
    "CORS_ORIGINS": "https://ok.example.com,http://localhost:*",
}
PROBLEMS = ("SECRET_KEY is missing", "DEBUG", "ALLOWED_HOSTS", "CORS_ORIGINS", "DATABASE_URL")


def by_gunicorn(checkout: Checkout, **settings: str) -> Process:
    command = (*GUNICORN, "--bind", f"{HOST}:{free_port()}")
    return Fork(*command, checkout=checkout, settings=settings)


def by_command(checkout: Checkout, **settings: str) -> Process:
    return pressroom(checkout, "serve", "--port", str(free_port()), **settings)


def test_one_message_names_every_problem(checkout: Checkout) -> None:
    short = {**UNSAFE, "SECRET_KEY": "short"}
    starts = {
        PROBLEMS[0]: [by_gunicorn(checkout, **UNSAFE), by_command(checkout, **UNSAFE)],
        "SECRET_KEY is shorter than 32 bytes": [by_gunicorn(checkout, **short)],
    }
    try:
        for problem, processes in starts.items():
            for process in processes:
                assert process.wait() == 1
                for expected in (problem, *PROBLEMS[1:]):
                    assert expected in output_of(process)
                assert "Traceback" not in process.log
                assert output_of(process).count("unsafe for ENVIRONMENT=production") == 1
    finally:
        for process in chain(*starts.values()):
            process.kill()
