"""Numbers of maps on file: compared by hand; and what notebook 07 says of the committed ones."""

import numpy as np
import pytest
from conftest import ROOT

from reidsa_utils.experiments import maps_on_file as on_file
from reidsa_utils.experiments.missing_parts import kept_without
from reidsa_utils.experiments.statistics import difference

FIRST_THREE = (0, 1, 2)  # stages 1 to 3, where SA sits


@pytest.fixture(scope="module")
def committed():
    return on_file.read_maps(ROOT / "results" / "maps")


def entry(seed=0, form="none", **more):
    return {"run": f"{form}-{seed}", "identity": {"form": form, "seed": seed}, **more}


def of_test(*names):
    """Pickers of measures of the test images."""
    return [lambda e, name=name: e["test"][name] for name in names]


# ---- by hand


def test_differences_pair_the_seeds_and_leave_out_what_is_not_there():
    maps = {
        "none": {s: entry(s, x=[v, 0.5]) for s, v in ((0, 0.1), (1, 0.2), (2, np.nan), (7, 0.9))},
        "l1": {s: entry(s, "l1", x=[v, 0.5]) for s, v in ((2, 0.9), (1, 0.5), (0, 0.3))},
    }
    first, second = on_file.against_no_sa(maps, "l1", lambda e: e["x"])
    assert first["seeds"] == 2 and first["deltas"] == pytest.approx([20, 30])
    assert second["seeds"] == 3 and second["Δ"] == 0
    nowhere = on_file.own_values([[np.nan], [np.nan]])
    assert nowhere[0]["seeds"] == 0 and np.isnan(nowhere[0]["Δ"])
    [own] = on_file.own_values([[0.2], [0.4]])
    assert own["Δ"] == pytest.approx(30) and own["deltas"] == pytest.approx([20, 40])


def test_overlap_is_with_the_network_of_the_same_seed():
    """For networks without SA it is with those of other seeds; other runs do not count."""

    def of(form, seed, overlap):
        return entry(seed, form, overlap={run: {"same": [v]} for run, v in overlap.items()})

    maps = {
        "none": {0: of("none", 0, {}), 1: of("none", 1, {"none-0": 0.7, "elsewhere": 0.1})},
        "l1": {
            0: of("l1", 0, {"none-0": 0.6, "none-1": 0.2}),
            1: of("l1", 1, {"none-0": 0.3, "none-1": 0.5}),
        },
    }
    assert on_file.overlaps_with_no_sa(maps, "l1", "same").ravel().tolist() == [0.6, 0.5]
    assert on_file.overlaps_with_no_sa(maps, "none", "same").ravel().tolist() == [0.7]


def test_the_cost_of_marking_is_a_weighted_mean_over_parts():
    """Hair: marked 0.5 of 1, unmarked 1 of 1. Bag: marked and unmarked alike; twice as sure."""
    hair = {"index": [0, 1], "parts": [0.5, 1.0]}
    bag = {"index": [2, 3, 4, 5], "parts": [0.8] * 4}
    missing = {
        "before": {"parts": [1.0] * 6},
        "after": {"hair": hair, "bag": bag},
        "most": [["hair", "hat", "bag", "bag", "hat", ""]] * 4,
        "least": [["hat", "hair", "hat", "", "bag", "bag"]] * 4,
    }
    cost = on_file.cost_of_marking(entry(missing=missing), at_least=1)
    assert cost == pytest.approx([-0.5 * (1 / 2) / (1 / 2 + 1)] * 4)
    assert np.isnan(on_file.cost_of_marking(entry(missing=missing), at_least=3)).all()


def test_the_words_of_verdicts_name_their_stages():
    rows = [difference([0.0] * 3, values) for values in ([0.1, 0.11, 0.12], [-0.1, 0.1, 0.0])]
    assert on_file.verdicts(rows) == "1: confirmed; 2: not shown"
    assert on_file.verdicts(rows[1:]) == "not shown"
    lost = difference([0.0] * 3, [-0.1, -0.11, -0.12])
    assert on_file.verdicts([lost, rows[1], lost]) == "1, 3: contradicted; 2: not shown"
    assert on_file.verdicts([difference([0.0] * 2, [0.1, 0.1])]) == "not shown"  # two seeds


