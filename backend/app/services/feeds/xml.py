"""XML 1.0 documents, built with the standard library."""

import re
from xml.etree.ElementTree import Element, SubElement, tostring

_INVALID_CHARACTERS = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 §2.2 does not allow, even escaped."""


def clean(text: str) -> str:
    """Remove characters that XML does not allow."""
    return _INVALID_CHARACTERS.sub("", text)


def add(parent: Element, name: str, text: str | None = None, /, **attributes: str) -> Element:
    """Append a child element; `_` in an attribute's name stands for `:`. Values are escaped."""
    child = SubElement(
        parent, name, {key.replace("_", ":"): clean(value) for key, value in attributes.items()}
    )
    if text is not None:
        child.text = clean(text)
    return child


def to_bytes(root: Element) -> bytes:
    """Serialise the document as UTF-8 with an XML declaration."""
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document
