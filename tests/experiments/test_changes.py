"""Single changes: which runs are compared, and what a comparison says."""

import re

import numpy as np
import pytest
from conftest import ROOT
from made_records import record

from reidsa_utils import InputError
from reidsa_utils.attention import FORMS
from reidsa_utils.experiments import changes
from reidsa_utils.experiments.changes import Setting, no_sa, sa
from reidsa_utils.experiments.records import read_records


def made(variant, form, seed, level, **other):
    """A run of CUHK03-NP labeled whose four queries have the average precision `level`."""
    first_match = [1 if level > 0.5 else 2] * 4
    run = record(variant, form, seed, first_match, [level] * 4)
    run["config"] |= {"benchmark": changes.BENCHMARK} | other
    names = ("benchmark", "variant", "form", "recipe", "erasing", "seed", "epochs")
    run["identity"] = {name: run["config"][name] for name in names}
    return run


def all_forms(seeds=(0, 1)):
    """No SA and every form of attention, the runs without SA at 40 %, the others at 60 %."""
    runs = []
    for seed in seeds:
        for form in FORMS:
            variant = "b_p_ds" if form == "none" else "b_p_ds_sa2"
            runs.append(made(variant, form, seed, 0.4 if form == "none" else 0.6))
    return runs


def test_the_largest_group_that_was_trained_alike_is_chosen():
    other = [made("b_p_ds", "none", seed, 0.1, epochs=3) for seed in range(4)]
    runs = changes.choose_runs([*other, *all_forms()], "made")
    assert (runs.source, runs.profile, runs.left_out) == ("rendered", "laptop", 4)
    assert set(runs.by_setting) == {no_sa()} | {sa(form) for form in FORMS if form != "none"}
    for setting, of_seed in runs.by_setting.items():
        assert sorted(of_seed) == [0, 1]
        for seed, run in of_seed.items():
            assert run["config"]["epochs"] == 10 and run["config"]["seed"] == seed
            assert changes.setting_of(run["config"]) == setting


def test_runs_that_cannot_be_compared_are_refused():
    runs = all_forms()
    twice = "{variant}, {form}".format(**runs[0]["config"])
    cases = (
        ([r for r in runs if r["config"]["form"] != "l1"], "lacks the runs of part 1"),
        ([*runs, runs[0]], f"two records of {twice}, recipe paper, seed 0"),
        ([], "made holds no runs of CUHK03-NP labeled; run `snakemake"),
    )
    for records, words in cases:
        with pytest.raises(InputError, match=re.escape(words)):
            changes.choose_runs(records, "made")


def test_a_change_by_hand():
    """Twice +20 points: seeds that agree; a setting without runs is said to be without."""
    runs = changes.choose_runs([*all_forms(), made("b", "none", 0, 0.3)], "made")
    named = {
        "l1": (sa("l1"), no_sa()),
        "backbone": (no_sa(), no_sa(variant="b")),
        "later": (sa("l1", "released"), no_sa()),
    }
    rows = changes.compare(runs, named)
    of_map = rows[rows.metric == "mAP"].set_index("change")
    assert of_map.seeds.to_dict() == {"l1": 2, "backbone": 1, "later": 0}
    assert of_map.loc["l1", "deltas"] == pytest.approx([20, 20])
    assert of_map.loc["l1", "without"] == pytest.approx(40)
    rank1 = rows[rows.metric == "rank-1"].set_index("change")
    assert rank1.loc["l1", "Δ"] == pytest.approx(100)

    table = changes.as_table(rows)
    assert table.loc["l1", "Δ mAP"] == "+20.0 (+20.0 to +20.0)"
    assert table.loc["l1", ["mAP without", "mAP with"]].tolist() == ["40.0", "60.0"]
    assert table.loc["backbone", "Δ mAP"] == "+10.0 (+10.0 to +10.0, one seed)"
    assert table.loc["later", ["Δ mAP", "mAP without"]].tolist() == ["not run yet", ""]

    told = changes.conclude(changes.correct(rows)).splitlines()
    assert told[:2] == ["mAP higher:", "   l1"]
    assert told[2:4] == ["mAP not known (one seed):", "   backbone"]
    assert not [line for line in told if "later" in line]
    text = changes.as_markdown(changes.correct(rows), runs)
    assert "| l1 | parts | 2 | mAP | 40.0 | 60.0 | +20.0 (+20.0 to +20.0) |" in text
    assert "later" not in text


def test_a_loss_and_a_difference_that_is_not_told_from_zero():
    """Three seeds: -20 points each; and -1, 0 and +1 points."""
    runs = all_forms((0, 1, 2))
    for r in runs:
        level = {"softmax": 0.2, "l1": 0.4 + 0.01 * (r["config"]["seed"] - 1)}.get(
            r["config"]["form"]
        )
        if level:
            r["metrics"] = made("b", "none", 0, level)["metrics"]
    runs = changes.choose_runs(runs, "made")
    named = {form: (sa(form), no_sa()) for form in ("softmax", "l1")}
    told = changes.conclude(changes.correct(changes.compare(runs, named))).splitlines()
    assert told[:4] == [
        "mAP lower:",
        "   softmax",
        "mAP neither (the interval contains zero):",
        "   l1",
    ]


def test_found_by_one_by_hand():
    """Of four queries l1 finds one that no SA does not, and misses two that it finds."""
    right = {"none": [1, 1, 1, 5], "l1": [1, 2, 2, 1]}
    runs = []
    for r in all_forms():
        form = r["config"]["form"]
        r["metrics"]["parts"]["first_match"] = right.get(form, right["none"])
        runs.append(r)
    table = changes.found_by_one(changes.choose_runs(runs, "made"))
    assert table.loc["l1", ["with SA only (%)", "without only (%)"]].tolist() == [25, 50]
    assert table.loc["softmax", ["with SA only (%)", "without only (%)"]].tolist() == [0, 0]
    assert (table["with SA only, sd"] == 0).all() and "none" not in table.index


def test_committed_differences_by_plain_loops():
    """The levels of the committed records: l1 less no SA, and what is on file beside them."""
    records = read_records(ROOT / "results")
    runs = changes.choose_runs(records, "results")
    rows = changes.compare(runs, {"l1 instead of no SA": (sa("l1"), no_sa())})
    levels = {}
    for r in records:
        c = r["config"]
        if c["benchmark"] == changes.BENCHMARK and Setting(
            c["recipe"], c["variant"], c["form"], c["erasing"]
        ) in (sa("l1"), no_sa()):
            levels[c["form"], c["seed"]] = 100 * r["metrics"]["parts"]["mean_ap"]
    expected = [levels["l1", seed] - levels["none", seed] for seed in (0, 1, 2)]
    [row] = rows[rows.metric == "mAP"].itertuples()
    np.testing.assert_allclose(row.deltas, expected)
    on_file = (ROOT / "results" / "controls.md").read_text(encoding="utf-8")
    line = f"| l1 instead of no SA | parts | 3 | mAP | {row.without:.1f} |"
    assert line in on_file and f"{row.Δ:+.1f} ({row.low:+.1f} to {row.high:+.1f})" in on_file
