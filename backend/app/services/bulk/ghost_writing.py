"""Articles as a Ghost import file. What Ghost has no field for is counted.

Ghost imports a text as a Markdown card, so that it stays editable as it is. The tables of relations
come after the posts; until then they are in temporary files.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Self
from uuid import NAMESPACE_URL, uuid5

from app.content.slugs import slugify, tag_key
from app.core import clock
from app.services.bulk.converting.addresses import Address, replace_addresses
from app.services.bulk.converting.results import TooComplex

VERSION = "5.0.0"
"""The version of Ghost whose format this is. Later ones import it."""
MAX_EXCERPT = 300
_META_FIELDS = (
    "meta_title", "meta_description", "og_image", "og_title", "og_description", "twitter_image",
    "twitter_title", "twitter_description", "email_subject", "frontmatter",
)  # fmt: skip
_COVER_FIELDS = {"cover_alt": "feature_image_alt", "cover_caption": "feature_image_caption"}
_POST_FIELDS = ("canonical_url", "codeinjection_head", "codeinjection_foot", "custom_template")
_OTHERS = {"featured", "internal_tags"}
"""Fields of `imported` that Ghost has, besides the ones above."""
_RELATIONS = ("posts_tags", "posts_authors", "posts_meta")
_CHUNK = 1024 * 1024


class GhostWriter:
    """Writes records, in parts: `head`, `posts` several times, and `tail`.

    The temporary files are closed at the end of the `with` block.
    """

    def __init__(self, *, api_url: str) -> None:
        """Images of this server get addresses below `api_url`."""
        self.lost: Counter[str] = Counter()
        """What Ghost does not import, by kind in the plural."""
        self._api_url = api_url.rstrip("/")
        self._count = 0
        self._users: dict[str, int] = {}
        self._tags: dict[str, tuple[int, str]] = {}
        self._files: dict[str, BinaryIO] = {
            name: tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
            for name in _RELATIONS
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def head(self) -> bytes:
        """Return the beginning of the file."""
        return b'{"db":[{"data":{"posts":['

    def posts(self, records: Sequence[Mapping[str, Any]]) -> bytes:
        """Return the posts of records."""
        return b"".join(map(self._post, records))

    def tail(self, remarks: Sequence[str]) -> Iterator[bytes]:
        """Yield the other tables, and the end of the file with remarks for the user.

        Ghost ignores the remarks there. It rejects a file with other fields beside `db`.
        """
        yield b"\n]"
        for name, file in self._files.items():
            yield f',"{name}":['.encode()
            file.seek(0)
            while chunk := file.read(_CHUNK):
                yield chunk
            yield b"\n]"
        users = [
            {"id": str(number), "name": name, "slug": name.lower(), "email": _email(name)}
            for name, number in self._users.items()
        ]
        tags = [
            {
                "id": str(number),
                "name": name,
                "slug": slugify(name, fallback="tag"),
                "visibility": "internal" if name.startswith("#") else "public",
            }
            for number, name in self._tags.values()
        ]
        meta = {
            "exported_on": int(clock.now().timestamp() * 1000),
            "version": VERSION,
            "not_exported": list(remarks),
        }
        yield f',"users":{_dumps(users)},"tags":{_dumps(tags)}}}'.encode()
        yield f',"meta":{_dumps(meta)}}}]}}\n'.encode()

    def _post(self, record: Mapping[str, Any]) -> bytes:
        separator = "\n" if self._count == 0 else ",\n"
        self._count += 1
        post_id = str(self._count)
        imported = record.get("imported") or {}
        self._count_lost(record, imported)
        post = {
            "id": post_id,
            "uuid": str(uuid5(NAMESPACE_URL, f"{record['source']} {record['source_id']}")),
            "title": record["title"],
            "slug": record["slug"],
            "lexical": self._lexical(record["content"]),
            "feature_image": self._absolute(record.get("cover_image_url")),
            "featured": imported.get("featured") is True,
            "type": "page" if imported.get("page") is True else "post",
            "status": self._status(record),
            "locale": record.get("language"),
            "visibility": "public",
            "custom_excerpt": self._excerpt(record),
            "created_at": record["created_at"],
            "updated_at": record["updated_at"],
            "published_at": record.get("published_at"),
            **{name: imported[name] for name in _POST_FIELDS if name in imported},
        }
        self._add_relations(post_id, record, imported)
        return f"{separator}{_dumps(post)}".encode()

    def _status(self, record: Mapping[str, Any]) -> str:
        if record.get("archived") or "published_at" not in record:
            return "draft"
        is_future = record["published_at"] > clock.now().isoformat()
        return "scheduled" if is_future else "published"

    def _excerpt(self, record: Mapping[str, Any]) -> str | None:
        excerpt: str | None = record.get("excerpt")
        if excerpt is not None and len(excerpt) > MAX_EXCERPT:
            self.lost[f"excerpts after {MAX_EXCERPT} characters"] += 1
            return excerpt[: MAX_EXCERPT - 1].rstrip() + "…"
        return excerpt

    def _lexical(self, content: str) -> str:
        """Return the text as a document with a single Markdown card."""
        try:
            content = replace_addresses(content, self._replacement)
        except TooComplex:
            self.lost["texts whose images keep a relative URL"] += 1
        card = {"type": "markdown", "version": 1, "markdown": content}
        root = {"type": "root", "version": 1, "direction": None, "format": "", "indent": 0}
        return _dumps({"root": {**root, "children": [card]}})

    def _replacement(self, address: Address) -> str | None:
        return self._absolute(address.url) if address.url.startswith("/media/") else None

    def _absolute(self, url: str | None) -> str | None:
        return f"{self._api_url}{url}" if url is not None and url.startswith("/") else url

    def _add_relations(
        self, post_id: str, record: Mapping[str, Any], imported: Mapping[str, Any]
    ) -> None:
        author = record["author"]
        author_id = str(self._users.setdefault(author, len(self._users) + 1))
        self._add("posts_authors", {"post_id": post_id, "author_id": author_id, "sort_order": 0})
        internal = imported.get("internal_tags")
        names = [*record.get("tags", ()), *(internal if isinstance(internal, list) else ())]
        for order, name in enumerate(names):
            key = f"#{name}" if str(name).startswith("#") else tag_key(str(name))
            number, _ = self._tags.setdefault(key, (len(self._tags) + 1, str(name)))
            relation = {"post_id": post_id, "tag_id": str(number), "sort_order": order}
            self._add("posts_tags", relation)
        meta = {name: imported[name] for name in _META_FIELDS if name in imported}
        meta |= {new: imported[old] for old, new in _COVER_FIELDS.items() if old in imported}
        if meta:
            self._add("posts_meta", {"id": post_id, "post_id": post_id, **meta})

    def _add(self, table: str, row: Mapping[str, Any]) -> None:
        file = self._files[table]
        file.write((",\n" if file.tell() else "\n").encode() + _dumps(row).encode())

    def _count_lost(self, record: Mapping[str, Any], imported: Mapping[str, Any]) -> None:
        known = {*_META_FIELDS, *_COVER_FIELDS, *_POST_FIELDS, *_OTHERS, "page"}
        self.lost["comments"] += len(record.get("comments", ()))
        self.lost["old URLs"] += len(record.get("old_paths", ()))
        self.lost["former slugs"] += len(record.get("former_slugs", ()))
        self.lost["comment policies"] += "comment_policy" in record
        self.lost["archived articles, which become drafts"] += bool(record.get("archived"))
        self.lost["further fields of other systems"] += len(imported.keys() - known)


def _email(username: str) -> str:
    """Return an address for Ghost, which requires one. Exports contain no addresses of users."""
    return f"{username.lower()}@export.invalid"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
