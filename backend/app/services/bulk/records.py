"""Records on their way in: what each is known by, and what has come by already."""

import json
from array import array
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.auth.identity import Identity
from app.core.config import describe
from app.core.languages import canonical_language
from app.core.markdown import Rendered
from app.core.text import slugify, tag_key
from app.schemas.bulk import ArticleRecord

Position = int | str
"""Where in its source a record stands: a line, a file, the number of a post."""

MAX_RECORD_BYTES = 4 * 1024 * 1024
MAX_FINDINGS = 3
MAX_MESSAGE = 500


class Incoming(NamedTuple):
    """A record that a source has read: itself, or what is wrong with it."""

    position: Position
    record: ArticleRecord | None
    problem: str = ""
    identity: str = ""
    """What it is called where it comes from, where that is not its slug."""
    wish: str = ""
    """What its slug is made from, in place of its title."""
    note: str = ""
    """What could not be taken over as it was."""


class Importer(NamedTuple):
    """On whose behalf: a user's, or the operator's (None), who may write for anybody."""

    identity: Identity | None

    @property
    def label(self) -> str:
        """Whose a record without a slug and an author is, in its key."""
        return "" if self.identity is None else str(self.identity.id)


class Prepared(NamedTuple):
    """A record with what it is known by; rendered, unless it is not going to be written."""

    incoming: Incoming
    record: ArticleRecord
    key: bytes
    digest: bytes
    repeated: bool = False
    """Whether a record before it had the same key, or its slug."""
    rendered: Rendered | None = None


class Outcome(StrEnum):
    """What became of a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class Result(NamedTuple):
    """What became of which record; why it failed, or what of it is not as it was."""

    position: Position
    outcome: Outcome
    message: str = ""


def incoming(position: Position, fields: Any, **known: str) -> Incoming:
    """A record from its fields; `known` is the rest of what an Incoming has."""
    if isinstance(fields, dict) and isinstance(language := fields.get("language"), str):
        fields["language"], note = _registered(language)
        known["note"] = "; ".join(filter(None, (known.get("note"), note)))
    try:
        return Incoming(position, ArticleRecord.model_validate(fields), **known)
    except ValidationError as error:
        findings = error.errors(include_url=False, include_input=False)
        problem = "; ".join(map(describe, findings[:MAX_FINDINGS]))
        return Incoming(position, None, problem=problem[:MAX_MESSAGE])


def _registered(language: str) -> tuple[str | None, str]:
    """The registered part of a language tag, and a note if anything was dropped.

    Exports write `pt_BR`, `de_DE_formal` or `en-UK`: RFC 4647 §3.4 drops what follows from the end.
    """
    subtags = language.replace("_", "-").split("-")
    for length in range(min(3, len(subtags)), 0, -1):
        with suppress(ValueError):
            found = canonical_language("-".join(subtags[:length]))
            is_all = length == len(subtags)
            return found, "" if is_all else f"language: {found} in place of {language[:50]!r}"
    return None, f"language: {language[:50]!r} is not registered, the default is used"


def prepared(item: Incoming, record: ArticleRecord, *, importer: Importer) -> Prepared:
    """The record with its key, which says which article it is, and its digest, which says how."""
    digest = sha256(_canonical(record)).digest()
    name = item.identity or (
        f"slug:{record.slug}"
        if record.slug
        else f"record:{(record.author or '').lower() or importer.label}:{digest.hex()}"
    )
    return Prepared(item, record, sha256(name.encode()).digest(), digest)


def _canonical(record: ArticleRecord) -> bytes:
    """The record, the same for all ways to say the same; fields that come later change none."""
    fields: Mapping[str, Any] = {
        **record.model_dump(mode="json", exclude_defaults=True),
        "tags": sorted(set(map(_canonical_tag, record.tags))),
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _canonical_tag(name: str) -> str:
    """The tag's key; for plain words what earlier releases wrote, so that digests stay the same."""
    key, slug = tag_key(name), slugify(name, fallback="tag")
    return slug if slug == key.replace(" ", "-") else key


def key_of(article_id: int) -> bytes:
    """An article's id as Seen takes it."""
    return article_id.to_bytes(8)


class Seen:
    """The keys that have come by, in 16 to 32 bytes each: a set would take five times as much.

    It compares 63 bits of a SHA-256: among a million keys, two are alike once in 18 million.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __contains__(self, key: bytes) -> bool:
        return self._slots[_slot(self._slots, _value(key))] != 0

    def add(self, key: bytes) -> bool:
        """Note a key; whether it is new."""
        value = _value(key)
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


def _value(key: bytes) -> int:
    """The end of a key, as a number that is not 0: that is an empty slot."""
    return int.from_bytes(key[-8:]) | 1 << 63


def _slot(slots: "array[int]", value: int) -> int:
    """Where a value is, or where it goes: the first free slot from its own on."""
    mask = len(slots) - 1
    slot = value & mask
    while slots[slot] not in {0, value}:
        slot = (slot + 1) & mask
    return slot
