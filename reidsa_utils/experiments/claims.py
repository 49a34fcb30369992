"""The ledger of the paper's claims: what each says, how it was tested, its verdict and evidence.

The verdict on a claim about numbers is computed: statistics.verdict() gives it, from the records of
the comparison that the claim names. For other claims (exact, published, not testable) it is written
in the file.
"""

import json
import re

import numpy as np
import pandas as pd

from .. import SETTINGS
from ..data import LAYOUTS
from ..support.files import read_text, read_toml
from .numbers import Comparison, comparison, fill
from .pairing import BASE
from .records import ROOT
from .statistics import MARGIN, VERDICTS, verdict

# The data that a verdict may rest on: a computation, the paper's own tables, rendered or real
# images, or runs that others published.
DATA = ("exact", "published", "rendered", "real", "others")

# A claim about several comparisons gets the worst of their verdicts.
WORST_FIRST = (
    "contradicted",
    "smaller than claimed",
    "equivalent",
    "mixed",
    "not shown",
    "confirmed",
)
NETWORKS = {"thin": "the thin ResNet", "mobilenet_v2": "MobileNetV2", "resnet50": "ResNet-50"}


def read_claims() -> list:
    """The claims of settings/claims.toml, dicts, with their verdicts and what was found.

    If a claim names comparisons ("judged"), its verdict is computed, and "found" begins with a
    sentence for each of them.
    Raises InputError for an unknown name of a number or a comparison.
    """
    claims = []
    for claim in read_toml(SETTINGS / "claims.toml")["claims"]:
        claim = {**claim, "found": fill(claim["found"])}
        if "judged" in claim or "theirs" in claim:
            claim |= judge(claim)
        claims.append(claim)
    return claims


def judge(claim: dict) -> dict:
    """The verdict on a claim by the rule, and what was found: {"verdict", "found"}.

    claim: as in settings/claims.toml, with these optional keys:
        judged    names of the comparisons that decide the verdict (numbers.comparison())
        beside    names of comparisons that are only reported in the sentence
        theirs    results of others, with the number of their runs
        gain      the claimed gain, if it is not the paper's own difference in this setting
        less      true if a smaller value is the gain
        same      true if the paper claims that there is no difference
        confound  what else may have caused the difference
        measure   the words for a measure of networks, or a list with one for each comparison
    """
    names = [*claim.get("judged", []), *claim.get("beside", [])]
    measures = claim.get("measure", "")
    if isinstance(measures, str):
        measures = [measures] * len(names)
    words, found = [], {}  # found: {words for the setting: sentences about it}
    for place, name in enumerate(names):
        judged = place < len(claim["judged"])
        compared = comparison(name)
        confound = claim.get("confound", "") if judged else ""
        said = claim | {"confound": confound, "measure": measures[place]}
        word, sentence = judged_by(compared, said, name)
        if judged:
            words.append(word)
        found.setdefault(_where(compared), []).append(sentence)
    sentences = [f"{'; '.join(said)}. {where}" for where, said in found.items()]
    for result in claim.get("theirs", []):
        words.append(verdict({"seeds": result["runs"], "low": np.nan, "high": np.nan}))
        delta = result["with"] - result["without"]
        sentences.append(
            f"{result['what']}: {result['without']:g} without, {result['with']:g} with, "
            f"{delta:+.2f}, {_count(result['runs'], 'run')} each: {words[-1]}"
        )
    found = ". ".join([*sentences, claim["found"]])
    return {"verdict": min(words, key=WORST_FIRST.index), "found": found}


def judged_by(compared: Comparison, claim: dict, name: str) -> tuple:
    """The word of statistics.verdict() for a claim on one comparison, and the sentence about it.

    claim: see judge(), with one "measure"; name: of the comparison. For a measure of networks there
    is no margin, and the claim is only that there is some gain.
    """
    found = compared.found
    if claim.get("less"):
        found = _turned(found)
    gain = 0.0
    if compared.retrieval:
        gain = claim.get("gain", compared.paper)
    margin = MARGIN if compared.retrieval else None
    if claim.get("same"):
        word = _same(found, claim.get("confound", ""))
    else:
        word = verdict(found, gain, margin, claim.get("confound", ""))

    what = claim.get("measure", "")
    if compared.retrieval:
        _, vector, metric = name.split(".")
        what = f"{metric} ({vector})"
    digits = 1 if max(abs(compared.found["low"]), abs(compared.found["high"])) >= 1 else 2
    # Adding zero turns -0.0 into 0.0, so that a number that rounds to zero has no minus sign.
    change, low, high = (
        f"{round(compared.found[key], digits) + 0.0:+.{digits}f}" for key in ("Δ", "low", "high")
    )
    numbers = f"{what} {change} ({low} to {high})"
    if gain and not claim.get("same"):
        numbers += f", the paper {gain:+.1f}"
    return word, f"{numbers}: {_said(word, found, claim)}"


