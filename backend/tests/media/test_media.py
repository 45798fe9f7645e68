"""Uploads: re-encoding, rejected files, quota and cleanup."""

import asyncio
import threading
import time
import zipfile
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image, ImageSequence
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message

from app.core.errors import InvalidMedia
from app.models import AuditEvent, DiscardedFolder, Media, UploadReservation
from app.services import limits
from app.services.media import images, uploading
from app.services.media.formats import detect_format
from app.services.media.storage import LocalStorage
from app.services.purging import Batch
from tests.factories import api_key, bearer, create_user
from tests.images import (
    CAMERA,
    adobe_rgb,
    animation,
    chunk,
    encoded,
    exif,
    gradient,
    image_bytes,
    opened,
    pixel,
    png,
)
from tests.processes import DEADLINE
from tests.security.conftest import (
    Install,
    Timeline,
    install,
    live,
    live_app,
    live_database_url,
    live_rows,
    timeline,
)

__all__ = ["install", "live", "live_app", "live_database_url", "live_rows", "timeline"]

Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]

Headers = dict[str, str]


BOUNDARY = b"boundary"


def form(content: bytes) -> bytes:
    """Return a form with a file."""
    head = b'Content-Disposition: form-data; name="file"; filename="a.jpg"'
    return b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY, head, content, BOUNDARY)


class StalledUploads:
    """Uploads that wait before their last byte."""

    def __init__(self, client: httpx.AsyncClient, store: Path) -> None:
        self.store = store
        self._client = client
        self._resume = asyncio.Event()
        self._tasks: list[asyncio.Task[httpx.Response]] = []

    async def start(self, headers: Headers, body: bytes, *, chunked: bool = False) -> None:
        """Send all but the last byte, and wait until the server has read it."""
        arrived = asyncio.Event()

        async def parts() -> AsyncIterator[bytes]:
            yield body[:-1]
            arrived.set()
            await self._resume.wait()
            yield body[-1:]

        length = {} if chunked else {"Content-Length": str(len(body))}
        request = self._post({**headers, **length}, parts())
        self._tasks.append(asyncio.create_task(request))
        await asyncio.wait_for(arrived.wait(), 30)

    async def finish(self) -> list[httpx.Response]:
        """Send the last bytes and return the responses."""
        self._resume.set()
        return await asyncio.gather(*self._tasks)

    async def send(self, headers: Headers, body: bytes, *, forever: bool = False) -> httpx.Response:
        """Send the body; with `forever`, without its last byte."""

        async def parts() -> AsyncIterator[bytes]:
            yield body[:-1]
            if forever:
                await asyncio.Event().wait()
            yield body[-1:]

        return await self._post({**headers, "Content-Length": str(len(body))}, parts())

    async def _post(self, headers: Headers, body: AsyncIterator[bytes]) -> httpx.Response:
        media_type = f"multipart/form-data; boundary={BOUNDARY.decode()}"
        return await self._client.post(
            "/media", content=body, headers={**headers, "Content-Type": media_type}
        )


async def reservations(live_rows: Rows) -> int:
    async with live_rows() as rows:
        return await rows.scalar(select(func.count()).select_from(UploadReservation)) or 0


@pytest.fixture
def store(app: FastAPI, tmp_path: Path) -> Path:
    """Replace the application's storage by a temporary directory."""
    app.state.storage = LocalStorage(tmp_path)
    return tmp_path


@pytest.fixture
async def headers(session: AsyncSession, store: Path) -> Headers:
    return bearer(await create_user(session))


def file_names(store: Path) -> list[str]:
    """Return the names of all files in the storage."""
    return sorted(file.name for file in store.rglob("*") if file.is_file())


def parent_folders(store: Path) -> list[Path]:
    """Return the parents of all folders with files."""
    return sorted({file.parent.parent for file in store.rglob("*") if file.is_file()})


def content_of(store: Path, name: str = "*.*") -> bytes:
    """Return the concatenated content of all files with this name."""
    return b"".join(file.read_bytes() for file in store.rglob(name) if file.is_file())


def has_no_temporary_files(store: Path) -> bool:
    """Return whether there are no uploads in progress."""
    return list((store / "incoming").iterdir()) == []


