"""The rules of requests, without input and output: both clients share them.

A flow is a generator. It yields what is to be done (`Send`, `Pause`, `Exclusively`), and receives
the result or the exception. `_sending.py` performs it, with or without `await`.
"""

import random
import re
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from pydantic import BaseModel, TypeAdapter

from . import models
from ._base import Content, Model, Operation, Page
from ._errors import PressroomError, error_of

Result = TypeVar("Result")

FIRST_PAUSE = 0.25
EARLY_SECONDS = 10.0
"""An access token this close to its end is refreshed before the request."""
REPEATABLE_STATUSES = frozenset({502, 503, 504})
UNSAFE_METHODS = frozenset({"POST", "PATCH"})
OLD_TOKEN_CODES = frozenset({"token_expired", "token_revoked", "invalid_token"})
RATE = re.compile(r'"([^"]+)";r=([0-9]+);t=([0-9]+)')
LOGINS = frozenset({"login", "log_in_with_second_factor"})
LOGOUTS = frozenset({"log_out", "log_out_everywhere"})
REFRESH: Operation[models.Tokens] = Operation("refresh", "POST", "/auth/refresh", models.Tokens)


@dataclass(frozen=True)
class StoredTokens:
    """The tokens of a session, and when the access token expires: seconds since 1970."""

    access_token: str
    refresh_token: str | None
    expires_at: float


class TokenStore(Protocol):
    """Where tokens are kept between requests, for example in a file."""

    def get(self) -> StoredTokens | None:
        """Return the tokens; None without a session."""

    def set(self, tokens: StoredTokens | None) -> None:
        """Keep the tokens, or forget them."""


@dataclass
class MemoryStore:
    """Keep tokens in memory."""

    tokens: StoredTokens | None = None

    def get(self) -> StoredTokens | None:
        """Return the tokens; None without a session."""
        return self.tokens

    def set(self, tokens: StoredTokens | None) -> None:
        """Keep the tokens, or forget them."""
        self.tokens = tokens


@dataclass(frozen=True)
class Retry:
    """How failed requests are repeated.

    `attempts`: how often a request is sent at most. `max_pause`: the longest pause in seconds; a
    longer Retry-After is an error at once.
    """

    attempts: int = 4
    max_pause: float = 20.0


@dataclass(frozen=True)
class Send:
    """Send a request, and receive the response. `stream`: without reading a successful body."""

    method: str
    path: str
    headers: Mapping[str, str]
    options: Mapping[str, Any]
    stream: bool = False


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True)
class Exclusively:
    """Perform a flow while no other one of this client is performed exclusively."""

    flow: "Flow[None]"


Effect = Send | Pause | Exclusively
Flow = Generator[Effect, Any, Result]


@dataclass(frozen=True)
class Call:
    """A request of an operation, before it has a token."""

    operation: Operation[Any]
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    authenticated: bool = True


def prepare(
    operation: Operation[Any],
    *,
    path: Mapping[str, Any] | None = None,
    query: Mapping[str, Any] | None = None,
    body: BaseModel | Mapping[str, Any] | Content | None = None,
    files: Mapping[str, Any] | None = None,
    if_match: str | None = None,
    idempotency_key: str | None = None,
    content_type: str | None = None,
) -> Call:
    """Return the request of an operation. A POST that accepts a key gets a new one."""
    names = {name: quote(str(value), safe="") for name, value in (path or {}).items()}
    headers = {} if operation.raw else {"Accept": "application/json"}
    if if_match:
        headers["If-Match"] = if_match
    if operation.key:
        headers["Idempotency-Key"] = idempotency_key or str(uuid.uuid4())
    options: dict[str, Any] = {}
    parameters = {
        name: _parameter(value) for name, value in (query or {}).items() if value is not None
    }
    if parameters:
        options["params"] = parameters
    if files is not None:
        options["files"] = files
        options["data"] = body
    elif isinstance(body, BaseModel):
        options["content"] = body.model_dump_json(exclude_unset=True)
        headers["Content-Type"] = "application/json"
    elif isinstance(body, Mapping):
        options["json"] = body
    elif body is not None:
        options["content"] = body
        headers["Content-Type"] = content_type or "application/octet-stream"
    has_stream = not isinstance(options.get("content", ""), str | bytes)
    return Call(
        operation=operation,
        path=operation.path.format(**names),
        headers=headers,
        options=options,
        repeatable=not has_stream and (operation.key or operation.method not in UNSAFE_METHODS),
        authenticated=operation.id not in LOGINS,
    )


