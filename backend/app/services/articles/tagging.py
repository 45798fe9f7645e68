"""Assign tags to articles."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    SmallInteger,
    String,
    Table,
    any_,
    bindparam,
    column,
    delete,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeEngine

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.content.slugs import tag_key, tag_slug
from app.db.retry import TryAgain, retry
from app.db.writing import fetch, fetch_value, planned_once
from app.models.articles.article import Article
from app.models.articles.tag import ArticleTag, Tag
from app.services.articles.slugs import numbered


class LockedTag(NamedTuple):
    """A tag locked until the transaction ends, with the spelling in the request."""

    id: int
    spelling: str
    default_spelling: str
    """The spelling in articles that store none."""
    is_listed: bool

    @property
    def stored_spelling(self) -> str | None:
        """The spelling to store with the article; None if the tag is already listed."""
        return None if self.is_listed else self.spelling


class LockedTags(NamedTuple):
    """The tags of a request, locked until the transaction ends."""

    by_key: Mapping[str, LockedTag]
    """In the order of the request."""
    new: int
    """How many count towards the limit of new tags."""


_TYPES: Mapping[str, TypeEngine[Any]] = {
    "article_id": BigInteger(),
    "tag_id": BigInteger(),
    "position": SmallInteger(),
    "spelling": String(),
}
_rows = (
    func.unnest(*(bindparam(name, type_=ARRAY(type_)) for name, type_ in _TYPES.items()))
    .table_valued(*(column(name, type_) for name, type_ in _TYPES.items()))
    .render_derived()
)
_new = insert(cast("Table", ArticleTag.__table__)).from_select(
    list(_TYPES), select(*_rows.c), include_defaults=False
)
_LOCK_TAGS = (
    select(Tag.key, Tag.id, Tag.name, Tag.is_listed)
    .where(Tag.key == planned_once(bindparam("keys", type_=ARRAY(String))))
    .order_by(Tag.key)
    .with_for_update(read=True, key_share=True)
)
_INSERT_ARTICLE_TAGS = _new.on_conflict_do_update(
    index_elements=[ArticleTag.article_id, ArticleTag.tag_id],
    set_={
        "position": _new.excluded.position,
        "spelling": func.coalesce(_new.excluded.spelling, ArticleTag.spelling),
    },
)
_ADD_LISTED_TAGS = text(
    """
    WITH locked AS MATERIALIZED (
      SELECT id, key, name, coalesce(wanted_slug, slug) AS slug, is_listed FROM tags
      WHERE key = ANY (ARRAY(SELECT unnest(:keys))) ORDER BY key FOR KEY SHARE
    ), added AS (
      INSERT INTO article_tags (article_id, tag_id, position)
      SELECT :article_id, id, array_position(:keys, key) - 1 FROM locked
      WHERE (SELECT count(*) = cardinality(:keys) AND bool_and(is_listed) FROM locked)
      RETURNING tag_id
    )
    SELECT array_agg(name ORDER BY slug, key) FROM locked WHERE EXISTS (SELECT FROM added)
    """
).bindparams(bindparam("keys", type_=ARRAY(String)), bindparam("article_id", type_=BigInteger()))
"""Lock tags and add them to a new article, if all exist and are listed. Returns their names.

