"""XML 1.0 documents, by the standard library."""

import re
from xml.etree.ElementTree import Element, SubElement, tostring

_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 §2.2 has no way to write, escaped or not."""


def clean(text: str) -> str:
    """The text without what XML cannot hold."""
    return _NO_CHARACTER.sub("", text)


def add(parent: Element, name: str, text: str | None = None, /, **attributes: str) -> Element:
    """A new child; a `_` in an attribute's name stands for `:`. Writing escapes all of it."""
    child = SubElement(
        parent, name, {key.replace("_", ":"): clean(value) for key, value in attributes.items()}
    )
    if text is not None:
        child.text = clean(text)
    return child


def document(root: Element) -> bytes:
    """The document in UTF-8, with its declaration."""
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written