def _turned(found: dict) -> dict:
    """A difference with its sign changed, for a measure of which a smaller value is the gain."""
    turned = {"Δ": -found["Δ"], "low": -found["high"], "high": -found["low"]}
    return {**found, **turned, "low90": -found["high90"], "high90": -found["low90"]}


def _same(found: dict, confound: str) -> str:
    """The word for a claim that there is no difference."""
    word = verdict(found, 0.0, MARGIN, confound)
    if word == "equivalent":
        return "confirmed"
    if found["low"] > MARGIN or found["high"] < -MARGIN:
        return word if word in ("mixed", "not shown") else "contradicted"
    return word if word == "mixed" else "not shown"


def _said(word: str, found: dict, claim: dict) -> str:
    """A verdict with its details: how many seeds, which confound, gain or loss."""
    if found["seeds"] < 3:
        return f"{word} ({_count(found['seeds'], 'seed')})"
    if word == "mixed" and claim.get("confound"):
        return f"{word} ({claim['confound']})"
    if claim.get("same"):
        return word
    if word == "contradicted":
        return f"{word}, the opposite is shown"
    if word == "smaller than claimed":
        if found["low"] > 0:
            return f"{word}, a gain"
        return f"{word}, at most {found['high']:+.1f}"
    return word


def _where(compared: Comparison) -> str:
    """The settings of a comparison: what is compared, data, size, network, seeds, learning rate."""
    described = []
    variants = {with_["variant"] for with_, _ in compared.settings}
    for with_, without in compared.settings:
        seeds = with_["seeds"] if len(compared.settings) > 1 else compared.found["seeds"]
        rate = f"{with_['lr']:g}"
        if with_["lr"] != without["lr"]:
            rate += f" against {without['lr']:g}"
        began = "random" if with_["weights"] == "none" else with_["weights"]
        data = f"{with_['source']} {LAYOUTS[with_['benchmark']].title}, {with_['profile']}"
        if len(variants) > 1:
            data += f", {with_['variant']}"
        network = f"{NETWORKS[with_['backbone']]} from {began} weights"
        described.append((data, _count(seeds, "seed"), network, f"learning rate {rate}"))
    if len(described) == 1:
        data, seeds, network, rate = described[0]
        pair = _pair(*compared.settings[0])
        return f"In this setting: {pair}; {data}; {network}; {seeds}; {rate}"
    alike = sorted({", ".join(row[2:]) for row in described})
    settings = "; ".join(f"{data}, {seeds}" for data, seeds, *_ in described)
    return f"Over {len(described)} settings: {settings}; {'; '.join(alike)}"


def _pair(with_: dict, without: dict) -> str:
    """What the runs of a comparison differ in: "b_p_ds_sa2 softmax against no SA"."""
    if BASE.get(with_["variant"]) == without["variant"] and without["form"] == "none":
        recipe = "" if with_["recipe"] == "paper" else f", recipe {with_['recipe']},"
        return f"{with_['variant']} {with_['form']}{recipe} against no SA"
    names = [name for name in ("variant", "form", "recipe") if with_[name] != without[name]]
    sides = [" ".join(str(side[name]) for name in names) for side in (with_, without)]
    if with_["erasing"] != without["erasing"]:
        for place, side in enumerate((with_, without)):
            sides[place] += " with erasing" if side["erasing"] else " without erasing"
    return " against ".join(sides)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def verdicts(claims: list) -> dict:
    """{verdict: how many claims have it}, for the verdicts that occur."""
    given = [claim["verdict"] for claim in claims]
    return {word: given.count(word) for word in VERDICTS if word in given}


def claim_table(claims: list) -> pd.DataFrame:
    """The claims as a table for readers."""
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
        word = claim.get("verdict")
        if word not in VERDICTS:
            sentences.append(f"{name}: verdict {word!r}; expected one of {', '.join(VERDICTS)}")
        evidence = claim.get("evidence", [])
        supported = evidence and claim.get("on") in DATA
        if word != "not testable here" and not supported:
            sentences.append(
                f"{name}: a verdict without evidence, or without the data it is on "
                f"({', '.join(DATA)})"
            )
        for piece in evidence:
            # Links to others are not checked: a test must work without a network.
            if claim.get("on") == "others" and piece.startswith("https://github.com/"):
                continue
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