def _parameter(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value


class Rates:
    """The limits that responses have reported: a request waits rather than getting 429."""

    def __init__(self) -> None:
        self._policies: dict[str, set[str]] = {}
        """The policies of each operation."""
        self._until: dict[str, float] = {}

    def note(self, operation: str, response: httpx.Response) -> None:
        """Note the fields of a response (draft-ietf-httpapi-ratelimit-headers)."""
        for policy, left, seconds in RATE.findall(response.headers.get("RateLimit", "")):
            self._policies[operation] = self._policies.get(operation, set()) | {policy}
            self._until[policy] = 0.0 if int(left) else time.monotonic() + int(seconds)

    def wait(self, operation: str) -> float:
        """Return the seconds until the limits of an operation allow a request; at most 0: now."""
        policies = self._policies.get(operation, ())
        return max((self._until[each] for each in policies), default=0.0) - time.monotonic()


class Core:
    """The state of a client, and the flows of its requests."""

    def __init__(self, *, api_key: str | None, store: TokenStore, retry: Retry) -> None:
        self.api_key = api_key
        self.store = store
        self.retry = retry
        self.rates = Rates()

    def call(self, call: Call) -> Flow[Any]:
        """Send a request, and return the result. Raises PressroomError."""
        response = yield from self.exchange(call)
        operation = call.operation
        if operation.id in LOGOUTS:
            self.store.set(None)
        result = result_of(operation, response)
        if operation.id in LOGINS:
            self.begin(result)
        return result

    def exchange(self, call: Call) -> Flow[httpx.Response]:
        """Send a request until its response is successful, and return this response.

        A limit is waited for, before the request if an earlier response has reported it. Failures
        are repeated only if the request is repeatable: then one that was carried out, but whose
        response was lost, changes nothing more. An access token that has expired is refreshed once.
        """
        refreshed = False
        attempt = 0
        while True:
            attempt += 1
            pause = min(self.retry.max_pause, FIRST_PAUSE * 2 ** (attempt - 1))
            pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads the attempts of clients
            wait = self.rates.wait(call.operation.id)
            if 0 < wait <= self.retry.max_pause:
                yield Pause(wait)
            token = (yield from self.token()) if call.authenticated else None
            headers = {**call.headers, **({"Authorization": f"Bearer {token}"} if token else {})}
            try:
                response = yield Send(
                    call.operation.method, call.path, headers, call.options, call.operation.raw
                )
            except httpx.TransportError:
                if not call.repeatable or attempt >= self.retry.attempts:
                    raise
                yield Pause(pause)
                continue
            if response.is_success:
                self.rates.note(call.operation.id, response)
                return response  # type: ignore[no-any-return]  # what `Send` yields
            error = error_of(response)
            if error.code in OLD_TOKEN_CODES and not refreshed and not self.api_key and token:
                refreshed = True
                yield Exclusively(self.refresh(token))
                if self.store.get() is not None:
                    continue
            pause = max(pause, error.retry_after or 0.0)
            may_pass = error.status == 429 or (
                call.repeatable
                and (error.status in REPEATABLE_STATUSES or error.code == "request_in_progress")
            )
            if not may_pass or pause > self.retry.max_pause or attempt >= self.retry.attempts:
                raise error
            yield Pause(pause)

    def token(self) -> Flow[str | None]:
        """Return a valid access token; None without a session."""
        if self.api_key is not None:
            return self.api_key
        tokens = self.store.get()
        if tokens and tokens.expires_at - time.time() < EARLY_SECONDS:
            yield Exclusively(self.refresh(tokens.access_token))
            tokens = self.store.get()
        return tokens.access_token if tokens else None

    def refresh(self, stale: str) -> Flow[None]:
        """Replace the access token `stale`, unless another request has done it."""
        tokens = self.store.get()
        if tokens is None or tokens.access_token != stale:
            return
        if tokens.refresh_token is None:
            self.store.set(None)
            return
        body = models.RefreshRequest(refresh_token=tokens.refresh_token)
        # Repeatable: for some seconds, the server returns the same successor again.
        call = Call(
            operation=REFRESH,
            path=REFRESH.path,
            headers={"Content-Type": "application/json"},
            options={"content": body.model_dump_json()},
            authenticated=False,
        )
        try:
            response = yield from self.exchange(call)
        except PressroomError as error:
            if error.code != "invalid_refresh_token":
                raise
            self.store.set(None)
            return
        self.begin(result_of(REFRESH, response))

    def begin(self, tokens: models.Tokens) -> None:
        """Keep the tokens of a login or a refresh."""
        expires_at = time.time() + tokens.expires_in
        self.store.set(StoredTokens(tokens.access_token, tokens.refresh_token, expires_at))


def result_of(operation: Operation[Any], response: httpx.Response) -> Any:
    """Return the result of a successful response."""
    if operation.raw:
        return response
    if operation.result is None or response.status_code == 204:
        return None
    adapter: TypeAdapter[Any] = operation.adapter
    value = adapter.validate_json(response.content)
    etag = response.headers.get("ETag")
    if isinstance(value, Model):
        value._etag = etag  # noqa: SLF001 - the property is for callers
    if isinstance(value, list):
        page: Page[Any] = Page(value)
        total = response.headers.get("X-Total-Count")
        page.next = next_cursor(response)
        page.total = None if total is None else int(total)
        page.etag = etag
        return page
    return value


def next_cursor(response: httpx.Response) -> str | None:
    """Return the cursor of the next page of a Link header (RFC 8288); None on the last page."""
    address = response.links.get("next", {}).get("url", "")
    return next(iter(parse_qs(urlsplit(address).query).get("cursor", [])), None)


class Paging:
    """The parameters of the pages of a list, one page after the other."""

    def __init__(self, pages: str, parameters: Mapping[str, Any], page_size: int = 100) -> None:
        self._pages = pages
        self.parameters: dict[str, Any] = {"limit": page_size, **parameters}

    def advance(self, page: Page[Any]) -> bool:
        """Prepare the next page. Return False after the last one."""
        if self._pages == "skip":
            self.parameters["skip"] = self.parameters.get("skip", 0) + len(page)
            return len(page) >= int(self.parameters["limit"])
        self.parameters["cursor"] = page.next
        self.parameters.pop("skip", None)
        return page.next is not None
