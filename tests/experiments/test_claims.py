"""The ledger of claims: a verdict needs evidence that exists, and no word says more than its records.

Words about numbers are computed by the rule; those that are typed are held against the records here.
"""

import json
import re

import numpy as np
import pytest
from scipy import stats
from torch import nn

from reidsa_utils import SETTINGS
from reidsa_utils.experiments import pairing, tables
from reidsa_utils.experiments.claims import (
    claim_table,
    judge,
    judged_by,
    problems,
    read_claims,
    verdicts,
)
from reidsa_utils.experiments.numbers import Comparison, comparison, number
from reidsa_utils.experiments.records import ROOT, read_records
from reidsa_utils.model import ReIDNet
from reidsa_utils.support.files import read_toml


@pytest.fixture(scope="module")
def claims():
    return read_claims()


@pytest.fixture(scope="module")
def runs():
    return tables.run_table(read_records(ROOT / "results"))


def committed(folder):
    """{(form, seed): content} of the files of `reidsa examine` in a folder of results/."""
    contents = [json.loads(path.read_bytes()) for path in (ROOT / "results" / folder).glob("*")]
    return {(c["identity"]["form"], c["identity"]["seed"]): c for c in contents}


def word(claims, name):
    return next(claim["verdict"] for claim in claims if claim["id"] == name)


def test_every_claim_has_a_verdict_and_evidence_that_exists(claims):
    assert len(claims) >= 30 and len({c["id"] for c in claims}) == len(claims)
    assert problems(claims) == []
    assert {"abstract", "1", "2", "3", "4", "5", "6"} <= {
        place.strip()[0] if place.strip()[0].isdigit() else place.strip()
        for c in claims
        for place in c["place"].split(",")
    }
    assert sum(verdicts(claims).values()) == len(claims) == len(claim_table(claims))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": "confirmd"}, "verdict 'confirmd'; expected one of confirmed"),
        ({"evidence": []}, "a verdict without evidence"),
        (
            {"evidence": ["06_tables#No such heading"]},
            "no such evidence: 06_tables#No such heading",
        ),
        ({"found": ""}, "found is empty"),
        ({"evidence": ["09_nothing#One"]}, "no such evidence"),
        ({"evidence": ["results/market1501-rendered-huge-*.json"]}, "no such evidence"),
        ({"evidence": ["tests/test_attention.py::test_nothing"]}, "no such evidence"),
        ({"on": "rendred"}, "the data it is on"),
        ({"evidence": [""]}, "no such evidence"),
        ({"evidence": ["/etc/*"]}, "no such evidence"),
        ({"evidence": ["*"]}, "no such evidence"),
    ],
)
def test_a_claim_without_evidence_is_refused(claims, change, words):
    good = next(c for c in claims if c["id"] == "eq-8-12")
    assert problems([good]) == []
    [problem] = problems([good | change])
    assert problem.startswith("eq-8-12: ") and words in problem
    untold = good | {"verdict": "not testable here", "evidence": [], "on": ""}
    assert problems([untold]) == []  # its reason stands in `found`


def test_no_word_about_numbers_is_typed():
    """A claim on runs has comparisons or a typed word, never both; the typed ones are named here."""
    typed = set()
    for claim in read_toml(SETTINGS / "claims.toml")["claims"]:
        computed = "judged" in claim or "theirs" in claim
        assert computed != ("verdict" in claim), claim["id"]
        if not computed and claim["on"] in ("rendered", "real"):
            typed.add(claim["id"])
    assert typed == {
        "gap-localizes",
        "gap-concentrated",
        "keeps-gap-regions",
        "budget",
        "large-p-interesting",
        "rerank-helps",
        "elongated",
        "fig6",
        "market-stable",
    }


SETTING = {
    "benchmark": "market1501",
    "source": "rendered",
    "profile": "demo",
    "backbone": "thin",
    "weights": "none",
    "variant": "b_p_ds_sa2",
    "form": "l1",
    "recipe": "paper",
    "erasing": True,
    "lr": 0.05,
}


