"""What Schemathesis cannot read from the OpenAPI document.

Addresses of mail: `format: email` admits more than RFC 5321 and the registries of top-level domains
do. Authentication, with SCHEMATHESIS_AUTHENTICATED=1: a user, and a new one after each 401.
"""

import os
from typing import Any
from uuid import uuid4

import requests
import schemathesis
from hypothesis import strategies as st

PASSWORD = "correct horse battery"

schemathesis.openapi.format(
    "email",
    st.from_regex(r"[a-z][a-z0-9]{0,12}@[a-z][a-z0-9]{0,12}\.(com|org|net)", fullmatch=True),
)


class FreshUser:
    """Registers a user and logs in; again, where a case deleted them or changed their password."""

    def get(self, case: Any, context: Any) -> str:
        base = case.operation.base_url.rstrip("/")
        username = f"schema-{uuid4().hex[:12]}"
        account = {
            "email": f"{username}@example.com",
            "username": username,
            "name": "Schema",
            "password": PASSWORD,
        }
        requests.post(f"{base}/users", json=account, timeout=10).raise_for_status()
        form = {"username": username, "password": PASSWORD}
        answer = requests.post(f"{base}/auth/login", data=form, timeout=10)
        token: str = answer.json()["access_token"]
        return token

    def set(self, case: Any, token: str, context: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}


if os.environ.get("SCHEMATHESIS_AUTHENTICATED"):
    schemathesis.auth()(FreshUser)
