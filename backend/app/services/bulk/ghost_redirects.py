"""Ghost's redirects, which it exports to `redirects.json` or `redirects.yaml`."""

import json
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from app.services.bulk.front_matter import load_yaml

NAMES = ("redirects.yaml", "redirects.yml", "redirects.json")
MAX_NODES = 200_000

_ANCHORS = re.compile(r"^\^|(?:/\?|\(/\)\?|/\*|\?)?\$?$")
_PATTERN = re.compile(r"[\\^$*+?()\[\]{}|]")


class Redirects(NamedTuple):
    """The redirects to posts."""

    by_slug: Mapping[str, list[str]]
    """The former paths, by the slug of the post."""
    left_out: int
    """How many are patterns, or do not lead to a post."""
    problems: tuple[str, ...] = ()


def read(name: str, raw: bytes, slugs: Container[str]) -> Redirects:
    """Return the redirects that lead from a path to a post with one of these slugs."""
    try:
        text = raw.decode("utf-8-sig")
        loaded = json.loads(text) if name.endswith(".json") else load_yaml(text, MAX_NODES)
    except (ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:200]
        return Redirects({}, 0, (f"{name} cannot be read ({reason})",))
    by_slug: dict[str, list[str]] = {}
    left_out = 0
    for source, target in _pairs(loaded):
        path = _literal(source)
        slug = urlsplit(target).path.strip("/").rpartition("/")[2]
        if path and slug in slugs:
            by_slug.setdefault(slug, []).append(path)
        else:
            left_out += 1
    return Redirects(by_slug, left_out)


def _pairs(loaded: Any) -> Iterator[tuple[str, str]]:
    """Yield pairs of former and new address, of both formats."""
    if isinstance(loaded, list):
        for each in loaded:
            source, target = (
                (each.get("from"), each.get("to")) if isinstance(each, dict) else ("", "")
            )
            yield str(source or ""), str(target or "")
    elif isinstance(loaded, dict):
        for targets in loaded.values():
            for source, target in targets.items() if isinstance(targets, dict) else ():
                yield str(source), str(target)


def _literal(source: str) -> str:
    """Return the path that a regular expression matches, if it is only one."""
    text = _ANCHORS.sub("", source.strip())
    text = re.sub(r"\\([/.\-_])", r"\1", text)
    if not text or _PATTERN.search(text):
        return ""
    return text if text.startswith("/") else f"/{text}"
