"""How much of the mAP is left when people are drawn again without a part of the body.

An entry is what `reidsa examine --maps` wrote about one run. All AP are for the vector `parts`.
"""

import numpy as np


def queries_with(entry: dict, part: str) -> dict:
    """{query: its AP without a part} for the queries that show the part and have a match."""
    after = entry["missing"]["after"][part]
    scored = zip(after["index"], after["parts"], strict=True)
    return {query: ap for query, ap in scored if ap is not None}


def kept(entry: dict, now: dict) -> float:
    """The mean AP of some queries without a part, divided by their mean AP with it.

    now: {query: AP without the part}.
    """
    before = [entry["missing"]["before"]["parts"][query] for query in now]
    return float(np.mean(list(now.values())) / np.mean(before))


def kept_without(entry: dict, part: str) -> float:
    """The share of the mAP that is left when a part is taken from its queries."""
    return kept(entry, queries_with(entry, part))


def kept_by_query(entry: dict, parts: list) -> tuple[np.ndarray, np.ndarray]:
    """The mean over some parts of kept_without(), as one value for each query.

    The mean of the values is that mean, so a bootstrap over people can draw the values. The share k
    of a part is a ratio of two means. It is linearized: the value of a query is
    k + (after - k before) / mean before. Parts with few queries count as much as parts with many.
    Returns (N,) values and (N,) identities of the queries, part after part.
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
