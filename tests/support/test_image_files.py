"""Images as cameras, programs and broken disks leave them: what a format allows is sound, what is cut, holed or another file is not."""

import io
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from reidsa_utils.support.image_files import flaw_of, listening

GREY = (
    np.random.default_rng(0).normal(128, 30, (96, 48, 3)).cumsum(0) % 256
)  # smooth from row to row, with detail
PICTURE = Image.fromarray(cv2.GaussianBlur(GREY.astype(np.uint8), (0, 0), 1.5))
FLAT = Image.new("RGB", (96, 192), (255, 255, 255))


def encoded(picture=PICTURE, form="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


SOUND = {
    "usual": encoded(),
    "best": encoded(quality=100, subsampling=0),
    "worst": encoded(quality=1),
    "own tables": encoded(optimize=True),
    "progressive": encoded(progressive=True),
    "restarts": cv2.imencode(".jpg", np.array(PICTURE), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[
        1
    ].tobytes(),
    "grey": encoded(PICTURE.convert("L")),
    "CMYK": encoded(PICTURE.convert("CMYK")),
    "flat": encoded(FLAT),
    # Its blocks end with the code that is all zeros: more than 100 zero bytes in a row.
    "flat, own tables": encoded(FLAT.resize((960, 960)), optimize=True),
    "flat, progressive": encoded(FLAT, progressive=True),
    "EXIF": encoded(exif=Image.Exif()),
    "PNG": encoded(form="PNG"),
    "PNG, palette": encoded(PICTURE.convert("P"), form="PNG"),
    "PNG, 16 bits": encoded(
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)), form="PNG"
    ),
}


def with_thumbnail(jpeg):
    """Another JPEG inside, in its EXIF."""
    body = b"Exif\0\0" + SOUND["worst"]
    return jpeg[:2] + b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body + jpeg[2:]


def decodes(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None


@pytest.mark.parametrize("name", SOUND)
def test_what_a_format_allows_is_no_damage(name):
    data = SOUND[name]
    assert flaw_of(data) == "" and decodes(data)
    for behind in (
        b"\0" * 5000,
        b"SEFT of a telephone",
        SOUND["worst"],
        SOUND["PNG"],
        b"\xff" * 70,
    ):
        assert flaw_of(data + behind) == "" and decodes(data + behind)
    if not name.startswith("PNG"):
        assert flaw_of(with_thumbnail(data)) == "" and decodes(with_thumbnail(data))


def test_zeros_that_are_a_picture():
    """The one case in which a JPEG may hold a long run of zeros: it is not taken for a hole."""
    data = SOUND["flat, own tables"]
    assert bytes(100) in data and flaw_of(data) == ""


@pytest.mark.parametrize("name", SOUND)
def test_a_cut_is_seen_wherever_it_is(name):
    data = with_thumbnail(SOUND[name]) if not name.startswith("PNG") else SOUND[name]
    for length in (*range(0, len(data), 7), len(data) - 1):
        assert "truncated or no image" in flaw_of(data[:length]), length


@pytest.mark.parametrize("name", ["usual", "best", "restarts", "grey", "PNG"])
def test_a_hole_in_the_picture_is_seen(name):
    data = SOUND[name]
    begin = data.rfind(b"\xff\xda") + 14 if not name.startswith("PNG") else 41
    for size in (16, 100, 800):
        for filler in (b"\0", b"\xff"):
            for place in range(begin, len(data) - 20 - size, 41):
                if filler == b"\xff" and data[place + size] == 0xD9:
                    continue  # by chance it reads as the end
                holed = data[:place] + filler * size + data[place + size :]
                assert flaw_of(holed), (size, filler, place)
    assert "hole of 100 bytes in the picture at byte 700" in flaw_of(
        SOUND["best"][:700] + bytes(100) + SOUND["best"][800:]
    )


def test_every_bit_of_a_png_is_known():
    data = bytearray(SOUND["PNG, palette"])
    for place in range(8, len(data), 5):
        data[place] ^= 16
        assert flaw_of(bytes(data))
        data[place] ^= 16
    assert flaw_of(bytes(data)) == ""


def test_holes_in_tables():
    data = SOUND["usual"]
    for marker, words in ((b"\xff\xdb", "quantization table"), (b"\xff\xc4", "Huffman table")):
        place = data.rfind(marker) + 30
        assert words in flaw_of(data[:place] + bytes(16) + data[place + 16 :])


def test_another_file_inside():
    for name in ("usual", "best"):
        half = SOUND[name][: len(SOUND[name]) * 2 // 3]
        assert "another JPEG begins" in flaw_of(half + SOUND["best"])
    assert flaw_of(SOUND["usual"][:700] + SOUND["PNG"])


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encoded(form="WEBP"), "a WebP image"),
        (encoded(form="BMP"), "a BMP image"),
        (encoded(form="GIF"), "a GIF image"),
        (encoded(form="TIFF"), "a TIFF image"),
        (encoded(form="AVIF"), "an AVIF image"),
        (encoded(form="PPM"), "a PNM image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"<!DOCTYPE html>\n<html>Not found", "an HTML page"),
        (b"\n <html><body>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (bytes(4096), "a file of zero bytes"),
    ],
)
def test_another_format_is_named(data, kind):
    assert flaw_of(data).startswith(f"is {kind}, where a JPEG or PNG was expected")


def test_what_a_decoder_says_is_heard_and_what_others_say_passed_on(capfd):
    broken = SOUND["usual"][:900] + SOUND["usual"][1000:]
    with listening() as heard:
        assert decodes(SOUND["usual"]) and heard() == []
        decodes(broken)
        os.write(2, b"somebody else\n")
        assert [line[:17] for line in heard()] == ["Corrupt JPEG data"] and heard() == []
    assert capfd.readouterr().err == "somebody else\n"
    decodes(broken)
    assert "Corrupt JPEG data" in capfd.readouterr().err  # as before
