"""Tables as people save them: a CSV with any usual separator, encoding and names of columns."""

import csv
import io
import re
from pathlib import Path

from .. import InputError


def read_table(path: Path, names: dict, needed: tuple) -> list:
    """The lines of a CSV below its first, which names the columns.

    names: {what: possible names of its column, lower-case letters only}. Other columns are ignored.
    needed: which of `names` must have a column. Each line must have a value in every column that is
    read.
    The values are separated by comma, semicolon, tab or |. The encoding is UTF-8 or UTF-16, with or
    without a byte-order mark.
    Returns [(number of the line, {what: text})].
    Raises InputError for a file of another kind, and columns or values that are missing.
    """
    rows = _rows(path, names)
    _, header = rows[0]
    columns = _columns(header, names)
    missing = [what for what in needed if what not in columns]
    if missing:
        raise InputError(
            f"{path} has no column {' and no column '.join(missing)}: its first line is "
            f"{', '.join(header)[:100]!r}; expected the columns {', '.join(names)}, of which "
            f"{', '.join(needed)} must be there"
        )
    lines = []
    for number, row in rows[1:]:
        cells = {}
        for what, places in columns.items():
            if len(places) > 1:
                both = " and ".join(header[place].strip() for place in places)
                raise InputError(f"{path} has two columns for the {what}, {both}; name one {what}")
            [place] = places
            cells[what] = row[place].strip() if place < len(row) else ""
            if not cells[what]:
                raise InputError(f"line {number} of {path} has no {what}; fill it in")
        lines.append((number, cells))
    if not lines:
        raise InputError(f"{path} has only its first line, {', '.join(header)[:100]!r}")
    return lines


def letters(text: str) -> str:
    """The letters of a text in lower case: "Person ID" gives "personid"."""
    return re.sub(r"[^a-z]", "", text.lower())


def _rows(path: Path, names: dict) -> list:
    """The lines that are not empty, as [(number, cells)]."""
    text = _decoded(path)
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty; expected a first line with {', '.join(names)}")
    told = re.fullmatch(r"sep=(.)", lines[0].strip(), re.I)  # a first line that only Excel needs
    separator = told[1] if told else _separator(lines[0], names)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} of {path} is not CSV ({error})") from error
    return rows[1:] if told and len(rows) > 1 else rows


def _separator(line: str, names: dict) -> str:
    """The separator that gives the most columns of a first line a name in `names`."""
    columns_by = {}
    for separator in ",;\t|":
        [header] = csv.reader([line], delimiter=separator)
        columns_by[separator] = len(_columns(header, names))
    return max(columns_by, key=columns_by.get)


def _columns(header: list, names: dict) -> dict:
    """{what: indices of the columns with one of its names}; a column named `what` itself wins."""
    words = [letters(cell) for cell in header]
    columns = {}
    for what, known in names.items():
        places = [i for i, word in enumerate(words) if word == what]
        places = places or [i for i, word in enumerate(words) if word in known]
        if places:
            columns[what] = places
    return columns


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise InputError(
            f"{path} is a workbook or an archive; expected a folder or a CSV: save the sheet as "
            "CSV, or unpack the archive"
        )
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif data[1:2] == b"\0":
        encoding = "utf-16-le"
    elif data[:1] == b"\0":
        encoding = "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} is not text in UTF-8 or UTF-16 (line {line}); save it as CSV UTF-8"
        ) from error
