"""The ledger of the paper's claims: what each says, how it was tested, its verdict and evidence."""

import json
import re

import pandas as pd

from .. import SETTINGS
from ..support.files import read_text, read_toml
from .numbers import fill
from .records import ROOT
from .statistics import VERDICTS

# What a verdict may be on: a computation, the paper's own tables, rendered or real images.
DATA = ("exact", "published", "rendered", "real")


def read_claims() -> list:
    """The claims of settings/claims.toml, dicts, with the numbers of what was found filled in.

    Raises InputError for the name of a number that there is not.
    """
    claims = read_toml(SETTINGS / "claims.toml")["claims"]
    return [{**claim, "found": fill(claim["found"])} for claim in claims]


def verdicts(claims: list) -> dict:
    """How many claims have each verdict that is given."""
    given = [claim["verdict"] for claim in claims]
    return {verdict: given.count(verdict) for verdict in VERDICTS if verdict in given}


def claim_table(claims: list) -> pd.DataFrame:
    """The claims as a table for people."""
    rows = []
    for place, claim in enumerate(claims, start=1):
        row = {
            "": place,
            "place": claim["place"],
            "the paper says": claim["claim"],
            "tested by": claim["test"],
            "verdict": claim["verdict"],
            "on": claim["on"],
            "found": claim["found"],
            "evidence": ", ".join(claim["evidence"]),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def problems(claims: list) -> list:
    """What is wrong with a ledger, a sentence each.

    A word that is missing, an unknown verdict, a piece of evidence that does not exist.
    """
    sentences = []
    for claim in claims:
        name = claim.get("id", str(claim))
        for key in ("id", "place", "claim", "test", "verdict", "found"):
            if not claim.get(key):
                sentences.append(f"{name}: {key} is empty")
        verdict = claim.get("verdict")
        if verdict not in VERDICTS:
            sentences.append(f"{name}: verdict {verdict!r}; expected one of {', '.join(VERDICTS)}")
        evidence = claim.get("evidence", [])
        supported = evidence and claim.get("on") in DATA
        if verdict != "not testable here" and not supported:
            sentences.append(
                f"{name}: a verdict without evidence, or without the data it is on "
                f"({', '.join(DATA)})"
            )
        for piece in evidence:
            if not _exists(piece):
                sentences.append(f"{name}: no such evidence: {piece}")
    return sentences


def _exists(evidence: str) -> bool:
    """Whether there is a piece of evidence.

    It is a glob of records in results/, a test (tests/FILE or tests/FILE::TEST), or a heading of a
    notebook (NOTEBOOK#HEADING).
    """
    if re.fullmatch(r"results/[\w*-]+(/[\w*-]+)?\.json", evidence):
        return any(ROOT.glob(evidence))
    test = re.fullmatch(r"(tests/[\w/]+\.py)(?:::(\w+))?", evidence)
    if test:
        path = ROOT / test[1]
        return path.exists() and (test[2] is None or f"def {test[2]}(" in read_text(path))
    name, _, heading = evidence.partition("#")
    path = ROOT / "notebooks" / f"{name}.ipynb"
    return bool(name) and path.exists() and heading in _headings(path)


def _headings(notebook) -> list:
    """The headings in the Markdown cells of a notebook, without their #."""
    headings = []
    for cell in json.loads(notebook.read_bytes())["cells"]:
        if cell["cell_type"] != "markdown":
            continue
        for line in "".join(cell["source"]).splitlines():
            line = line.strip()
            if line.startswith("#"):
                headings.append(line.lstrip("#").strip())
    return headings
