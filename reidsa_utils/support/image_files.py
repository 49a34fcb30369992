"""Finds damaged image files, by their structure and by the complaints of decoders.

Bytes that a format allows are not damage: data after the end of the image, EXIF, thumbnails.
"""

import contextlib
import os
import re
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator

from .kinds import what_is

# The markers of a JPEG that are used here.
_SOI, _EOI, _SOS, _DQT, _DHT = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4
_FRAMES = set(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}  # frames that are written once, from top to bottom
_AC = 0x10  # the kind of a Huffman table
_BEHIND_A_SCAN = {_EOI, _SOS, _DQT, _DHT, 0xCC, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
# Within a scan FF 00 stands for a byte FF, and FF D0 to FF D7 are restarts.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
# Holes in a scan. Each pattern begins with fixed bytes, which makes the search fast.
_ERASED = re.compile(rb"\xff\xff(?:\xff*\x00|\xff{13,})")
_ZEROS = re.compile(rb"\x00" * 15 + rb"\x00+")

# Messages of libjpeg and libpng about data that break the rules of the format. Their other warnings
# are about harmless things (an unknown JFIF revision, a colour profile).
_COMPLAINT = re.compile(
    r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|libpng error"
)
_ears = threading.Lock()  # one listener at a time: a process has one standard error


def flaw_of(data: bytes) -> str:
    """What is wrong with the structure of a JPEG or PNG file; "" if nothing is.

    data: the bytes of the file. Returns words that can follow the file's name in a sentence.
    Every chunk of a PNG has a checksum. A JPEG has none. In a JPEG three kinds of damage are found:
    a missing end, a hole filled with bytes 00 or FF, and another file inside. Only a decoder can
    notice other damage (see `listening`), and not always.
    """
    kind = what_is(data)
    if kind == "a JPEG image":
        return _jpeg_flaw(data)
    if kind == "a PNG image":
        return _png_flaw(data)
    if kind.endswith("image"):
        return f"is {kind}, where a JPEG or PNG was expected (if the picture is right, convert it)"
    if kind:
        return f"is {kind}, where a JPEG or PNG was expected"
    return f"is truncated or no image ({len(data):,} bytes)"


def _cut(data: bytes, kind: str) -> str:
    return (
        f"is truncated or no image ({len(data):,} bytes): by its structure, the {kind} lacks its "
        "end"
    )


def _damaged(data: bytes, what: str, place: int) -> str:
    return f"is damaged ({len(data):,} bytes): by its structure, {what} at byte {place:,}"


def _png_flaw(data: bytes) -> str:
    start = 8
    while True:
        body = start + 8
        end = body + int.from_bytes(data[start : start + 4])
        checksum = data[end : end + 4]
        if len(checksum) < 4:
            return _cut(data, "PNG")
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(checksum):
            return _damaged(data, "a chunk does not fit its checksum", start)
        if data[start + 4 : body] == b"IEND":
            return ""
        start = end + 4


def _jpeg_flaw(data: bytes) -> str:
    before = None
    for marker, start, end, scan_end in _segments(data):
        if marker == _SOI:
            return _damaged(data, "another JPEG begins", start)
        if before == _SOS and marker not in _BEHIND_A_SCAN:
            return _damaged(data, "something that is not a JPEG begins", start)
        if marker == _EOI:
            return ""
        if marker == _DQT and _holds_zero(data[start + 4 : end]):
            return _damaged(data, "there is a hole in a quantization table", start)
        if marker == _DHT and _lacks_symbols(data[start + 4 : end]):
            return _damaged(data, "there is a hole in a Huffman table", start)
        if marker == _SOS:
            hole = _ERASED.search(data, end, scan_end) or _ZEROS.search(data, end, scan_end)
            if hole and not _may_be_picture(data, hole, start, scan_end):
                what = f"there is a hole of {hole.end() - hole.start():,} bytes in the picture"
                return _damaged(data, what, hole.start())
        before = marker
    return _cut(data, "JPEG")


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The segments of a JPEG: (marker, where it is, end of the segment, start of the next marker).

    A scan, the data of the picture, follows an SOS. Nothing follows the other segments.
    """
    found = _MARKER.search(data, 2)
    while found:
        start = found.start()
        end = start + 2
        marker = data[start + 1]
        if marker not in (_SOI, _EOI):
            end += int.from_bytes(data[end : end + 2])
        found = _MARKER.search(data, end)
        yield marker, start, end, found.start() if found else len(data)


def _holds_zero(tables: bytes) -> bool:
    """Whether quantization tables hold a zero. The values are divisors, so zero is not allowed."""
    at = 0
    while at < len(tables):
        if tables[at] >> 4:  # 16 bits a value
            table = tables[at + 1 : at + 129]
            zero = b"\0\0" in [table[k : k + 2] for k in range(0, len(table), 2)]
            at += 129
        else:
            zero = 0 in tables[at + 1 : at + 65]
            at += 65
        if zero:
            return True
    return False


def _may_be_picture(data: bytes, hole: re.Match, scan: int, scan_end: int) -> bool:
    """Whether what looks like a hole in a scan may be part of a sound picture.

    scan: where the header of the scan begins. scan_end: where the next marker begins.
    Bytes FF may fill the space before the last marker. In a frame that is written from top to
    bottom, zeros can be the ends of flat blocks, if the code of an end is all zeros. With the usual
    tables that is not so: zeros would mean -1 at every frequency. Other frames (progressive) have
    scans that hold only corrections, and these may be zeros.
    """
    if data[hole.start()] == 0xFF:
        return hole.end() == scan_end and data[scan_end + 1 : scan_end + 2] == b"\xd9"
    first_symbols = {}  # {kind and number of a table: the symbol whose code is all zeros}
    for marker, start, end, _ in _segments(data[:scan]):
        if marker in _FRAMES and marker not in _SEQUENTIAL:
            return True
        if marker == _DHT:
            for kind, symbols in _huffman_tables(data[start + 4 : end]):
                first_symbols[kind] = symbols[:1]
    components = data[scan + 4]
    tables = {_AC | byte & 15 for byte in data[scan + 6 : scan + 6 + 2 * components : 2]}
    return all(first_symbols.get(table, b"\0") == b"\0" for table in tables)


def _lacks_symbols(tables: bytes) -> bool:
    """Whether a Huffman table has several zeros as symbols, although all symbols must differ."""
    if bytes(8) not in tables:
        return False
    return any(bytes(8) in symbols for _, symbols in _huffman_tables(tables))


def _huffman_tables(tables: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind and number, symbols by the length of their codes) of each table in a segment."""
    at = 0
    while at + 17 < len(tables):
        end = at + 17 + sum(tables[at + 1 : at + 17])
        yield tables[at], tables[at + 17 : end]
        at = end


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], list[str]]]:
    """Collect what decoders write on standard error in this block; they raise no exception.

    Yields a function that returns the complaints since its last call. Other text is passed on at
    the end of the block. Several threads may decode inside, but only one block is open at a time.
    """
    with _ears, tempfile.TemporaryFile(buffering=0) as file:
        place = 0
        others = b""

        def heard() -> list[str]:
            nonlocal place, others
            file.seek(place)
            lines = file.read().splitlines(keepends=True)
            place = file.tell()
            said = []
            for line in lines:
                text = line.decode(errors="replace").strip()
                if _COMPLAINT.match(text):
                    said.append(text)
                else:
                    others += line
            return said

        try:
            stderr = os.dup(2)
        except OSError:  # standard error is closed, so there are no complaints to read
            yield list
            return
        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            heard()
            with contextlib.suppress(OSError):
                os.write(2, others)


def who_complains(paths, decode: Callable, heard: Callable) -> dict[str, str]:
    """Decode images one after the other: {path: first complaint of its decoder}.

    heard: the function that `listening` yields.
    """
    said = {}
    for path in paths:
        decode(path)
        complaints = heard()
        if complaints:
            said[path] = complaints[0]
    return said