async def upload(
    client: httpx.AsyncClient,
    headers: Headers,
    content: bytes,
    *,
    name: str = "a.jpg",
    alt: str = "",
) -> httpx.Response:
    files = {"file": (name, content, "image/jpeg")}
    return await client.post(
        "/media", files=files, data={"alt": alt} if alt else {}, headers=headers
    )


async def file_at(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.get(httpx.URL(url).path)


async def upload_and_open(
    client: httpx.AsyncClient, headers: Headers, content: bytes
) -> Image.Image:
    """Upload an image and return the stored image."""
    answer = await upload(client, headers, content)
    assert answer.status_code == 201, answer.text
    return opened((await file_at(client, answer.json()["url"])).content)


def stored_files(store: Path) -> list[bytes]:
    return [path.read_bytes() for path in store.rglob("*") if path.is_file()]


async def assert_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path, content: bytes, reason: str
) -> None:
    answer = await upload(client, headers, content)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "invalid_media"
    assert reason in answer.json()["message"]
    assert file_names(store) == []
    assert has_no_temporary_files(store)


async def test_upload_creates_variants(
    client: httpx.AsyncClient, session: AsyncSession, headers: Headers, store: Path
) -> None:
    answer = await upload(
        client, headers, image_bytes("JPEG", size=(1600, 1200)), alt=" A lighthouse "
    )
    assert answer.status_code == 201
    found = answer.json()
    assert found["alt"] == "A lighthouse"
    assert (found["content_type"], found["width"], found["height"]) == ("image/jpeg", 1600, 1200)
    assert [(each["width"], each["height"]) for each in found["variants"]] == [
        (320, 240), (640, 480), (1280, 960),
    ]  # fmt: skip
    assert file_names(store) == ["1280.webp", "320.webp", "640.webp", "picture.jpg"]
    assert found["bytes"] == len(content_of(store))
    for each in found["variants"]:
        read = await file_at(client, each["url"])
        assert read.headers["content-type"] == "image/webp"
        assert opened(read.content).size == (each["width"], each["height"])
    assert found["color"].startswith("#")
    tiny = opened(b64decode(found["placeholder"].removeprefix("data:image/webp;base64,")))
    assert tiny.size == (16, 12)
    assert len(found["placeholder"]) < 300
    event = (await session.scalars(select(AuditEvent))).one()
    assert (event.action, event.subject_id) == ("CREATE_MEDIA", found["id"])
    assert (await session.scalars(select(DiscardedFolder))).all() == []


async def test_images_are_not_enlarged(client: httpx.AsyncClient, headers: Headers) -> None:
    small = (await upload(client, headers, image_bytes(size=(320, 200)))).json()
    assert small["variants"] == []
    wide = (await upload(client, headers, image_bytes(size=(321, 200)))).json()
    assert [each["width"] for each in wide["variants"]] == [320]


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("AVIF", "avif"), ("GIF", "webp")],
)
async def test_each_format_gets_its_content_type(
    client: httpx.AsyncClient, headers: Headers, kind: str, content_type: str
) -> None:
    answer = await upload(client, headers, image_bytes(kind), name="../../etc/passwd.svg")
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["content_type"] == f"image/{content_type}"
    read = await file_at(client, found["url"])
    assert read.headers["content-type"] == f"image/{content_type}"
    image = opened(read.content)
    assert image.format == content_type.upper()
    for place in ((10, 10), (390, 290), (200, 150)):
        actual, expected = pixel(image.convert("RGB"), place), pixel(gradient(), place)
        differences = [abs(one - other) for one, other in zip(actual, expected, strict=True)]
        assert max(differences) < 16, place


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
async def test_metadata_is_removed(
    client: httpx.AsyncClient, headers: Headers, store: Path, kind: str
) -> None:
    comment: dict[str, Any] = {"comment": CAMERA} if kind == "JPEG" else {}
    sent = image_bytes(kind, exif=exif(), **comment)
    assert CAMERA.encode() in sent
    image = await upload_and_open(client, headers, sent)
    assert dict(image.getexif()) == {}
    assert not {"exif", "xmp", "icc_profile", "comment"} & image.info.keys()
    assert CAMERA.encode() not in content_of(store)


