"""Re-encoding: from a file of a stranger to files of ours, in a thread of its own.

Nothing of the upload is kept but its pixels: neither where it was taken nor what else was in it.
A picture keeps its format, but for GIF and whatever moves, which become WebP.
"""

import warnings
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import AvifImagePlugin, Image, ImageCms

from app.core.errors import InvalidMedia
from app.core.threads import FairThreadPool
from app.services.media.formats import CONTENT_TYPES, KEPT_AS, Kind, recognise

WIDTHS = (320, 640, 1280)
"""Of the smaller copies, all WebP; a picture is never made larger."""
MAX_KEPT_PIXELS = 4096 * 4096
MAX_KEPT_SIDE = 16_383
"""What WebP can say. A larger picture is kept smaller."""
MAX_SIDE = 65_535
MAX_FRAMES = 1000
PLACEHOLDER_SIDE = 16
MAX_PROFILE_BYTES = 4 * 1024 * 1024

MAX_WAITING = 20
"""Pictures that may wait for their turn, a process: a large one takes seconds."""
MAX_WAITING_EACH = 4
"""The same for the pictures of one user."""

SAVED_WITH: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 85, "optimize": True, "progressive": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "quality": 82, "method": 4},
    "avif": {"format": "AVIF", "quality": 70, "speed": 8, "max_threads": 1},
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the value of Exif's Orientation."""
_ORIENTATION = 0x0112

# Pillow's own guard, for sizes that a file changes after its header. A warning would be too late.
warnings.simplefilter("error", Image.DecompressionBombWarning)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the thread here is all that a process gives


class Picture(NamedTuple):
    """What was made of an upload."""

    suffix: str
    width: int
    height: int
    widths: list[int]
    bytes: int
    color: str
    placeholder: str

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.suffix]


class _Frames(NamedTuple):
    """A picture in memory: RGB or RGBA, upright, without anything but its pixels."""

    images: Sequence[Image.Image]
    durations: Sequence[int]
    loop: int


def name_of(suffix: str) -> str:
    """Of the file that is the picture itself."""
    return f"picture.{suffix}"


def name_of_copy(width: int) -> str:
    """Of a smaller copy."""
    return f"{width}.webp"


def height_of_copy(width: int, *, of: tuple[int, int]) -> int:
    """Of a smaller copy of a picture of this size."""
    return max(1, round(of[1] * width / of[0]))


_thread = FairThreadPool(
    "pictures",
    size=1,
    what="pictures",
    max_jobs=MAX_WAITING,
    max_jobs_per_user=MAX_WAITING_EACH,
    low_priority=True,
)
"""One: there is a process for each CPU, and a picture takes up to 12 bytes a pixel."""


async def reencode(source: Path, target: Path, *, max_pixels: int, user_id: int) -> Picture:
    """Fill the folder `target` with the picture that `source` is, and its smaller copies.

    `user_id` is the user whose picture it is: users take turns. Hold no database connection
    meanwhile.

    Raises InvalidMedia, which says what is wrong with it, TooManyAtOnce where too many pictures of
    the user wait already, and ServiceUnavailable where too many of all users do.
    """
    return await _thread.run(lambda: _reencode(source, target, max_pixels), user_id=user_id)


def _reencode(source: Path, target: Path, max_pixels: int) -> Picture:
    kind = recognise(source)
    frames = _decode(source, kind, max_pixels)
    first = frames.images[0]
    suffix = KEPT_AS[kind] if len(frames.images) == 1 else "webp"
    _save(frames, target / name_of(suffix), suffix=suffix, lossless=kind is Kind.GIF)
    widths = [width for width in WIDTHS if width < first.width]
    for width in reversed(widths):
        height = height_of_copy(width, of=first.size)
        frames = frames._replace(images=[_resized(each, width, height) for each in frames.images])
        _save(frames, target / name_of_copy(width), suffix="webp")
    return Picture(
        suffix=suffix,
        width=first.width,
        height=first.height,
        widths=widths,
        bytes=sum(file.stat().st_size for file in target.iterdir()),
        color=_dominant_color(frames.images[0]),
        placeholder=_placeholder(frames.images[0]),
    )


def _decode(source: Path, kind: Kind, max_pixels: int) -> _Frames:
    try:
        with Image.open(source, formats=[kind]) as image:
            _require_size(image, 1, max_pixels)  # the header is all that was read so far
            return _read_frames(image, kind, max_pixels)
    except InvalidMedia:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InvalidMedia(_too_large(max_pixels)) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not the picture
            raise
        raise InvalidMedia("The picture is damaged, and cannot be shown") from error


