"""Numbers by name: against numbers worked out by hand, and against plain loops over the committed files."""

import json
import re

import numpy as np
import pytest

from reidsa_utils import SETTINGS, InputError
from reidsa_utils.experiments import numbers
from reidsa_utils.experiments.numbers import SELECTIONS, number
from reidsa_utils.experiments.records import ROOT
from reidsa_utils.support.files import read_toml


def committed(pattern):
    """The content of files in results/, in the order of their names."""
    paths = sorted((ROOT / "results").glob(pattern))
    assert paths
    return [json.loads(path.read_text()) for path in paths]


def examined(form, seed, cells, spreads, overlap, before, after):
    """What `reidsa examine --maps` writes, as far as numbers are taken from it."""
    vertical, horizontal = spreads
    return {
        "run": f"{form}-{seed}",
        "identity": {"form": form, "seed": seed},
        "test": {"cells": cells, "vertical": vertical, "horizontal": horizontal},
        "overlap": {run: {"same": values} for run, values in overlap.items()},
        "missing": {"before": {"parts": before}, "after": {"hair": after}},
    }


@pytest.fixture
def two_stages(tmp_path, monkeypatch):
    """results/small: two seeds without SA and with l1, networks of two stages, three queries."""
    folder = tmp_path / "results" / "small"
    folder.mkdir(parents=True)
    contents = [
        examined(
            "none",
            0,
            [0.5, 0.6],
            ([0.9, 0.8], [0.6, 1.0]),
            {},
            [1.0, 0.5, 0.2],
            {"index": [0, 1], "parts": [0.6, 0.3]},
        ),
        examined(
            "none",
            1,
            [0.7, 0.6],
            ([0.9, 0.8], [0.9, 1.0]),
            {"none-0": [0.8, 0.6]},
            [1.0, 0.5, 0.2],
            {"index": [0, 1], "parts": [0.9, None]},
        ),
        examined(
            "l1",
            0,
            [0.4, 0.65],
            ([0.9, 0.8], [0.6, 1.0]),
            {"none-0": [0.3, 0.5], "none-1": [0.1, 0.1]},
            [0.8, 0.8, 0.2],
            {"index": [0, 1], "parts": [0.4, 0.4]},
        ),
        examined(
            "l1",
            1,
            [0.5, 0.7],
            ([0.9, 0.8], [0.6, 1.0]),
            {"none-0": [0.1, 0.1], "none-1": [0.5, 0.9]},
            [0.8, 0.8, 0.2],
            {"index": [0, 1], "parts": [0.8, 0.8]},
        ),
    ]
    for content in contents:
        (folder / f"{content['run']}.json").write_text(json.dumps(content))
    small = {"folder": "small"}
    spread = {"keys": ["test", "vertical"], "over": ["test", "horizontal"]}
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    monkeypatch.setitem(SELECTIONS["stages"], "t-cells", small | {"keys": ["test", "cells"]})
    monkeypatch.setitem(SELECTIONS["stages"], "t-spread", small | spread)
    monkeypatch.setitem(SELECTIONS["stages"], "t-times", small | spread | {"unit": 1})
    monkeypatch.setitem(SELECTIONS["overlaps"], "t-overlap", small | {"keys": ["same"]})
    monkeypatch.setitem(SELECTIONS["removed"], "t-without", small)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("t-cells.l1.1:.1f", "45.0"),  # (40 + 50) / 2
        ("t-cells.l1.1.deltas", "-10.0 -20.0"),
        ("t-cells.l1.1.loss", "15.0"),
        ("t-cells.l1.1-2.highest:.1f", "67.5"),
        ("t-cells.l1.1-2.lowest_delta", "-15"),
        ("t-cells.l1.1-2.highest_delta:+.1f", "+7.5"),
        ("t-spread.none.1", "125"),  # (1.5 + 1) / 2
        ("t-times.none.1:.2f", "1.25"),
        ("t-times.l1.1.delta:+.2f", "+0.25"),  # 1.5 - 1.5 and 1.5 - 1
        ("t-overlap.l1.1", "40"),  # with the network of the same seed: 0.3 and 0.5
        ("t-overlap.l1.1-2.highest", "70"),
        ("t-overlap.none.2", "60"),  # the one pair of two seeds
        ("t-without.none.hair", "75"),  # 0.9 of 1.5; without the lost match 0.9 of 1
        ("t-without.l1.hair.deltas", "-10.0 +10.0"),  # 50 - 60 and 100 - 90
        ("t-without.l1.hair.delta", "+0.0"),
    ],
)
def test_measures_by_hand(two_stages, name, written):
    assert number(name) == written


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("t-cells.l1.3", "stages are 3; expected one of 1 to 2"),
        ("t-cells.l1.2-1.lowest", "stages are 2-1; expected one of 1 to 2"),
        ("t-cells.softmax.1", "no run with the form softmax fits its selection"),
        ("t-overlap.l1.1.delta", "the records do not tell it"),  # it is a comparison by itself
        ("t-without.l1.head", "unknown place 'head'; known: hair"),
        ("demo-losses.l1.loss", "unknown place 'loss'; known: part1"),
        ("photo-transfer.parts.rank-1.only_with", "unknown word for a number 'only_with'"),
        ("loss-photo-last.value", "loss-photo-last is one number, with nothing behind its name"),
        ("speed.step.second", "unknown key 'second'; known: GFLOP an image"),
        ("speed.step.the peak, GFLOP/s, before and after", "of step is not a number"),
    ],
)
def test_a_number_that_is_not_there_is_refused_in_one_sentence(request, name, words):
    if name.startswith("t-"):
        request.getfixturevalue("two_stages")
    with pytest.raises(InputError) as error:
        number(name)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_epochs_that_a_run_does_not_have_are_refused(monkeypatch):
    entry = SELECTIONS["histories"]["demo-losses"] | {"during": [10, 19]}
    monkeypatch.setitem(SELECTIONS["histories"], "mine", entry)
    with pytest.raises(InputError, match="a run of 18 epochs has no epoch 19"):
        number("mine.l1.final")


