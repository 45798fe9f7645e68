"""Import records: validation, keys, and a compact set of keys."""

import json
from array import array
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.auth.identity import Identity
from app.content.markdown import Rendered
from app.content.slugs import slugify, tag_key
from app.core.config import describe
from app.core.languages import canonical_language
from app.schemas.bulk import ArticleRecord

Position = int | str
"""The position of a record in its source: a line number, a path, or the number of a post."""

MAX_RECORD_BYTES = 4 * 1024 * 1024
MAX_REPORTED_ERRORS = 3
MAX_MESSAGE = 500


class ParsedRecord(NamedTuple):
    """A record that was read from a source, or the reason why it is invalid."""

    position: Position
    record: ArticleRecord | None
    problem: str = ""
    identity: str = ""
    """The identifier in its source, if this is not the slug."""
    slug_source: str = ""
    """The text from which the slug is generated, instead of the title."""
    note: str = ""
    """A description of values that had to be changed."""


class Importer(NamedTuple):
    """The importing user, or None for the operator, who may import for all authors."""

    identity: Identity | None

    @property
    def user_id(self) -> int | None:
        """The id of the importing user."""
        return None if self.identity is None else self.identity.id

    @property
    def namespace(self) -> str:
        """The part of the key of a record without slug and author that identifies the importer."""
        return str(self.user_id or "")


class PreparedRecord(NamedTuple):
    """A record with its key and digest, and its rendered content if it has to be written."""

    parsed: ParsedRecord
    record: ArticleRecord
    key: bytes
    digest: bytes
    repeated: bool = False
    """Whether an earlier record had the same key or slug."""
    rendered: Rendered | None = None


class Outcome(StrEnum):
    """The outcome of the import of a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class Result(NamedTuple):
    """The outcome for a record, with the error or a description of changed values."""

    position: Position
    outcome: Outcome
    message: str = ""


def parse_fields(position: Position, fields: Any, **known: str) -> ParsedRecord:
    """Validate the fields of a record. `known` has further fields of ParsedRecord."""
    if isinstance(fields, dict) and isinstance(language := fields.get("language"), str):
        fields["language"], note = _registered_language(language)
        known["note"] = "; ".join(filter(None, (known.get("note"), note)))
    try:
        return ParsedRecord(position, ArticleRecord.model_validate(fields), **known)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        problem = "; ".join(map(describe, errors[:MAX_REPORTED_ERRORS]))
        return ParsedRecord(position, None, problem=problem[:MAX_MESSAGE])


def _registered_language(language: str) -> tuple[str | None, str]:
    """Return the registered part of a language tag, and a note if a part was dropped.

    Exports contain `pt_BR`, `de_DE_formal` or `en-UK`. Subtags are dropped from the end, as in
    RFC 4647 §3.4.
    """
    subtags = language.replace("_", "-").split("-")
    for length in range(min(3, len(subtags)), 0, -1):
        with suppress(ValueError):
            found = canonical_language("-".join(subtags[:length]))
            is_all = length == len(subtags)
            return found, "" if is_all else f"language: {found} instead of {language[:50]!r}"
    return None, f"language: {language[:50]!r} is not registered, the default is used"


def prepare_record(
    item: ParsedRecord, record: ArticleRecord, *, importer: Importer
) -> PreparedRecord:
    """Add the key, which identifies the article, and the digest of the record's content."""
    digest = sha256(_canonical(record)).digest()
    name = item.identity or (
        f"slug:{record.slug}"
        if record.slug
        else f"record:{(record.author or '').lower() or importer.namespace}:{digest.hex()}"
    )
    return PreparedRecord(item, record, sha256(name.encode()).digest(), digest)


def _canonical(record: ArticleRecord) -> bytes:
    """Serialize a record canonically. Default values are omitted, so new fields change nothing."""
    fields: Mapping[str, Any] = {
        **record.model_dump(mode="json", exclude_defaults=True),
        "tags": sorted(set(map(_canonical_tag, record.tags))),
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _canonical_tag(name: str) -> str:
    """Return the tag's key. Simple tags keep the form of earlier releases, and so their digests."""
    key, slug = tag_key(name), slugify(name, fallback="tag")
    return slug if slug == key.replace(" ", "-") else key


def key_of_article(article_id: int) -> bytes:
    """Return an article's id as a key for KeySet."""
    return article_id.to_bytes(8)


class KeySet:
    """A set of keys with 16 to 32 bytes per key: a fifth of the memory of a `set`.

    It compares 63 bits of a SHA-256. The probability of a collision among a million keys is one
    in 18 million.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __contains__(self, key: bytes) -> bool:
        return self._slots[_slot(self._slots, _fingerprint(key))] != 0

    def add(self, key: bytes) -> bool:
        """Add a key. Return whether it is new."""
        value = _fingerprint(key)
        slot = _slot(self._slots, value)
        if self._slots[slot]:
            return False
        self._slots[slot] = value
        self._count += 1
        if self._count * 2 > len(self._slots):
            larger = array("Q", bytes(16 * len(self._slots)))
            for before in filter(None, self._slots):
                larger[_slot(larger, before)] = before
            self._slots = larger
        return True


def _fingerprint(key: bytes) -> int:
    """Return the last 63 bits of a key as a number. It is not 0, which marks an empty slot."""
    return int.from_bytes(key[-8:]) | 1 << 63


def _slot(slots: "array[int]", value: int) -> int:
    """Return the slot of a value, or the free slot for it (linear probing)."""
    mask = len(slots) - 1
    slot = value & mask
    while slots[slot] not in {0, value}:
        slot = (slot + 1) & mask
    return slot