The subquery with the keys is for the reason of `planned_once`."""


def tag_id_for_filter(key: BindParameter[str]) -> ColumnElement[int]:
    """Return the id of the tag that a filter names, by the key of its value.

    Public names take precedence over slugs, and slugs over the names of unlisted tags. An unlisted
    tag therefore never changes the results of other users.
    """
    names_by_key = select(Tag.id).where(Tag.key == key)
    by_slug = select(Tag.id).where(Tag.slug == key)
    return func.coalesce(
        names_by_key.where(Tag.is_listed).scalar_subquery(),
        by_slug.scalar_subquery(),
        names_by_key.scalar_subquery(),
    )


async def set_tags(
    session: AsyncSession, *, article_id: int, tags: Mapping[str, LockedTag]
) -> bool:
    """Replace an article's tags, in this order; return whether anything changed.

    Listed tags keep their spelling, and the same tags keep their order. The caller has locked the
    article.
    """
    of_article = ArticleTag.article_id == article_id
    current_tags = select(ArticleTag.tag_id, ArticleTag.position, ArticleTag.spelling).where(
        of_article
    )
    before = {
        row.tag_id: (row.position, row.spelling) for row in await session.execute(current_tags)
    }
    reordered = before.keys() != {tag.id for tag in tags.values()}
    added: list[tuple[int, int, LockedTag]] = []
    kept: dict[int, tuple[int, str | None]] = {}
    for index, tag in enumerate(tags.values()):
        if tag.id not in before:
            added.append((article_id, index, tag))
            continue
        position, spelling = before[tag.id]
        is_respelled = not tag.is_listed and tag.spelling != (spelling or tag.default_spelling)
        kept[tag.id] = (
            index if reordered else position,
            tag.spelling if is_respelled else spelling,
        )
    if removed := before.keys() - kept.keys():
        await session.execute(delete(ArticleTag).where(of_article, ArticleTag.tag_id.in_(removed)))
    for tag_id in sorted(kept):
        if before[tag_id] != kept[tag_id]:
            position, spelling = kept[tag_id]
            changed = update(ArticleTag).where(of_article, ArticleTag.tag_id == tag_id)
            await session.execute(changed.values(position=position, spelling=spelling))
    await _insert_article_tags(session, added)
    return bool(added) or before != kept


class NewTags(NamedTuple):
    """The tags of a new article."""

    names: Sequence[str] | None
    """Their public names, sorted by slug; None if not all of them are listed."""
    new: int
    """How many count towards the limit of new tags."""


async def tag_new_article(
    session: AsyncSession, *, article_id: int, names: Iterable[str], actor: Identity
) -> NewTags:
    """Lock these tags, create missing ones, and add them to an article without tags.

    Usually all of them are listed. This takes one statement. Otherwise see `lock_tags`.
    """
    by_key = names_by_key(names)
    if not by_key:
        return NewTags([], new=0)
    parameters = {"article_id": article_id, "keys": list(by_key)}
    listed = await fetch_value(session, _ADD_LISTED_TAGS, parameters)
    if listed is not None:
        return NewTags(listed, new=0)
    tags = await lock_tags(session, by_key.values(), actor=actor)
    await add_tags(session, {article_id: tags.by_key.values()})
    return NewTags(None, new=tags.new)


async def add_tags(session: AsyncSession, tagged: Mapping[int, Iterable[LockedTag]]) -> None:
    """Add tags to articles, by the id of the article, in this order."""
    await _insert_article_tags(
        session,
        [
            (article_id, position, tag)
            for article_id, tags in tagged.items()
            for position, tag in enumerate(tags)
        ],
    )


async def _insert_article_tags(
    session: AsyncSession, rows: Sequence[tuple[int, int, LockedTag]]
) -> None:
    """Insert articles' tags with their positions; a tag that an article has is moved."""
    if rows:
        parameters = {
            "article_id": [article_id for article_id, _, _ in rows],
            "tag_id": [tag.id for _, _, tag in rows],
            "position": [position for _, position, _ in rows],
            "spelling": [tag.stored_spelling for _, _, tag in rows],
        }
        await fetch(session, _INSERT_ARTICLE_TAGS, parameters)


def tags_named(tags: Mapping[str, LockedTag], names: Iterable[str]) -> Sequence[LockedTag]:
    """Return the locked tags with these names, spelled as in `names`."""
    return [tags[key]._replace(spelling=name) for key, name in names_by_key(names).items()]


def names_by_key(names: Iterable[str]) -> Mapping[str, str]:
    """Return the names by their tag keys; the first name wins among equal keys."""
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(tag_key(name), name)
    return by_key


