"""The former slugs of imported articles, which redirect to them."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from app.services.articles.slugs import RESERVED
from app.services.bulk import statements
from app.services.bulk.planning import Plan


async def save_former_slugs(session: AsyncSession, batch: Plan) -> None:
    """Add the former slugs of the records to their articles, unless another article has them."""
    wanted = [
        (slug, article_id, item.parsed.number)
        for item, article_id in batch.imported
        for slug in item.record.former_slugs
        if slug not in {*RESERVED, item.record.slug}
    ]
    if not wanted:
        return
    slugs = [slug for slug, _, _ in wanted]
    article_ids = [article_id for _, article_id, _ in wanted]
    parameters = {"slugs": slugs, "article_ids": article_ids, "now": batch.now}
    await session.execute(statements.ADD_FORMER_SLUGS, parameters)
    found = await session.execute(statements.FORMER_SLUGS, {"slugs": slugs})
    owners: Mapping[str, int] = {row.slug: row.article_id for row in found}
    lost: dict[int, list[str]] = {}
    for slug, article_id, number in wanted:
        if owners.get(slug) != article_id:
            lost.setdefault(number, []).append(slug)
    batch.results = [
        result._replace(notes=(*result.notes, _note(lost[result.parsed.number])))
        if result.parsed.number in lost
        else result
        for result in batch.results
    ]


def _note(slugs: list[str]) -> str:
    return f"former addresses that belong to another article: {', '.join(slugs)}"[:300]
