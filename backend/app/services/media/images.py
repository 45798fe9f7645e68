"""Re-encoding of uploaded images, in a thread of its own.

Only the pixels of an upload are stored: metadata such as the location is dropped. An image keeps
its format, except for GIFs and animations, which become WebP.
"""

import math
import warnings
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import AvifImagePlugin, Image, ImageCms, ImageFile

from app.core.errors import InvalidMedia
from app.core.memory import MemoryBudget
from app.core.threads import LOWEST_PRIORITY, FairThreadPool
from app.services.media.formats import CONTENT_TYPES, OUTPUT_SUFFIXES, ImageFormat, detect_format

WIDTHS = (320, 640, 1280)
"""Widths of the variants, which are always WebP. Images are never enlarged."""
MAX_OUTPUT_PIXELS = 4096 * 4096
MAX_OUTPUT_SIDE = 16_383
"""The limit of WebP. A larger image is scaled down."""
MAX_SIDE = 65_535
MAX_FRAMES = 1000
PLACEHOLDER_SIDE = 16
MAX_PROFILE_BYTES = 4 * 1024 * 1024

BAND_HEIGHT = 128
LANCZOS_SUPPORT = 3
"""The radius of the filter, in pixels of the smaller image."""
MAX_JPEG_SCALE = 8
"""The largest reduction while a JPEG is decoded."""
MEGABYTE = 1024 * 1024
BASE_BYTES = 20 * MEGABYTE
DECODING_BYTES_PER_PIXEL = {
    ImageFormat.PNG: 5,
    ImageFormat.GIF: 6,
    ImageFormat.WEBP: 16,
    ImageFormat.AVIF: 12,
}
ENCODING_BYTES_PER_PIXEL = {"jpg": 8, "png": 8, "avif": 30}
WEBP_BYTES_PER_PIXEL = 16
LOSSLESS_WEBP_BYTES_PER_PIXEL = 44
"""With transparency, too: it is always encoded without loss."""
ANIMATION_BYTES_PER_PIXEL = 12

MAX_QUEUED = 20
"""Images that may wait in a process. A large image takes seconds."""
MAX_QUEUED_PER_USER = 4
"""Images of one user that may wait in a process."""

SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 85, "optimize": True, "progressive": True},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "quality": 82, "method": 4},
    "avif": {"format": "AVIF", "quality": 70, "speed": 8, "max_threads": 1},
}
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by its Exif orientation."""
_ORIENTATION = 0x0112

# Pillow's own check, for files that change their size after the header. A warning is too late.
warnings.simplefilter("error", Image.DecompressionBombWarning)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # re-encoding has one thread per process


class EncodedImage(NamedTuple):
    """The result of re-encoding an upload."""

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
    """A decoded image or animation: RGB or RGBA, upright, without metadata."""

    images: Sequence[Image.Image]
    durations: Sequence[int]
    loop: int


def file_name(suffix: str) -> str:
    """Return the file name of the image itself."""
    return f"picture.{suffix}"


def variant_file_name(width: int) -> str:
    """Return the file name of a variant."""
    return f"{width}.webp"


def variant_height(width: int, *, of: tuple[int, int]) -> int:
    """Return the height of a variant of an image with the size `of`."""
    return max(1, round(of[1] * width / of[0]))


_threads = FairThreadPool(
    "images",
    size=1,
    what="images",
    max_jobs=MAX_QUEUED,
    max_jobs_per_user=MAX_QUEUED_PER_USER,
    niceness=LOWEST_PRIORITY,
)
"""One thread: each CPU has a process, and an image takes up to 16 bytes of memory per pixel."""


async def reencode(
    source: Path,
    target: Path,
    *,
    max_pixels: int,
    user_id: int,
    budget: MemoryBudget | None = None,
) -> EncodedImage:
    """Re-encode the image file `source` into the directory `target`, with its variants.

    The users, given by `user_id`, take turns. Do not hold a database connection meanwhile. With a
    budget, a large JPEG is decoded at a half, a quarter or an eighth of its size if necessary.

    Raises InvalidMedia with the reason, TooManyAtOnce if too many images of the user are waiting,
    and ServiceUnavailable if too many images of all users are waiting.
    """
    return await _threads.run(
        lambda: _reencode(source, target, max_pixels, budget), user_id=user_id
    )


def _reencode(
    source: Path, target: Path, max_pixels: int, budget: MemoryBudget | None
) -> EncodedImage:
    image_format = detect_format(source)
    plan = _plan(source, image_format, max_pixels, budget)
    with nullcontext() if budget is None else budget.reserve(plan.memory):
        return _encode(_decode(source, image_format, max_pixels, plan.scale), target, image_format)


class _Plan(NamedTuple):
    """How an image is processed."""

    scale: int
    """A JPEG is decoded at one part in `scale` of its width and height."""
    memory: int
    """The memory that is needed, in bytes."""


def _plan(
    source: Path, image_format: ImageFormat, max_pixels: int, budget: MemoryBudget | None
) -> _Plan:
    """Return a plan within the budget. Raises InvalidMedia."""
    with _decoding(source, image_format, max_pixels) as image:
        plan = _Plan(1, required_memory(image, image_format, max_pixels))
        while budget is not None and plan.memory > budget.total:
            if image_format is not ImageFormat.JPEG or plan.scale == MAX_JPEG_SCALE:
                raise InvalidMedia(
                    f"The image needs {plan.memory // MEGABYTE} MB of memory, and this server has"
                    f" {budget.total // MEGABYTE} MB for images: send a smaller image"
                )
            scale = plan.scale * 2
            plan = _Plan(scale, required_memory(image, image_format, max_pixels, scale))
        return plan


def _encode(frames: _Frames, target: Path, image_format: ImageFormat) -> EncodedImage:
    """Save an image and its variants. The memory of larger ones is released on the way."""
    first = frames.images[0]
    suffix = OUTPUT_SUFFIXES[image_format] if len(frames.images) == 1 else "webp"
    _save(
        frames, target / file_name(suffix), suffix=suffix, lossless=image_format is ImageFormat.GIF
    )
    widths = [width for width in WIDTHS if width < first.width]
    for width in reversed(widths):
        height = variant_height(width, of=first.size)
        frames = frames._replace(images=[_resize(each, width, height) for each in frames.images])
        _save(frames, target / variant_file_name(width), suffix="webp")
    return EncodedImage(
        suffix=suffix,
        width=first.width,
        height=first.height,
        widths=widths,
        bytes=sum(file.stat().st_size for file in target.iterdir()),
        color=_dominant_color(frames.images[0]),
        placeholder=_placeholder(frames.images[0]),
    )


def required_memory(
    image: ImageFile.ImageFile, image_format: ImageFormat, max_pixels: int, scale: int = 1
) -> int:
    """Return how much memory the processing of an opened image takes at most, in bytes.

    The numbers were measured with Pillow 13.0 (tests/releases/test_memory.py).
    """
    width, height = -(-image.width // scale), -(-image.height // scale)
    pixels = width * height
    if image_format is not ImageFormat.JPEG and getattr(image, "is_animated", False):
        pixels = min(pixels * getattr(image, "n_frames", MAX_FRAMES), max_pixels)
        return BASE_BYTES + pixels * ANIMATION_BYTES_PER_PIXEL
    stored = min(pixels, MAX_OUTPUT_PIXELS)
    copies = int(stored < pixels)  # by `_normalize`
    if image_format is ImageFormat.JPEG:
        decoding = pixels * (1 if image.mode == "L" else 4) + _coefficient_bytes(image)
        copies += (_transposition(image) is not None) + (image.mode == "CMYK")
    else:
        decoding = pixels * DECODING_BYTES_PER_PIXEL[image_format]
        copies += 2
    suffix = OUTPUT_SUFFIXES[image_format]
    is_lossless = image_format is ImageFormat.GIF or image.has_transparency_data
    webp_bytes = LOSSLESS_WEBP_BYTES_PER_PIXEL if is_lossless else WEBP_BYTES_PER_PIXEL
    side = min(width, height) * (stored / pixels) ** 0.5
    share = max((each / side for each in WIDTHS if each < side), default=0)  # of a variant
    encoding = stored * ENCODING_BYTES_PER_PIXEL.get(suffix, webp_bytes)
    variant = stored * (4 + share**2 * webp_bytes)
    return BASE_BYTES + round(max(decoding + copies * 4 * stored, encoding, variant))


def _coefficient_bytes(image: ImageFile.ImageFile) -> int:
    """Return the size of the coefficients of a progressive JPEG, which are decoded last."""
    if not image.info.get("progressive"):
        return 0
    factors = [horizontal * vertical for _, horizontal, vertical, _ in getattr(image, "layer", ())]
    samples = sum(factors) / max(factors) if factors else len(image.getbands())
    return round(2 * samples * image.width * image.height)


@contextmanager
def _decoding(
    source: Path, image_format: ImageFormat, max_pixels: int
) -> Iterator[ImageFile.ImageFile]:
    """Open an image of an allowed size; raise InvalidMedia for what Pillow cannot decode."""
    try:
        with Image.open(source, formats=[image_format]) as image:
            _require_size(image, 1, max_pixels)  # only the header was read so far
            yield image
    except InvalidMedia:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InvalidMedia(_too_large(max_pixels)) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk
            raise
        raise InvalidMedia("The image is damaged and cannot be decoded") from error


def _decode(source: Path, image_format: ImageFormat, max_pixels: int, scale: int) -> _Frames:
    with _decoding(source, image_format, max_pixels) as image:
        if scale > 1:
            image.draft(image.mode, (image.width // scale, image.height // scale))
        return _read_frames(image, image_format, max_pixels)


def _read_frames(image: Image.Image, image_format: ImageFormat, max_pixels: int) -> _Frames:
    images, durations = [], []
    for frame in _frames_of(image, image_format, max_pixels):
        images.append(_normalize(frame, has_more=image_format is not ImageFormat.JPEG))
        duration = round(frame.info.get("duration") or 0)
        durations.append(min(duration, 60_000) if duration > 10 else 100)  # as browsers do
    if len({each.size for each in images}) > 1:
        raise InvalidMedia("The frames of the animation differ in size")
    if len({each.mode for each in images}) > 1:
        images = [each.convert("RGBA") for each in images]
    loop = image.info.get("loop", 1 if image_format is ImageFormat.GIF else 0)
    return _Frames(images, durations, min(max(int(loop), 0), 65_535))


def _frames_of(
    image: Image.Image, image_format: ImageFormat, max_pixels: int
) -> Iterator[Image.Image]:
    """Yield the frames. Raises InvalidMedia if all of them together are too large."""
    for number in range(MAX_FRAMES + 1):
        try:
            image.seek(number)
        except EOFError:
            return
        if number == MAX_FRAMES:
            raise InvalidMedia(f"The animation has more than {MAX_FRAMES} frames")
        _require_size(image, number + 1, max_pixels)
        is_alternative = number == 0 and image.info.get("default_image")  # for non-APNG viewers
        if not is_alternative or getattr(image, "n_frames", 1) == 1:
            yield image
        if image_format is ImageFormat.JPEG:  # further images in the file are previews
            return


def _require_size(image: Image.Image, frames: int, max_pixels: int) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE or width * height * frames > max_pixels:
        raise InvalidMedia(_too_large(max_pixels))


def _too_large(max_pixels: int) -> str:
    return (
        f"The image is too large: at most {max_pixels} pixels, counting all frames of an animation,"
        f" and at most {MAX_SIDE} pixels a side"
    )


def _normalize(image: Image.Image, *, has_more: bool) -> Image.Image:
    """Return the pixels in sRGB, upright, and scaled down to the output size.

    With `has_more`, the next frame may overwrite the pixels of `image`.
    """
    size = _output_size(image.size)
    image.draft(image.mode, size)  # a JPEG can be decoded smaller
    image.load()
    profile = image.info.get("icc_profile")
    transposition = _transposition(image)
    if image.mode.startswith("I"):
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode not in {"RGB", "CMYK", "L", "RGBA"} or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.size != size:
        image = _scale_down(image, size)
    if profile and len(profile) <= MAX_PROFILE_BYTES:
        is_own = not (has_more and isinstance(image, ImageFile.ImageFile))
        image = _to_srgb(image, profile, in_place=is_own)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode not in {"RGB", "RGBA"}:
        image = image.convert("RGB")
    if transposition is not None:
        image = image.transpose(transposition)
    elif has_more and isinstance(image, ImageFile.ImageFile):
        image = image.copy()
    image.info = {}  # otherwise Pillow writes parts of it to the file
    return image


def _output_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    scale = min(1, (MAX_OUTPUT_PIXELS / (width * height)) ** 0.5, MAX_OUTPUT_SIDE / max(size))
    return max(1, int(width * scale)), max(1, int(height * scale))


def _scale_down(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an image in bands: Pillow's intermediate image would be as high as the source."""
    width, height = size
    ratio = image.height / height
    margin = math.ceil(LANCZOS_SUPPORT * max(ratio, 1)) + 1
    result = Image.new(image.mode, size)
    for top in range(0, height, BAND_HEIGHT):
        bottom = min(top + BAND_HEIGHT, height)
        first_row = max(0, math.floor(top * ratio) - margin)
        last_row = min(image.height, math.ceil(bottom * ratio) + margin)
        band = image.crop((0, first_row, image.width, last_row))
        box = (0, top * ratio - first_row, image.width, bottom * ratio - first_row)
        resized = band.resize((width, bottom - top), Image.Resampling.LANCZOS, box=box)
        result.paste(resized, (0, top))
    return result


