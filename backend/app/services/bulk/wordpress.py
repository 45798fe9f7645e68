"""WordPress's WXR export: its posts, with their authors, tags, categories and featured images."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from app.services.bulk.foreign import (
    Advance,
    Draft,
    ForeignAuthor,
    Source,
    SourceError,
    Survey,
    moment,
)
from app.services.bulk.html import TooDeep, markdown_of
from app.services.bulk.ndjson import AuthorOf
from app.services.bulk.records import Incoming

STATUSES = {"publish", "future", "draft", "pending", "private"}
"""Of what is imported: the rest is in the trash, or was never saved."""
NO_CATEGORY = "uncategorized"
"""What WordPress says of a post that is in no category."""
NEVER = "0000-00-00"


def survey(path: Path, advance: Advance) -> Survey:
    """The export's authors and pictures, and what is no article. Raises SourceError."""
    authors: dict[str, ForeignAuthor] = {}
    left_out: Counter[str] = Counter()
    pictures: dict[str, str] = {}
    for element in _elements(path, {"author", "item"}, advance):
        if _local(element) == "author":
            login = _text(element, "author_login")
            name = _text(element, "author_display_name")
            authors[login] = ForeignAuthor(login, login, _text(element, "author_email"), name)
            continue
        login = _text(element, "creator")
        authors.setdefault(login, ForeignAuthor(login, login, name=login))
        kind = _text(element, "post_type")
        if kind == "attachment":
            pictures[_text(element, "post_id")] = _text(element, "attachment_url")
        elif kind == "page":
            left_out["pages"] += 1
        elif kind == "post" and _text(element, "status") not in STATUSES:
            left_out["posts in the trash"] += 1
        elif kind != "post":
            left_out["other items"] += 1
    named = tuple(author for author in authors.values() if author.handle)
    return Survey(named, left_out, pictures)


def read(
    path: Path, survey: Survey, *, author_of: AuthorOf, advance: Advance
) -> Iterator[Incoming]:
    """The export's posts, each by its number among the items."""
    number = 0
    try:
        for number, item in enumerate(_elements(path, {"item"}, advance), 1):
            if _text(item, "post_type") == "post" and _text(item, "status") in STATUSES:
                yield _record(f"item {number}", item, survey.found, author_of)
    except SourceError as error:
        yield Incoming(f"after item {number}", None, problem=str(error))


def _elements(path: Path, names: set[str], advance: Advance) -> Iterator[Element]:
    """The elements of these names below the channel, one at a time: each is forgotten afterwards.

    Raises SourceError where the file is not XML, or has entities: those make much of little.
    """
    with Source(path, advance) as source:
        above: list[Element] = []
        try:
            for event, element in iterparse(source, ("start", "end"), forbid_dtd=True):
                if event == "start":
                    above.append(element)
                    continue
                above.pop()
                if len(above) == 2:  # of rss and channel
                    source.record_ended()
                    if _local(element) in names:
                        yield element
                    above[-1].clear()
        except DefusedXmlException as error:
            raise SourceError("The file declares a DTD or entities: it is not read") from error
        except (ParseError, ValueError, LookupError) as error:
            raise SourceError(f"The file is not XML from here on: {error}"[:200]) from error


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str, *, of: str = "") -> str:
    """The text of the child of this name; `of` is in the namespace where several have the name."""
    for child in element:
        if _local(child) == name and of in child.tag:
            return child.text or ""
    return ""


def _record(
    position: str, item: Element, pictures: dict[str, str], author_of: AuthorOf
) -> Incoming:
    draft = Draft(position)
    draft.titled(_text(item, "title"))
    draft.named(_text(item, "post_name"))
    try:
        draft.fields["content"] = markdown_of(_text(item, "encoded", of="/content/"))
    except TooDeep as error:
        return Incoming(position, None, problem=str(error))
    draft.summed_up(_text(item, "encoded", of="excerpt"))
    draft.covered(pictures.get(_meta(item, "_thumbnail_id"), ""))
    terms = [child for child in item if _local(child) == "category"]
    draft.tagged(
        term.text or ""
        for domain in ("post_tag", "category")
        for term in terms
        if term.get("domain") == domain and term.get("nicename") != NO_CATEGORY
    )
    _date(draft, item)
    name = _text(item, "guid") or f"{_text(item, 'link')}#{_text(item, 'post_id')}"
    author = _text(item, "creator")
    return draft.done(author=author, author_of=author_of, identity=f"wordpress:{name}")


def _date(draft: Draft, item: Element) -> None:
    """Set when it was written, changed and published; what was not for everybody is a draft."""
    status = _text(item, "status")
    written = _moment(item, "post_date_gmt") or _moment(item, "post_date")
    draft.say(created_at=written)
    if status in {"publish", "future"}:
        if _text(item, "post_password"):
            draft.notes.append("it has a password: imported as a draft")
        else:
            draft.say(published_at=written)
    elif status == "private":
        draft.notes.append("it is private: imported as a draft")
    draft.say(updated_at=_moment(item, "post_modified_gmt"))


def _moment(item: Element, name: str) -> Any:
    value = _text(item, name)
    return None if value.startswith(NEVER) else moment(value)


def _meta(item: Element, key: str) -> str:
    for child in item:
        if _local(child) == "postmeta" and _text(child, "meta_key") == key:
            return _text(child, "meta_value")
    return ""
