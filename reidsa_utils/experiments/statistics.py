"""Statistics of differences, from arrays.

The difference of two settings with its interval (a bootstrap over seeds and identities, Student's t
over the seeds), Holm's correction of many tests, one effect pooled from several settings, and the
rule that gives a difference its verdict.
"""

from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from .. import InputError
from ..support.arrays import any_array, as_array, check_whole

# A difference of rank-1 or mAP below this many points counts as none: the paper's own gains in mAP
# in Table 3 are 1.1 to 2.1.
MARGIN = 1.0
VERDICTS = (
    "confirmed",
    "in part",
    "smaller than claimed",
    "equivalent",
    "mixed",
    "contradicted",
    "not shown",
    "not testable here",
)


def difference(
    without, with_, queries_without=None, queries_with=None, ids=None, repeats: int = 5000
) -> dict:
    """One metric of two settings, paired by seed: with - without, in points (the values times 100).

    without, with_: (seeds,), the metric of each seed's run of the two settings.
    queries_without, queries_with: (seeds, queries), the same metric of every query that has a
    match; ids: (queries,), the identities. Without them the interval does not cover other people.
    repeats: draws of the bootstrap.
    Returns "seeds"; "people" (whether identities are in the interval); the mean levels "without"
    and "with"; their difference "Δ"; "deltas" of the seeds and their standard deviation "sd";
    "low" to "high", the wider of two 95 % intervals: bootstrap() over seeds and identities, and
    Student's t over the seeds, which takes their small number into account; "low90" to "high90",
    the same at 90 %; "p", the larger of their two-sided p values; and "smallest", the minimum
    detectable effect (80 % power at p < 0.05, uncorrected).
    With one seed the interval is the bootstrap's alone, and "sd" and "smallest" are NaN.
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
    low, high = delta + student.ppf((0.025, 0.975)) * error
    low90, high90 = delta + student.ppf((0.05, 0.95)) * error
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
        lower, lower90, upper90, upper = np.quantile(drawn, (0.025, 0.05, 0.95, 0.975))
        fewer = min((drawn <= 0).sum(), (drawn >= 0).sum())
        # fmin and fmax take the number where the other is NaN, as Student's t is for one seed.
        low, low90 = np.fmin((low, low90), (lower, lower90))
        high, high90 = np.fmax((high, high90), (upper, upper90))
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
        "low90": low90,
        "high90": high90,
        "p": p,
        "smallest": (student.ppf(0.975) + student.ppf(0.8)) * error,
    }


def bootstrap(differences, ids, repeats: int = 5000, seed: int = 0) -> np.ndarray:
    """Means of `differences` over seeds and identities drawn with replacement: (repeats,).

    differences: (seeds, queries), paired; ids: (queries,).
    Seeds are drawn first, then identities with all their queries, since images of one person are
    not independent tests. With S seeds, the variance of a bootstrap is too small by the factor
    (S - 1) / S. So the deviations of the seeds are multiplied by the root of S / (S - 1). With one
    seed, only the identities are drawn.
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
    seeds_drawn, people_drawn = _drawn(seeds, people, repeats, seed)
    total = ((seeds_drawn / seeds) @ sums * people_drawn).sum(1)
    queries = people_drawn @ np.bincount(person)
    return total / queries


@lru_cache(maxsize=8)  # at Market-1501's size, 5,000 repeats are 7 MB
def _drawn(seeds: int, people: int, repeats: int, seed: int) -> tuple:
    """How often each seed and each identity is drawn: (repeats, seeds), (repeats, people).

    Drawing takes nine tenths of a bootstrap's time, and differences of one size share it.
    """
    rng = np.random.default_rng(seed)
    seeds_drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), repeats)
    people_drawn = rng.multinomial(people, np.full(people, 1 / people), repeats)
    fits = np.min_scalar_type(people)  # nobody is drawn more often than that
    return seeds_drawn, people_drawn.astype(fits)