def test_histories_by_plain_loops():
    """Means over epochs, seed by seed: a loss, the accuracy, the scatter of a gradient's norm."""
    losses, accuracies, scatters = {}, {}, {}
    for form in ("none", "softmax"):
        runs = committed(f"market1501-rendered-demo-*-{form}-paper-erasing-e18-s?.json")
        histories = [run["history"] for run in runs]
        assert len(histories) == 5
        losses[form] = [np.mean([line["losses"]["stage2"] for line in h]) for h in histories]
        accuracies[form] = [np.mean([line["accuracy"] for line in h]) for h in histories]
        scatters[form] = []
        for history in histories:
            late = [line["gradient"] for line in history if 10 <= line["epoch"] <= 18]
            scatters[form].append(np.mean([g["sd"][2] / g["mean"][2] for g in late]))
    deltas = np.subtract(losses["softmax"], losses["none"])
    assert number("demo-losses.softmax.stage2.delta:+.4f") == f"{deltas.mean():+.4f}"
    assert number("demo-losses.softmax.stage2.sd:.4f") == f"{deltas.std(ddof=1):.4f}"
    assert number("demo-losses.softmax.stage2:.4f") == f"{np.mean(losses['softmax']):.4f}"
    lost = 100 * np.subtract(accuracies["none"], accuracies["softmax"]).mean()
    assert number("demo-training.softmax.accuracy.loss:.3f") == f"{lost:.3f}"
    more = np.subtract(scatters["softmax"], scatters["none"]).mean()
    assert number("demo-scatter.softmax.3.delta:.4f") == f"{more:.4f}"


