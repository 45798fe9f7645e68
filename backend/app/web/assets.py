"""Static files. Their URLs contain a hash of the content, so that browsers keep them for good."""

import mimetypes
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from app.core.errors import NotFound

FOLDER = Path(__file__).parent / "static"
PATH = "/static"
IMMUTABLE = "public, max-age=31536000, immutable"
HASH_LENGTH = 12

_IMPORT = re.compile(r'(?<=["\'])(\.{1,2}/[\w./-]+\.js)(?=["\'])')
"""The relative path of an imported module."""


class Asset(NamedTuple):
    """A static file."""

    content: bytes
    media_type: str


class Assets:
    """The static files of the pages, with those of the theme in their place.

    Imports in modules are replaced by the URLs with hashes. Modules must not import in circles.
    """

    def __init__(self, theme: Path | None = None) -> None:
        """Read all files. Files below `theme/static` replace those with the same name."""
        self._sources: dict[str, Path] = {}
        for folder in (FOLDER, *([theme / "static"] if theme else [])):
            for file in sorted(folder.rglob("*")):
                if file.is_file() and not file.name.startswith("."):
                    self._sources[file.relative_to(folder).as_posix()] = file
        self._urls: dict[str, str] = {}
        self._files: dict[str, Asset] = {}
        for name in self._sources:
            self._add(name)

    @property
    def urls(self) -> Mapping[str, str]:
        """The path of each file, by its name such as `js/enhance.js`."""
        return self._urls

    def url(self, name: str) -> str:
        """Return the path of a file. Raises KeyError."""
        return self._urls[name]

    def _add(self, name: str) -> str:
        if name in self._urls:
            return self._urls[name]
        content = self._sources[name].read_bytes()
        path = PurePosixPath(name)
        if path.suffix == ".js":
            script = _IMPORT.sub(lambda found: self._imported(path, found[1]), content.decode())
            content = script.encode()
        digest = sha256(content).hexdigest()[:HASH_LENGTH]
        hashed = path.with_name(f"{path.stem}.{digest}{path.suffix}").as_posix()
        media_type = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(name)[0]
        self._files[hashed] = Asset(content, media_type or "application/octet-stream")
        self._urls[name] = f"{PATH}/{hashed}"
        return self._urls[name]

    def _imported(self, importer: PurePosixPath, relative: str) -> str:
        parts: list[str] = list(importer.parent.parts)
        for part in PurePosixPath(relative).parts:
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        return self._add("/".join(parts))

    async def serve(self, request: Request) -> Response:
        """Return the file of the path, which contains its hash. Raises NotFound."""
        asset = self._files.get(request.path_params["name"])
        if asset is None:
            raise NotFound
        return Response(
            asset.content, headers={"Cache-Control": IMMUTABLE}, media_type=asset.media_type
        )