@pytest.mark.parametrize(
    ("kind", "orientation"),
    [
        *((kind, orientation) for kind in ("JPEG", "AVIF") for orientation in range(1, 9)),
        ("PNG", 6),
        ("WEBP", 6),
    ],
)
async def test_exif_orientation_is_applied(
    client: httpx.AsyncClient, headers: Headers, kind: str, orientation: int
) -> None:
    upright = Image.new("RGB", (64, 32), "white")
    upright.paste("red", (0, 0, 32, 16))
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    held = upright.transpose(undo) if undo is not None else upright
    stored = await upload_and_open(client, headers, encoded(held, kind, exif=exif(orientation)))
    assert stored.size == (64, 32)
    red, white = pixel(stored.convert("RGB"), (8, 8)), pixel(stored.convert("RGB"), (56, 8))
    assert red[0] > 200
    assert red[1] < 60
    assert min(white) > 200


async def test_colour_profiles_are_converted_to_srgb(
    client: httpx.AsyncClient, headers: Headers
) -> None:
    flat = Image.new("RGB", (64, 64), (60, 200, 60))
    stored = await upload_and_open(client, headers, encoded(flat, "PNG", icc_profile=adobe_rgb()))
    other = await upload_and_open(client, headers, encoded(flat, "PNG"))
    broken = await upload_and_open(client, headers, encoded(flat, "PNG", icc_profile=b"no profile"))
    assert stored.getpixel((5, 5)) != (60, 200, 60)
    assert other.getpixel((5, 5)) == broken.getpixel((5, 5)) == (60, 200, 60)
    assert "icc_profile" not in stored.info


async def test_transparency_is_preserved(client: httpx.AsyncClient, headers: Headers) -> None:
    sent = gradient(mode="RGBA")
    palette = sent.quantize(64)
    for content in (
        encoded(sent, "PNG"),
        encoded(palette, "PNG"),
        encoded(sent, "WEBP", lossless=True),
    ):
        stored = await upload_and_open(client, headers, content)
        assert stored.mode == "RGBA"
        assert pixel(stored, (200, 1))[3] < 40
        assert pixel(stored, (200, 298))[3] > 200


@pytest.mark.parametrize("mode", ["CMYK", "L", "I;16", "1", "P", "LA"])
async def test_pixel_modes_are_converted(
    client: httpx.AsyncClient, headers: Headers, mode: str
) -> None:
    gray = Image.linear_gradient("L").resize((64, 64))
    if mode.startswith("I"):
        image = gray.convert("I").point(lambda value: value * 257).convert(mode)
    else:
        image = gray.convert("RGB").convert(mode) if mode == "CMYK" else gray.convert(mode)
    stored = await upload_and_open(
        client, headers, encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    )
    assert stored.mode == "RGB"
    scaled = stored.resize((1, 4), Image.Resampling.BOX)
    column = [sum(pixel(scaled, (0, y))) / 3 for y in range(4)]
    for found, expected in zip(column, (32, 96, 160, 224), strict=True):
        assert abs(found - expected) < 24, column


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF", "PNG"])
async def test_animations_become_animated_webp(
    client: httpx.AsyncClient, headers: Headers, kind: str
) -> None:
    answer = await upload(client, headers, animation(kind, frames=4, size=(330, 20)))
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert found["content_type"] == "image/webp"
    for url in (found["url"], found["variants"][0]["url"]):
        stored = opened((await file_at(client, url)).content)
        assert stored.info["loop"] == 0
        frames = ImageSequence.all_frames(stored)
        assert [frame.info["duration"] for frame in frames] == [70] * 4


