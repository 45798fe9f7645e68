"""Stored media: ownership, references, deletion and files."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core import clock
from app.core.conditional import Precondition
from app.core.config import Settings, get_settings
from app.core.enums import Role
from app.core.errors import MediaInUse
from app.core.job_states import StepsFailed
from app.db.session import Database
from app.jobs.media import clean_up_media
from app.models import Article, ArticleMedia, DiscardedFolder, Media, User
from app.services.articles.images import delete_media_of_articles, update_media_references
from app.services.media import discarding
from app.services.media.library import delete_media
from app.services.media.storage import LocalStorage, new_folder
from tests.databases import migrated_database
from tests.factories import PASSWORD, bearer, create_article, create_user
from tests.security.conftest import waiting_for_a_lock

JPEG = b"\xff\xd8\xff what a file has in it \xff\xd9"


@pytest.fixture
def storage(app: FastAPI, tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path)
    app.state.storage = storage
    return storage


async def create_media(
    session: AsyncSession, *, owner: User | None, storage: LocalStorage | None = None
) -> Media:
    media = Media(
        owner_id=owner.id if owner else None,
        folder=new_folder(),
        content_type="image/jpeg",
        bytes=len(JPEG),
        width=400,
        height=300,
        widths=[320],
        alt="",
        color="#aabbcc",
        placeholder="data:image/webp;base64,",
    )
    session.add(media)
    await session.flush()
    if storage is not None:
        put(storage, media.folder)
    return media


def put(storage: LocalStorage, folder: str, content: bytes = JPEG) -> None:
    files = storage.incoming / folder
    files.mkdir(parents=True)
    (files / "picture.jpg").write_bytes(content)
    storage._put(folder, files)


def stored_folders(storage: LocalStorage) -> set[str]:
    return {each.name for each in storage._files.iterdir()} if storage._files.is_dir() else set()


async def set_media_of(
    session: AsyncSession, article: Article, *images: Media, cover: str = ""
) -> None:
    """Set the images that an article references."""
    content = "\n".join(f"![it](/media/{each.folder}/picture.jpg)" for each in images)
    await update_media_references(
        session, article_id=article.id, content=content, cover_image_url=cover or None
    )


async def referenced_ids(session: AsyncSession, article: Article) -> set[int]:
    query = select(ArticleMedia.media_id).where(ArticleMedia.article_id == article.id)
    return set(await session.scalars(query))


async def remaining_ids(session: AsyncSession) -> set[int]:
    return set(await session.scalars(select(Media.id)))


async def test_list_contains_own_images_newest_first(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user, other = await create_user(session), await create_user(session)
    mine = [(await create_media(session, owner=user)).id for _ in range(3)]
    theirs = (await create_media(session, owner=other)).id
    listed = await client.get("/media", headers=bearer(user))
    assert [each["id"] for each in listed.json()] == mine[::-1]
    assert listed.headers["ETag"].startswith("W/")
    second = await client.get("/media?skip=1&limit=1", headers=bearer(user))
    assert [each["id"] for each in second.json()] == [mine[1]]
    refused = await client.get(f"/media?owner={other.id}", headers=bearer(user))
    assert refused.status_code == 403
    editor = bearer(await create_user(session, role=Role.EDITOR))
    listed = await client.get(f"/media?owner={other.id}", headers=editor)
    assert [each["id"] for each in listed.json()] == [theirs]
    assert (await client.get("/media?sort=size", headers=editor)).status_code == 422


async def test_alt_text_can_be_changed(client: httpx.AsyncClient, session: AsyncSession) -> None:
    user = await create_user(session)
    media = await create_media(session, owner=user)
    url, headers = f"/media/{media.id}", bearer(user)
    read = await client.get(url, headers=headers)
    assert read.json() == (await client.get("/media", headers=headers)).json()[0]
    changed = await client.patch(
        url, json={"alt": "A tree"}, headers={**headers, "If-Match": read.headers["ETag"]}
    )
    assert (changed.status_code, changed.json()["alt"]) == (200, "A tree")
    late = await client.patch(
        url, json={"alt": "A bush"}, headers={**headers, "If-Match": read.headers["ETag"]}
    )
    assert late.status_code == 412
    assert late.headers["ETag"] == changed.headers["ETag"]
    assert (await client.get(url, headers=headers)).headers["ETag"] == changed.headers["ETag"]
    for wrong in ({"alt": "x" * 501}, {"alt": None}, {"alt": "a\0b"}, {"url": "x"}):
        assert (await client.patch(url, json=wrong, headers=headers)).status_code == 422
    assert (await client.patch(url, json={}, headers=headers)).json() == changed.json()


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_image_of_another_user_is_not_found(
    client: httpx.AsyncClient, session: AsyncSession, method: str
) -> None:
    media = await create_media(session, owner=await create_user(session))
    abandoned = await create_media(session, owner=None)
    other_user = bearer(await create_user(session))
    body = {"alt": "x"} if method == "PATCH" else None
    for media_id in (media.id, abandoned.id, 10**12):
        answer = await client.request(method, f"/media/{media_id}", headers=other_user, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "media_not_found")
    editor = bearer(await create_user(session, role=Role.EDITOR))
    for media_id in (media.id, abandoned.id):
        answer = await client.request(method, f"/media/{media_id}", headers=editor, json=body)
        assert answer.status_code < 300


async def test_image_in_use_cannot_be_deleted(
    client: httpx.AsyncClient, session: AsyncSession, storage: LocalStorage, database: Database
) -> None:
    user = await create_user(session)
    media = await create_media(session, owner=user, storage=storage)
    article = await create_article(session, author=user)
    await set_media_of(session, article, media)
    url, headers = f"/media/{media.id}", bearer(user)
    answer = await client.delete(url, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "media_in_use")
    article.deleted_at = clock.now()  # articles in the trash can be restored
    await session.flush()
    assert (await client.delete(url, headers=headers)).status_code == 409
    await set_media_of(session, article)
    wrong = await client.delete(url, headers={**headers, "If-Match": '"another"'})
    assert wrong.status_code == 412
    assert (await client.delete(url, headers=headers)).status_code == 204
    assert (await client.get(url, headers=headers)).status_code == 404
    assert stored_folders(storage) == {media.folder}
    await clean_up_media(database, storage)
    assert stored_folders(storage) == set()


class TestDeletedImages:
    """Files of deleted images are kept for MEDIA_KEEP_DELETED_HOURS, but not served."""

    @pytest.fixture
    async def deleted(self, session: AsyncSession, storage: LocalStorage) -> Media:
        media = await create_media(session, owner=await create_user(session), storage=storage)
        await session.delete(media)
        await session.flush()
        return media

    async def test_files_are_withdrawn_at_once_and_deleted_after_a_day(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        storage: LocalStorage,
        database: Database,
        deleted: Media,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        now, url = clock.now(), f"/media/{deleted.folder}/picture.jpg"
        assert (await client.get(url)).status_code == 200
        for hours in (0, 23.9):
            monkeypatch.setattr(clock, "now", lambda hours=hours: now + timedelta(hours=hours))
            await clean_up_media(database, storage)
            assert (await client.get(url)).status_code == 404
            assert await storage.withdrawn() == [deleted.folder]
        monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=24.1))
        await clean_up_media(database, storage)
        assert await storage.withdrawn() == []
        assert (await session.scalars(select(DiscardedFolder))).all() == []

    async def test_files_are_deleted_at_once_without_a_grace_period(
        self,
        storage: LocalStorage,
        database: Database,
        deleted: Media,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        changed = get_settings().model_copy(update={"media_keep_deleted_hours": 0})
        monkeypatch.setattr(discarding, "get_settings", lambda: changed)
        await clean_up_media(database, storage)
        assert (stored_folders(storage), await storage.withdrawn()) == (set(), [])

    async def test_kept_files_of_a_user_never_exceed_the_quota(
        self,
        session: AsyncSession,
        storage: LocalStorage,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        changed = get_settings().model_copy(update={"media_quota_bytes": 2 * len(JPEG)})
        monkeypatch.setattr(discarding, "get_settings", lambda: changed)
        folders = []
        for user in (await create_user(session), await create_user(session)):
            for _ in range(4):
                media = await create_media(session, owner=user, storage=storage)
                folders.append(media.folder)
                await session.delete(media)
                await session.flush()
                await clean_up_media(database, storage)
        await clean_up_media(database, storage)
        assert sorted(await storage.withdrawn()) == sorted(folders[2:4] + folders[6:8])

    async def test_restore_serves_images_that_exist_again(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        storage: LocalStorage,
        database: Database,
        deleted: Media,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The dump was made before the image was deleted, the copy of the files after that."""
        await clean_up_media(database, storage)
        unknown = new_folder()
        put(storage, unknown)
        await storage.withdraw(unknown)
        await session.execute(delete(DiscardedFolder))
        media = await create_media(session, owner=await create_user(session))
        media.folder = deleted.folder
        await session.flush()
        assert await discarding.restore_referenced(database, storage=storage) == 1
        assert await discarding.restore_referenced(database, storage=storage) == 0
        assert (await client.get(f"/media/{deleted.folder}/picture.jpg")).status_code == 200
        assert await storage.withdrawn() == [unknown]
        now = clock.now()
        monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=24.1))
        await clean_up_media(database, storage)
        assert (stored_folders(storage), await storage.withdrawn()) == ({deleted.folder}, [])


