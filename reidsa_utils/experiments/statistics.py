"""Statistics of differences, from arrays.

The difference of two settings with its interval (a bootstrap over seeds and identities, Student's t
over the seeds), and Holm's correction of many tests.
"""

import numpy as np
from scipy import stats

from .. import InputError
from ..support.arrays import any_array, as_array, check_whole


def difference(
    without, with_, queries_without=None, queries_with=None, ids=None, repeats: int = 5000
) -> dict:
    """One metric of two settings, paired by seed: with - without, in points (the values times 100).

    without, with_: (seeds,), the metric of each seed's run of the two settings.
    queries_without, queries_with: (seeds, queries), the same metric of every query that has a
    match; ids: (queries,), the identities. Without them other people are not in the interval.
    repeats: draws of the bootstrap.
    Returns "seeds"; "people" (whether identities are in the interval); the mean levels "without"
    and "with"; their difference "Δ"; "deltas" of the seeds and their standard deviation "sd";
    "low" to "high", the wider of two 95 % intervals: bootstrap() over seeds and identities, and
    Student's t over the seeds, which knows how few they are; the larger of their two-sided "p";
    and "smallest", the difference that four of five such studies would find at p < 0.05.
    With one seed the interval is the bootstrap's alone, and there is no "sd" and no "smallest".
    Raises InputError for arrays that do not fit, and numbers that are not finite.
    """
    without = as_array(without, float)
    with_ = as_array(with_, float)
    if without.ndim != 1 or without.shape != with_.shape or not len(without):
        raise InputError(
            f"metrics of shapes {without.shape} and {with_.shape}; expected one number of each "
            "seed, of the same seeds"
        )
    if not np.isfinite([without, with_]).all():
        raise InputError("some of the metrics are NaN or infinite; leave those seeds out")
    n = len(without)
    deltas = 100 * (with_ - without)
    delta = np.mean(deltas)
    level = np.mean(100 * without)

    sd = np.std(deltas, ddof=1) if n > 1 else np.nan
    error = sd / np.sqrt(n)
    student = stats.t(n - 1)  # gives NaN for one seed
    low = delta - student.ppf(0.975) * error
    high = delta + student.ppf(0.975) * error
    p = 2 * student.sf(abs(delta) / np.maximum(error, 1e-12))

    people = queries_with is not None or queries_without is not None
    if people:
        queries_with = as_array(queries_with, float)
        queries_without = as_array(queries_without, float)
        if queries_with.shape != queries_without.shape:
            raise InputError(
                f"queries of shapes {queries_without.shape} and {queries_with.shape}; expected "
                "the same queries of the same seeds"
            )
        of_queries = queries_with - queries_without
        drawn = 100 * bootstrap(of_queries, ids, repeats)
        lower, upper = np.quantile(drawn, (0.025, 0.975))
        fewer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        # fmin and fmax take the number where the other is NaN, as Student's t is for one seed.
        low = np.fmin(low, lower)
        high = np.fmax(high, upper)
        error = np.fmax(error, drawn.std())
        p = np.fmax(p, min(1.0, 2 * (1 + fewer) / (1 + repeats)))
    return {
        "seeds": n,
        "people": people,
        "without": level,
        "with": level + delta,
        "Δ": delta,
        "deltas": deltas.tolist(),
        "sd": sd,
        "low": low,
        "high": high,
        "p": p,
        "smallest": (student.ppf(0.975) + student.ppf(0.8)) * error,
    }


def bootstrap(differences, ids, repeats: int = 5000, seed: int = 0) -> np.ndarray:
    """Means of `differences` over seeds and identities drawn with replacement: (repeats,).

    differences: (seeds, queries), paired; ids: (queries,).
    Seeds are drawn first, then identities with all their queries: pictures of one person are no
    independent tests. Few seeds make a bootstrap too narrow, by (S - 1) / S in variance, so their
    deviations are stretched by the root of S / (S - 1); of a single seed only the identities are
    drawn.
    Raises InputError for arrays that do not fit, and differences that are not finite.
    """
    check_whole("repeats", repeats)
    check_whole("seed", seed, 0)
    differences = as_array(differences, float)
    ids = any_array(ids)
    if differences.ndim != 2 or ids.shape != differences.shape[1:] or not differences.size:
        raise InputError(
            f"differences of shape {differences.shape} and ids of shape {ids.shape}; expected "
            "(seeds, queries) and (queries,)"
        )
    if not np.isfinite(differences).all():
        raise InputError("some differences are NaN or infinite; leave queries without a match out")
    try:
        _, person = np.unique(ids, return_inverse=True)
    except TypeError as error:
        raise InputError(f"the ids are objects that have no order ({error})") from None
    sums = np.stack([np.bincount(person, row) for row in differences])  # (S, I)
    seeds, people = sums.shape
    if seeds > 1:
        mean = sums.mean(0)
        sums = mean + (sums - mean) * np.sqrt(seeds / (seeds - 1))
    rng = np.random.default_rng(seed)
    # How often each seed and each identity is drawn, in every repeat.
    seeds_drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), repeats)  # (repeats, S)
    people_drawn = rng.multinomial(people, np.full(people, 1 / people), repeats)  # (repeats, I)
    total = ((seeds_drawn / seeds) @ sums * people_drawn).sum(1)
    queries = people_drawn @ np.bincount(person)
    return total / queries


def holm(p) -> np.ndarray:
    """Holm's correction of the p values (tests,) of a family of tests; NaN is no test.

    Raises InputError for another shape.
    """
    p = as_array(p)
    if p.ndim != 1:
        raise InputError(f"p values of shape {p.shape}; expected one a test")
    tests = (~np.isnan(p)).sum()
    order = np.argsort(p)[:tests]
    corrected = np.full(len(p), np.nan)
    stepped = np.maximum.accumulate(p[order] * np.arange(tests, 0, -1))
    corrected[order] = np.minimum(1, stepped)
    return corrected