async def test_large_image_is_scaled_down(
    client: httpx.AsyncClient, headers: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert images.MAX_OUTPUT_PIXELS == 4096 * 4096
    monkeypatch.setattr(images, "MAX_OUTPUT_PIXELS", 512 * 512)
    found = (await upload(client, headers, png(900, 750))).json()
    assert 500 * 500 < found["width"] * found["height"] <= 512 * 512
    assert found["width"] / found["height"] == pytest.approx(1.2, rel=0.001)
    line = (await upload(client, headers, png(20_000, 1))).json()
    assert (line["width"], line["height"]) == (16_383, 1)


@cache
def polyglots() -> dict[str, tuple[bytes, str]]:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("index.html", "<script>alert(1)</script>")
    html = b"<html><script>alert(1)</script></html>"
    return {
        "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        "SVG without a prologue": (b'<svg onload="alert(1)">', "SVG"),
        "a page": (html, "Not an image"),
        "a page that looks like a GIF": (b"GIF89a/*" + html, ""),
        "a JPEG that is a page": (b"\xff\xd8\xff\xe0" + html, ""),
        "PDF": (b"%PDF-1.7\n%\xe2\xe3", "Not an image"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9", "Not an image"),
        "TIFF": (image_bytes("TIFF"), "Not an image"),
        "BMP": (image_bytes("BMP"), "Not an image"),
        "ICO": (image_bytes("ICO"), "Not an image"),
        "an archive": (archive.getvalue(), "Not an image"),
        "nothing": (b"", "empty"),
        "a byte": (b"\xff", "Not an image"),
        "magic alone": (b"\x89PNG\r\n\x1a\n", "is incomplete"),
    }


@pytest.mark.parametrize("name", polyglots())
async def test_files_that_are_not_images_are_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path, name: str
) -> None:
    await assert_rejected(client, headers, store, *polyglots()[name])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
async def test_trailing_bytes_are_not_stored(
    client: httpx.AsyncClient, headers: Headers, store: Path, kind: str
) -> None:
    script = b"*/=1;<html><script>alert(1)</script></html>" + image_bytes("GIF")
    answer = await upload(client, headers, image_bytes(kind, size=(330, 20)) + script)
    assert answer.status_code == 201, answer.text
    contents = stored_files(store)
    assert contents
    assert not any(b"script" in content for content in contents)


@pytest.mark.parametrize(
    ("start", "unit", "end"),
    [
        (b"\xff\xd8\xff", b"\xff", b"\0"),
        (b"\xff\xd8\xff\xd9", b"\0", b"X"),
        (b"\xff\xd8\xff\xe0", b"\xff\0", b""),
        (b"\xff\xd8\xff\xda\0\2", b"\xff", b"\xd0"),
        (b"GIF89a" + b"\0" * 7 + b"\x21\xf9", b"\1", b""),
        (b"RIFF\0\0\0\0WEBPVP8 ", b"\0", b""),
        (b"\0\0\0\x18ftypavif", b"\0\0\0\x08free", b""),
        (b"", b"<", b""),
    ],
    ids=["fill", "zeros", "stuffing", "scan", "sub-blocks", "riff", "boxes", "tags"],
)
async def test_long_runs_of_bytes_are_rejected_in_linear_time(
    client: httpx.AsyncClient, headers: Headers, store: Path, start: bytes, unit: bytes, end: bytes
) -> None:
    async def cost(length: int) -> float:
        """The seconds of CPU time that all threads take for an upload of so many bytes."""
        content = start + unit * (length // len(unit)) + end
        started = time.process_time()
        await assert_rejected(client, headers, store, content, "")
        return time.process_time() - started

    # Linear work costs four times as much, quadratic work sixteen times, or minutes of CPU time.
    for _ in range(3):
        long = await cost(400_000)
        if long < 0.5 or long < 9 * await cost(100_000):
            return
    pytest.fail("the work grows faster than the image")


@pytest.mark.parametrize("segments", [b"", b"\xff\xe0\0\2", b"\xff\xc0\0\x0b" + b"\x08\1" * 5])
def test_jpeg_without_scan_is_rejected_before_decoding(tmp_path: Path, segments: bytes) -> None:
    """Pillow would search all bytes after the end for a scan."""
    path = tmp_path / "picture.jpg"
    path.write_bytes(b"\xff\xd8" + segments + b"\xff\xd9" + b"\0" * 1000)
    with pytest.raises(InvalidMedia):
        detect_format(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
async def test_truncated_images_are_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path, kind: str, share: float
) -> None:
    content = image_bytes(kind, size=(200, 200))
    await assert_rejected(client, headers, store, content[: int(len(content) * share)], "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
async def test_damaged_images_cause_no_server_error(
    client: httpx.AsyncClient, headers: Headers, store: Path, kind: str
) -> None:
    """No damaged byte causes a 500, and rejected files are not stored."""
    content = bytearray(image_bytes(kind, size=(40, 40)))
    for position in range(0, len(content), max(1, len(content) // 20)):
        damaged = (
            bytes(content[:position])
            + bytes([content[position] ^ 0x5A])
            + bytes(content[position + 1 :])
        )
        answer = await upload(client, headers, damaged)
        assert answer.status_code in {201, 422}, f"{position}: {answer.text}"
    assert has_no_temporary_files(store)


def many_scans() -> bytes:
    progressive = image_bytes("JPEG", progressive=True, size=(16, 16))
    start = progressive.index(b"\xff\xda")
    scan = progressive[start : progressive.index(b"\xff", start + 2)]
    return progressive[:start] + scan * 5000 + b"\xff\xd9"


def huge_gif() -> bytes:
    content = bytearray(image_bytes("GIF", size=(4, 4)))
    content[6:10] = b"\xff\xff\xff\xff"
    return bytes(content)


def much_text() -> bytes:
    return chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 1))


NOTHING = b"x\x9c\x03\0\0\0\0\x01"
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a PNG of 400 million pixels": (lambda: png(20_000, 20_000, idat=NOTHING), "too large"),
    "a GIF of 65535 x 65535": (huge_gif, "too large"),
    "a JPEG of many scans": (many_scans, "scans"),
    "an animation of many images": (
        lambda: animation(frames=1200, size=(2, 2), optimize=False, disposal=2),
        "1000 frames",
    ),
    "an animation of many pixels": (lambda: animation(frames=60, size=(100, 100)), "too large"),
    "a PNG of many chunks": (lambda: png(1, 1, extra=chunk(b"teXt", b"") * 100_001), "damaged"),
    "a PNG with a bomb of text": (lambda: png(1, 1, extra=much_text()), "damaged"),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_decompression_bombs_are_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path, install: Install, name: str
) -> None:
    if name == "an animation of many pixels":  # no single frame is too large
        install(MEDIA_MAX_PIXELS=50 * 100 * 100)
    make, reason = BOMBS[name]
    content = make()
    assert len(content) < 4_000_000
    await assert_rejected(client, headers, store, content, reason)


async def test_gif_frame_larger_than_header_is_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path
) -> None:
    """The second frame exceeds the size in the header."""
    grown = bytearray(animation(frames=2, size=(4, 4), disposal=2))
    second = grown.rindex(b"\x2c\0\0\0\0\x04\0\x04\0")
    grown[second + 5 : second + 9] = b"\xff\xff\xff\xff"
    await assert_rejected(client, headers, store, bytes(grown), "")


@pytest.mark.parametrize(
    "tail", [b"", b"\0" * 40, image_bytes("JPEG", size=(8, 8)), b"\0\0\0\x18ftypmp42film"]
)
async def test_camera_trailers_are_not_stored(
    client: httpx.AsyncClient, headers: Headers, store: Path, tail: bytes
) -> None:
    answer = await upload(client, headers, image_bytes("JPEG") + tail)
    assert answer.status_code == 201, answer.text
    assert b"film" not in content_of(store, "picture.jpg")


async def test_byte_and_pixel_limits_are_enforced(
    client: httpx.AsyncClient, headers: Headers, store: Path, install: Install
) -> None:
    content = image_bytes("PNG")
    install(MEDIA_MAX_BYTES=len(content), MEDIA_MAX_PIXELS=400 * 300)
    assert (await upload(client, headers, content)).status_code == 201
    before = file_names(store)
    install(MEDIA_MAX_BYTES=len(content) - 1)
    answer = await upload(client, headers, content)
    assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
    install(MEDIA_MAX_BYTES=len(content), MEDIA_MAX_PIXELS=400 * 300 - 1)
    assert "too large" in (await upload(client, headers, content)).json()["message"]
    assert file_names(store) == before


TRAVERSAL = '; filename="..\\..\\x.php\0.png"'
ABSOLUTE = "; filename=/etc/passwd; filename*=utf-8''%2e%2e%2fx"


class Forms:
    """Bodies that browsers do not send."""

    def __init__(self) -> None:
        self.good = image_bytes("PNG", size=(8, 8))

    def part(self, name: str, content: bytes, *, more: str = "") -> bytes:
        return (
            f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
            + content
            + b"\r\n"
        )

    def cases(self) -> dict[str, tuple[bytes, int, str]]:
        file, alt = self.part("file", self.good), self.part("alt", b"words")
        return {
            "a field alone": (file + b"--x--", 201, ""),
            "alt before the file": (alt + file + b"--x--\r\n", 201, ""),
            "two files": (file + file + b"--x--", 422, "`file` occurs more than once"),
            "two texts": (file + alt + alt + b"--x--", 422, "`alt` occurs more than once"),
            "no file": (alt + b"--x--", 422, "field `file`"),
            "nothing": (b"--x--\r\n", 422, "field `file`"),
            "another field": (file + self.part("owner_id", b"1") + b"--x--", 422, "are allowed"),
            "no name": (
                b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--",
                422,
                "are allowed",
            ),
            "no disposition": (b"--x\r\nA: b\r\n\r\nx\r\n--x--", 422, "are allowed"),
            "cut off": (file[:-20], 400, "is incomplete"),
            "without the last boundary": (file, 400, "is incomplete"),
            "empty": (b"", 400, "is incomplete"),
            "no form": (b"\x89PNG no boundary", 400, "not valid"),
            "endless headers": (b"--x\r\n" + b"A: b\r\n" * 1000, 400, "not valid"),
            "a long header": (b"--x\r\nA: " + b"b" * 100_000, 400, "not valid"),
            "a text of 501": (file + self.part("alt", b"x" * 501) + b"--x--", 422, "alt: "),
            "a text of a megabyte": (file + self.part("alt", b"x" * 2**20), 422, "alt: "),
            "a text that is not UTF-8": (file + self.part("alt", b"\xff") + b"--x--", 422, "UTF-8"),
            "a text with NUL": (file + self.part("alt", b"a\0b") + b"--x--", 422, "alt: "),
            "a file name of tricks": (
                self.part("file", self.good, more=TRAVERSAL) + b"--x--",
                201,
                "",
            ),
            "an absolute one": (self.part("file", self.good, more=ABSOLUTE) + b"--x--", 201, ""),
        }


@pytest.mark.parametrize("name", Forms().cases())
async def test_unusual_forms_are_accepted_or_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path, name: str
) -> None:
    body, status, reason = Forms().cases()[name]
    answer = await client.post(
        "/media",
        content=body,
        headers={**headers, "Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == status, answer.text
    if status == 201:
        assert parent_folders(store) == [store / "files"]
    else:
        assert reason in answer.json()["message"]
        assert file_names(store) == []
    assert has_no_temporary_files(store)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("image/png", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
    ],
)
async def test_other_content_types_are_rejected(
    client: httpx.AsyncClient, headers: Headers, store: Path, content_type: str, status: int
) -> None:
    answer = await client.post(
        "/media", content=image_bytes(), headers={**headers, "Content-Type": content_type}
    )
    assert answer.status_code == status, answer.text
    assert file_names(store) == []


async def test_chunked_body_is_accepted_and_incomplete_one_rejected(
    app: FastAPI, client: httpx.AsyncClient, headers: Headers, store: Path
) -> None:
    form = Forms()
    body = form.part("file", form.good) + b"--x--"

    async def single_bytes() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])

    sent = {**headers, "Content-Type": "multipart/form-data; boundary=x"}
    assert (await client.post("/media", content=single_bytes(), headers=sent)).status_code == 201
    before = file_names(store)

    pieces: list[Message] = [{"type": "http.request", "body": body[:-30], "more_body": True}]
    answers: list[Message] = []

    async def receive() -> Message:
        return pieces.pop() if pieces else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answers.append(message)

    named = [(name.lower().encode(), value.encode()) for name, value in sent.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/media",
        "raw_path": b"/media",
        "query_string": b"",
        "headers": [*named, (b"host", b"testserver")],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        "scheme": "http",
        "root_path": "",
    }
    await app(scope, receive, send)
    assert answers[0]["status"] == 400
    assert file_names(store) == before
    assert has_no_temporary_files(store)