async def test_references_follow_the_text(session: AsyncSession) -> None:
    user = await create_user(session)
    one, two, three = [await create_media(session, owner=user) for _ in range(3)]
    article = await create_article(session, author=user)
    await set_media_of(session, article, one, two, two)
    assert await referenced_ids(session, article) == {one.id, two.id}
    cover = f"https://old.example/media/{three.folder}/picture.jpg"
    await set_media_of(session, article, two, cover=cover)
    assert await referenced_ids(session, article) == {two.id, three.id}
    texts = (
        f'<img src="http://localhost:8000/media/{one.folder}/320.webp">',
        f"[a link](http://localhost:8000/media/{one.folder}/picture.jpg)",
        f"![it][1]\n\n[1]: /media/{one.folder}/640.webp",
    )
    for text in texts:
        await update_media_references(
            session, article_id=article.id, content=text, cover_image_url=None
        )
        assert await referenced_ids(session, article) == {one.id}
    nothing = f"{one.folder} /media/{one.folder} /media/{'0' * 32}/picture.jpg /media/1"
    await update_media_references(
        session, article_id=article.id, content=nothing, cover_image_url=None
    )
    assert await referenced_ids(session, article) == set()


async def test_purged_articles_delete_their_unshared_images(
    session: AsyncSession,
) -> None:
    user = await create_user(session)
    alone, both, elsewhere, unused = [await create_media(session, owner=user) for _ in range(4)]
    first, second, kept = [await create_article(session, author=user) for _ in range(3)]
    kept.deleted_at = clock.now()  # articles in the trash count
    await set_media_of(session, first, alone, both, elsewhere)
    await set_media_of(session, second, both)
    await set_media_of(session, kept, elsewhere)
    await delete_media_of_articles(session, article_ids=[])
    assert len(await remaining_ids(session)) == 4
    await delete_media_of_articles(session, article_ids=[first.id, second.id])
    assert await remaining_ids(session) == {elsewhere.id, unused.id}
    discarded = await session.scalars(select(DiscardedFolder.folder))
    assert set(discarded) == {alone.folder, both.folder}