def made(low, high, seeds=3, paper=2.0, retrieval=True, **narrow):
    found = {"seeds": seeds, "Δ": (low + high) / 2, "low": low, "high": high}
    found |= {"low90": narrow.get("low90", low), "high90": narrow.get("high90", high)}
    without = SETTING | {"variant": "b_p_ds", "form": "none"}
    return Comparison(found, [(SETTING, without)], paper, retrieval)


@pytest.mark.parametrize(
    ("compared", "claim", "word"),
    [
        (made(1, 3, seeds=2), {}, "not shown"),
        (made(-9, -2), {"confound": "the rate"}, "mixed"),
        (made(-9, -2), {}, "contradicted"),
        (made(1, 3), {}, "confirmed"),
        (made(1, 3), {"gain": 3.5}, "smaller than claimed"),
        (made(0.5, 1.5), {}, "smaller than claimed"),
        (made(-0.9, 0.9), {}, "equivalent"),
        (made(-4, 1.9), {}, "smaller than claimed"),
        (made(-4, 2.1), {}, "not shown"),
        # A measure of networks: no margin, and any gain is one.
        (made(-0.5, 0.5, retrieval=False), {}, "not shown"),
        (made(0.1, 0.5, retrieval=False), {}, "confirmed"),
        (made(-0.5, -0.1, retrieval=False), {}, "contradicted"),
        (made(-0.5, -0.1, retrieval=False), {"less": True}, "confirmed"),
        (made(0.1, 0.5, retrieval=False), {"less": True}, "contradicted"),
        # A claim of no difference.
        (made(-0.9, 0.9), {"same": True}, "confirmed"),
        (made(-4, 2), {"same": True}, "not shown"),
        (made(1.5, 4), {"same": True}, "contradicted"),
        (made(0.5, 4), {"same": True}, "not shown"),
        (made(1.5, 4, seeds=1), {"same": True}, "not shown"),
        (made(-0.5, 0.5), {"same": True, "confound": "the rate"}, "mixed"),
    ],
)
def test_the_word_is_that_of_the_table_of_verdicts(compared, claim, word):
    said, sentence = judged_by(compared, claim, "made.parts.mAP")
    assert said == word
    assert f": {word}" in sentence
    assert re.search(r"[+-]\d\.\d+ \([+-]\d\.\d+ to [+-]\d\.\d+\)", sentence)


def test_every_computed_verdict_lists_its_data_network_seeds_and_rate(claims):
    judged = [claim for claim in claims if "judged" in claim]
    assert len(judged) > 20
    for claim in judged:
        names = [*claim["judged"], *claim.get("beside", [])]
        settings = re.findall(
            r"(?:In this setting|Over \d settings): [^.]*(?:\.\d[^.]*)*", claim["found"]
        )
        assert 1 <= len(settings) <= len(names), claim["id"]
        for setting in settings:
            assert re.search("rendered|real", setting), setting
            assert re.search("thin ResNet|MobileNetV2", setting), setting
            assert re.search(r"\d seed", setting), setting
            assert re.search(r"learning rate 0\.\d", setting), setting
        if not any(name.startswith("pooled") for name in claim["judged"]):
            assert "In this setting" in settings[0], claim["id"]


def test_a_general_claim_of_better_retrieval_is_judged_on_several_settings(claims):
    for name in ("sa-improves", "sa-improves-l1"):
        [claim] = [claim for claim in claims if claim["id"] == name]
        [by] = claim["judged"]
        compared = comparison(by)
        assert len(compared.settings) >= 2 and compared.found["seeds"] >= 3
        assert f"Over {len(compared.settings)} settings" in claim["found"]


