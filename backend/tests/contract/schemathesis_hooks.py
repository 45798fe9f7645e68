"""Schemathesis hooks for what the OpenAPI document cannot describe.

Email addresses need a known top-level domain, and expiry times must be in the future. With
SCHEMATHESIS_AUTHENTICATED=1, each case is authenticated; a 401 registers a new user.
"""

import gc
import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address
from typing import Any
from uuid import uuid4

import requests
import schemathesis
from hypothesis import strategies as st

gc.set_threshold(50_000, 20, 100)  # as in tests/conftest.py

PASSWORD = "correct horse battery"
NEXT_MONTH = datetime.now(UTC) + timedelta(days=30)

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,12}", fullmatch=True)
LONG_DOMAIN = ".".join(["d" * 63, "d" * 63, "d" * 57, "com"])
LONG_LENGTHS = (253, 254, 255)
"""Lengths around the limit. Of short addresses alone, Hypothesis would search these for seconds."""


def long_address(name: str, length: int) -> str:
    """Return an email address of this length: 254 characters have a local part of 64."""
    return f"{name:l<{length - len(LONG_DOMAIN) - 1}}@{LONG_DOMAIN}"


schemathesis.openapi.format(
    "email",
    st.builds("{}@{}.{}".format, NAMES, NAMES, st.sampled_from(("com", "org", "net")))
    | st.builds(long_address, NAMES, st.sampled_from(LONG_LENGTHS)),
)


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: Any, value: Any) -> bytes:
    """Send NDJSON, which the document describes as a string, unchanged."""
    return str(value).encode(errors="replace")


@schemathesis.hook("before_call")
def set_password_and_expiry(context: Any, case: Any, kwargs: Any) -> None:
    """Send the password of the user and a future `expires_at` when an API key is created."""
    if (case.method, case.path) != ("POST", "/users/me/api-keys"):
        return
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("password"), str):
        body["password"] = PASSWORD
    if isinstance(body, dict) and isinstance(body.get("expires_at"), str):
        with suppress(ValueError):
            if datetime.fromisoformat(body["expires_at"]).tzinfo:
                body["expires_at"] = NEXT_MONTH.isoformat()


@schemathesis.hook("before_call")
def use_new_client(context: Any, case: Any, kwargs: Any) -> None:
    """Send each case from a new address, so that the limits per address are never reached.

    A well-formed Idempotency-Key is replaced by a new one, because short ones are generated twice.
    """
    case.headers = {**(case.headers or {}), "X-Forwarded-For": str(IPv6Address(uuid4().int))}
    key = str(case.headers.get("Idempotency-Key", ""))
    if re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        case.headers["Idempotency-Key"] = str(uuid4())


class FreshUser:
    """Registers a user and logs in. A new user follows when a case has ended the session."""

    def get(self, case: Any, context: Any) -> str:
        base = case.operation.base_url.rstrip("/")
        username = f"schema-{uuid4().hex[:12]}"
        account = {
            "email": f"{username}@example.com",
            "username": username,
            "name": "Schema",
            "password": PASSWORD,
        }
        elsewhere = {"X-Forwarded-For": str(IPv6Address(uuid4().int))}
        registered = requests.post(f"{base}/users", json=account, headers=elsewhere, timeout=10)
        registered.raise_for_status()
        form = {"username": username, "password": PASSWORD}
        answer = requests.post(f"{base}/auth/login", data=form, headers=elsewhere, timeout=10)
        token: str = answer.json()["access_token"]
        return token

    def set(self, case: Any, token: str, context: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}


if os.environ.get("SCHEMATHESIS_AUTHENTICATED"):
    schemathesis.auth()(FreshUser)
