"""Differences of runs with their intervals: bootstrap over seeds and identities, Student's t, Holm."""

import contextlib

import numpy as np

with contextlib.suppress(ImportError):  # a machine that only trains need not have it
    from scipy import stats


def difference(pairs: list, mean: str, queries: str, ids=None, repeats: int = 5000) -> dict:
    """One metric of runs (a, b), paired by seed: the row of effects() about a - b, in points.

    pairs: metrics of one retrieval vector of the two runs, a pair a seed; mean, queries: a line of METRICS; ids: of the queries.
    """
    without, deltas = (
        [100 * b[mean] for _, b in pairs],
        [100 * (a[mean] - b[mean]) for a, b in pairs],
    )
    n, delta, sd = len(pairs), np.mean(deltas), np.std(deltas, ddof=1) if len(pairs) > 1 else np.nan
    student, error = stats.t(n - 1), sd / np.sqrt(n)  # all NaN for one seed
    low, high = delta - student.ppf(0.975) * error, delta + student.ppf(0.975) * error
    p = 2 * student.sf(abs(delta) / max(error, 1e-12)) if n > 1 else np.nan
    people = ids is not None and all(queries in m for pair in pairs for m in pair)
    if people:
        a, b = np.array([[m[queries] for m in pair] for pair in pairs], float).swapaxes(
            0, 1
        )  # (seeds, queries)
        told = ~np.isnan(a[0]) & (a[0] != 0)  # queries with a match
        a, b = (a, b) if mean == "mean_ap" else (a == 1, b == 1.0)
        drawn = 100 * bootstrap(
            np.subtract(a, b, dtype=float)[:, told], np.array(ids)[told], repeats
        )
        lower, upper = np.quantile(drawn, (0.025, 0.975))
        low, high, error = np.fmin(low, lower), np.fmax(high, upper), np.fmax(error, drawn.std())
        p = np.fmax(
            p, min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + repeats))
        )
    return {
        "seeds": n,
        "people": people,
        "without": np.mean(without),
        "with": np.mean(without) + delta,
        "Δ": delta,
        "deltas": deltas,
        "sd": sd,
        "low": low,
        "high": high,
        "p": p,
        "smallest": (student.ppf(0.975) + student.ppf(0.8)) * error,
    }


def bootstrap(
    differences: np.ndarray, ids: np.ndarray, repeats: int = 5000, seed: int = 0
) -> np.ndarray:
    """Means of `differences` over seeds and identities drawn with replacement: (repeats,).

    differences: (seeds, queries), paired; ids: (queries,). Seeds are drawn first, then identities with all their queries:
    pictures of one person are no independent tests. Few seeds make a bootstrap too narrow, by (S - 1) / S in variance, so
    their deviations are stretched by the root of S / (S - 1); of a single seed only the identities are drawn.
    """
    _, person = np.unique(ids, return_inverse=True)
    sums = np.stack([np.bincount(person, row) for row in differences])  # (S, I)
    S = len(sums)
    if S > 1:
        sums = sums.mean(0) + (sums - sums.mean(0)) * np.sqrt(S / (S - 1))
    rng = np.random.default_rng(seed)
    chosen, people = (rng.multinomial(n, np.full(n, 1 / n), repeats) for n in sums.shape)
    return ((chosen / S) @ sums * people).sum(1) / (people @ np.bincount(person))


def holm(p) -> np.ndarray:
    """Holm's correction of the p of a family of tests; NaN is no test."""
    p = np.asarray(p, float)
    order = np.argsort(p)[: (~np.isnan(p)).sum()]
    out = np.full(len(p), np.nan)
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return out