def _transposition(image: Image.Image) -> Image.Transpose | None:
    """Return what makes the image upright; None if it is upright or its Exif is unreadable."""
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow's Exif parser raises many types of errors
        return None


def _to_srgb(image: Image.Image, profile: bytes, *, in_place: bool) -> Image.Image:
    """Convert the image to sRGB, the colour space that browsers assume."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(
            image, source, _srgb(), outputMode=mode, inPlace=in_place and image.mode == mode
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):  # invalid or unsuitable profile
        return image
    return converted or image


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _save(frames: _Frames, path: Path, *, suffix: str, lossless: bool = False) -> None:
    options = dict(SAVE_OPTIONS[suffix])
    first, *others = frames.images
    if others:
        options |= {
            "save_all": True,
            "append_images": others,
            "duration": list(frames.durations),
            "loop": frames.loop,
            "method": 0,  # half the time at nearly the same size
        }
    elif lossless:
        options |= {"lossless": True}
    first.save(path, **options)


def _dominant_color(image: Image.Image) -> str:
    """Return the most frequent of four colours of the visible pixels, as `#rrggbb`."""
    small = image.resize((32, 32), Image.Resampling.BOX).convert("RGBA").tobytes()
    visible = b"".join(small[at : at + 3] for at in range(0, len(small), 4) if small[at + 3] >= 128)
    if not visible:
        return "#ffffff"
    palette_image = Image.frombytes("RGB", (len(visible) // 3, 1), visible).quantize(4)
    indices = palette_image.tobytes()
    commonest = max(set(indices), key=indices.count) * 3
    return "#" + bytes((palette_image.getpalette() or [])[commonest : commonest + 3]).hex()


def _placeholder(image: Image.Image) -> str:
    scale = PLACEHOLDER_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    tiny = BytesIO()
    image.resize((width, height), Image.Resampling.BOX).save(tiny, "WEBP", quality=30, method=6)
    return f"data:image/webp;base64,{b64encode(tiny.getvalue()).decode()}"
