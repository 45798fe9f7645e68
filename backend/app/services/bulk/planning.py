"""Plan of an import batch: new articles, changes and errors."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.permissions import Action, may
from app.content.slugs import slugify, tag_key
from app.core import clock
from app.core.config import get_settings
from app.core.errors import EmailNotVerified
from app.schemas.bulk import ArticleRecord
from app.services.articles.slugs import is_suffixed, numbered, owns_slug, placeholder
from app.services.bulk import installation, statements
from app.services.bulk.authors import create_author
from app.services.bulk.comments import changes_of, look_up_comments
from app.services.bulk.records import Importer, Outcome, PreparedRecord, Result
from app.services.bulk.spooling import SpooledDict

REPEATED = "another record of this import has the same id in the source"


class RecordRejected(Exception):
    """A record cannot be imported. The message contains the reason."""


class Simulation:
    """What a dry run would have written in earlier batches, which were rolled back."""

    def __init__(self) -> None:
        self._digests: SpooledDict[str] = SpooledDict()
        self._articles: SpooledDict[list[str]] = SpooledDict()
        """The digests of records with comments, without their comments, and the slugs."""
        self._slugs: SpooledDict[bool] = SpooledDict()

    def add(self, item: PreparedRecord, slug: str) -> None:
        """Note the digests of a record, unless an earlier one has the same key."""
        key = item.key.hex()
        if key not in self._digests:
            self._digests[key] = item.digest.hex()
        if item.record.comments and key not in self._articles:
            self._articles[key] = [item.article_digest.hex(), slug]

    def digest(self, key: bytes) -> bytes | None:
        """Return the digest of the record with this key, if there was one."""
        found = self._digests.get(key.hex())
        return None if found is None else bytes.fromhex(found)

    def article(self, key: bytes) -> tuple[bytes, str] | None:
        """Return the digest without comments, and the slug, of the record with this key."""
        found = self._articles.get(key.hex())
        return None if found is None else (bytes.fromhex(found[0]), found[1])

    def take(self, slug: str, author: str) -> None:
        """Note a slug with the username of its author, or "" if it is public."""
        self._slugs[f"{slug} {author}"] = True

    def is_taken(self, slug: str, author: str) -> bool:
        """Whether a record took this slug, publicly or for this author."""
        return f"{slug} " in self._slugs or f"{slug} {author}" in self._slugs


class ArticleCreation(NamedTuple):
    """A record that creates an article."""

    item: PreparedRecord
    author_id: int

    @property
    def slugs(self) -> list[str]:
        """The slugs that the article may get. They are the same in a dry run."""
        record, parsed = self.item.record, self.item.parsed
        base = record.slug or slugify(parsed.slug_source or record.title)
        return numbered(base, digest=self.item.key.hex())


class ArticleChange(NamedTuple):
    """A record that updates an article."""

    item: PreparedRecord
    before: Row[Any]
    values: Mapping[str, Any]
    retags: bool


class _SlugOwner(NamedTuple):
    """The article with a slug, or with a former slug."""

    article_id: int
    former: bool


class Plan:
    """The database's state for a batch, and the changes to make."""

    def __init__(
        self, importer: Importer, now: datetime, simulation: Simulation | None = None
    ) -> None:
        self.importer = importer
        self.simulation = simulation
        self.now = now
        self.authors: dict[str, int] = {}
        self.new_authors: list[str] = []
        """The usernames of the users that were created for this batch."""
        self.here: str | None = None
        """The name of this server as a source, if a record may come from it."""
        self.known: dict[bytes, Row[Any]] = {}
        self.public_slugs: dict[str, _SlugOwner] = {}
        self.draft_slugs: dict[tuple[str, int], _SlugOwner] = {}
        self.targets: dict[int, Row[Any]] = {}
        self.new: list[ArticleCreation] = []
        self.changes: list[ArticleChange] = []
        self.imported: list[tuple[PreparedRecord, int]] = []
        self.results: list[Result] = []
        self.comments: Mapping[int, Mapping[str, Row[Any]]] = {}
        """The comments of articles that exist, by their ids in records."""

    def slug_owner(self, slug: str | None, author_id: int) -> _SlugOwner | None:
        """Return the article with this slug or former slug, as this author sees it."""
        if slug is None:
            return None
        return self.public_slugs.get(slug) or self.draft_slugs.get((slug, author_id))

    def author_id(self, record: ArticleRecord) -> int | None:
        """Return the id of the author that a record names, if there is one."""
        return self.authors.get(record.author.lower()) if record.author else None

    def is_taken(self, slug: str, author_id: int) -> bool:
        """Whether a slug was taken in an earlier batch of a dry run."""
        if self.simulation is None:
            return False
        return self.simulation.is_taken(slug, self.username(author_id))

    def username(self, author_id: int) -> str:
        """Return the username of an author of this batch."""
        return next((name for name, each in self.authors.items() if each == author_id), "-")

    def add_result(
        self,
        item: PreparedRecord,
        outcome: Outcome,
        message: str = "",
        *,
        slug: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        """Add the result of a record, with its notes if it was written."""
        if outcome in {Outcome.CREATED, Outcome.UPDATED}:
            notes = (*item.parsed.notes, *notes, *_slug_notes(item, slug))
        self.results.append(
            Result(
                item.parsed,
                outcome,
                message,
                tuple(notes),
                item.source,
                item.source_id,
                slug,
                () if self.results else tuple(self.new_authors),
            )
        )


def _slug_notes(item: PreparedRecord, slug: str) -> list[str]:
    """Return the note on a slug that is not the one of the source."""
    wanted, source_slug = item.record.slug, item.parsed.source_slug
    if not slug or slug == wanted or not (wanted or source_slug):
        return []
    reason = "is taken" if wanted else "is not a valid slug here"
    return [f"the slug is {slug!r}, because {wanted or source_slug!r} {reason}"]


async def plan(
    session: AsyncSession,
    items: Sequence[PreparedRecord],
    *,
    importer: Importer,
    simulation: Simulation | None = None,
) -> Plan:
    """Read and lock the affected rows, and decide what to do with each record."""
    batch = Plan(importer, clock.now(), simulation)
    await _look_up(session, batch, items)
    first: dict[bytes, PreparedRecord] = {}
    for item in items:
        earlier = first.get(item.key)
        if earlier is None:
            if _try_plan_record(batch, item):
                first[item.key] = item
        elif earlier.digest == item.digest:
            batch.add_result(item, Outcome.UNCHANGED)
        else:
            batch.add_result(item, Outcome.FAILED, REPEATED)
    return batch


async def _look_up(session: AsyncSession, batch: Plan, items: Sequence[PreparedRecord]) -> None:
    await _look_up_authors(session, batch, items)
    if any((item.record.source or "").startswith(installation.PREFIX) for item in items):
        batch.here = await installation.find_source_name(session)
    keys = [key for item in items for key in (item.key, item.former_key)]
    rows = await session.execute(statements.IMPORT_RECORDS, {"keys": keys})
    batch.known = _identify(items, {row.key: row for row in rows}, may_change=_checker(batch))
    slugs = {item.record.slug for item in items if item.record.slug}
    await _look_up_slugs(session, batch, slugs)
    wanted = {row.article_id for row in batch.known.values()} | {
        slug_owner.article_id
        for slug_owner in (*batch.public_slugs.values(), *batch.draft_slugs.values())
        if not slug_owner.former
    }
    wanted |= {article_id for item in items if (article_id := _id_here(batch, item.record))}
    if wanted:
        rows = await session.execute(statements.TARGETS, {"ids": sorted(wanted)})
        batch.targets = {row.id: row for row in rows}
        batch.known = {  # others were deleted in the meantime
            key: row for key, row in batch.known.items() if row.article_id in batch.targets
        }
    commented = {
        batch.known[item.key].article_id
        for item in items
        if item.record.comments and item.key in batch.known
    }
    commented |= {
        article_id
        for item in items
        if item.record.comments and (article_id := _id_here(batch, item.record))
    }
    batch.comments = await look_up_comments(session, sorted(commented))
    kept = {row.draft_slug for row in batch.targets.values() if not owns_slug(row, batch.now)}
    await _look_up_slugs(session, batch, kept - slugs)
    others = {
        name
        for item in items
        if (known := batch.known.get(item.key)) is not None
        for name in _slugs_instead(batch, item, batch.targets[known.article_id])
    }
    await _look_up_slugs(session, batch, others - slugs - kept)


async def _look_up_authors(
    session: AsyncSession, batch: Plan, items: Sequence[PreparedRecord]
) -> None:
    """Find the named authors. For the operator, create those that are missing."""
    named = [item.record.author for item in items]
    named += [comment.author for item in items for comment in item.record.comments]
    usernames = {name.lower(): name for name in named if name}
    if not usernames:
        return
    found = await session.execute(statements.AUTHORS, {"usernames": sorted(usernames)})
    batch.authors = {row.username: row.id for row in found}
    if password := batch.importer.new_author_password:
        for name in sorted(usernames.keys() - batch.authors.keys()):
            username = usernames[name]
            batch.authors[name] = await create_author(session, username, hashed_password=password)
            batch.new_authors.append(username)


def _id_here(batch: Plan, record: ArticleRecord) -> int | None:
    """Return the id of the article that a record of this server's own export comes from."""
    if batch.here is None or record.source != batch.here or record.source_id is None:
        return None
    is_id = record.source_id.isascii() and record.source_id.isdigit()
    return int(record.source_id) if is_id and len(record.source_id) < 19 else None


def _slugs_instead(batch: Plan, item: PreparedRecord, target: Row[Any]) -> list[str]:
    """Return the slugs that an article may get if another one has its slug."""
    wanted = item.record.slug or _current_slug(batch, target)
    slug_owner = batch.slug_owner(wanted, batch.author_id(item.record) or target.author_id)
    is_free = slug_owner is None or slug_owner.article_id == target.id
    return [] if is_free else numbered(wanted, digest=item.key.hex())[1:]


def _current_slug(batch: Plan, target: Row[Any]) -> str:
    """Return the slug that the author of an article sees."""
    slug: str = target.slug if owns_slug(target, batch.now) else target.draft_slug
    return slug


def _checker(batch: Plan) -> Callable[[int], bool]:
    identity = batch.importer.identity
    return lambda owner_id: (
        identity is None or may(identity, Action.CHANGE_ARTICLE, owner_id=owner_id)
    )


def _identify(
    items: Sequence[PreparedRecord],
    rows: Mapping[bytes, Row[Any]],
    *,
    may_change: Callable[[int], bool],
) -> dict[bytes, Row[Any]]:
    """Return the stored records by key.

    A record that an earlier release imported has no source. It is the same if no other source can
    have a record of this name, or if its content is the same.
    """
    known: dict[bytes, Row[Any]] = {}
    adopted: set[bytes] = set()
    for item in items:
        if (row := rows.get(item.key)) is not None:
            known[item.key] = row
            continue
        former = rows.get(item.former_key)
        if former is None or former.source is not None or item.former_key in adopted:
            continue
        is_same = item.parsed.is_former_name_unique or former.digest == item.digest
        if is_same and item.key not in known and may_change(former.author_id):
            known[item.key] = former
            adopted.add(item.former_key)
    return known


async def _look_up_slugs(session: AsyncSession, batch: Plan, slugs: set[str]) -> None:
    if not slugs:
        return
    identity = batch.importer.identity
    authors = {*batch.authors.values(), *([identity.id] if identity else [])}
    parameters = {"slugs": sorted(slugs), "author_ids": sorted(authors), "now": batch.now}
    for row in await session.execute(statements.SLUG_OWNERS, parameters):
        slug_owner = _SlugOwner(row.id, former=row.former)
        if row.draft:
            batch.draft_slugs[row.slug, row.author_id] = slug_owner
        else:
            batch.public_slugs[row.slug] = slug_owner


def _try_plan_record(batch: Plan, item: PreparedRecord) -> bool:
    """Add a record to the plan. Return False and add a failed result if it is rejected."""
    try:
        _plan_record(batch, item)
    except RecordRejected as error:
        batch.add_result(item, Outcome.FAILED, str(error))
        return False
    return True


def _plan_record(batch: Plan, item: PreparedRecord) -> None:
    """Add a record to the new articles, to the changes, or to neither. Raises RecordRejected."""
    author_id = _author_id(batch, item.record)
    known = batch.known.get(item.key)
    if known is not None:
        _require_permission(batch.importer, Action.CHANGE_ARTICLE, known.author_id)
    digest = known.digest if known is not None else _simulated_digest(batch, item)
    if digest == item.digest:
        if known is not None and known.source is None:
            batch.imported.append((item, known.article_id))
        batch.add_result(item, Outcome.UNCHANGED)
        return
    if known is None and _exists_already(batch, item, author_id):
        batch.add_result(item, Outcome.UNCHANGED)
        return
    if item.repeated:
        _plan_continuation(batch, item, author_id)
        return
    if known is not None:
        _plan_change(batch, item, batch.targets[known.article_id], author_id)
        return
    item = _with_publication_date(item, batch.now)
    _require_verified_email(batch.importer, item.record)
    batch.new.append(ArticleCreation(item, author_id))


def _plan_continuation(batch: Plan, item: PreparedRecord, author_id: int) -> None:
    """Add further comments of an article, whose other fields an earlier record had.

    An export divides the comments of an article if there are many. Raises RecordRejected if the
    record differs in another field.
    """
    known = batch.known.get(item.key)
    if not item.record.comments:
        raise RecordRejected(REPEATED)
    if known is not None:
        target = batch.targets[known.article_id]
        values = _column_values(item.record, target, now=batch.now, author_id=author_id)
        is_same = all(value == getattr(target, name) for name, value in values.items())
        if is_same and {tag_key(tag) for tag in item.record.tags} == set(target.tags):
            _plan_change(batch, item, target, author_id)
            return
    elif batch.simulation is not None:
        without_comments = (batch.simulation.digest(item.key), item.record.slug or "")
        digest, slug = batch.simulation.article(item.key) or without_comments
        if digest == item.article_digest:
            notes = changes_of(item.record.comments, item.comments, {}).notes
            batch.add_result(item, Outcome.UPDATED, slug=slug, notes=notes)
            return
    raise RecordRejected(REPEATED)


def _simulated_digest(batch: Plan, item: PreparedRecord) -> bytes | None:
    """Return the digest of the record that an earlier batch of a dry run had with this key."""
    return batch.simulation.digest(item.key) if batch.simulation and item.repeated else None


def _exists_already(batch: Plan, item: PreparedRecord, author_id: int) -> bool:
    """Whether a record of our own format is equal, in every field, to an article written here.

    The article is that of this server's own export, or else of the slug. So articles are not
    duplicated by their export. They remain articles that were not imported: a record that differs
    creates another one.
    """
    record = item.record
    if not item.parsed.is_own:
        return False
    article_id = _id_here(batch, record)
    if article_id is None:
        slug_owner = batch.slug_owner(record.slug, author_id)
        if record.source_id is not None or slug_owner is None or slug_owner.former:
            return False
        article_id = slug_owner.article_id
    target = batch.targets.get(article_id)
    if target is None or target.deleted_at is not None or target.author_id != author_id:
        return False
    if record.slug not in {None, _current_slug(batch, target)}:
        return False
    record = _with_publication_date(item, target.published_at or batch.now).record
    values = _column_values(record, target, now=batch.now, author_id=author_id)
    is_equal = all(value == getattr(target, name) for name, value in values.items())
    is_tagged = {tag_key(tag) for tag in record.tags} == set(target.tags)
    comments = changes_of(record.comments, item.comments, batch.comments.get(target.id, {}))
    return is_equal and is_tagged and not comments and not _has_new_addresses(record, target)


def _has_new_addresses(record: ArticleRecord, target: Row[Any]) -> bool:
    """Whether a record has former addresses that do not lead to its article yet."""
    former = set(record.former_slugs) - set(target.former_slugs) - {record.slug}
    return bool(former or set(record.old_paths) - set(target.old_paths))


def _plan_change(batch: Plan, item: PreparedRecord, target: Row[Any], author_id: int) -> None:
    if target.deleted_at is not None:
        raise RecordRejected("the article is in the trash: restore it first")
    item = _with_publication_date(item, target.published_at or batch.now)
    record = item.record
    values = _column_values(record, target, now=batch.now, author_id=author_id)
    slugs = _slug_values(batch, item, target, values)
    values.update(slugs)
    shown = slugs["draft_slug"] or slugs["slug"] or ""
    changed = {name for name, value in values.items() if value != getattr(target, name)}
    retags = {tag_key(tag) for tag in record.tags} != set(target.tags)
    comments = changes_of(record.comments, item.comments, batch.comments.get(target.id, {}))
    if not changed and not retags:
        batch.imported.append((item, target.id))
        if comments or _has_new_addresses(record, target):
            batch.add_result(item, Outcome.UPDATED, slug=shown, notes=comments.notes)
        else:
            batch.add_result(item, Outcome.UNCHANGED)
        return
    if _is_published(record) and (target.published_at is None or target.archived_at is not None):
        _require_verified_email(batch.importer, record)
    if changed & {"title", "content"}:
        identity = batch.importer.identity
        values["edited_by"] = identity.id if identity else None
        values["edited_at"] = batch.now
    if record.updated_at is None:
        values["updated_at"] = batch.now
    batch.changes.append(ArticleChange(item, target, values, retags))
    batch.imported.append((item, target.id))
    batch.add_result(item, Outcome.UPDATED, slug=shown, notes=comments.notes)


def _with_publication_date(item: PreparedRecord, published_at: datetime) -> PreparedRecord:
    """Set the publication date if the record is published and has no date."""
    record = item.record
    if not record.published or record.published_at is not None:
        return item
    return item._replace(record=record.model_copy(update={"published_at": published_at}))


def _column_values(
    record: ArticleRecord, target: Row[Any], *, now: datetime, author_id: int
) -> dict[str, Any]:
    """Return the columns from the record. Fields that it does not contain keep their value."""
    return {
        "title": record.title,
        "content": record.content,
        "own_excerpt": record.excerpt is not None,
        "excerpt": target.excerpt if record.excerpt is None else record.excerpt,
        "cover_image_url": record.cover_image_url,
        "language": record.language or get_settings().default_language,
        "published_at": record.published_at,
        "archived_at": (target.archived_at or now) if record.archived else None,
        "created_at": record.created_at or target.created_at,
        "updated_at": record.updated_at or target.updated_at,
        "author_id": author_id if record.author else target.author_id,
        "imported": record.imported,
        "comment_policy": record.comment_policy or target.comment_policy,
    }


def _slug_values(
    batch: Plan, item: PreparedRecord, target: Row[Any], values: Mapping[str, Any]
) -> dict[str, str | None]:
    """Return `slug` and `draft_slug` by the rules of services.articles.slugs.

    If the record's slug is taken, or was when the article was created, the article keeps its own.
    """
    owned, published_at = owns_slug(target, batch.now), values["published_at"]
    current = _current_slug(batch, target)
    wanted = item.record.slug
    if wanted is None or is_suffixed(current, wanted):
        wanted = current
    base = item.record.slug or current
    for candidate in (wanted, current, *numbered(base, digest=item.key.hex())[1:]):
        slug_owner = batch.slug_owner(candidate, values["author_id"])
        is_free = slug_owner is None or slug_owner.article_id == target.id
        if is_free and not batch.is_taken(candidate, values["author_id"]):
            wanted = candidate
            break
    is_published = published_at is not None and values["archived_at"] is None
    if owned or (is_published and published_at <= batch.now):
        return {"slug": wanted, "draft_slug": None}
    if wanted == current and published_at == target.published_at:
        return {"slug": target.slug, "draft_slug": wanted}
    return {"slug": placeholder() if published_at is None else wanted, "draft_slug": wanted}


def _author_id(batch: Plan, record: ArticleRecord) -> int:
    identity = batch.importer.identity
    if record.author is None:
        if identity is None:
            raise RecordRejected("author: this field is required")
        return identity.id
    author_id = batch.authors.get(record.author.lower())
    if author_id is None:
        raise RecordRejected(f"author: there is no user {record.author!r}")
    _require_permission(batch.importer, Action.IMPORT_ARTICLE, author_id)
    return author_id


def _require_permission(importer: Importer, action: Action, owner_id: int) -> None:
    if importer.identity is not None and not may(importer.identity, action, owner_id=owner_id):
        if action is Action.IMPORT_ARTICLE:
            raise RecordRejected("author: you may only import your own articles")
        raise RecordRejected("the article belongs to another author")


def _is_published(record: ArticleRecord) -> bool:
    return record.published_at is not None and not record.archived


def _require_verified_email(importer: Importer, record: ArticleRecord) -> None:
    if (
        importer.identity is not None
        and _is_published(record)
        and get_settings().require_verified_email
        and importer.identity.email_verified_at is None
    ):
        raise RecordRejected(EmailNotVerified.message)
