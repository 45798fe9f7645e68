"""PostgreSQL URLs: the notation of libpq, converted to that of SQLAlchemy's asyncpg dialect.

postgresql://user:password@host:5432/database
postgresql://user@first:5432,second:5432/database?target_session_attrs=read-write
postgresql://user@host/database?sslmode=verify-full&sslrootcert=keys/ca.pem
"""

import re
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

DEFAULT_PORT = "5432"
SYSTEM_CERTIFICATES = "system"
"""The value of `sslrootcert` for the certificate authorities of the operating system.

`connect` uses them by default, so the option is removed from the URL.
"""
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SESSION_ATTRIBUTES = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})
_CHOICES = {"ssl": SSL_MODES, "target_session_attrs": SESSION_ATTRIBUTES}
_OPTIONS = frozenset({"host", "port", "sslrootcert", *_CHOICES})
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:]+)(?::([0-9]+))?")


def normalize(
    value: str, *, password: str | None, folder: Path, needs_primary: bool = False
) -> str:
    """Return a URL for SQLAlchemy, with `password` if it has none. Raises ValueError.

    `folder` is the base of a relative `sslrootcert`, which must be readable. With `needs_primary`,
    several hosts mean the one that accepts writes.
    """
    try:
        url = make_url(_move_hosts(value))
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in _SCHEMES:
        raise ValueError("must look like postgresql://user:password@host:5432/database")
    if re.search("[@,]", url.host or ""):
        raise ValueError("needs %2F for /, %3F for ? and %40 for @ in the name and the password")
    query = {"ssl" if name == "sslmode" else name: text for name, text in url.query.items()}
    _check_options(query)
    _check_ports(url.port, query)
    if needs_primary and _has_several_hosts(query.get("host")):
        query.setdefault("target_session_attrs", "read-write")
    certificates = query.pop("sslrootcert", None)
    if certificates == SYSTEM_CERTIFICATES:
        if query.setdefault("ssl", "verify-full") not in {"verify-ca", "verify-full"}:
            raise ValueError("needs sslmode=verify-full for sslrootcert=system")
    elif certificates is not None:
        query["sslrootcert"] = _readable(folder / str(certificates))
    url = url.set(drivername="postgresql+asyncpg", query=query)
    if url.password is None:
        url = url.set(password=password)
    return url.render_as_string(hide_password=False)


def _has_several_hosts(host: object) -> bool:
    return isinstance(host, tuple) or "," in str(host)


def _check_ports(port: int | None, query: dict[str, str | tuple[str, ...]]) -> None:
    """Complete and check the ports. Hosts that are named one by one contain theirs."""
    hosts = query.get("host", "")
    if isinstance(hosts, str) and "," in hosts:
        query.setdefault("port", ",".join(DEFAULT_PORT for _ in hosts.split(",")))
        if str(query["port"]).count(",") != hosts.count(","):
            raise ValueError("must have one port for each host")
    ports = [
        DEFAULT_PORT if port is None else str(port),
        *str(query.get("port", DEFAULT_PORT)).split(","),
    ]
    if not all(each.isdecimal() and 0 < int(each) < 65536 for each in ports):
        raise ValueError("must have a port between 1 and 65535")


def _check_options(query: Mapping[str, object]) -> None:
    if unknown := query.keys() - _OPTIONS:
        raise ValueError(f"has unknown options: {', '.join(sorted(unknown))}")
    for name, choices in _CHOICES.items():
        if query.get(name, choices[0]) not in choices:
            option = "sslmode" if name == "ssl" else name
            raise ValueError(f"has a wrong {option}: use one of {', '.join(choices)}")


def _move_hosts(value: str) -> str:
    """Move several hosts to the query, because `make_url` reads only one. Raises ValueError."""
    scheme, _, rest = value.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    credentials, at, hosts = authority.rpartition("@")
    if "," not in hosts:
        return value
    pairs = [_HOST.fullmatch(host.strip()) for host in hosts.split(",")]
    if not all(pairs):
        raise ValueError("invalid list of hosts")
    names = ",".join(pair[1].strip("[]") for pair in pairs if pair)
    ports = ",".join(pair[2] or DEFAULT_PORT for pair in pairs if pair)
    path, _, query = rest.removeprefix(authority).partition("?")
    options = "&".join(filter(None, [query, f"host={names}&port={ports}"]))
    return f"{scheme}://{credentials}{at}{path or '/'}?{options}"


def _readable(path: Path) -> str:
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        raise ValueError(f"sslrootcert={path} cannot be read ({error.strerror})") from None
