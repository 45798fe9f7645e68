"""Import records: validation, keys, and a compact set of keys."""

import json
import re
from array import array
from collections.abc import Mapping, Sequence
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
from app.services.bulk.references import OldAddress

Position = int | str
"""The position of a record in its source: a line number, a path, or the number of a post."""

MAX_RECORD_BYTES = 4 * 1024 * 1024
MAX_REPORTED_ERRORS = 3
MAX_MESSAGE = 500


class ParsedRecord(NamedTuple):
    """A record that was read from a source, or the reason why it is not imported."""

    position: Position
    record: ArticleRecord | None
    problem: str = ""
    """Why the record is invalid."""
    left_out: str = ""
    """The kind of a record that is never imported, in the plural: pages, menu items."""
    title: str = ""
    """For the report, if there is no record."""
    source_id: str = ""
    """The id in its source. By default the record's own `source_id`, its slug, or its content."""
    former_name: str = ""
    """The name by which earlier releases, which stored no source, identified the record."""
    is_former_name_unique: bool = False
    """Whether no other source has a record of that name."""
    slug_source: str = ""
    """The text from which the slug is generated, instead of the title."""
    source_slug: str = ""
    """The slug in the source, if it is not valid here."""
    notes: tuple[str, ...] = ()
    """What was changed or lost, in words for the author."""
    parts: Mapping[str, int] = {}
    """The number of parts that were left out by kind in the plural, such as comments."""
    is_own: bool = False
    """Whether Pressroom wrote the record. Then an article equal to it is not imported again."""
    number: int = 0
    """The number in the order of the source."""


class Importer(NamedTuple):
    """Who imports, and from which source."""

    identity: Identity | None
    """The importing user, or None for the operator, who may import for all authors."""
    source: str = "api"
    """The name of the source of records that name none."""
    new_author_password: str = ""
    """The hash of the password of users that are created for unknown authors, if they are."""

    @property
    def user_id(self) -> int | None:
        """The id of the importing user."""
        return None if self.identity is None else self.identity.id

    @property
    def namespace(self) -> str:
        """The part of a record's former name that identifies the importer."""
        return str(self.user_id or "")

    def source_of(self, record: ArticleRecord) -> str:
        """Return the name of a record's source. Users have sources of their own."""
        return prefix_of(self.identity) + (record.source or self.source)


def prefix_of(identity: Identity | None) -> str:
    """Return the prefix of the names of a user's sources. Those of the operator have none."""
    return "" if identity is None else f"user {identity.id}: "


class PreparedRecord(NamedTuple):
    """A record with its key and digest, and its rendered content if it has to be written."""

    parsed: ParsedRecord
    record: ArticleRecord
    source: str
    source_id: str
    key: bytes
    former_key: bytes
    digest: bytes
    repeated: bool = False
    """Whether an earlier record had the same key."""
    rendered: Rendered | None = None
    comments: Sequence[str] = ()
    """The HTML of the record's comments."""
    addresses: Sequence[OldAddress] | None = None
    """Addresses of the old site in the text; None if they were not searched."""

    @property
    def article_digest(self) -> bytes:
        """The digest of the record without its comments."""
        return sha256(_canonical(self.record.model_copy(update={"comments": []}))).digest()


class Outcome(StrEnum):
    """The outcome of the import of a record."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    LEFT_OUT = "left out"


class Result(NamedTuple):
    """The outcome for a record."""

    parsed: ParsedRecord
    outcome: Outcome
    message: str = ""
    """Why the record failed, or the kind of a record that was left out."""
    notes: tuple[str, ...] = ()
    """What was changed or lost."""
    source: str = ""
    source_id: str = ""
    slug: str = ""
    """The slug of the article."""
    new_authors: tuple[str, ...] = ()
    """The usernames of all users that were created with the batch, in one of its results."""


def parse_fields(position: Position, fields: Any, **known: Any) -> ParsedRecord:
    """Validate the fields of a record. `known` has further fields of ParsedRecord."""
    if isinstance(fields, dict) and isinstance(language := fields.get("language"), str):
        fields["language"], note = _registered_language(language)
        known["notes"] = (*known.get("notes", ()), *([note] if note else []))
    try:
        return ParsedRecord(position, ArticleRecord.model_validate(fields), **known)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        problem = "; ".join(map(describe, errors[:MAX_REPORTED_ERRORS]))
        title = str(fields.get("title") or "")[:200] if isinstance(fields, dict) else ""
        number = known.get("number", 0)
        return ParsedRecord(position, None, problem[:MAX_MESSAGE], title=title, number=number)


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
    """Add the source, the id, the key made of both, and the digest of the record's content."""
    digest = sha256(_canonical(record)).digest()
    author = (record.author or "").lower()
    source = importer.source_of(record)
    source_id = item.source_id or record.source_id or _own_id(record, author, digest)
    former_name = item.former_name or (
        f"slug:{record.slug}"
        if record.slug
        else f"record:{author or importer.namespace}:{digest.hex()}"
    )
    return PreparedRecord(
        item,
        record,
        source,
        source_id,
        record_key(source, source_id),
        sha256(former_name.encode()).digest(),
        digest,
    )


def _own_id(record: ArticleRecord, author: str, digest: bytes) -> str:
    """Return the id of a record without one. Drafts of two authors may have the same slug."""
    if record.slug:
        return f"slug {record.slug} of {author}" if author else f"slug {record.slug}"
    return f"content {digest.hex()} of {author}" if author else f"content {digest.hex()}"


def record_key(source: str, source_id: str) -> bytes:
    """Return the key of a record: a digest of its source and id.

    A site is the same with http and https, with and without `www.`, and in any case.
    """
    owner, _, name = source.rpartition(": ")
    if name[:4].lower() == "http":
        name = _SITE_PREFIX.sub("", name.casefold()).rstrip("/")
    return sha256(f"{owner}\0{name}\0{source_id}".encode(errors="surrogatepass")).digest()


_SITE_PREFIX = re.compile(r"https?://(www\.)?")
_IDENTITY = {"source", "source_id"}


def _canonical(record: ArticleRecord) -> bytes:
    """Serialize a record canonically. Default values are omitted, so new fields change nothing."""
    fields: Mapping[str, Any] = {
        **record.model_dump(mode="json", exclude_defaults=True, exclude=_IDENTITY),
        "tags": sorted(set(map(_canonical_tag, record.tags))),
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _canonical_tag(name: str) -> str:
    """Return the tag's key. Simple tags keep the form of earlier releases, and so their digests."""
    key, slug = tag_key(name), slugify(name, fallback="tag")
    return slug if slug == key.replace(" ", "-") else key


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
