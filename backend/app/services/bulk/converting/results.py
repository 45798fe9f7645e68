"""The context of a text, the result of a conversion, and notes for the author."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


def names(text: str) -> frozenset[str]:
    """Return the names in a text, separated by white space."""
    return frozenset(text.split())


MAX_TEXT_BYTES = 8 * 1024 * 1024
"""Maximum size of a text in memory. Its conversion takes several times as much."""


MAX_INSERTED_LENGTH = 4 * 1024 * 1024
"""Maximum length of what a text inserts by reference, such as the images of its galleries."""


class TooComplex(ValueError):
    """The text would take too long to convert. The message contains the reason."""


class InvalidDocument(ValueError):
    """The document is not valid in its format."""


class Attachment(NamedTuple):
    """A media file of the source system. `caption` is HTML."""

    url: str
    alt: str = ""
    caption: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What a text refers to in its source."""

    site: str = ""
    """The URL of the old site, such as `https://blog.example`, or an empty string."""
    attachments: Mapping[str, Attachment] = field(default_factory=dict)
    """All media files by id."""
    attached: Sequence[str] = ()
    """The ids of the media files that belong to this post. A gallery without ids shows them."""
    reusable_blocks: Mapping[str, str] = field(default_factory=dict)
    """The content of WordPress's reusable blocks (patterns) by id."""
    footnotes: Mapping[str, str] = field(default_factory=dict)
    """The HTML of WordPress's footnotes by id, from the post's meta field `footnotes`."""
    values: Mapping[str, str] = field(default_factory=dict)
    """The front matter of a file, for `{{ page.title }}` in its text."""


class Converted(NamedTuple):
    """A text as Markdown."""

    markdown: str
    notes: Sequence[str] = ()
    """What was changed or lost, in words for the author of the text."""
    has_restricted_parts: bool = False
    """Whether the source shows parts of the text to members only. They are in `markdown`."""
    gate: str = ""
    """The name of what hides such parts, if it is known."""


def check_size(text: str) -> None:
    """Raise TooComplex if a text is too long."""
    if text.__sizeof__() > MAX_TEXT_BYTES:
        raise TooComplex(f"The text is longer than {MAX_TEXT_BYTES} bytes")


class Notes:
    """Collects notes, and the length of what a text inserts. Equal notes are counted."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._inserted = 0
        self.has_restricted_parts = False
        self.gate = ""

    def add(self, note: str) -> None:
        """Add a note, as a sentence without a full stop."""
        self._counts[note] += 1

    def count_inserted(self, length: int) -> None:
        """Count what a text inserts by reference. Raises TooComplex if the total is too long."""
        self._inserted += length
        if self._inserted > MAX_INSERTED_LENGTH:
            raise TooComplex(f"The text inserts more than {MAX_INSERTED_LENGTH} characters")

    def result(self, markdown: str) -> Converted:
        """Return the result with these notes."""
        notes = [note if n == 1 else f"{note} ({n} times)" for note, n in self._counts.items()]
        is_restricted = self.has_restricted_parts or self.gate != ""
        return Converted(markdown, tuple(notes), is_restricted, self.gate)