async def test_profile_image_is_not_purged(
    client: httpx.AsyncClient, session: AsyncSession, storage: LocalStorage
) -> None:
    user, other = await create_user(session), await create_user(session)
    media = await create_media(session, owner=user, storage=storage)
    theirs = await create_media(session, owner=other, storage=storage)
    for address in (f"/media/{media.folder}/1.webp", f"https://x.example/media/{media.folder}/2"):
        user.image_url = address
        article = await create_article(session, author=user)
        await set_media_of(session, article, media)
        await delete_media_of_articles(session, article_ids=[article.id])
        await set_media_of(session, article)
        answer = await client.delete(f"/media/{media.id}", headers=bearer(user))
        assert (answer.status_code, answer.json()["code"]) == (409, "media_in_use")
    user.image_url = f"/media/{theirs.folder}/1.webp"  # images of other users are not kept
    await session.flush()
    for owner, image in ((user, media), (other, theirs)):
        answer = await client.delete(f"/media/{image.id}", headers=bearer(owner))
        assert answer.status_code == 204


async def test_references_by_other_users_do_not_count(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    owner, other = await create_user(session), await create_user(session)
    image = await create_media(session, owner=owner)
    draft = await create_article(session, author=other, published=False)
    await set_media_of(session, draft, image)
    await delete_media_of_articles(session, article_ids=[draft.id])
    assert await remaining_ids(session) == {image.id}
    answer = await client.delete(f"/media/{image.id}", headers=bearer(owner))
    assert answer.status_code == 204


async def test_images_of_deleted_users_stay_while_referenced(
    client: httpx.AsyncClient, session: AsyncSession, storage: LocalStorage, database: Database
) -> None:
    author, other_author = await create_user(session), await create_user(session)
    editor = await create_user(session, role=Role.EDITOR)
    mine = await create_media(session, owner=author, storage=storage)
    shared = await create_media(session, owner=author, storage=storage)
    article = await create_article(session, author=other_author)
    own = await create_article(session, author=author)
    await set_media_of(session, article, shared)
    await set_media_of(session, own, mine, shared)
    answer = await client.request(
        "DELETE", f"/users/{author.id}", json={"password": PASSWORD}, headers=bearer(author)
    )
    assert answer.status_code == 204
    await clean_up_media(database, storage)
    assert await remaining_ids(session) == {mine.id, shared.id}  # their article is in the trash
    deleted = await client.delete(f"/trash/{own.id}", headers=bearer(editor))
    assert deleted.status_code == 204
    await clean_up_media(database, storage)
    assert await remaining_ids(session) == {shared.id}
    assert stored_folders(storage) == {shared.folder}


async def test_files_without_row_are_deleted_after_an_hour(
    session: AsyncSession,
    storage: LocalStorage,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash between storing the files and the commit leaves such files."""
    folder, kept = new_folder(), new_folder()
    now = clock.now()
    put(storage, folder)
    put(storage, kept)
    session.add(DiscardedFolder(folder=folder, discarded_at=now + timedelta(hours=1)))
    await session.flush()
    await clean_up_media(database, storage)
    assert stored_folders(storage) == {folder, kept}
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(hours=1, seconds=1))
    await clean_up_media(database, storage)
    assert stored_folders(storage) == {kept}
    assert (await session.scalars(select(DiscardedFolder))).all() == []


async def test_undeletable_folder_does_not_block_others(
    session: AsyncSession, storage: LocalStorage, database: Database
) -> None:
    first, second = sorted((new_folder(), new_folder()))
    put(storage, second)
    (storage._files / first).write_text("a file, where a folder is expected")
    for folder in (first, second):
        session.add(DiscardedFolder(folder=folder, discarded_at=clock.now()))
    await session.flush()
    with pytest.raises(StepsFailed) as failed:
        await clean_up_media(database, storage)
    assert isinstance(failed.value.errors["discarded"], NotADirectoryError)
    assert stored_folders(storage) == {first}
    assert (await session.scalars(select(DiscardedFolder.folder))).all() == [first]


async def test_interrupted_uploads_are_deleted_after_half_an_hour(
    database: Database, storage: LocalStorage
) -> None:
    await clean_up_media(database, storage)  # the directory does not exist yet
    old, new = storage.incoming / "old", storage.incoming / "new"
    for directory, age in ((old, 1900), (new, 1700)):
        (directory / "files").mkdir(parents=True)
        (directory / "upload").write_bytes(b"\xff\xd8\xff")
        for path in (directory / "upload", directory / "files", directory):
            moment = clock.now().timestamp() - age
            os.utime(path, (moment, moment))
    await clean_up_media(database, storage)
    assert list(storage.incoming.iterdir()) == [new]


# --- concurrent transactions


class CommittedRows(NamedTuple):
    """A committed image and article, and a database whose transactions are committed."""

    database: Database
    user: Identity
    media: Media
    article: Article


@pytest.fixture(scope="module")
def committing_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture
async def rows(settings: Settings, committing_url: str) -> AsyncIterator[CommittedRows]:
    database = Database.from_settings(settings.model_copy(update={"database_url": committing_url}))
    async with database.unit_of_work() as session:
        user = await create_user(session)
        media = await create_media(session, owner=user)
        article = await create_article(session, author=user)
    known = [name for name in Identity._fields if name not in Identity._field_defaults]
    identity = Identity(**{name: getattr(user, name) for name in known})
    yield CommittedRows(database, identity, media, article)
    await database.dispose()


async def delete_in(session: AsyncSession, rows: CommittedRows) -> None:
    await delete_media(
        session, media_id=rows.media.id, precondition=Precondition(), actor=rows.user
    )


async def test_delete_waits_for_a_concurrent_reference(rows: CommittedRows) -> None:
    async def delete() -> None:
        async with rows.database.unit_of_work() as session:
            await delete_in(session, rows)

    async with rows.database.unit_of_work() as writing:
        await set_media_of(writing, rows.article, rows.media)
        deleting = asyncio.create_task(delete())
        await waiting_for_a_lock(rows.database.unit_of_work)
        assert not deleting.done()
    with pytest.raises(MediaInUse):
        await deleting
    async with rows.database.unit_of_work() as session:
        assert rows.media.id in await remaining_ids(session)
        assert await referenced_ids(session, rows.article) == {rows.media.id}


async def test_reference_waits_for_a_concurrent_delete(rows: CommittedRows) -> None:
    async def show() -> None:
        async with rows.database.unit_of_work() as session:
            await set_media_of(session, rows.article, rows.media)

    async with rows.database.unit_of_work() as deleting:
        await delete_in(deleting, rows)
        await deleting.flush()
        showing = asyncio.create_task(show())
        await waiting_for_a_lock(rows.database.unit_of_work)
        assert not showing.done()
    await showing
    async with rows.database.unit_of_work() as session:
        assert rows.media.id not in await remaining_ids(session)
        assert await referenced_ids(session, rows.article) == set()


# --- files


async def test_file_headers_are_immutable_and_sandboxed(
    client: httpx.AsyncClient, storage: LocalStorage
) -> None:
    folder = new_folder()
    put(storage, folder)
    url = f"/media/{folder}/picture.jpg"
    read = await client.get(url)
    assert (read.status_code, read.content) == (200, JPEG)
    assert read.headers["Content-Type"] == "image/jpeg"
    assert read.headers["Content-Length"] == str(len(JPEG))
    assert read.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert read.headers["X-Content-Type-Options"] == "nosniff"
    assert read.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert read.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    head = await client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(JPEG))
    known = {"If-None-Match": read.headers["ETag"]}
    assert (await client.get(url, headers=known)).status_code == 304
    assert (await client.get(url, headers={**known, "Range": "bytes=0-1"})).status_code == 304
    assert (await client.get(url, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    ("part", "start", "end"),
    [
        ("bytes=0-", 0, 28),
        ("bytes=3-7", 3, 8),
        ("bytes=3-700", 3, 28),
        ("bytes=-5", 23, 28),
        ("bytes=-500", 0, 28),
        ("Bytes=27-27", 27, 28),
    ],
)
async def test_ranges_are_served(
    client: httpx.AsyncClient, storage: LocalStorage, part: str, start: int, end: int
) -> None:
    folder = new_folder()
    put(storage, folder)
    assert len(JPEG) == 28
    read = await client.get(f"/media/{folder}/picture.jpg", headers={"Range": part})
    assert (read.status_code, read.content) == (206, JPEG[start:end])
    assert read.headers["Content-Range"] == f"bytes {start}-{end - 1}/28"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Range": "bytes=28-"}, 416),
        ({"Range": "bytes=-0"}, 416),
        ({"Range": "bytes=7-3"}, 200),
        ({"Range": "bytes=-"}, 200),
        ({"Range": "bytes=0-1,3-4"}, 200),
        ({"Range": "lines=0-1"}, 200),
        ({"Range": f"bytes={'9' * 30}-"}, 200),
        ({"Range": "bytes=0-1", "If-Range": '"another"'}, 200),
    ],
)
async def test_invalid_ranges_are_rejected_or_ignored(
    client: httpx.AsyncClient, storage: LocalStorage, headers: dict[str, str], status: int
) -> None:
    folder = new_folder()
    put(storage, folder)
    read = await client.get(f"/media/{folder}/picture.jpg", headers=headers)
    assert read.status_code == status
    if status == 416:
        assert read.headers["Content-Range"] == "bytes */28"
        assert read.json()["code"] == "range_not_satisfiable"


async def test_range_is_served_if_if_range_matches(
    client: httpx.AsyncClient, storage: LocalStorage
) -> None:
    folder = new_folder()
    put(storage, folder)
    url = f"/media/{folder}/picture.jpg"
    tag = (await client.get(url)).headers["ETag"]
    read = await client.get(url, headers={"Range": "bytes=0-1", "If-Range": tag})
    assert read.status_code == 206


async def test_large_file_is_streamed_in_chunks(
    client: httpx.AsyncClient, storage: LocalStorage
) -> None:
    folder, content = new_folder(), os.urandom(700_001)
    put(storage, folder, content)
    assert (await client.get(f"/media/{folder}/picture.jpg")).content == content


async def test_other_paths_cannot_be_read(
    client: httpx.AsyncClient, storage: LocalStorage, tmp_path: Path
) -> None:
    folder = new_folder()
    put(storage, folder)
    (tmp_path / "secret.jpg").write_text("secret")
    (storage._files / folder / "notes.txt").write_text("secret")
    (storage.incoming / folder).mkdir()
    (storage.incoming / folder / "upload").write_text("secret")
    paths = (
        f"{folder}/../../secret.jpg",
        f"{folder}/..%2F..%2Fsecret.jpg",
        f"{folder}/%2e%2e/secret.jpg",
        "../secret.jpg",
        "%2e%2e/secret.jpg",
        "..%2f../secret.jpg",
        f"{folder}/notes.txt",
        f"{folder}/picture.jpg%00",
        f"{folder}/picture.jpg%0a",
        f"{folder}%00/picture.jpg",
        f"{folder.upper()}x/picture.jpg",
        f"{folder[:-1]}/picture.jpg",
        f"%2f{folder}/picture.jpg",
        f"{folder}//picture.jpg",
        f"{folder}/PICTURE.JPG",
        f"{folder}/picture.svg",
        f"{folder}/640.webp",
        f"incoming/{folder}/upload",
        f"files/{folder}/picture.jpg",
        f"{new_folder()}/picture.jpg",
        "etc/passwd",
    )
    for name in paths:
        path = f"/media/{name}".encode()  # bytes, because the client normalizes strings
        answer = await client.get(httpx.URL("http://testserver").copy_with(raw_path=path))
        assert answer.status_code in {401, 404}, name
        assert answer.json()["success"] is False
        assert b"secret" not in answer.content


async def test_accel_redirect_names_the_file(
    client: httpx.AsyncClient, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.core.config import get_settings
    from app.routers.media import files

    accelerated = get_settings().model_copy(update={"media_accel_redirect": True})
    monkeypatch.setattr(files, "get_settings", lambda: accelerated)
    folder = new_folder()
    put(storage, folder)
    read = await client.get(f"/media/{folder}/picture.jpg")
    assert (read.status_code, read.content) == (200, b"")
    assert read.headers["X-Accel-Redirect"] == f"/_media/{folder}/picture.jpg"
    assert read.headers["Content-Type"] == "image/jpeg"
    assert "ETag" not in read.headers  # nginx sets its own
    assert (await client.get(f"/media/{new_folder()}/picture.jpg")).status_code == 404
