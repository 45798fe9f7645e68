"""Articles as Markdown files with front matter, in a folder or in a ZIP file.

`markdown.read` reads them. What the files do not contain is counted.
"""

import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

from app.content.documents import write_article
from app.core.archives import Parts
from app.services.bulk import files

README = "README.txt"
"""Not `.md`: an import of the folder would read it as an article."""


def file_of(record: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the name and the content of a record's file."""
    day = (record.get("published_at") or record["created_at"])[:10]
    return f"{day}-{record['slug']}.md", write_article(record)


def lost_of(record: Mapping[str, Any]) -> Counter[str]:
    """Return what the file of a record does not contain, by kind in the plural."""
    return Counter({"comments": len(record.get("comments", ()))})


class FolderWriter:
    """Writes files into a folder. Of equal names, the second one gets a number."""

    def __init__(self, folder: Path) -> None:
        self.lost: Counter[str] = Counter()
        self._folder = folder
        self._names = _Names()

    def write_all(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the files of records. Raises OSError."""
        for record in records:
            name, content = file_of(record)
            with files.create(self._folder / self._names.unique(name)) as file:
                file.write(content)
            self.lost += lost_of(record)


class _Names:
    """Names of files. Drafts of different authors may have the same date and slug."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        """The names in use, with the last number that was appended to each."""

    def unique(self, name: str) -> str:
        """Return this name, or with the next number that makes it unused."""
        found = name
        while found in self._numbers:
            self._numbers[name] += 1
            found = f"{name.removesuffix('.md')}-{self._numbers[name]}.md"
        self._numbers[found] = 1
        return found


class ArchiveWriter:
    """Writes a ZIP file in parts: `add` several times, and `finish`."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._sink = Parts()
        self._archive = ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED)
        self._names = _Names()

    def add(self, records: Sequence[Mapping[str, Any]]) -> bytes:
        """Return the next part, with the files of records."""
        for record in records:
            name, content = file_of(record)
            self._write(self._names.unique(name), content, record["updated_at"])
            self.lost += lost_of(record)
        return self._sink.take()

    def finish(self, readme: str, *, at: str) -> bytes:
        """Return the last part, with a text for the user."""
        self._write(README, readme.encode(), at)
        self._archive.close()
        return self._sink.take()

    def _write(self, name: str, content: bytes, at: str) -> None:
        year = max(1980, min(int(at[:4]), 2107))
        moment = (year, int(at[5:7]), int(at[8:10]), int(at[11:13]), int(at[14:16]), 0)
        info = ZipInfo(name, moment)
        info.external_attr = 0o644 << 16
        self._archive.writestr(info, content, zipfile.ZIP_DEFLATED)