def holm(p) -> np.ndarray:
    """Holm's correction of the p values (tests,) of a family of tests: (tests,).

    NaN stands for a test that was not made; it stays NaN and does not count.

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


def person_effects(differences, ids) -> np.ndarray:
    """The part of each identity in the error of a mean difference: (identities,).

    This is the error from the choice of test people. The sum of the squares is the variance of the
    mean. The inner product with the parts in another difference on the same queries is the
    covariance of the two. Both are linearized, since a mean over identities with different numbers
    of queries is a ratio of two sums.

    differences: (queries,); ids: (queries,).
    """
    differences = as_array(differences, float)
    _, person = np.unique(any_array(ids), return_inverse=True)
    queries = np.bincount(person)
    centred = np.bincount(person, differences) - differences.mean() * queries
    people = len(queries)
    return centred / queries.sum() * np.sqrt(people / max(people - 1, 1))


def pool(estimates, covariance) -> dict:
    """One effect from those of several settings: a random-effects model.

    The effect of a setting is the common one plus a deviation of its own, whose standard deviation
    tau is estimated, plus the error of the estimate.
    estimates: (settings,); covariance: (settings, settings), of the errors. Errors of two settings
    that share a baseline or test people are correlated, so it is not diagonal in general.
    Returns "settings"; the pooled "Δ"; "low" to "high", its 95 % interval, and "low90" to "high90";
    "p"; "tau"; and "predicted_low" to "predicted_high", where the effect of a new setting lies in
    95 of 100 cases.
    tau is the estimate of Paule and Mandel: with it, the weighted sum of squares about the pooled
    effect has its expected value. The intervals are those of Knapp and Hartung (Student's t with
    settings - 1 degrees of freedom), with a scale of at least 1. With the tau of Paule and Mandel
    this scale is never above 1 either.
    Raises InputError for fewer than two settings and arrays that do not fit.
    """
    estimates = as_array(estimates, float)
    covariance = as_array(covariance, float)
    if estimates.ndim != 1:
        raise InputError(f"estimates of shape {estimates.shape}; expected one a setting")
    n = len(estimates)
    if n < 2:
        raise InputError(f"{n} setting; a pooled effect needs two or more")
    if covariance.shape != (n, n):
        raise InputError(f"a covariance of shape {covariance.shape}; expected {(n, n)}")
    if not (np.isfinite(estimates).all() and np.isfinite(covariance).all()):
        raise InputError("some estimates or covariances are NaN or infinite; leave those out")

    def fit(variance: float) -> tuple:
        """The pooled effect, its variance and the weighted squares about it."""
        # 1e-9 keeps the matrix invertible if all runs of a setting are alike, so its error is 0.
        weights = np.linalg.inv(covariance + (variance + 1e-9) * np.eye(n))
        total = weights.sum()
        mean = (weights @ estimates).sum() / total
        rest = estimates - mean
        return mean, 1 / total, rest @ weights @ rest

    def surplus(variance: float) -> float:
        return fit(variance)[2] - (n - 1)

    tau2 = 0.0
    if surplus(0.0) > 0:
        tau2 = optimize.brentq(surplus, 0.0, 1 + n * np.ptp(estimates) ** 2)
    mean, variance, _ = fit(tau2)
    error = np.sqrt(variance)
    student = stats.t(n - 1)
    low, low90, high90, high = mean + student.ppf((0.025, 0.05, 0.95, 0.975)) * error
    half = student.ppf(0.975) * np.sqrt(tau2 + variance)
    return {
        "settings": n,
        "Δ": mean,
        "low": low,
        "high": high,
        "low90": low90,
        "high90": high90,
        "p": 2 * student.sf(abs(mean) / error),
        "tau": np.sqrt(tau2),
        "predicted_low": mean - half,
        "predicted_high": mean + half,
    }


def verdict(found: dict, claimed: float = 0.0, margin: float | None = MARGIN, confound="") -> str:
    """The verdict on a claimed gain: the word of the first rule that fits.

    found: what difference() or pool() returns, with "seeds"; for pool(), the smallest number of a
        setting. claimed: the paper's gain in this setting.
    margin: a smaller difference counts as none. None means that there is no such test, as for
        measures of maps.
    confound: what else may have caused the difference; "" if nothing is suspected.
    Raises InputError if `claimed` is not a finite number.
    """
    if not np.isfinite(claimed):
        raise InputError(f"a claimed gain of {claimed}; expected a number of points")
    low, high = found["low"], found["high"]
    if found["seeds"] < 3:
        return "not shown"
    if confound:
        return "mixed"
    if high < 0:
        return "contradicted"
    if low > 0:
        return "confirmed" if high >= claimed else "smaller than claimed"
    if margin is not None:
        if -margin < found["low90"] and found["high90"] < margin:
            return "equivalent"
        if high < claimed:
            return "smaller than claimed"
    return "not shown"
