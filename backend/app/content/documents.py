"""Articles as Markdown documents with front matter, as exports write and imports read them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

GENERATOR = "pressroom"
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_FIELDS = {
    "excerpt": "description",
    "tags": "tags",
    "author": "author",
    "cover_image_url": "cover_image",
    "language": "language",
    "archived": "archived",
    "comment_policy": "comment_policy",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "old_paths": "aliases",
    "former_slugs": "former_slugs",
}
"""The names in front matter, by the names of a record."""
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>&"})


def write_article(record: Mapping[str, Any]) -> bytes:
    """Return the document of an article. A record without `published_at` is a draft."""
    front_matter: dict[str, Any] = {"title": record["title"], "slug": record["slug"]}
    published_at = record.get("published_at")
    front_matter |= {"date": published_at} if published_at else {"draft": True}
    front_matter |= {name: record[field] for field, name in _FIELDS.items() if field in record}
    if record.get("imported"):
        front_matter["imported"] = json.dumps(record["imported"], ensure_ascii=False)
    return write_document(front_matter, record["content"])


def write_document(front_matter: Mapping[str, Any], content: str) -> bytes:
    """Return a document. The front matter also names Pressroom, so that imports recognize it."""
    fields = yaml.dump(
        {**front_matter, "generator": GENERATOR},
        Dumper=_DUMPER,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
    )
    return f"---\n{fields}---\n\n{content}".encode()


def escape(text: str) -> str:
    """Return plain text as one line of Markdown."""
    return " ".join(text.split()).translate(_SPECIAL)


def link_list(links: Iterable[tuple[str, str, str]]) -> str:
    """Return a list of links from their plain titles, URLs and notes, which may be empty."""
    return "".join(
        f"- [{escape(title)}]({url}){f': {escape(note)}' if note else ''}\n"
        for title, url, note in links
    )