def test_several_comparisons_are_no_better_than_the_worst():
    claim = {"found": "So", "judged": ["body-parts.l1.1-3", "body-parts-train.l1.1-3"]}
    words = [judged_by(comparison(name), {}, name)[0] for name in claim["judged"]]
    assert words == ["confirmed", "not shown"]
    assert judge(claim)["verdict"] == "not shown"
    claim["judged"].append("cells.l1.1-3")
    assert judge(claim)["verdict"] == "contradicted"


def test_a_comparison_is_what_a_loop_over_the_files_gives():
    """The mean over stages of each seed, then Student's t; and a run's own rate in a difference."""
    maps = committed("maps")
    deltas = []
    for seed in range(3):
        cells = [np.mean(maps[form, seed]["test"]["cells"][:3]) for form in ("l1", "none")]
        deltas.append(100 * (cells[0] - cells[1]))
    found = comparison("cells.l1.1-3").found
    assert np.isclose(found["Δ"], np.mean(deltas))
    half = stats.t(2).ppf(0.975) * np.std(deltas, ddof=1) / np.sqrt(3)
    assert np.isclose(found["high"] - found["low"], 2 * half)
    [(with_, without)] = comparison("rate-best-softmax.parts.mAP").settings
    assert (with_["lr"], without["lr"]) == (0.025, 0.2)
    [(with_, without)] = comparison("rate-02-losses.softmax.final").settings
    assert (with_["lr"], with_["form"], without["form"]) == (0.2, "softmax", "none")
    assert comparison("market-l1.parts.mAP").paper == pytest.approx(2.1)  # 81.7 - 79.6
    assert comparison("photo-l1.parts.mAP").paper == pytest.approx(1.2)  # Table 2
    assert np.isnan(comparison("lambda-0.parts.mAP").paper)


def test_words_that_rest_on_counts(claims):
    """What `consistent` and its like say beside the rule: signs, and which intervals hold zero."""
    for name in ("market-softmax", "duke-softmax", "labeled-softmax", "detected-softmax"):
        assert max(comparison(f"{name}.parts.mAP").found["deltas"]) < 0
    for name in ("market-l1", "demo-l1", "labeled-l1"):
        found = comparison(f"{name}.parts.mAP").found
        assert found["low"] < 0 < found["high"]
    assert word(claims, "consistent") == "contradicted"
    assert word(claims, "consistent-l1") == "not shown"
    assert word(claims, "table2-sa1") == "not shown"  # one seed each


def test_the_learning_rate_is_a_confound_of_gradient_and_convergence(claims):
    """At one of the three rates nothing is shown, so the words are mixed."""
    for claim, rates in (
        ("stabilizes", ("rate-00125-scatter.softmax.1-4", "rate-02-scatter.softmax.1-4")),
        ("fast-convergence", ("rate-00125-losses.softmax.final", "rate-02-losses.softmax.final")),
    ):
        shown = [comparison(name).found["low"] > 0 for name in rates]
        assert sorted(shown) == [False, True]
        assert word(claims, claim) == "mixed"


def test_gap_localizes(claims):
    maps = committed("maps")
    more = []
    for seed in range(3):
        test = maps["none", seed]["test"]
        more.append(np.array(test["inside"]) - test["person"])
    more = np.array(more)  # (seeds, stages)
    low = more.mean(0) - stats.t(2).ppf(0.975) * more.std(0, ddof=1) / np.sqrt(3)
    assert (low > 0).all() and word(claims, "gap-localizes") == "confirmed"


def test_gap_concentrated(claims):
    """Half of the positions are neither one place nor spread evenly, so the word is no verdict."""
    shares = [committed("maps")["none", seed]["test"]["cells"][:3] for seed in range(3)]
    assert 0.3 < np.min(shares) and np.max(shares) < 0.8
    assert word(claims, "gap-concentrated") == "not shown"


