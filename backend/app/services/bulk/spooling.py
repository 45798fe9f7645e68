"""Mappings whose memory does not grow with the size of a source."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import closing
from typing import Any, TypeVar
from weakref import finalize

Key = TypeVar("Key")
Value = TypeVar("Value")
MAX_KEYS = 50_000
MAX_VALUES = 20_000
"""Values of a list that are read: more would not fit into memory."""


class BoundedDict(dict[Key, Value]):
    """A dictionary that ignores further keys when it has MAX_KEYS."""

    def __setitem__(self, key: Key, value: Value) -> None:
        if len(self) < MAX_KEYS or key in self:
            super().__setitem__(key, value)


def _connect(schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.executescript(f"PRAGMA journal_mode = off; PRAGMA synchronous = off; {schema}")
    return connection


class SpooledDict(MutableMapping[str, Value]):
    """A dictionary of values that JSON can store, in a temporary file.

    SQLite keeps 2 MB of it in memory. Values are returned as copies; `make` makes one from JSON.
    """

    def __init__(self, make: Callable[[Any], Value] | None = None) -> None:
        self._make = make
        self._connection = _connect(
            "CREATE TABLE entries (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )
        self._count = 0
        finalize(self, self._connection.close)

    def __getitem__(self, key: str) -> Value:
        if not self._count:
            raise KeyError(key)
        found = self._fetch("SELECT value FROM entries WHERE key = ?", key)
        if found is None:
            raise KeyError(key)
        value: Value = json.loads(found[0])
        return value if self._make is None else self._make(value)

    def __setitem__(self, key: str, value: Value) -> None:
        self._count += key not in self
        row = _encoded(key), json.dumps(value)
        self._connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", row)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._connection.execute("DELETE FROM entries WHERE key = ?", (_encoded(key),))
        self._count -= 1

    def __contains__(self, key: object) -> bool:
        return (
            self._count > 0 and self._fetch("SELECT 1 FROM entries WHERE key = ?", key) is not None
        )

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        with closing(self._connection.execute("SELECT key FROM entries")) as rows:
            for (key,) in rows:
                yield key.decode(errors="surrogatepass")

    def _fetch(self, statement: str, key: object) -> Any:
        return self._connection.execute(statement, (_encoded(key),)).fetchone()


def _encoded(key: object) -> bytes:
    return str(key).encode(errors="surrogatepass")


class SpooledLists(Mapping[str, list[Value]]):
    """Lists by key in a temporary file, to which values are appended in any order."""

    def __init__(self) -> None:
        self._connection = _connect("CREATE TABLE entries (key BLOB, value TEXT)")
        self._connection.execute("CREATE INDEX by_key ON entries (key)")
        self._is_empty = True
        finalize(self, self._connection.close)

    def append(self, key: str, value: Value) -> None:
        """Append a value to the list of a key."""
        row = _encoded(key), json.dumps(value)
        self._connection.execute("INSERT INTO entries VALUES (?, ?)", row)
        self._is_empty = False

    def __getitem__(self, key: str) -> list[Value]:
        """Return the first MAX_VALUES values."""
        if self._is_empty:
            raise KeyError(key)
        statement = "SELECT value FROM entries WHERE key = ? ORDER BY rowid LIMIT ?"
        rows = self._connection.execute(statement, (_encoded(key), MAX_VALUES)).fetchall()
        if not rows:
            raise KeyError(key)
        return [json.loads(value) for (value,) in rows]

    def __len__(self) -> int:
        (count,) = self._connection.execute("SELECT count(DISTINCT key) FROM entries").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[str]:
        with closing(self._connection.execute("SELECT DISTINCT key FROM entries")) as rows:
            for (key,) in rows:
                yield key.decode(errors="surrogatepass")
