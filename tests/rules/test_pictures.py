"""Pictures of people: taken by their bytes, refused when they are bombs, and made anew without what they carried."""

from __future__ import annotations

import struct
import time
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from scheduler.accounts.pictures import LONGEST_SIDE, MOST_PIXELS, MOST_SCANS, kind_of, make_picture
from scheduler.errors import Invalid, UnsupportedMediaType

RED, BLUE = (220, 20, 30), (10, 30, 210)


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 32), mode: str = "RGB", **options: Any) -> bytes:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (size[0] // 2, 0, *size))
    return saved(image.convert(mode), kind, **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    return image


def is_near(found: Any, wanted: tuple[int, ...]) -> bool:
    return all(abs(one - other) <= 24 for one, other in zip(found, wanted, strict=False))


def refusal(content: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        make_picture(content)
    (error,) = caught.value.errors
    assert error.field == "/file"
    return error.code


def chunks_of(webp: bytes) -> list[bytes]:
    """The names of the chunks of a WebP file (RFC 9649, 2.3)."""
    found, at = [], 12
    while at < len(webp):
        found.append(webp[at : at + 4])
        at += 8 + struct.unpack("<I", webp[at + 4 : at + 8])[0]
        at += at % 2
    return found


# -- what is taken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (64, 32), (512, 512), (2000, 1000), (1, 3000)])
def test_it_is_made_anew_and_fits(kind: str, size: tuple[int, int]) -> None:
    made = opened(make_picture(picture(kind, size)))
    assert made.format == "WEBP"
    width, height = made.size
    assert max(width, height) == min(max(size), LONGEST_SIDE)
    if min(size) > 1:
        assert abs(width / height - size[0] / size[1]) < 0.02
        assert is_near(made.convert("RGB").getpixel((width // 4, height // 2)), RED)
        assert is_near(made.convert("RGB").getpixel((width * 3 // 4, height // 2)), BLUE)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")]
    + [("WEBP", mode) for mode in ("RGB", "RGBA")],
)
def test_every_kind_of_colour(kind: str, mode: str) -> None:
    left: Any
    right: Any
    if mode == "I;16":
        image = Image.new("I;16", (64, 32), 40_000)
        image.paste(10_000, (0, 0, 32, 32))
        content = saved(image, "PNG")
        left, right = (10_000 // 256,) * 3, (40_000 // 256,) * 3
    else:
        content = picture(kind, mode=mode)
        grey = Image.new("RGB", (1, 1), RED).convert(mode).convert("RGB").getpixel((0, 0))
        left, right = (RED, BLUE) if mode not in ("1", "L", "LA") else (grey, None)
    made = opened(make_picture(content)).convert("RGB")
    if mode != "1":  # black and white, dithered
        assert is_near(made.getpixel((8, 16)), left)
        assert right is None or is_near(made.getpixel((56, 16)), right)


def test_what_is_seen_through_stays_so() -> None:
    image = Image.new("RGBA", (64, 32), (*RED, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))
    made = opened(make_picture(saved(image, "PNG")))
    assert made.mode == "RGBA"
    assert made.getpixel((8, 16))[3] == 0 and made.getpixel((56, 16))[3] == 255  # type: ignore[index]
    palette = saved(image.convert("P"), "PNG", transparency=image.convert("P").getpixel((0, 0)))
    assert opened(make_picture(palette)).mode == "RGBA"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_it_is_upright_whichever_way_the_camera_was_held(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # What the viewer must see is red at the top left; the camera has stored it turned.
    seen = Image.new("RGB", (60, 40), BLUE)
    seen.paste(RED, (0, 0, 30, 20))
    turned = {
        1: seen,
        2: seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: seen.transpose(Image.Transpose.ROTATE_180),
        4: seen.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: seen.transpose(Image.Transpose.TRANSPOSE),
        6: seen.transpose(Image.Transpose.ROTATE_90),
        7: seen.transpose(Image.Transpose.TRANSVERSE),
        8: seen.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    made = opened(make_picture(saved(turned, kind, exif=exif))).convert("RGB")
    assert made.size == (60, 40)
    assert is_near(made.getpixel((8, 6)), RED)
    assert all(is_near(made.getpixel(at), BLUE) for at in ((52, 6), (8, 34), (52, 34)))


def test_of_several_frames_the_first() -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, BLUE)]
    for kind in ("PNG", "WEBP"):
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        made = opened(make_picture(content))
        assert getattr(made, "n_frames", 1) == 1
        assert is_near(made.convert("RGB").getpixel((20, 20)), RED)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_nothing_is_left_of_what_it_carried(kind: str) -> None:
    secret = b"52.5200 N 13.4050 E"
    exif = Image.Exif()
    exif[0x010E] = secret.decode()
    exif.get_ifd(0x8825)[1] = "N"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", secret.decode())
    options: dict[str, Any] = {"exif": exif, "icc_profile": b"profile " + secret}
    more: dict[str, dict[str, Any]]
    more = {"PNG": {"pnginfo": text}, "JPEG": {"comment": secret}, "WEBP": {"xmp": secret}}
    options |= more[kind]
    content = picture(kind, (700, 300), **options) + b"after the end: " + secret
    assert secret in content
    made = make_picture(content)
    assert secret not in made and b"Exif" not in made
    assert set(chunks_of(made)) <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
    assert not opened(made).getexif() and "icc_profile" not in opened(made).info


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"GIF89a" + bytes(100),
        b"%PDF-1.7",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"II*\x00" + bytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        picture("GIF"),
        picture("BMP"),
        picture("TIFF"),
        b"\x00" + picture("PNG"),
    ],
    ids=lambda content: content[:4].hex() or "empty",
)
def test_other_kinds_of_files_are_not_taken(content: bytes) -> None:
    assert kind_of(content) is None
    with pytest.raises(UnsupportedMediaType):
        make_picture(content)


def png_that_says(width: int, height: int, *, pixels: bytes = b"") -> bytes:
    """A PNG file of this size, with `pixels` as its compressed data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def webp_that_says(width: int, height: int) -> bytes:
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def jpeg_that_says(width: int, height: int) -> bytes:
    content = bytearray(picture("JPEG", (16, 16)))
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def lossless_webp_that_says(width: int, height: int) -> bytes:
    content = bytearray(picture("WEBP", (16, 16), lossless=True))
    at = content.index(b"VP8L") + 9
    content[at : at + 4] = (width - 1 | height - 1 << 14).to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        png_that_says(5000, 5000, pixels=bytes(5001 * 5000)),
        png_that_says(2**31 - 1, 2**31 - 1),
        png_that_says(MOST_PIXELS + 1, 1),
        jpeg_that_says(65000, 65000),
        webp_that_says(2**24, 2**24),
        lossless_webp_that_says(16384, 16384),
    ],
    ids=["png", "png that lies", "png in one line", "jpeg", "webp", "lossless webp"],
)
def test_a_bomb_is_refused_before_it_goes_off(content: bytes) -> None:
    began = time.process_time()
    assert refusal(content) == "too_large"
    assert time.process_time() - began < 0.5


def test_as_many_pixels_as_are_taken_are_taken() -> None:
    made = opened(make_picture(png_that_says(6000, 4000, pixels=bytes(6001 * 4000))))
    assert made.size == (512, 341)


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    content = picture("JPEG", (64, 64), progressive=True)
    at = content.rindex(b"\xff\xda")
    scan = content[at:-2]
    assert make_picture(content)
    assert refusal(content[:-2] + scan * MOST_SCANS + b"\xff\xd9") == "too_large"


def test_text_that_unpacks_to_more_than_a_picture_is_refused() -> None:
    packed = zlib.compress(bytes(8 * 1024 * 1024), 9)
    name = b"zTXt"
    body = b"Comment\x00\x00" + packed
    text = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    content = picture("PNG")
    assert refusal(content[:33] + text + content[33:]) == "damaged"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_half_a_picture_is_damaged(kind: str, share: float) -> None:
    content = saved(Image.effect_noise((200, 200), 90).convert("RGB"), kind)
    assert refusal(content[: max(12, int(len(content) * share))]) == "damaged"


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_whatever_the_bytes_it_is_a_picture_or_refused(kind: str, data: st.DataObject) -> None:
    content = bytearray(picture(kind, (24, 16)))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=12)):
        content[at] = value
    with suppress(Invalid, UnsupportedMediaType):
        assert kind_of(make_picture(bytes(content))) == "WEBP"
