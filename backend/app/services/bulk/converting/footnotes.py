"""Footnotes of WordPress's blocks, of plugins, and of Markdown converters."""

import re
from collections.abc import Iterator, Sequence

from app.services.bulk.converting.results import Context, Notes
from app.services.bulk.converting.trees import BREAK, Element, parse

Definition = tuple[str, Sequence["Element | str"]]
"""The label of a footnote and its content."""

_NUMBER = re.compile(r"\[?(?:\d{1,3}|[a-z*\u2020\u2021])\]?")
_NOTE_ID = re.compile(r"fn|foot-?note|end-?note|note[-_:]?\d|cite[-_]note", re.IGNORECASE)
_BACK = re.compile(
    r"[\s\[\]()^\u2191\u21a9\u21b5\u2912\u23ce\u25b3\u25b2\ufe0e\ufe0f]*|back|return|jump up",
    re.IGNORECASE,
)


def extract(
    tree: Element, context: Context, notes: Notes, *, raw: Sequence[str] = ()
) -> list[Definition]:
    """Replace references by `span data-footnote=label`, and return the footnotes.

    Lists of footnotes that HTML contains are removed from the tree.
    """
    prefix = "note-" if any("[^" in text for text in raw) else ""
    found = _Footnotes(prefix)
    elements = [each for each in tree.elements() if each.attributes]
    _extract_lists(tree, elements, found)
    if found.definitions:  # their items were removed
        elements = [each for each in tree.elements() if each.attributes]
    for element in elements:
        if "data-fn" in element.attributes and element.name in {"sup", "a"}:
            _refer_to_meta(element, context, notes, found)
        elif element.attributes.get("data-footnote") == "":  # a shortcode
            content = element.children
            _make_reference(element, found.add(("text", str(id(element))), content))
    return found.definitions


class _Footnotes:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._labels: dict[tuple[str, str], str] = {}
        self.definitions: list[Definition] = []

    def add(self, key: tuple[str, str], content: Sequence["Element | str"]) -> str:
        """Add a footnote unless it exists, and return its label."""
        if key not in self._labels:
            self._labels[key] = f"{self._prefix}{len(self._labels) + 1}"
            self.definitions.append((self._labels[key], content))
        return self._labels[key]


def _make_reference(element: Element, label: str) -> None:
    element.name, element.has_blocks = "span", False
    element.attributes = {"data-footnote": label}
    element.children = []


def _refer_to_meta(element: Element, context: Context, notes: Notes, found: _Footnotes) -> None:
    name = element.get("data-fn")
    content = context.footnotes.get(name)
    if content is None:
        notes.add("a footnote has no text in the source, its number was kept")
        return
    notes.count_inserted(len(content))
    _make_reference(element, found.add(("meta", name), parse(content, notes).children))


# --- footnotes in HTML: a link to a list item, which has a link back


def _extract_lists(tree: Element, elements: Sequence[Element], found: _Footnotes) -> None:
    """Extract the footnotes in lists. `elements` has all that have attributes."""
    items = {item.get("id"): item for item in elements if item.name == "li" and item.get("id")}
    if not items:
        return
    parents = {id(child): parent for parent in tree.elements() for child in _elements_in(parent)}
    used: dict[str, Element] = {}
    for link in elements:
        target = link.get("href").removeprefix("#")
        item = items.get(target) if link.name == "a" and link.get("href")[:1] == "#" else None
        if item is None or not _is_reference(link, parents[id(link)], item):
            continue
        used[target] = item
        holder = parents[id(link)]
        element = holder if holder.name == "sup" and len(_content(holder)) == 1 else link
        _make_reference(element, found.add(("item", target), item.children))
    for item in used.values():
        _remove_links_back(item)
        _remove(item, parents)


def _is_reference(link: Element, parent: Element, item: Element) -> bool:
    is_marked = parent.name == "sup" or link.find("sup") or "footnote" in link.get("class")
    return (
        bool(is_marked)
        and _NUMBER.fullmatch(link.text().strip().lower()) is not None
        and (bool(_NOTE_ID.search(item.get("id"))) or any(map(_is_link_back, item.elements())))
    )


def _is_link_back(element: Element) -> bool:
    return (
        element.name == "a"
        and element.get("href")[:1] == "#"
        and ("back" in element.get("class") or _BACK.fullmatch(element.text()) is not None)
    )


def _remove_links_back(element: Element) -> None:
    element.children[:] = [
        child
        for child in element.children
        if isinstance(child, str) or not (_is_link_back(child) or child.name == "anchor")
    ]
    for child in _elements_in(element):
        if child is not BREAK:
            _remove_links_back(child)
    if element.children and isinstance(element.children[-1], str):
        element.children[-1] = element.children[-1].rstrip()


def _remove(item: Element, parents: dict[int, Element]) -> None:
    """Remove an item, its list if it is empty, and the rule before the list."""
    holder = parents[id(item)]
    holder.children.remove(item)
    while not _content(holder) and id(holder) in parents:
        parent = parents[id(holder)]
        position = parent.children.index(holder)
        del parent.children[position]
        while position > 0 and parent.children[position - 1] is BREAK:
            position -= 1
        before = parent.children[position - 1] if position > 0 else BREAK
        if isinstance(before, Element) and before.name == "hr":
            del parent.children[position - 1]
        holder = parent


def _content(element: Element) -> list["Element | str"]:
    return [
        child
        for child in element.children
        if (child.strip() if isinstance(child, str) else child.name not in {"", "anchor"})
    ]


def _elements_in(element: Element) -> Iterator[Element]:
    return (child for child in element.children if isinstance(child, Element))
