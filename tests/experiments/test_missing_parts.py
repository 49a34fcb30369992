"""What is left of the mAP without a part: by hand, and how much it depends on the people."""

import numpy as np
import pytest

from reidsa_utils.experiments.missing_parts import kept_by_query, kept_without


def test_what_is_left_without_a_part():
    """Queries 0 to 3; query 2 has lost its only match, query 3 does not show the part."""
    missing = {
        "before": {"parts": [0.5, 1.0, 0.3, 0.9]},
        "after": {"hair": {"index": [0, 1, 2], "parts": [0.4, 0.5, None]}},
    }
    assert kept_without({"missing": missing}, "hair") == pytest.approx(0.9 / 1.5)


def made(people, rng):
    """An entry of 400 queries, the people of each, hair on all and a hat on every fifth."""
    skill = rng.uniform(0.3, 0.9, people.max() + 1)
    before = skill[people] + rng.uniform(-0.1, 0.1, len(people))
    loss = rng.uniform(0.5, 1, people.max() + 1)[people]
    after = {}
    for part, index in (("hair", np.arange(400)), ("hat", np.arange(0, 400, 5))):
        after[part] = {"index": index.tolist(), "parts": (before * loss)[index].tolist()}
    missing = {"queries": people.tolist(), "before": {"parts": before.tolist()}, "after": after}
    return {"missing": missing}


def test_values_of_queries_have_the_mean_and_the_spread_over_people():
    """The spread of the mean over drawn people is that of the ratios, computed anew in each draw."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(80), 5)
    entry = made(people, rng)
    values, ids = kept_by_query(entry, ["hair", "hat"])
    shares = [kept_without(entry, part) for part in ("hair", "hat")]
    assert values.mean() == pytest.approx(np.mean(shares))
    assert ids.tolist() == people.tolist() + people[::5].tolist()

    before = np.array(entry["missing"]["before"]["parts"])
    sums = np.bincount(ids, values)
    counts = np.bincount(ids)
    ratios, means = [], []
    for _ in range(2000):
        drawn = rng.multinomial(80, np.full(80, 1 / 80))
        of_parts = []
        for found in entry["missing"]["after"].values():
            weights = drawn[people[found["index"]]]
            after = weights @ np.array(found["parts"])
            of_parts.append(after / (weights @ before[found["index"]]))
        ratios.append(np.mean(of_parts))
        means.append(drawn @ sums / (drawn @ counts))
    assert np.std(means) == pytest.approx(np.std(ratios), rel=0.1)