async def test_authentication_precedes_the_body(
    client: httpx.AsyncClient, session: AsyncSession, store: Path
) -> None:
    user = await create_user(session)
    reading = await api_key(session, user=user, scopes=["media:read"])
    bodies_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal bodies_read
        bodies_read += 1
        yield b""

    for headers, status in (({}, 401), (reading, 403)):
        form = {**headers, "Content-Type": "multipart/form-data; boundary=x"}
        answer = await client.post("/media", content=body(), headers=form)
        assert answer.status_code == status
    assert bodies_read == 0
    assert not (store / "incoming").exists()
    writing = await api_key(session, user=user, scopes=["media:write"])
    assert (await upload(client, writing, image_bytes())).status_code == 201


async def test_quota_is_enforced(
    client: httpx.AsyncClient,
    session: AsyncSession,
    headers: Headers,
    store: Path,
    install: Install,
) -> None:
    first = (await upload(client, headers, image_bytes("PNG"))).json()
    install(MEDIA_QUOTA_BYTES=first["bytes"] * 2)
    assert (await upload(client, headers, image_bytes("PNG"))).status_code == 201
    full = file_names(store)
    answer = await upload(client, headers, image_bytes("PNG"))
    assert (answer.status_code, answer.json()["code"]) == (409, "quota_exceeded")
    assert str(first["bytes"] * 2) in answer.json()["message"]
    install(MEDIA_QUOTA_BYTES=first["bytes"] * 3 - 1)  # enough for the request, not for the result
    answer = await upload(client, headers, image_bytes("PNG"))
    assert f"this request needs {first['bytes']}" in answer.json()["message"]
    assert file_names(store) == full
    other = bearer(await create_user(session))
    assert (await upload(client, other, image_bytes("PNG"))).status_code == 201
    assert len((await session.scalars(select(Media))).all()) == 3


