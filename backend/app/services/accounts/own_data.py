"""The export of a user's own data, except for articles, which app.services.bulk exports."""

from sqlalchemy import bindparam, select

from app.auth.identity import Identity
from app.db.reading import Reader
from app.models.community.comment import Comment
from app.schemas.accounts.own_data import OwnComment, OwnData
from app.schemas.accounts.user import UserPrivate
from app.schemas.page import MAX_LIMIT, PageQuery
from app.services.accounts import addresses, api_keys, sessions

MAX_COMMENTS = 10_000
"""The newest comments are exported."""

_COMMENTS = (
    select(Comment.id, Comment.article_id, Comment.created_at, Comment.content)
    .where(Comment.author_id == bindparam("user_id"))
    .order_by(Comment.id.desc())
    .limit(MAX_COMMENTS)
)


async def export_account(reader: Reader, *, user: Identity) -> OwnData:
    """Return the user's data. Lists have at most 100 items, that of comments MAX_COMMENTS."""
    query = PageQuery(limit=MAX_LIMIT)
    return OwnData(
        user=UserPrivate.model_validate(user),
        addresses=list(
            await addresses.list_addresses(reader, user_id=user.id, page=query, actor=user)
        ),
        sessions=list(await sessions.list_sessions(reader, page=query, user=user)),
        api_keys=list(await api_keys.list_api_keys(reader, page=query, user=user)),
        comments=[
            OwnComment.model_validate(row)
            for row in await reader.execute(_COMMENTS, {"user_id": user.id})
        ],
    )