def test_keeps_gap_regions(claims):
    """l1 lies where average pooling's map is strong, the softmax on few positions of it."""
    l1, softmax = (float(number(f"strength-there.{f}.1-3.lowest:.2f")) for f in ("l1", "softmax"))
    assert l1 > 1 and softmax > 1
    assert float(number("overlap.softmax.1-3.highest")) < float(number("overlap.l1.1-3.lowest"))
    assert word(claims, "keeps-gap-regions") == "in part"


def test_budget(claims):
    for (form, _), content in committed("examined").items():
        if form == "softmax":
            assert min(content["weights"]["softmax"]["largest"][:3]) > 0.8
    assert word(claims, "budget") == "in part"


def test_rerank_helps(claims, runs):
    """mAP rises everywhere, rank-1 does not."""
    gains = tables.reranking_gains(runs)
    ours = gains.loc[[row for row in gains.index if row[:3] == ("laptop", "rendered", "paper")]]
    shown = ours.loc[[row for row in ours.index if row[3] in ("softmax", "l1")]]
    by_metric = shown.T.groupby(level=1)
    assert (by_metric.min().loc["mAP"] > 0).all()
    assert (by_metric.min().loc["rank-1"] < 0).any()
    assert word(claims, "rerank-helps") == "in part"


def test_elongated(claims):
    maps = committed("maps")
    for seed in range(3):
        test = maps["none", seed]["test"]
        ratio = np.array(test["vertical"]) / test["horizontal"]
        assert ratio[3] < 1 < ratio[2]
    assert word(claims, "elongated") == "in part"


def test_fig6(claims):
    """Both kinds of matches exist; with the softmax more that only average pooling finds."""
    found = {}
    for name in ("labeled-softmax", "labeled-l1", "labeled-sigmoid"):
        for what in ("only_with", "only_without"):
            found[name, what] = float(number(f"{name}.parts.rank-1.{what}"))
    assert min(found.values()) > 0
    assert found["labeled-softmax", "only_without"] > 2 * found["labeled-softmax", "only_with"]
    gap = abs(found["labeled-l1", "only_with"] - found["labeled-l1", "only_without"])
    assert gap < 2
    assert word(claims, "fig6") == "in part"


def test_market_stable(claims):
    """The spread over seeds is smaller on Market-1501, by an F test; there is no other size to tell why."""
    spread = {}
    for benchmark in ("market1501", "cuhk03_np_labeled"):
        name = f"{benchmark}-rendered-laptop-b_p_ds-none-paper-erasing-*.json"
        levels = [
            100 * json.loads(path.read_bytes())["metrics"]["parts"]["mean_ap"]
            for path in (ROOT / "results").glob(name)
        ]
        spread[benchmark] = np.var(levels, ddof=1), len(levels)
    (large, seeds), (small, seeds_small) = spread["market1501"], spread["cuhk03_np_labeled"]
    p = stats.f(seeds_small - 1, seeds - 1).sf(small / large)
    assert p < 0.05 and word(claims, "market-stable") == "in part"


@pytest.mark.parametrize(
    ("backbone", "seen"), [("resnet50", [35, 91, 267]), ("thin", [19, 27, 43])]
)
def test_what_a_position_sees(claims, backbone, seen):
    """The receptive field of stages 1 to 3: each 3x3 convolution adds twice the step."""
    network = ReIDNet(7, "b_p_ds_sa2", backbone=backbone).backbone
    field, step = 7 + 2 * 2, 4  # a 7x7 convolution of stride 2, a pooling over 3x3 of stride 2
    fields = []
    for layer in (network.layer1, network.layer2, network.layer3):
        for block in layer:
            assert isinstance(block.conv2, nn.Conv2d) and block.conv2.kernel_size == (3, 3)
            field += 2 * step
            step *= block.conv2.stride[0]
        fields.append(field)
    assert fields == seen and step == 16
    assert (seen[2] >= {"resnet50": 128, "thin": 64}[backbone]) == (backbone == "resnet50")
    assert word(claims, "receptive-field") == "confirmed"