async def test_unwritable_storage_returns_503(
    app: FastAPI, client: httpx.AsyncClient, headers: Headers, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    app.state.storage = LocalStorage(tmp_path / "file")
    answer = await upload(client, headers, image_bytes())
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    app.state.storage = LocalStorage(tmp_path)
    (tmp_path / "files").write_text("in the way")
    assert (await upload(client, headers, image_bytes())).status_code == 503
    assert file_names(tmp_path) == ["file", "files"]


async def test_idempotency_key_repeats_the_upload(
    client: httpx.AsyncClient, headers: Headers, store: Path
) -> None:
    keyed = {**headers, "Idempotency-Key": "image-1"}
    content = image_bytes("PNG")
    first = await upload(client, keyed, content, alt="one")
    before = file_names(store)
    again = await upload(client, keyed, content, name="other.png", alt="one")  # another boundary
    assert again.status_code == 201
    assert again.content == first.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (await upload(client, keyed, content, alt="two")).json()[
        "code"
    ] == "idempotency_key_reused"
    assert (await upload(client, keyed, image_bytes("WEBP"), alt="one")).status_code == 422
    assert file_names(store) == before


async def test_uploads_do_not_block_the_event_loop(
    client: httpx.AsyncClient, headers: Headers, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are encoded in a thread."""
    started, may_continue, save = asyncio.Event(), threading.Event(), Image.Image.save
    loop = asyncio.get_running_loop()

    def save_later(image: Image.Image, *arguments: Any, **options: Any) -> None:
        loop.call_soon_threadsafe(started.set)
        assert may_continue.wait(DEADLINE), "the event loop did not continue"
        save(image, *arguments, **options)

    content = image_bytes()
    monkeypatch.setattr(Image.Image, "save", save_later)
    busy = asyncio.create_task(upload(client, headers, content))
    async with asyncio.timeout(2 * DEADLINE):
        await started.wait()
    assert (await client.get("/health/live")).status_code == 200
    may_continue.set()
    assert (await busy).status_code == 201


class TestReservations:
    """Quota is reserved before the body is received."""

    @pytest.fixture
    async def stalled(
        self, live: httpx.AsyncClient, live_app: FastAPI, tmp_path: Path
    ) -> AsyncIterator[StalledUploads]:
        live_app.state.storage = LocalStorage(tmp_path)
        stalled = StalledUploads(live, tmp_path)
        yield stalled
        await stalled.finish()

    async def test_concurrent_uploads_cannot_exceed_the_quota(
        self, stalled: StalledUploads, live_rows: Rows, install: Install
    ) -> None:
        body = form(image_bytes())
        install(MEDIA_QUOTA_BYTES=len(body) * 2 + 10, MEDIA_MAX_BYTES=len(body))
        async with live_rows() as rows:
            user = await create_user(rows)
        headers = bearer(user)
        for chunked in (False, True):  # an unknown length reserves the maximum
            await stalled.start(headers, body, chunked=chunked)
        refused = await stalled.send(headers, body)
        assert (refused.status_code, refused.json()["code"]) == (409, "quota_exceeded")
        assert refused.json()["limit"] == "media_bytes"
        assert f"You have {len(body) * 2} of" in refused.json()["message"]
        # Of the request: it was refused before its body was received and encoded.
        assert f"this request needs {len(body)};" in refused.json()["message"]
        assert len(list((stalled.store / "incoming").iterdir())) == 2
        # The stored files are larger than the request, and are counted again. Each counts the
        # reservation of the other one, so both may be refused.
        statuses = sorted(each.status_code for each in await stalled.finish())
        assert statuses in ([201, 409], [409, 409])
        async with live_rows() as rows:
            total = select(func.sum(Media.bytes)).where(Media.owner_id == user.id)
            assert (await rows.scalar(total) or 0) <= len(body) * 2 + 10
        assert await reservations(live_rows) == 0
        assert has_no_temporary_files(stalled.store)

    async def test_concurrent_uploads_are_limited(
        self, stalled: StalledUploads, live_rows: Rows, install: Install
    ) -> None:
        install(LIMITS="uploads_at_once=2")
        async with live_rows() as rows:
            headers, other = bearer(await create_user(rows)), bearer(await create_user(rows))
        for _ in range(2):
            await stalled.start(headers, form(image_bytes()))
        refused = await stalled.send(headers, form(image_bytes()))
        assert (refused.status_code, refused.json()["limit"]) == (409, "uploads_at_once")
        assert (await stalled.send(other, form(image_bytes()))).status_code == 201
        await stalled.finish()
        assert (await stalled.send(headers, form(image_bytes()))).status_code == 201

    async def test_reservation_of_a_crashed_upload_expires(
        self, stalled: StalledUploads, live_rows: Rows, install: Install, timeline: Timeline
    ) -> None:
        install(LIMITS="uploads_at_once=1")
        async with live_rows() as rows:
            user = await create_user(rows)
            rows.add(
                UploadReservation(
                    user_id=user.id,
                    bytes=1,
                    expires_at=timeline.now + uploading.RESERVATION_LIFETIME,
                )
            )
        refused = await stalled.send(bearer(user), form(image_bytes()))
        assert refused.json()["limit"] == "uploads_at_once"
        timeline.advance(uploading.RESERVATION_LIFETIME.total_seconds())
        assert (await stalled.send(bearer(user), form(image_bytes()))).status_code == 201
        timeline.advance(1)
        async with live_rows() as rows:
            await limits.purge_reservations(rows, Batch())
        assert await reservations(live_rows) == 0

    async def test_failed_and_slow_uploads_release_their_reservation(
        self,
        stalled: StalledUploads,
        live_rows: Rows,
        install: Install,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        install(LIMITS="uploads_at_once=1")
        async with live_rows() as rows:
            headers = bearer(await create_user(rows))
        refused = await stalled.send(headers, form(b"no image"))
        assert refused.json()["code"] == "invalid_media"
        assert await reservations(live_rows) == 0
        monkeypatch.setattr(uploading, "MAX_RECEIVE_SECONDS", 0)
        slow = await stalled.send(headers, form(image_bytes()), forever=True)
        assert (slow.status_code, slow.json()["code"]) == (408, "request_timed_out")
        assert "took longer" in slow.json()["message"]
        assert await reservations(live_rows) == 0
        assert has_no_temporary_files(stalled.store)

    async def test_repeated_upload_is_answered_with_a_full_quota(
        self, client: httpx.AsyncClient, headers: Headers, store: Path, install: Install
    ) -> None:
        keyed = {**headers, "Idempotency-Key": "once"}
        first = await upload(client, keyed, image_bytes())
        install(MEDIA_QUOTA_BYTES=first.json()["bytes"])
        again = await upload(client, keyed, image_bytes())
        assert (again.status_code, again.content) == (201, first.content)
        assert (await upload(client, headers, image_bytes())).status_code == 409

    async def test_too_large_content_length_reserves_nothing(
        self, client: httpx.AsyncClient, headers: Headers, store: Path, install: Install
    ) -> None:
        install(MEDIA_MAX_BYTES=10, LIMITS="uploads=0/day")
        answer = await upload(client, headers, b"x" * (uploading.MAX_OTHER_BYTES + 11))
        assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
