"""Pictures of people: whatever is sent is taken apart and made anew, small and with nothing in it but what is seen.

Made as OWASP's File Upload Cheat Sheet asks: what a file is is told by its bytes, its declared size is looked at before
it is decoded, and no byte of it is ever served.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from PIL import Image

from scheduler.errors import FieldError, Invalid, UnsupportedMediaType
from scheduler.logs import get_logger

LARGEST_UPLOAD = 2 * 1024 * 1024
"""Bytes (the contract's section 4)."""
MEDIA_TYPE = "image/webp"
"""Of every picture that we make."""
LONGEST_SIDE = 512
"""Of a picture that we make, in pixels. Smaller ones stay as they are."""
MOST_PIXELS = 24_000_000
"""Of what is sent; decoded, so many take some 100 MB."""
MOST_SCANS = 64
"""Of a JPEG file. Each costs a pass over all pixels and may be a few bytes long; encoders make ten or so."""
QUALITY = 85

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_START_OF_SCAN = b"\xff\xda"
_ORIENTATION = 0x0112
_TOO_MANY_PIXELS = f"It has more than {MOST_PIXELS // 1_000_000} million pixels; send a smaller one"
_DAMAGED = "This picture is damaged; save it anew"

log = get_logger("accounts")


class Pictures:
    """Makes pictures in a thread of its own, one at a time: each may need some 100 MB, and must not stop the loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pictures")

    async def make(self, content: bytes) -> bytes:
        """`make_picture`, beside whatever else is done."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, make_picture, content)

    def close(self) -> None:
        """Begin nothing more; what is under way is finished before the process ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def make_picture(content: bytes) -> bytes:
    """A WebP picture of at most `LONGEST_SIDE` pixels a side from a PNG, JPEG or WebP file: upright, the first frame of
    several, without any metadata.

    Raises UnsupportedMediaType for another kind of file, and Invalid for one that is damaged or too large.
    """
    kind = kind_of(content)
    if kind is None:
        raise UnsupportedMediaType("Send a picture as PNG, JPEG or WebP; its bytes say what it is, not its name.")
    if kind == "WEBP":
        _check_size(*_size_of_webp(content))  # Pillow makes room for two frames as soon as it opens one
    if kind == "JPEG" and content.count(_START_OF_SCAN) > MOST_SCANS:
        raise _refused("This JPEG is made of too many scans; save it anew", "too_large")
    try:
        with Image.open(BytesIO(content), formats=(kind,)) as image:
            _check_size(*image.size)
            return _made_anew(image)
    except Invalid:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, past ours
        raise _refused(_TOO_MANY_PIXELS, "too_large") from None
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        log.info("picture.refused", kind=kind, error=type(error).__name__)
        raise _refused(_DAMAGED, "damaged") from None


def kind_of(content: bytes) -> str | None:
    """PNG, JPEG or WEBP, by the first bytes; None for everything else."""
    if content.startswith(_PNG):
        return "PNG"
    if content.startswith(_JPEG):
        return "JPEG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return None


def _size_of_webp(content: bytes) -> tuple[int, int]:
    """Width and height as the header declares them (RFC 9649, 2.5 to 2.7)."""
    kind, header = content[12:16], content[20:30]
    if len(header) == 10 and kind == b"VP8X":
        return 1 + int.from_bytes(header[4:7], "little"), 1 + int.from_bytes(header[7:10], "little")
    if len(header) == 10 and kind == b"VP8L":
        bits = int.from_bytes(header[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(header) == 10 and kind == b"VP8 ":
        return int.from_bytes(header[6:8], "little") & 0x3FFF, int.from_bytes(header[8:10], "little") & 0x3FFF
    raise _refused(_DAMAGED, "damaged")


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _refused(_TOO_MANY_PIXELS, "too_large")


def _made_anew(image: Any) -> bytes:
    # A JPEG can be decoded at an eighth of its size and more; twice what is needed keeps it sharp.
    image.draft("RGB", (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))
    orientation = _orientation(image)
    if image.mode.startswith("I;16"):  # as Pillow has it, everything from 256 up would be white
        image = image.point(lambda value: value / 256)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    plain = image.convert("RGBA" if has_alpha else "RGB")
    plain.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    if orientation in _UPRIGHT:
        plain = plain.transpose(_UPRIGHT[orientation])
    plain.info.clear()  # where Pillow keeps what it would write into the new file: EXIF, XMP, colour profile
    made = BytesIO()
    plain.save(made, "WEBP", quality=QUALITY, exif=b"", xmp=b"", icc_profile=None)
    return made.getvalue()


def _orientation(image: Any) -> int | None:
    try:
        found = image.getexif().get(_ORIENTATION)
    except Exception:  # EXIF that can't be read is none
        return None
    return found if isinstance(found, int) else None


# What makes each orientation (EXIF 2.3, tag 0x0112) upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _refused(message: str, code: str) -> Invalid:
    return Invalid(FieldError("/file", message, code))
