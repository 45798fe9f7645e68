"""The export of a user's own data, except for articles, which app.services.bulk exports."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

from sqlalchemy import BigInteger, bindparam, select

from app.auth.identity import Identity, recheck
from app.core.streams import Deadline
from app.db.reading import Reader
from app.db.session import Database
from app.models.community.comment import Comment
from app.schemas.accounts.own_data import OwnComment
from app.schemas.accounts.user import UserPrivate
from app.schemas.page import MAX_LIMIT, MAX_SKIP, PageQuery
from app.schemas.types import Output
from app.services.accounts import addresses, api_keys, sessions

Batches = AsyncIterator[Sequence[Output]]

_COMMENTS = (
    select(Comment.id, Comment.article_id, Comment.created_at, Comment.content)
    .where(
        Comment.author_id == bindparam("user_id"),
        Comment.id > bindparam("after", type_=BigInteger),
    )
    .order_by(Comment.id)
    .limit(MAX_LIMIT)
)


async def export_account(
    database: Database, *, user: Identity, deadline: Deadline
) -> AsyncIterator[bytes]:
    """Yield the user's data as a JSON object, in batches of bounded size, until `deadline`.

    Its fields are `user`, and the lists `addresses`, `sessions`, `api_keys` and `comments`, which
    OwnComment and the schemas of the API describe. No connection is held while the client receives
    a batch. Before each one, the user is checked again. Raises InvalidToken if their access was
    withdrawn, and RequestTimedOut.
    """
    reader = database.reader
    lists: dict[str, Batches] = {
        "addresses": _pages(partial(addresses.list_addresses, reader, user_id=user.id, actor=user)),
        "sessions": _pages(partial(sessions.list_sessions, reader, user=user)),
        "api_keys": _pages(partial(api_keys.list_api_keys, reader, user=user)),
        "comments": _comments(reader, user),
    }
    yield b'{"user":' + _json(UserPrivate.model_validate(user))
    for name, batches in lists.items():
        yield f',"{name}":['.encode()
        separator = b""
        async for batch in batches:
            deadline.check()
            async with database.autocommit() as primary:
                user = await recheck(primary, user)
            yield separator + b",".join(map(_json, batch))
            separator = b","
        yield b"]"
    yield b"}\n"


def _json(item: Output) -> bytes:
    return item.model_dump_json().encode()


async def _pages(fetch: Callable[..., Awaitable[Sequence[Output]]]) -> Batches:
    """Yield the pages of a list; none is empty."""
    for skip in range(0, MAX_SKIP + 1, MAX_LIMIT):
        items = await fetch(page=PageQuery(skip=skip, limit=MAX_LIMIT))
        if items:
            yield items
        if len(items) < MAX_LIMIT:
            return


async def _comments(reader: Reader, user: Identity) -> Batches:
    after = 0
    while True:
        rows = await reader.execute(_COMMENTS, {"user_id": user.id, "after": after})
        if not rows:
            return
        after = rows[-1].id
        yield [OwnComment.model_validate(row) for row in rows]