async def lock_tags(
    session: AsyncSession, names: Iterable[str], *, actor: Identity | None = None
) -> LockedTags:
    """Lock these tags, and create missing ones.

    The tags can be neither merged nor deleted before the transaction ends. New tags are inserted in
    a fixed order, which prevents deadlocks.

    The caller counts the new tags, after it has locked everything else. For an actor who cannot see
    tags in other users' drafts, these count as new. Otherwise the limit would reveal them. Call it
    before the tags are added to an article.

    Raises ServiceUnavailable if concurrent changes prevent it repeatedly.
    """
    by_key = names_by_key(names)
    if not by_key:
        return LockedTags({}, new=0)
    parameters = {"keys": list(by_key)}

    async def create_and_lock(session: AsyncSession) -> tuple[dict[str, Any], int]:
        found = {row.key: row for row in await fetch(session, _LOCK_TAGS, parameters)}
        new = 0
        if missing := by_key.keys() - found.keys():
            new = await _create_tags(session, {key: by_key[key] for key in missing})
            found = {row.key: row for row in await fetch(session, _LOCK_TAGS, parameters)}
        if len(found) < len(by_key):  # another request merged a tag or took a slug meanwhile
            raise TryAgain
        return found, new

    # Usually all tags exist, so that nothing can conflict and no savepoint is needed.
    found, new = {row.key: row for row in await fetch(session, _LOCK_TAGS, parameters)}, 0
    if len(found) < len(by_key):
        found, new = await retry(session, create_and_lock)
    if actor is not None and not may_on_any(actor, Action.CHANGE_TAG):
        hidden = [row.id for row in found.values() if not row.is_listed]
        new = await _count_new_tags(session, actor, hidden)
    tags = {
        key: LockedTag(found[key].id, name, found[key].name, found[key].is_listed)
        for key, name in by_key.items()
    }
    return LockedTags(tags, new)


async def _count_new_tags(session: AsyncSession, actor: Identity, hidden_ids: Sequence[int]) -> int:
    """Count the unlisted tags that none of the actor's own articles has."""
    if not hidden_ids:
        return 0
    tag = select(Tag.id).where(_in_array(Tag.id, hidden_ids, BigInteger())).subquery()
    own = (
        select(ArticleTag.tag_id)
        .join(Article, Article.id == ArticleTag.article_id)
        .where(ArticleTag.tag_id == tag.c.id, Article.author_id == actor.id)
    )
    new = select(func.count()).select_from(tag).where(~own.exists())
    return await session.scalar(new) or 0


def _in_array(
    attribute: InstrumentedAttribute[Any],
    values: Iterable[Any],
    type_: TypeEngine[Any] = String(),  # noqa: B008 - stateless
) -> ColumnElement[bool]:
    """Whether the column equals one of the values, passed as one array parameter."""
    return attribute == any_(literal(list(values), ARRAY(type_)))


async def _create_tags(session: AsyncSession, names: Mapping[str, str]) -> int:
    """Insert tags with these keys; return how many.

    Skips those whose key or slug a concurrent transaction has taken.
    """
    slugs = await free_tag_slugs(session, names)
    # Arrays, because an import may create more tags than a statement may have parameters.
    columns = {
        "name": [names[key] for key in slugs],
        "key": list(slugs),
        "slug": [slug for slug, _ in slugs.values()],
        "wanted_slug": [wanted for _, wanted in slugs.values()],
    }
    arrays = (literal(values, ARRAY(String)) for values in columns.values())
    names_of = (column(name, String) for name in columns)
    rows = func.unnest(*arrays).table_valued(*names_of).render_derived()
    new = insert(Tag).from_select(list(columns), select(*rows.c))
    return len((await session.scalars(new.on_conflict_do_nothing().returning(Tag.id))).all())


async def free_tag_slugs(
    session: AsyncSession, keys: Iterable[str]
) -> Mapping[str, tuple[str, str | None]]:
    """Return for each key a free slug, and its preferred slug if another tag has that."""
    wanted = dict(sorted(((key, tag_slug(key)) for key in keys), key=lambda pair: pair[::-1]))
    candidates = {key: numbered(slug) for key, slug in wanted.items()}
    all_candidates = {slug for each in candidates.values() for slug in each}
    taken = set(await session.scalars(select(Tag.slug).where(_in_array(Tag.slug, all_candidates))))
    slugs: dict[str, tuple[str, str | None]] = {}
    for key, wanted_slug in wanted.items():
        slug = next(each for each in candidates[key] if each not in taken)
        taken.add(slug)
        slugs[key] = (slug, None if slug == wanted_slug else wanted_slug)
    return slugs