def _read_frames(image: Image.Image, kind: Kind, max_pixels: int) -> _Frames:
    images, durations = [], []
    for frame in _frames_of(image, kind, max_pixels):
        images.append(_plain(frame))
        duration = round(frame.info.get("duration") or 0)
        durations.append(min(duration, 60_000) if duration > 10 else 100)  # as browsers do
    if len({each.size for each in images}) > 1:
        raise InvalidMedia("The pictures of the animation differ in size")
    if len({each.mode for each in images}) > 1:
        images = [each.convert("RGBA") for each in images]
    loop = image.info.get("loop", 1 if kind is Kind.GIF else 0)
    return _Frames(images, durations, min(max(int(loop), 0), 65_535))


def _frames_of(image: Image.Image, kind: Kind, max_pixels: int) -> Iterator[Image.Image]:
    """Each in turn, for as long as all of them together are not too large."""
    for number in range(MAX_FRAMES + 1):
        try:
            image.seek(number)
        except EOFError:
            return
        if number == MAX_FRAMES:
            raise InvalidMedia(f"The animation has more than {MAX_FRAMES} pictures")
        _require_size(image, number + 1, max_pixels)
        is_alternative = number == 0 and image.info.get("default_image")  # for who knows no APNG
        if not is_alternative or getattr(image, "n_frames", 1) == 1:
            yield image
        if kind is Kind.JPEG:  # others in the file are previews
            return


def _require_size(image: Image.Image, frames: int, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height * frames > max_pixels:
        raise InvalidMedia(_too_large(max_pixels))


def _too_large(max_pixels: int) -> str:
    return (
        f"The picture is too large: it may have {max_pixels} pixels, those of all pictures of an"
        f" animation together, and {MAX_SIDE} a side"
    )


def _plain(image: Image.Image) -> Image.Image:
    """The pixels alone: in sRGB, upright, not larger than what is kept."""
    kept = _kept_size(image.size)
    image.draft(image.mode, kept)  # a JPEG can be decoded smaller
    image.load()
    profile = image.info.get("icc_profile")
    turn = _turn(image)
    if image.mode.startswith("I"):
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode not in {"RGB", "CMYK", "L", "RGBA"} or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.size != kept:
        image = image.resize(kept, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if profile and len(profile) <= MAX_PROFILE_BYTES:
        image = _in_srgb(image, profile)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode not in {"RGB", "RGBA"}:
        image = image.convert("RGB")
    image = image.transpose(turn) if turn is not None else image.copy()
    image.info = {}  # or Pillow would write parts of it
    return image


def _kept_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    scale = min(1, (MAX_KEPT_PIXELS / (width * height)) ** 0.5, MAX_KEPT_SIDE / max(size))
    return max(1, int(width * scale)), max(1, int(height * scale))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a picture upright; None where it is, and where its Exif cannot be read."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - its parser raises whatever it comes upon
        return None


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The same colours, said in the one way that every browser takes for granted."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        converted = ImageCms.profileToProfile(
            image, source, _srgb(), outputMode="RGBA" if image.mode == "RGBA" else "RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):  # not a profile, or another's
        return image
    return converted or image


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _save(frames: _Frames, path: Path, *, suffix: str, lossless: bool = False) -> None:
    options = dict(SAVED_WITH[suffix])
    first, *others = frames.images
    if others:
        options |= {
            "save_all": True,
            "append_images": others,
            "duration": list(frames.durations),
            "loop": frames.loop,
            "method": 0,  # it takes half as long, and no more space to speak of
        }
    elif lossless:
        options |= {"lossless": True}
    first.save(path, **options)


def _dominant_color(image: Image.Image) -> str:
    """Of the commonest of a few colours, as `#rrggbb`; of what can be seen."""
    small = image.resize((32, 32), Image.Resampling.BOX).convert("RGBA").tobytes()
    seen = b"".join(small[at : at + 3] for at in range(0, len(small), 4) if small[at + 3] >= 128)
    if not seen:
        return "#ffffff"
    few = Image.frombytes("RGB", (len(seen) // 3, 1), seen).quantize(4)
    indices = few.tobytes()
    commonest = max(set(indices), key=indices.count) * 3
    return "#" + bytes((few.getpalette() or [])[commonest : commonest + 3]).hex()


def _placeholder(image: Image.Image) -> str:
    scale = PLACEHOLDER_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    tiny = BytesIO()
    image.resize((width, height), Image.Resampling.BOX).save(tiny, "WEBP", quality=30, method=6)
    return f"data:image/webp;base64,{b64encode(tiny.getvalue()).decode()}"
