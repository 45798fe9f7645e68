"""Images for tests, generated with the properties that a test needs."""

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms, TiffImagePlugin

GPS = {1: "N", 2: (51.0, 30.0, 26.0), 3: "W", 4: (0.0, 7.0, 39.0)}
CAMERA = "Secret Camera 3000"


def gradient(width: int = 400, height: int = 300, mode: str = "RGB") -> Image.Image:
    """Return an image with a gradient in both directions."""
    across = Image.linear_gradient("L").rotate(90).resize((width, height))
    down = Image.linear_gradient("L").resize((width, height))
    image = Image.merge("RGB", (across, down, Image.new("L", (width, height), 90)))
    if mode == "RGBA":
        image.putalpha(down)
        return image
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def image_bytes(kind: str = "JPEG", *, size: tuple[int, int] = (400, 300), **options: Any) -> bytes:
    return encoded(gradient(*size), kind, **options)


def exif(orientation: int = 1) -> Image.Exif:
    """Return EXIF data as a phone writes it: camera, location and orientation."""
    data = Image.Exif()
    data[0x010F] = CAMERA
    data[0x0112] = orientation
    gps = data.get_ifd(0x8825)
    gps.update(
        {
            tag: tuple(map(TiffImagePlugin.IFDRational, value))
            if isinstance(value, tuple)
            else value
            for tag, value in GPS.items()
        }
    )
    return data


def adobe_rgb() -> bytes:
    """Return a colour profile like sRGB, with another green primary."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # Replace the green primary (s15Fixed16, after eight bytes of the tag) and the profile's name.
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        if name == b"gXYZ":
            struct.pack_into(
                ">3i", profile, offset + 8, *(round(x * 65536) for x in (0.2, 0.63, 0.07))
            )
        if name == b"desc":
            profile[offset + 8 : offset + size] = (
                bytes(profile[offset + 8 : offset + size])
                .replace("sRGB".encode("utf-16-be"), "else".encode("utf-16-be"))
                .replace(b"sRGB", b"else")
            )
    return bytes(profile)


def png(
    width: int, height: int, *, color: int = 2, idat: bytes | None = None, extra: bytes = b""
) -> bytes:
    """Return a small black PNG; `extra` chunks are inserted before the image data."""
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    if idat is None:
        row = b"\0" + bytes(width * 3)
        compressor = zlib.compressobj(9)
        idat = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", idat)
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def animation(
    kind: str = "GIF", *, frames: int = 4, size: tuple[int, int] = (60, 40), **options: Any
) -> bytes:
    """Return an animation whose frames have different colours."""
    images = [
        Image.new("RGB", size, (250 - number * 40 % 250, number * 60 % 250, 100))
        for number in range(frames)
    ]
    options = {"duration": 70, "loop": 0, **options}
    return encoded(images[0], kind, save_all=True, append_images=images[1:], **options)


def pixel(image: Image.Image, place: tuple[int, int]) -> tuple[int, ...]:
    """Return the channels of a pixel."""
    channels = image.getpixel(place)
    assert isinstance(channels, tuple)
    return channels


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image