@pytest.mark.parametrize("benchmark", ["market1501", "cuhk03_np_labeled", "cuhk03_np_detected"])
def test_what_06_says_of_the_confirmatory_settings(benchmark):
    """In each of them the softmax loses mAP, and for l1 nothing is shown."""
    records = read_records(ROOT / "results" / "tables")
    without = {"benchmark": benchmark, "variant": "b_p_ds", "form": "none"}
    of_form = {}
    for form in ("softmax", "l1"):
        with_sa = {"benchmark": benchmark, "variant": "b_p_ds_sa2", "form": form}
        of_form[form] = pairing.between(records, with_sa, without, "parts")["mAP"]
        assert of_form[form]["seeds"] >= 3
    assert of_form["softmax"]["high"] < 0
    assert of_form["l1"]["low"] < 0 < of_form["l1"]["high"]


def test_what_is_said_of_the_pooled_confirmatory_settings(claims):
    """README, 06 and the ledger: a loss with the softmax; for l1 neither gain nor loss."""
    for form, claim in (("softmax", "sa-improves"), ("l1", "sa-improves-l1")):
        found = comparison(f"pooled-confirmatory-{form}.parts.mAP").found
        assert found["settings"] >= 3 and found["seeds"] >= 3
        if form == "softmax":
            assert found["high"] < 0 and word(claims, claim) == "contradicted"
        else:
            assert found["low"] < 0 < found["high"] and word(claims, claim) == "not shown"


def found_for(name):
    return comparison(f"{name}.parts.mAP").found


def test_what_08_says_of_the_table_of_text_and_code():
    """Only the convolution and Nesterov have intervals without zero; the first row is the largest."""
    rows = ("l1", "mean-after-sa", "ds-reduced", "equal-loss", "no-erasing", "nesterov", "sa1")
    found = {row: found_for(f"code-{row}") for row in rows}
    without_zero = {row for row, f in found.items() if f["low"] > 0 or f["high"] < 0}
    assert without_zero == {"ds-reduced", "nesterov"}
    assert max(rows, key=lambda row: abs(found[row]["Δ"])) == "l1"


def test_what_08_says_of_the_causes():
    """No drop is shown, and its mean is below one point; or a mean of two to three points is left."""
    for name in ("detached", "temperature-100", "temperature-1000", "standardised"):
        found = found_for(f"cause-{name}")
        assert found["low"] < 0 < found["high"] and found["Δ"] > -1
    left = {
        name: found_for(f"cause-{name}")
        for name in ("gradient-as-gap", "norm-as-gap", "temperature-10")
    }
    assert all(-3.5 < found["Δ"] < -1.5 for found in left.values())
    contains_zero = {name for name, found in left.items() if found["high"] > 0}
    assert contains_zero == {"gradient-as-gap"}


def test_what_06_says_of_the_seeds_and_of_holm(runs):
    """Without SA the seeds scatter by 0.6 to 2.8 points; a loss that Holm's correction hides."""
    some = runs[(runs.form == "none") & (runs.recipe == "paper") & (runs.vector == "parts")]
    by = ["profile", "benchmark", "variant", "erasing", "epochs", "weights", "source"]
    spread = some.groupby(by)["mAP"].agg(["count", "std"])
    spread = spread[spread["count"] >= 3]["std"]
    assert (spread.min().round(1), spread.max().round(1)) == (0.6, 2.8)
    judged = tables.judge(pairing.effects(read_records(ROOT / "results")))
    hidden = judged[(judged.benchmark == "cuhk03_np_labeled") & (judged.form == "softmax")].query(
        "vector == 'global' and variant == 'b_p_ds_sa2' and recipe == 'paper'"
    )
    assert len(hidden) == 2 and (hidden.high < 0).all()
    assert hidden.set_index("metric").holm.round(1).to_dict() == {"rank-1": 0.6, "mAP": 0.9}
