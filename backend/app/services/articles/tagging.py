"""Giving an article its tags."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    String,
    any_,
    column,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeEngine

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core.errors import ServiceUnavailable
from app.core.limits import LimitKind
from app.core.text import tag_key, tag_slug
from app.models.article import Article
from app.models.tag import ArticleTag, Tag
from app.services import limits
from app.services.articles.slugs import numbered

ATTEMPTS = 10


class LockedTag(NamedTuple):
    """A tag that stays until the transaction ends, and the spelling that the writer gave it."""

    id: int
    spelling: str
    shown: str
    """How articles spell it that have no spelling of their own."""
    is_listed: bool

    @property
    def stored(self) -> str | None:
        """The article's own spelling: none where readers know the tag already."""
        return None if self.is_listed else self.spelling


def sought_tag(key: BindParameter[str]) -> ColumnElement[int]:
    """The id of the tag that a filter names, by the key of what it says.

    A name that readers see comes first, then a slug, then a name that they do not see. So a hidden
    tag never changes what a filter finds for others.
    """
    by_key = select(Tag.id).where(Tag.key == key)
    by_slug = select(Tag.id).where(Tag.slug == key)
    return func.coalesce(
        by_key.where(Tag.is_listed).scalar_subquery(),
        by_slug.scalar_subquery(),
        by_key.scalar_subquery(),
    )


async def set_tags(
    session: AsyncSession,
    *,
    article_id: int,
    names: Sequence[str],
    in_order: bool = False,
    actor: Identity | None = None,
) -> bool:
    """Give an article these tags and no others, in their order; whether that changes anything.

    A tag that readers see keeps its spelling. Another order of the same tags is a change only where
    `in_order` is true. The caller has locked the article. Raises what `lock_tags` raises.
    """
    tags = await lock_tags(session, names, actor=actor)
    of_article = ArticleTag.article_id == article_id
    has = select(ArticleTag.tag_id, ArticleTag.position, ArticleTag.spelling).where(of_article)
    before = {row.tag_id: (row.position, row.spelling) for row in await session.execute(has)}
    reordered = in_order or before.keys() != {tag.id for tag in tags.values()}
    added: dict[int, LockedTag] = {}
    kept: dict[int, tuple[int, str | None]] = {}
    for place, tag in enumerate(tags.values()):
        if tag.id not in before:
            added[place] = tag
            continue
        position, spelling = before[tag.id]
        respelt = not tag.is_listed and tag.spelling != (spelling or tag.shown)
        kept[tag.id] = (place if reordered else position, tag.spelling if respelt else spelling)
    if gone := before.keys() - kept.keys():
        await session.execute(delete(ArticleTag).where(of_article, ArticleTag.tag_id.in_(gone)))
    for tag_id in sorted(kept):
        if before[tag_id] != kept[tag_id]:
            position, spelling = kept[tag_id]
            changed = update(ArticleTag).where(of_article, ArticleTag.tag_id == tag_id)
            await session.execute(changed.values(position=position, spelling=spelling))
    await _add(session, article_id, added)
    return bool(added) or before != kept


async def add_tags(session: AsyncSession, *, article_id: int, tags: Iterable[LockedTag]) -> None:
    """Give an article that has none these tags, in their order."""
    await _add(session, article_id, dict(enumerate(tags)))


async def _add(session: AsyncSession, article_id: int, tags: Mapping[int, LockedTag]) -> None:
    if tags:
        rows = [
            {"article_id": article_id, "tag_id": tag.id, "position": place, "spelling": tag.stored}
            for place, tag in tags.items()
        ]
        await session.execute(insert(ArticleTag).values(rows))


def by_key(names: Iterable[str]) -> Mapping[str, str]:
    """The names by their keys, in their order; of several with one key, the first."""
    spelt: dict[str, str] = {}
    for name in names:
        spelt.setdefault(tag_key(name), name)
    return spelt


async def lock_tags(
    session: AsyncSession, names: Iterable[str], *, actor: Identity | None = None
) -> Mapping[str, LockedTag]:
    """These tags by their keys, in their order; creates those that do not exist.

    They can be neither merged nor deleted before the transaction ends. New ones are inserted in one
    order, so that two transactions never wait for each other. For `actor`, if given, those count
    that are new as far as they can see: else their limit would tell what others have in drafts.
    Raises LimitReached, and ServiceUnavailable where tags vanish again and again.
    """
    spelt = by_key(names)
    if not spelt:
        return {}
    query = (
        select(Tag.key, Tag.id, Tag.name, Tag.is_listed)
        .where(_any_of(Tag.key, spelt))
        .order_by(Tag.key)
        .with_for_update(read=True, key_share=True)
    )
    for _ in range(ATTEMPTS):
        async with session.begin_nested() as attempt:
            created = 0
            found = {row.key: row for row in await session.execute(query)}
            if missing := spelt.keys() - found.keys():
                created = await _create(session, {key: spelt[key] for key in missing})
                found = {row.key: row for row in await session.execute(query)}
            if len(found) == len(spelt):
                if actor is not None:
                    if not may_on_any(actor, Action.CHANGE_TAG):
                        hidden = [row.id for row in found.values() if not row.is_listed]
                        created = await _new_to(session, actor, hidden)
                    await limits.spend(session, actor, {LimitKind.NEW_TAGS: created})
                return {
                    key: LockedTag(found[key].id, name, found[key].name, found[key].is_listed)
                    for key, name in spelt.items()
                }
            await attempt.rollback()  # somebody merged one, or took a slug, between two statements
    raise ServiceUnavailable


async def _new_to(session: AsyncSession, actor: Identity, hidden_ids: Sequence[int]) -> int:
    """How many of these tags, which readers do not see, none of the actor's own articles has."""
    if not hidden_ids:
        return 0
    tag = select(Tag.id).where(_any_of(Tag.id, hidden_ids, BigInteger())).subquery()
    own = (
        select(ArticleTag.tag_id)
        .join(Article, Article.id == ArticleTag.article_id)
        .where(ArticleTag.tag_id == tag.c.id, Article.author_id == actor.id)
    )
    new = select(func.count()).select_from(tag).where(~own.exists())
    return await session.scalar(new) or 0


def _any_of(
    attribute: InstrumentedAttribute[Any],
    values: Iterable[Any],
    type_: TypeEngine[Any] = String(),  # noqa: B008 - it has no state
) -> ColumnElement[bool]:
    """Whether a column has one of these values, by one parameter however many there are."""
    return attribute == any_(literal(list(values), ARRAY(type_)))


async def _create(session: AsyncSession, names: Mapping[str, str]) -> int:
    """Insert tags with these keys; returns how many.

    Leaves out those whose key or slug another transaction takes meanwhile.
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
    """A slug for each key, which no tag has, and the better one where another tag has that."""
    wanted = dict(sorted(((key, tag_slug(key)) for key in keys), key=lambda pair: pair[::-1]))
    candidates = {key: numbered(slug) for key, slug in wanted.items()}
    asked = {slug for each in candidates.values() for slug in each}
    taken = set(await session.scalars(select(Tag.slug).where(_any_of(Tag.slug, asked))))
    slugs: dict[str, tuple[str, str | None]] = {}
    for key, best in wanted.items():
        slug = next(each for each in candidates[key] if each not in taken)
        taken.add(slug)
        slugs[key] = (slug, None if slug == best else best)
    return slugs
