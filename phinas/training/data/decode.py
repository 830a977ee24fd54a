"""From encoded images (PNG, JPEG, ...) to one uint8 array."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from phinas.files.bytes import bytes_text
from phinas.files.checks import check_whole
from phinas.files.errors import InputError

MAX_PIXELS = 8192 * 8192  # of one image. A small file can claim far more, and would take the memory.
# Read by Pillow's own code; of its other formats some start programs, as PostScript does, and others are hardly used.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_SIDE = 4096  # of what images are resized to

_ALLOWED = f"an image may have {MAX_PIXELS:,}, as 8192 x 8192 has"

_MODES = {1: "L", 3: "RGB"}
# What Pillow's parsers raise for broken files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


def check_format(channels: int, resolution: int | None) -> None:
    """InputError unless images can be decoded to this many channels and pixels."""
    if check_whole("data.channels", channels) not in _MODES:
        raise InputError(f"data.channels={channels}: it must be 1 (grey) or 3 (RGB)")
    if resolution is not None and check_whole("data.resolution", resolution) > MAX_SIDE:
        raise InputError(f"data.resolution={resolution}: it must be {MAX_SIDE} pixels or less")


def decode(source: bytes | Path, where: str, channels: int, resolution: int | None) -> NDArray[np.uint8]:
    """One image as uint8 [height, width, channels].

    Of FORMATS. Grey, palette, CMYK and 16-bit images are converted to `channels` (1 grey, 3 RGB); transparency is
    dropped; of an animation it is the first picture; pixels stay as they are stored, whatever orientation EXIF gives
    them and whatever colours a profile, as in the trainings of published networks. With a `resolution` the shorter side
    is resized to it (bilinear, antialiased) and the centre square kept. Raises InputError naming `where` for what
    cannot be decoded, or would take more than MAX_PIXELS.
    """
    with _opened(source, where) as image:
        if image.mode == "F":
            raise InputError(f"{where}: floating-point pixels; convert the image to 8 bits per channel")
        if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip to white
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert(_MODES[channels])
        if resolution is not None:
            image = _centre_square(image, resolution)
        pixels = np.array(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def size_of(source: bytes | Path, where: str) -> tuple[int, int]:
    """(height, width) by the image's header; nothing else is read. Raises InputError as `decode` does."""
    with _opened(source, where) as image:
        return image.height, image.width


@contextmanager
def _opened(source: bytes | Path, where: str) -> Iterator[Image.Image]:
    """The image, closed afterwards; what is raised for broken files, here and inside, as InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file; our bound of pixels is lower, and an error
            opened: Image.Image = Image.open(
                io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
            )
            with opened as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InputError(f"{where}: {image.width} x {image.height} pixels; {_ALLOWED}")
                yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{where}: too many pixels; {_ALLOWED}") from None
    except UnidentifiedImageError:
        raise InputError(f"{where}: not a readable image (none of {', '.join(FORMATS)})") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where}: not a readable image ({reason})") from None


def decode_all(
    sources: Iterable[tuple[bytes | Path, str]], count: int, channels: int, resolution: int | None
) -> NDArray[np.uint8]:
    """`count` images, each with the name to use in errors, as uint8 [count, height, width, channels].

    Raises InputError as `decode` does, for images of unequal size if there is no `resolution`, and for more than the
    machine's memory could hold.
    """
    pixels: NDArray[np.uint8] | None = None
    for i, (source, where) in enumerate(sources):
        image = decode(source, where, channels, resolution)
        if pixels is None:
            _check_memory(count, image, where)
            pixels, first = np.empty((count, *image.shape), np.uint8), where
        if image.shape != pixels.shape[1:]:
            size, other = (f"{shape[1]} x {shape[0]}" for shape in (image.shape, pixels.shape[1:]))
            raise InputError(f"{where}: {size} pixels, but {first} has {other}; set resolution to resize them all")
        pixels[i] = image
    if pixels is None:
        raise ValueError("no images to decode")
    return pixels


def _check_memory(count: int, image: NDArray[np.uint8], where: str) -> None:
    needed, there = count * image.nbytes, psutil.virtual_memory().total
    if needed > there:
        raise InputError(
            f"{where}: {count:,} images of {image.shape[1]} x {image.shape[0]} pixels take {bytes_text(needed)}, "
            f"and the memory is {bytes_text(there)}; lower data.resolution or data.limit"
        )


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    if width * height > MAX_PIXELS:  # a line of pixels, blown up
        raise ValueError(f"{image.width} x {image.height} cannot be resized to a shorter side of {side}")
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
