"""The former slugs of imported articles, which redirect to them."""

from sqlalchemy.ext.asyncio import AsyncSession

from app.services.articles.slugs import RESERVED
from app.services.bulk import statements
from app.services.bulk.planning import Plan


async def save_former_slugs(session: AsyncSession, batch: Plan) -> None:
    """Add the former slugs of the records to their articles, unless a public article has them."""
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
    wanted_by = {"slugs": slugs, "article_ids": article_ids}
    for statement in (statements.ADD_FORMER_SLUGS, statements.ADD_DRAFT_FORMER_SLUGS):
        await session.execute(statement, {**wanted_by, "now": batch.now})
    found = await session.execute(statements.FORMER_SLUGS, wanted_by)
    stored = {(row.slug, row.article_id) for row in found}
    lost: dict[int, list[str]] = {}
    for slug, article_id, number in wanted:
        if (slug, article_id) not in stored:
            lost.setdefault(number, []).append(slug)
    batch.results = [
        result._replace(notes=(*result.notes, _note(lost[result.parsed.number])))
        if result.parsed.number in lost
        else result
        for result in batch.results
    ]


def _note(slugs: list[str]) -> str:
    return f"former slugs that belong to another article: {', '.join(slugs)}"[:300]
