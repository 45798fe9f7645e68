"""The rate limits that a request counts for, for the fields RateLimit and RateLimit-Policy.

Services report them. app.http.middleware writes the fields (draft-ietf-httpapi-ratelimit-headers).
"""

import math
from contextvars import ContextVar
from typing import NamedTuple


class Rate(NamedTuple):
    """A quota of a policy within a window of seconds, and what is left of it.

    `quota` and `window` are None if only the state is known, `remaining` and `reset` if only the
    policy is.
    """

    policy: str
    quota: int | None = None
    window: int | None = None
    remaining: int | None = None
    reset: int | None = None
    """Seconds until more is available."""
    in_bytes: bool = False


Rates = dict[str, Rate]

_MAX_INTEGER = 999_999_999_999_999
"""RFC 9651 §3.3.1."""

_rates: ContextVar[Rates | None] = ContextVar("rates", default=None)


def collect() -> Rates:
    """Collect the rates of the current request, by policy. Tasks that it starts add to them."""
    rates: Rates = {}
    _rates.set(rates)
    return rates


def report(rate: Rate) -> None:
    """Add a rate to those of the current request, in place of an earlier one of its policy."""
    rates = _rates.get()
    if rates is not None:
        known = rates.get(rate.policy)
        if known is not None and rate.quota is None:
            rate = rate._replace(quota=known.quota, window=known.window)
        rates[rate.policy] = rate


def leaky_bucket(
    policy: str, *, level: float, quota: int, window: int, in_bytes: bool = False
) -> Rate:
    """Return the state of a bucket that contains `level` and loses `quota` within the window."""
    remaining = max(math.floor(quota - level), 0)
    missing = level - (quota - remaining - 1)
    reset = max(math.ceil(missing * window / quota), 1) if quota else window
    return Rate(policy, quota, window, remaining, reset, in_bytes)


def policies(rates: Rates) -> str:
    """Return the value of RateLimit-Policy: a list of strings with parameters (RFC 9651)."""
    return ", ".join(
        f'"{each.policy}";q={min(each.quota, _MAX_INTEGER)};w={each.window}'
        + (';qu="content-bytes"' if each.in_bytes else "")
        for each in rates.values()
        if each.quota is not None
    )


def states(rates: Rates) -> str:
    """Return the value of RateLimit."""
    return ", ".join(
        f'"{each.policy}";r={min(each.remaining, _MAX_INTEGER)};t={each.reset}'
        for each in rates.values()
        if each.remaining is not None
    )
