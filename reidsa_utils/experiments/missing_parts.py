"""What is left of the mAP when people are drawn again without a part of the body.

An entry is what `reidsa examine --maps` wrote about one run. All is about the vector `parts`.
"""

import numpy as np


def queries_with(entry: dict, part: str) -> dict:
    """{query: its AP without a part} of the queries that show it and still have a match."""
    after = entry["missing"]["after"][part]
    scored = zip(after["index"], after["parts"], strict=True)
    return {query: ap for query, ap in scored if ap is not None}


def kept(entry: dict, now: dict) -> float:
    """The mean of some queries' AP over what it was with the part; now: {query: AP}."""
    before = [entry["missing"]["before"]["parts"][query] for query in now]
    return float(np.mean(list(now.values())) / np.mean(before))


def kept_without(entry: dict, part: str) -> float:
    """The share of the mAP that is left when a part is taken from its queries."""
    return kept(entry, queries_with(entry, part))


def kept_by_query(entry: dict, parts: list) -> tuple[np.ndarray, np.ndarray]:
    """What each query adds to the mean over some parts of kept_without(), and whose it is.

    The values' mean is that mean. Other people move it as they move the values: the share of a part
    is a ratio of two means, so its queries' values are linearized, k + (after - k before) / mean
    before. Parts with few queries weigh as much as those with many.
    Returns (N,) values and (N,) identities, part after part.
    """
    values, people = [], []
    for part in parts:
        now = queries_with(entry, part)
        after = np.array(list(now.values()))
        before = np.array([entry["missing"]["before"]["parts"][query] for query in now])
        share = kept(entry, now)
        values.append(share + (after - share * before) / before.mean())
        people.append([entry["missing"]["queries"][query] for query in now])
    total = sum(len(of_part) for of_part in values)
    weighted = [of_part * total / (len(parts) * len(of_part)) for of_part in values]
    return np.concatenate(weighted), np.concatenate(people)
