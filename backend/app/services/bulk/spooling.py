"""Mappings in a temporary file, for what grows with the size of a source."""

import json
import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing
from typing import Any, TypeVar
from weakref import finalize

Value = TypeVar("Value")


class SpooledDict(MutableMapping[str, Value]):
    """A dictionary of values that JSON can store, in a temporary file.

    SQLite keeps 2 MB of it in memory. Values are returned as copies; `make` makes one from JSON.
    """

    def __init__(self, make: Callable[[Any], Value] | None = None) -> None:
        self._make = make
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.executescript(
            "PRAGMA journal_mode = off; PRAGMA synchronous = off;"
            "CREATE TABLE entries (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID"
        )
        self._count = 0
        finalize(self, self._connection.close)

    def __getitem__(self, key: str) -> Value:
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
        return self._fetch("SELECT 1 FROM entries WHERE key = ?", key) is not None

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