def test_queries_that_one_of_two_finds_by_plain_loops():
    """Three seeds, in percent; and one seed, counted."""

    def firsts(pattern):
        return [run["metrics"]["parts"]["first_match"] for run in committed(pattern)]

    pattern = "{}-rendered-laptop-{}-paper-erasing-e10-s{}.json"
    shares = []
    for seed in range(3):
        [with_] = firsts(pattern.format("cuhk03_np_labeled", "b_p_ds_sa2-l1", seed))
        [without] = firsts(pattern.format("cuhk03_np_labeled", "b_p_ds-none", seed))
        only = [a == 1 and b != 1 for a, b in zip(with_, without, strict=True)]
        shares.append(100 * sum(only) / len(only))
    assert number("labeled-l1.parts.rank-1.only_with:.3f") == f"{np.mean(shares):.3f}"
    [with_] = firsts(pattern.format("market1501", "b_p_ds_sa2-softmax", 3))
    [without] = firsts(pattern.format("market1501", "b_p_ds-none", 3))
    lost = sum(a != 1 and b == 1 for a, b in zip(with_, without, strict=True))
    assert lost > 100
    assert number("market-softmax-stored.parts.rank-1.count_without") == str(lost)


def test_numbers_of_files():
    """Keys with dots and colons, percent, minutes, and a place in a list."""
    [speed] = committed("speed/cpu.json")
    eager = speed["attention"]["stage 1, eager: time, copies of the map"]
    assert number("speed.attention.stage 1, eager: time, copies of the map:.1f") == f"{eager:.1f}"
    sorting = speed["evaluation"]["of np.argsort's time"]
    assert number("speed.evaluation.of np.argsort's time:.2f") == f"{sorting:.2f}"
    waiting = speed["step"]["waiting for data"]
    assert number("speed.step.waiting for data:.2%") == f"{100 * waiting:.2f} %"
    ours, baseline = speed["dense"]["memory added, ours and the baseline's, GiB"]
    assert number("speed-dense-memory") == f"{ours:.2f}"
    assert number("speed-dense-memory-baseline") == f"{baseline:.2f}"
    [run] = committed("calibration/*.json")
    assert number("minutes-calibration") == f"{run['seconds']['training'] / 60:.0f}"


def test_what_rounds_to_zero_has_no_minus():
    delta = float(number("body-parts-train.l1.2.delta:.4f"))
    assert -0.5 < delta < 0
    assert number("body-parts-train.l1.2.delta:+.0f") == "0"
    low, high = number("body-parts-train.l1.2.interval").split(" to ")
    assert low.startswith("-") and high.startswith("+")


# A difference with its sign, or a share in percent.
RESULT = re.compile(r"[+−-]\d+\.\d|\d %")
# What the paper says, in a page of results: a quotation, or the first column of the overview.
PAPER = re.compile(r"^> .*|^\| (?:[^|]*) (?=\| (?:[^|]*) \| \[)", re.M)


def findings():
    """{page: the text of its findings}: of the README, and of docs/results.md."""
    readme = (ROOT / "README.md").read_text()
    results = (ROOT / "docs" / "results.md").read_text()
    of_results = results.split("## The findings at a glance")[1].split("## How good are these")[0]
    return {
        "README.md": readme.split("## Five findings")[1].split("\n## ")[0],
        "docs/results.md": PAPER.sub("", of_results),
    }


@pytest.mark.parametrize(("page", "least"), [("README.md", 8), ("docs/results.md", 70)])
def test_no_result_is_typed_by_hand_where_most_of_them_stand(page, least):
    """In the findings; a share of a computation that no record holds is said as a bound in words."""
    text = findings()[page]
    assert text.count("<!--=") >= least
    assert RESULT.findall("mAP +0.4, −1.2 and 19 %") == ["+0.4", "−1.2", "9 %"]
    by_hand = RESULT.findall(re.sub(r"<!--=.*?<!--/-->", "", text).replace("95 % interval", ""))
    assert by_hand == []


def test_no_result_is_typed_by_hand_in_the_ledger():
    """In the claims that rest on runs; what is published is the paper's own."""
    by_hand = []
    ledger = read_toml(SETTINGS / "claims.toml")["claims"]
    for claim in ledger:
        if claim["on"] in ("rendered", "real"):
            by_hand += RESULT.findall(re.sub(r"\{.*?\}", "", claim["found"]))
    assert by_hand == []
