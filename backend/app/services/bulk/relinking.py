"""New addresses in imported texts: of other imported articles, and of copied images.

A text gets the addresses that are known when it is written. The others are saved with it, and are
looked up again at the end of each import of the same source: an article may be imported after one
that links to it, and an image may be copied later. Each batch is a transaction, so an import that
is killed continues where it ended. Only saved addresses are replaced, not what authors write later.
"""

import json
import re
import tempfile
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote

from sqlalchemy import (
    BigInteger,
    Boolean,
    Integer,
    Row,
    SmallInteger,
    String,
    any_,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeEngine

from app.auth.identity import COMMAND_LINE, Identity, recheck
from app.auth.permissions import Action, may
from app.core import clock
from app.core.limits import LimitKind
from app.db.retry import retry
from app.db.session import Database
from app.models.articles.article import Article
from app.models.bulk import ImportedAddress, ImportRecord, Redirect
from app.schemas.bulk import ArticleRecord
from app.schemas.types import MAX_CONTENT_BYTES
from app.services import audit, limits
from app.services.articles.addresses import article_url
from app.services.articles.images import mentions_media, update_media_references
from app.services.articles.rendering import rendered_columns
from app.services.articles.rows import DISPLAYED_SLUG, NOT_DELETED
from app.services.audit import AuditAction
from app.services.bulk.converting.addresses import (
    Address,
    LinkedText,
    Use,
    find_addresses,
    replace_addresses,
)
from app.services.bulk.converting.results import TooComplex
from app.services.bulk.copying import Copier, WantedImage, find_copies
from app.services.bulk.importing import threads
from app.services.bulk.records import KeySet, Outcome, PreparedRecord, Result, prefix_of, record_key
from app.services.bulk.references import (
    FileName,
    ImageTarget,
    OldAddress,
    PageTarget,
    Site,
    file_stem,
    image_target,
    is_file,
    may_refer,
    page_target,
    read_address,
)
from app.services.bulk.reporting import AddressReport, RemainingAddress
from app.services.bulk.texts import RenderTexts, render_texts, with_pauses

COVER = "cover_image"
"""The key in `imported` of a cover image whose address is relative."""
MAX_COVER = 2000
BATCH = 200
"""Articles whose addresses are looked up at a time."""
TEXTS = 20
"""Articles whose texts are in memory at a time."""
NO_ARTICLE = "no article with this URL was imported"
NO_IMAGE = "only images are copied, not other files"
NOT_COPIED = "the image was not copied: see --media and --fetch-media"
MISSING = "the file is not in the folder"
DRY_RUN = "a dry run does not fetch images"

_SOURCES = any_(bindparam("sources", type_=ARRAY(String)))
_ARTICLE_IDS = any_(bindparam("article_ids", type_=ARRAY(BigInteger)))
_BY_PATH = (
    select(Redirect.path, DISPLAYED_SLUG.label("slug"))
    .join(Article, Article.id == Redirect.article_id)
    .where(
        Redirect.path == any_(bindparam("paths", type_=ARRAY(String))),
        Redirect.source == _SOURCES,
        NOT_DELETED,
    )
    .order_by(Redirect.path, Redirect.created_at, Redirect.article_id)
)
_FILES = (
    select(ImportRecord.source_id, DISPLAYED_SLUG.label("slug"))
    .join(Article, Article.id == ImportRecord.article_id)
    .where(ImportRecord.source == _SOURCES, ImportRecord.source_id.is_not(None), NOT_DELETED)
)
_batch = (
    select(ImportedAddress.article_id, func.min(ImportRecord.source_id).label("source_id"))
    .join(ImportRecord, ImportRecord.article_id == ImportedAddress.article_id)
    .where(
        ImportRecord.source == _SOURCES,
        ImportedAddress.article_id > bindparam("after", type_=BigInteger),
    )
    .group_by(ImportedAddress.article_id)
    .order_by(ImportedAddress.article_id)
    .limit(BATCH)
    .cte("batch")
)
_ROWS = (
    select(
        ImportedAddress.article_id,
        ImportedAddress.address,
        ImportedAddress.source_address,
        ImportedAddress.is_image,
        _batch.c.source_id,
        Article.author_id,
        DISPLAYED_SLUG.label("slug"),
    )
    .join(_batch, _batch.c.article_id == ImportedAddress.article_id)
    .join(Article, Article.id == ImportedAddress.article_id)
    .where(NOT_DELETED)
    .order_by(ImportedAddress.article_id, ImportedAddress.address)
)
_TEXTS = (
    select(
        Article.id,
        Article.content,
        Article.cover_image_url,
        Article.excerpt,
        Article.own_excerpt,
        Article.imported[COVER].astext.label("imported_cover"),
    )
    .where(Article.id == _ARTICLE_IDS, NOT_DELETED)
    .order_by(Article.id)
)
_AUTHORS = select(Article.id, Article.author_id).where(Article.id == _ARTICLE_IDS)
_REWRITTEN: Mapping[str, TypeEngine[Any]] = {
    "id": BigInteger(),
    "content": String(),
    "html": String(),
    "plain_text": String(),
    "toc": JSONB(),
    "rendered_with": SmallInteger(),
    "word_count": Integer(),
    "reading_time": Integer(),
    "excerpt": String(),
    "own_excerpt": Boolean(),
    "cover_image_url": String(),
    "former_content": String(),
    "former_cover": String(),
}
# An article that was changed meanwhile is read again. `updated_at` is that of the source.
_REWRITE = text(
    "WITH locked AS (SELECT id FROM articles WHERE id = ANY(:id) ORDER BY id FOR NO KEY UPDATE)"  # noqa: S608 - constants
    " UPDATE articles AS a SET content = new.content, html = new.html,"
    " plain_text = new.plain_text, toc = new.toc, rendered_with = new.rendered_with,"
    " word_count = new.word_count, reading_time = new.reading_time, excerpt = new.excerpt,"
    " own_excerpt = new.own_excerpt, cover_image_url = new.cover_image_url,"
    " imported = CASE WHEN new.cover_image_url IS NULL THEN a.imported"
    "  ELSE nullif(a.imported - 'cover_image', '{}') END,"
    " version = a.version + 1"
    f" FROM unnest({', '.join(f':{name}' for name in _REWRITTEN)})"
    f" AS new ({', '.join(_REWRITTEN)}) JOIN locked ON locked.id = new.id"
    " WHERE a.id = new.id AND a.content = new.former_content"
    " AND a.cover_image_url IS NOT DISTINCT FROM new.former_cover AND a.deleted_at IS NULL"
    " RETURNING a.id"
).bindparams(
    *(bindparam(name, type_=ARRAY(type_, dimensions=1)) for name, type_ in _REWRITTEN.items())
)
_DELETE = text(
    "DELETE FROM imported_addresses AS stored USING unnest(:article_ids, :addresses)"
    " AS replaced (article_id, address) WHERE stored.article_id = replaced.article_id"
    " AND stored.address = replaced.address"
).bindparams(
    bindparam("article_ids", type_=ARRAY(BigInteger)), bindparam("addresses", type_=ARRAY(String))
)


class _Place(NamedTuple):
    """An address, and the text that contains it."""

    found: OldAddress
    source_id: str
    slug: str = ""
    article_id: int = 0
    author_id: int = 0


class _Targets(NamedTuple):
    """What the addresses of links and images lead to."""

    pages: Mapping[_Place, PageTarget]
    images: Mapping[_Place, ImageTarget]


class _Found(NamedTuple):
    """The addresses of the old site in a record, by the addresses as they are written."""

    text: LinkedText | None = None
    addresses: Mapping[str, OldAddress] = MappingProxyType({})


class _Rewritten(NamedTuple):
    """A text with new addresses, before it is written."""

    before: Row[Any]
    content: str
    cover: str | None


class _Known(NamedTuple):
    """What was done to a record, until its result is reported."""

    links: int
    images: int
    remaining: Sequence[OldAddress]


class FileIndex:
    """The slugs of the texts in a folder, by their stems.

    The stems are sorted by their components from the end. So all texts that a name may mean are
    adjacent, and are found by binary search.
    """

    def __init__(self, slugs: Mapping[str, str]) -> None:
        """`slugs` are by the paths of the texts."""
        items = with_pauses(slugs.items())
        pairs = ((_backwards(file_stem(path)), slug) for path, slug in items)
        self._entries = sorted(pairs)

    def find(self, names: Iterable[FileName]) -> str | None:
        """Return the slug for the first of the names that only one text has."""
        for name in names:
            wanted = _backwards(name.stem)
            first = bisect_left(self._entries, (wanted,))
            near = [backwards for backwards, _ in self._entries[first : first + 2]]
            count = near.count(wanted)
            if not count and name.is_loose:
                count = sum(backwards.startswith(wanted) for backwards in near)
            if count == 1:
                return self._entries[first][1]
        return None


def _backwards(stem: str) -> str:
    """Return a path that begins with its last component. Each component ends with a slash."""
    return "".join(f"{part}/" for part in reversed(stem.split("/")))


class Relinker:
    """Replaces the addresses of one source. `prepare`, `add` and `finish` are called in turn."""

    def __init__(
        self,
        database: Database,
        *,
        source: str,
        site: Site,
        copier: Copier | None,
        report: AddressReport,
        is_dry_run: bool,
        identity: Identity | None = None,
        render: RenderTexts = render_texts,
    ) -> None:
        """`identity` is the importing user, or None for the operator."""
        prefix = prefix_of(identity)
        self._database = database
        self._identity = identity
        self._render = render
        self._source = prefix + source
        self._sources = [prefix + each for each in spellings_of_source(source)]
        self._site = site
        self._copier = copier
        self._report = report
        self._dry = _DryRun(site) if is_dry_run else None
        self._known: dict[int, _Known] = {}
        self._files: FileIndex | None = None

    async def prepare(self, items: list[PreparedRecord]) -> list[PreparedRecord]:
        """Return the records with the addresses that are known. The others become absolute."""
        found = await threads.run(partial(self._find, items))
        places = [
            _Place(address, item.source_id)
            for item, each in zip(items, found, strict=True)
            for address in each.addresses.values()
        ]
        targets = await self._targets(places)
        return await threads.run(partial(self._replace, items, found, targets))

    def _find(self, items: Sequence[PreparedRecord]) -> list[_Found]:
        return [self._find_in(item.record) for item in items]

    def _find_in(self, record: ArticleRecord) -> _Found:
        text: LinkedText | None = None
        if may_refer(record.content, self._site):
            try:
                text = LinkedText(record.content)
            except TooComplex:  # it is refused when it is rendered
                return _Found()
        found = text.addresses if text else []
        if cover := _cover_of(record):
            found.append(Address(cover, Use.IMAGE))
        page = record.old_paths[0] if record.old_paths else ""
        addresses: dict[str, OldAddress] = {}
        for each in found:
            is_image = each.use is Use.IMAGE
            if read := read_address(each.url, is_image=is_image, page=page, site=self._site):
                addresses[each.url] = read
        return _Found(text, addresses)

    def _replace(
        self,
        items: Sequence[PreparedRecord],
        found: Sequence[_Found],
        targets: Mapping[tuple[str, OldAddress], str],
    ) -> list[PreparedRecord]:
        return [
            self._replace_in(item, each, targets) if each.addresses else item._replace(addresses=())
            for item, each in zip(items, found, strict=True)
        ]

    def _replace_in(
        self,
        item: PreparedRecord,
        found: _Found,
        targets: Mapping[tuple[str, OldAddress], str],
    ) -> PreparedRecord:
        text, addresses = found
        new = {
            url: targets.get((item.source_id, each), each.address)
            for url, each in addresses.items()
        }
        record, parsed = item.record, item.parsed
        content = text.replace(lambda each: new.get(each.url)) if text else record.content
        changes: dict[str, Any] = {}
        if len(content.encode()) <= MAX_CONTENT_BYTES:
            changes["content"] = content
        cover = _cover_of(record)
        if cover in new and (usable := _as_cover(new[cover])):
            changes |= {"cover_image_url": usable, "imported": _without_cover(record.imported)}
        if cover in new and (usable or self._copier is not None):
            notes = tuple(note for note in parsed.notes if not note.startswith("cover image: "))
            parsed = parsed._replace(notes=notes)
        unique = list({each.address: each for each in addresses.values()}.values())
        replaced = [each for each in unique if (item.source_id, each) in targets]
        remaining = [each for each in unique if (item.source_id, each) not in targets]
        self._known[parsed.number] = _Known(
            links=sum(not each.is_image for each in replaced),
            images=sum(each.is_image for each in replaced),
            remaining=remaining,
        )
        record = record.model_copy(update=changes)
        return item._replace(record=record, parsed=parsed, addresses=remaining)

    def add(self, results: Sequence[Result]) -> None:
        """Count what was done to records that were written."""
        for result in results:
            known = self._known.pop(result.parsed.number, None)
            is_written = result.outcome in {Outcome.CREATED, Outcome.UPDATED}
            if known is not None and is_written:
                self._report.links += known.links
                self._report.images += known.images
            if self._dry is not None and result.parsed.record is not None and result.source_id:
                remaining = known.remaining if known is not None and is_written else ()
                self._dry.add(result, remaining, is_written=is_written)

    async def finish(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Look up the addresses of all texts of the source again, and report what remains.

        `advance` is called with the number of addresses that were looked up.
        """
        self._files = None
        after = 0
        while rows := await self._rows(after):
            after = rows[-1].article_id
            places = [
                _Place(
                    OldAddress(row.address, row.source_address, row.is_image),
                    row.source_id or "",
                    row.slug,
                    row.article_id,
                    row.author_id,
                )
                for row in rows
            ]
            await self._process(places)
            advance(len(places))
        if self._dry is not None:
            for places in self._dry.batches():
                await self._process(places)
        self._report.sort()

    async def _rows(self, after: int) -> Sequence[Row[Any]]:
        parameters = {"sources": self._sources, "after": after, "now": clock.now()}
        async with self._database.autocommit() as connection:
            return (await connection.execute(_ROWS, parameters)).all()

    async def _process(self, places: Sequence[_Place]) -> None:
        if self._dry is not None:
            places = [each for each in places if not self._dry.replaces(each)]
        targets = dict(await self._targets(places))
        reasons: Mapping[str, str] = {}
        if self._copier is not None:
            missing = [
                each
                for each in places
                if each.found.is_image and (each.source_id, each.found) not in targets
            ]
            reasons = await self._copy(missing)
            targets |= await self._targets(missing)
        if self._dry is None:
            await self._rewrite(places, targets)
        await threads.run(partial(self._count, places, targets, reasons))

    def _count(
        self,
        places: Sequence[_Place],
        targets: Mapping[tuple[str, OldAddress], str],
        reasons: Mapping[str, str],
    ) -> None:
        """Report which addresses were replaced, and why the others remain."""
        for each in with_pauses(places):
            is_image = each.found.is_image
            if (each.source_id, each.found) in targets:
                self._report.links += not is_image
                self._report.images += is_image
                continue
            identity = self._image(each).identity if is_image else ""
            reason = NO_IMAGE if is_file(each.found.address) else NO_ARTICLE
            if is_image:
                reason = reasons.get(identity, NOT_COPIED)
            self._report.add(
                RemainingAddress(
                    each.source_id, each.slug, each.found.address, reason, is_image=is_image
                )
            )

    async def _copy(self, places: Sequence[_Place]) -> Mapping[str, str]:
        """Copy images. Return the reasons, by the identity of each image that was not copied."""
        copier = self._copier
        if copier is None or not places:
            return {}
        if self._dry is not None:
            return await threads.run(partial(self._would_copy, copier, self._dry, places))
        alts: dict[tuple[int, str], str] = {}
        for article_ids in _chunks({each.article_id for each in places}):
            texts = await self._texts(article_ids)
            alts |= await threads.run(partial(_alts, texts))
        return await copier.copy(
            WantedImage(
                self._image(each),
                each.author_id,
                alts.get((each.article_id, unquote(each.found.address)), ""),
            )
            for each in places
        )

    def _would_copy(
        self, copier: Copier, dry: "_DryRun", places: Sequence[_Place]
    ) -> Mapping[str, str]:
        reasons: dict[str, str] = {}
        for each in places:
            image = self._image(each)
            if copier.folders.has(image.files):
                dry.copied.add(record_key("", image.identity))
            else:
                is_fetched = copier.fetcher is not None and image.url
                reasons[image.identity] = DRY_RUN if is_fetched else MISSING
        return reasons

    async def _targets(self, places: Sequence[_Place]) -> Mapping[tuple[str, OldAddress], str]:
        """Return the new addresses that are known, by the id of the text and its address."""
        if not places:
            return {}
        targets = await threads.run(partial(self._read, places))
        slugs = await self._slugs({path for page in targets.pages.values() for path in page.paths})
        if self._site.is_folder and targets.pages and self._files is None:
            self._files = await self._read_files()
        copies = await find_copies(
            self._database,
            source=self._source,
            identities={image.identity for image in targets.images.values()},
        )
        return await threads.run(partial(self._match, targets, slugs, copies))

    def _read(self, places: Sequence[_Place]) -> _Targets:
        pages: dict[_Place, PageTarget] = {}
        images: dict[_Place, ImageTarget] = {}
        for each in with_pauses(places):
            if each.found.is_image:
                images[each] = self._image(each)
            else:
                pages[each] = self._page(each)
        return _Targets(pages, images)

    def _match(
        self, targets: _Targets, slugs: Mapping[str, str], copies: Mapping[str, str]
    ) -> Mapping[tuple[str, OldAddress], str]:
        """Return the new addresses of the targets that were found."""
        found: dict[tuple[str, OldAddress], str] = {}
        for place, page in with_pauses(targets.pages.items()):
            slug = self._files.find(page.files) if self._files is not None else None
            slug = slug or next((slugs[path] for path in page.paths if path in slugs), None)
            if slug is not None:
                fragment = f"#{page.fragment}" if page.fragment else ""
                found[place.source_id, place.found] = article_url(slug) + fragment
        for place, image in with_pauses(targets.images.items()):
            is_known = self._dry is not None and record_key("", image.identity) in self._dry.copied
            if image.identity in copies or is_known:
                found[place.source_id, place.found] = copies.get(image.identity, "")
        return found

    def _page(self, place: _Place) -> PageTarget:
        return page_target(place.found, source_id=place.source_id, site=self._site)

    def _image(self, place: _Place) -> ImageTarget:
        return image_target(place.found, source_id=place.source_id, site=self._site)

    async def _slugs(self, paths: set[str]) -> Mapping[str, str]:
        """Return the slugs of the articles with these old paths."""
        if not paths:
            return {}
        parameters = {"paths": sorted(paths), "sources": self._sources, "now": clock.now()}
        async with self._database.autocommit() as connection:
            rows = (await connection.execute(_BY_PATH, parameters)).all()
        slugs = self._dry.slugs(paths) if self._dry is not None else {}
        for row in reversed(rows):
            slugs[row.path] = row.slug
        return slugs

    async def _read_files(self) -> FileIndex:
        parameters = {"sources": self._sources, "now": clock.now()}
        async with self._database.autocommit() as connection:
            rows = (await connection.execute(_FILES, parameters)).all()
        slugs = {row.source_id: row.slug for row in rows}
        if self._dry is not None:
            slugs |= self._dry.files
        return await threads.run(partial(FileIndex, slugs))

    async def _texts(self, article_ids: Sequence[int]) -> Sequence[Row[Any]]:
        async with self._database.autocommit() as connection:
            return (await connection.execute(_TEXTS, {"article_ids": article_ids})).all()

    async def _rewrite(
        self, places: Sequence[_Place], targets: Mapping[tuple[str, OldAddress], str]
    ) -> None:
        """Write the new addresses into the texts of these places."""
        new: dict[int, dict[str, str]] = defaultdict(dict)
        for place in places:
            target = targets.get((place.source_id, place.found))
            if target is not None:
                new[place.article_id][place.found.address] = target
        for article_ids in _chunks(new):
            await self._rewrite_articles({each: new[each] for each in article_ids})

    async def _rewrite_articles(self, new: Mapping[int, Mapping[str, str]]) -> None:
        """Replace these addresses in articles, in one transaction."""
        while True:
            before = await self._texts(list(new))
            rewritten = await threads.run(partial(_rewrite_texts, before, new))
            rendered = await threads.run(
                partial(self._render, [each.content for each in rewritten])
            )
            failed = {
                each.before.id
                for each, result in zip(rewritten, rendered, strict=True)
                if isinstance(result, str)
            }
            done = [
                (article_id, address)
                for article_id, addresses in new.items()
                if article_id not in failed
                for address in addresses
            ]
            rows = [
                {
                    "id": each.before.id,
                    "content": each.content,
                    "cover_image_url": each.cover,
                    "former_content": each.before.content,
                    "former_cover": each.before.cover_image_url,
                    **rendered_columns(
                        result, own_excerpt=each.before.excerpt if each.before.own_excerpt else None
                    ),
                }
                for each, result in zip(rewritten, rendered, strict=True)
                if not isinstance(result, str)
            ]
            try:
                write = partial(_write, rows=rows, done=done, importer=self._identity)
                await retry(self._database, write)
            except _Changed:
                continue
            return


class _Changed(Exception):
    """An article was changed after it was read."""


async def _write(
    session: AsyncSession,
    *,
    rows: Sequence[Mapping[str, Any]],
    done: Sequence[tuple[int, str]],
    importer: Identity | None,
) -> None:
    if importer is not None:
        importer = await recheck(session, importer)
        found = await session.execute(_AUTHORS, {"article_ids": [id_ for id_, _ in done]})
        allowed = {
            id_
            for id_, author_id in found
            if may(importer, Action.CHANGE_ARTICLE, owner_id=author_id)
        }
        rows = [row for row in rows if row["id"] in allowed]
        done = [each for each in done if each[0] in allowed]
    if rows:
        columns = {name: [row[name] for row in rows] for name in _REWRITTEN}
        if len((await session.scalars(_REWRITE, columns)).all()) < len(rows):
            raise _Changed
    for row in rows:  # the order of all locks: articles, then images
        texts = (row["content"], row["cover_image_url"], row["former_content"], row["former_cover"])
        if mentions_media(*texts):
            await update_media_references(
                session,
                article_id=row["id"],
                content=row["content"],
                cover_image_url=row["cover_image_url"],
            )
    parameters = {
        "article_ids": [article_id for article_id, _ in done],
        "addresses": [address for _, address in done],
    }
    await session.execute(_DELETE, parameters)
    if importer is not None:
        # What the texts had before was counted when they were imported.
        sizes = [(row["content"].encode(), row["former_content"].encode()) for row in rows]
        growth = sum(max(len(after) - len(before), 0) for after, before in sizes)
        costs = {LimitKind.TEXT_WRITTEN: growth, LimitKind.TEXT_KEPT: growth}
        await limits.spend(session, importer, costs)
    if rows:
        audit.record(
            session,
            AuditAction.IMPORT_ARTICLES,
            actor_id=(importer or COMMAND_LINE).id,
            subject="article",
            subject_id=None,
            count=len(rows),
        )


def _rewrite_texts(
    texts: Sequence[Row[Any]], new: Mapping[int, Mapping[str, str]]
) -> list[_Rewritten]:
    """Return the texts in which an address was replaced."""
    rewritten: list[_Rewritten] = []
    for before in texts:
        targets = {unquote(address): target for address, target in new[before.id].items()}

        def target_of(url: str, targets: Mapping[str, str] = targets) -> str | None:
            return targets.get(unquote(url))

        try:
            content = replace_addresses(before.content, lambda each: target_of(each.url))
        except TooComplex:
            content = before.content
        if len(content.encode()) > MAX_CONTENT_BYTES:
            content = before.content
        cover = before.cover_image_url
        cover = _as_cover(target_of(cover or before.imported_cover or "") or "") or cover
        if (content, cover) != (before.content, before.cover_image_url):
            rewritten.append(_Rewritten(before, content, cover))
    return rewritten


def _chunks(article_ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = iter(sorted(article_ids))
    while chunk := list(islice(ordered, TEXTS)):
        yield chunk


def _alts(texts: Sequence[Row[Any]]) -> dict[tuple[int, str], str]:
    """Return the alternative texts of images, by article and address."""
    found: dict[tuple[int, str], str] = {}
    for each in texts:
        try:
            addresses = find_addresses(each.content)
        except TooComplex:
            continue
        for address in addresses:
            if address.alt:
                found.setdefault((each.id, unquote(address.url)), address.alt)
    return found


class _DryRun:
    """What a dry run would have written, because its batches were rolled back."""

    def __init__(self, site: Site) -> None:
        self.files: dict[str, str] = {}
        """The slugs of the texts in a folder by their paths."""
        self._site = site
        self.copied = KeySet()
        """The images that would have been copied."""
        self._written = KeySet()
        self._paths = KeySet()
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by batches()

    def add(self, result: Result, remaining: Iterable[OldAddress], *, is_written: bool) -> None:
        """Note the result of a record, and the addresses in it that are not known yet."""
        record = result.parsed.record
        if record is None or not is_written:
            return
        self._written.add(record_key("", result.source_id))
        if self._site.is_folder:
            self.files[result.source_id] = result.slug
        for path in record.old_paths:
            self._paths.add(record_key("", path))
        for found in remaining:
            line = json.dumps([found, result.source_id, result.slug])
            self._file.write(line.encode() + b"\n")

    def replaces(self, place: _Place) -> bool:
        """Return whether the text of this place, as it is stored, would have been replaced."""
        return place.article_id != 0 and record_key("", place.source_id) in self._written

    def slugs(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the paths of records. Their slugs are not needed."""
        return {path: "" for path in paths if record_key("", path) in self._paths}

    def batches(self) -> Iterator[list[_Place]]:
        """Yield the addresses that are not known yet."""
        with self._file as file:
            file.seek(0)
            while lines := list(islice(file, 500)):
                yield [
                    _Place(OldAddress(*found), source_id, slug)
                    for found, source_id, slug in map(json.loads, lines)
                ]


def spellings_of_source(source: str) -> list[str]:
    """Return the names of a source that are the same site for `record_key`."""
    bare = _SITE_PREFIX.sub("", source)
    if bare == source:
        return [source]
    bare = bare.rstrip("/")
    names = [
        f"{scheme}://{www}{bare}{slash}"
        for scheme in ("https", "http")
        for www in ("", "www.")
        for slash in ("", "/")
    ]
    return list(dict.fromkeys([source, *names]))


_SITE_PREFIX = re.compile(r"https?://(?:www\.)?", re.IGNORECASE)


def _cover_of(record: ArticleRecord) -> str:
    """Return the cover image; an address that cannot be one here is kept in `imported`."""
    kept = (record.imported or {}).get(COVER)
    return record.cover_image_url or (kept if isinstance(kept, str) else "")


def _without_cover(imported: dict[str, Any] | None) -> dict[str, Any] | None:
    rest = {name: value for name, value in (imported or {}).items() if name != COVER}
    return rest or None


def _as_cover(url: str) -> str | None:
    """Return an address as a cover image can have it, or None."""
    encoded = quote(url, safe="!#$%&'()*+,-./:;=?@[]_~")
    is_usable = _COVER_URL.fullmatch(encoded) is not None and len(encoded) <= MAX_COVER
    return encoded if is_usable else None


_COVER_URL = re.compile(r"https?://[!#-;=?-~]+|/[!#-.0-;=?-~][!#-;=?-~]*")