# ---- what notebook 07 says of the committed numbers


@pytest.mark.parametrize("form", ["softmax", "l1"])
def test_fewer_positions_at_stages_1_to_3(committed, form):
    for pick in (*of_test("cells", "on_person"), lambda e: e["train"]["cells"]):
        rows = on_file.against_no_sa(committed, form, pick)
        for s in FIRST_THREE:
            assert rows[s]["high"] < 0 and max(rows[s]["deltas"]) < 0
    [rows] = [on_file.against_no_sa(committed, form, p) for p in of_test("cells", "on_person")[:1]]
    assert rows[3]["low"] < 0 < rows[3]["high"]


def test_l1_puts_more_energy_on_the_person_at_stages_1_and_2(committed):
    [inside] = of_test("inside")
    rows = on_file.against_no_sa(committed, "l1", inside)
    assert [row["low"] > 0 for row in rows] == [True, True, False, False]


def test_covered_parts_of_l1_rise_in_two_of_six_and_at_no_stage_twice(committed):
    rises = []
    for images in ("test", "train"):
        rows = on_file.against_no_sa(committed, "l1", lambda e, key=images: e[key]["parts"])
        rises.append([rows[s]["low"] > 0 for s in FIRST_THREE])
        assert all(rows[s]["high"] > 0 for s in FIRST_THREE)
    assert np.sum(rises) == 2 and not np.all(rises, axis=0).any()


def test_overlap_with_the_maps_without_sa(committed):
    def overlap(form, what):
        return on_file.overlaps_with_no_sa(committed, form, what).mean(0)[:3]

    assert (overlap("l1", "at") > overlap("none", "at")).all()
    assert (overlap("l1", "chance") < overlap("l1", "same")).all()
    assert (overlap("l1", "same") < overlap("sigmoid", "same")).all()
    assert (overlap("softmax", "same") < 0.05).all()
    assert (overlap("softmax", "at") > 1.5).all()


def test_deletion_and_insertion_of_l1_in_every_seed(committed):
    reach = {"deletion": [True, True, False], "insertion": [True, True, True]}
    for score, sign in (("deletion", -1), ("insertion", 1)):
        pick = lambda e, score=score: on_file.against_random(e, score)  # noqa: E731
        rows = on_file.against_no_sa(committed, "l1", pick)
        for s in FIRST_THREE:
            assert (sign * np.array(rows[s]["deltas"]) > 0).all()
            nearest_zero = rows[s]["high"] if sign < 0 else rows[s]["low"]
            assert (sign * nearest_zero > 0) == reach[score][s]


def test_at_stage_4_every_map_is_wider_than_high(committed):
    entries = [e for of_form in committed.values() for e in of_form.values()]
    assert len(entries) == 15 and all(on_file.elongation(e)[3] < 1 for e in entries)


@pytest.mark.parametrize("form", ["softmax", "l1"])
def test_no_form_is_shown_to_keep_more_without_a_part(committed, form):
    parts = on_file.parts_of(committed)
    assert len(parts) == 8
    for part in parts:
        pick = lambda e, part=part: kept_without(e, part)  # noqa: E731
        assert on_file.verdicts(on_file.against_no_sa(committed, form, pick)) == "not shown"
    [hair] = on_file.against_no_sa(committed, "l1", lambda e: kept_without(e, "hair"))
    assert -5 < hair["low"] < 0 < hair["high"] < 5


def test_a_part_that_l1_marks_at_stages_1_and_2_is_missed_more(committed):
    cost = {}
    for form, of_form in committed.items():
        cost[form] = on_file.own_values([on_file.cost_of_marking(e) for e in of_form.values()])
    assert cost["l1"][0]["Δ"] < -5 and cost["l1"][1]["Δ"] < -5
    assert cost["l1"][0]["high"] < 0 and cost["softmax"][0]["high"] < 0
    assert 0 < cost["l1"][1]["high"] < 0.5
    assert all(cost[form][3]["Δ"] > 0 for form in committed)
    assert all(row["low"] < 0 < row["high"] for row in cost["none"])
