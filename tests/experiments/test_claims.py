"""The ledger of claims: a verdict needs evidence that exists."""

import pytest

from reidsa_utils.experiments.claims import claim_table, problems, read_claims, verdicts


@pytest.fixture(scope="module")
def claims():
    return read_claims()


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
