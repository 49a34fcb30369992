"""Where the scatter of a score comes from: the training population, the seed, the test population.

A population is a rendered benchmark of one data seed: its people and its cameras. Networks are
trained on several populations, with several seeds each, and every network is tested on the test
people of all populations. A score y of training population d, seed s and test population t is

    y[d, s, t] = mean + a[d] + b[d, s] + c[t] + home [d = t] + ac[d, t] + rest[d, s, t]

"home" is a constant: what a network gains on the cameras that it was trained with. The others are
independent deviations, whose variances are estimated by the analysis of variance of this complete
design. The seeds are nested in the training populations, since a seed makes another training there.
The score may also be a difference of two networks of the same d and s.

Appendix 06a shows the results.
"""

import numpy as np
import pandas as pd
from scipy import optimize, stats

from .. import InputError, known
from ..support.arrays import as_array, check_number, check_whole
from . import examine
from .pairing import METRICS
from .records import ROOT
from .statistics import difference

SOURCES = (
    "training population",
    "seed",
    "test population",
    "training x test population",
    "rest",
)
# What a second training changes on one benchmark, and what another benchmark of this kind changes.
TOGETHER = {
    "another seed": ("seed", "rest"),
    "another population": (
        "training population",
        "test population",
        "training x test population",
    ),
}
DRAWS = 20_000  # of the generalized intervals
MOST_SEEDS = 10_000  # for seeds_needed()
POPULATIONS = tuple(range(6))  # the data seeds of `snakemake populations`
SEEDS = (0, 1, 2)


def read_scores(
    folder=ROOT / "results" / "populations", vector: str = "parts", metric: str = "mAP"
) -> dict:
    """The scores of all networks of `snakemake populations` on all test people, in percent.

    Returns {form: (populations, seeds, populations)}: trained on, seed, tested on, in the order of
    POPULATIONS and SEEDS.
    metric: "rank-1" or "mAP". Raises InputError if a run or a population is missing.
    """
    known("metric", metric, METRICS)
    key, _ = METRICS[metric]
    scores = {}
    for entry in examine.read(folder, examine.KINDS["populations"][1]):
        identity, tested = entry["identity"], entry["populations"]
        if not {str(t) for t in POPULATIONS} <= set(tested):
            continue  # a run at another learning rate, tested on the second population alone
        of_form = scores.setdefault(identity["form"], {})
        trained = int(identity.get("data_seed", 0)), identity["seed"]
        of_form[trained] = [100 * tested[str(t)]["metrics"][vector][key] for t in POPULATIONS]
    if not scores:
        raise InputError(
            f"{folder} holds no run that was tested on the people of the data seeds "
            f"{', '.join(map(str, POPULATIONS))}; `snakemake populations` says how to make them"
        )
    arrays = {}
    for form, of_form in scores.items():
        lacking = [(d, s) for d in POPULATIONS for s in SEEDS if (d, s) not in of_form]
        if lacking:
            d, s = lacking[0]
            raise InputError(
                f"{folder} lacks {len(lacking)} runs of form {form}, the first of data seed {d}, "
                f"seed {s}; `snakemake populations` makes them"
            )
        arrays[form] = np.array([[of_form[d, s] for s in SEEDS] for d in POPULATIONS])
    return arrays


def mean_squares(scores) -> tuple[np.ndarray, np.ndarray, float]:
    """The mean squares of the SOURCES, their degrees of freedom, and "home": (5,), (5,), float.

    scores: (populations, seeds, populations), the same ones in the same order, three populations
    and two seeds or more.
    Raises InputError for other shapes, and for numbers that are not finite.
    """
    y = as_array(scores, float)
    if y.ndim != 3 or y.shape[0] != y.shape[2] or y.shape[0] < 3 or y.shape[1] < 2:
        raise InputError(
            f"scores of shape {y.shape}; expected (populations, seeds, populations), at least "
            "three populations and two seeds"
        )
    if not np.isfinite(y).all():
        raise InputError("some scores are NaN or infinite; the design has to be complete")
    n, S, _ = y.shape

    def interaction() -> np.ndarray:
        """What the means of training and test population do not explain: (n, n)."""
        return y.mean(1) - y.mean((1, 2))[:, None] - y.mean((0, 1)) + y.mean()

    # A constant on the diagonal of an n x n table leaves (n - 1) / n of itself in the interaction.
    home = np.trace(interaction()) / (n - 1)
    y = y - home * np.eye(n)[:, None, :]

    of_d = y.mean((1, 2))  # (n,)
    of_network = y.mean(2)  # (n, S)
    rest = y - of_network[:, :, None] - y.mean(1)[:, None, :] + of_d[:, None, None]
    squares = [
        S * n * ((of_d - y.mean()) ** 2).sum(),
        n * ((of_network - of_d[:, None]) ** 2).sum(),
        n * S * ((y.mean((0, 1)) - y.mean()) ** 2).sum(),
        S * (interaction() ** 2).sum(),
        (rest**2).sum(),
    ]
    freedom = np.array([n - 1, n * (S - 1), n - 1, (n - 1) ** 2 - 1, n * (S - 1) * (n - 1)], float)
    return np.array(squares) / freedom, freedom, float(home)


def _expected(n: int, S: int) -> np.ndarray:
    """The matrix that turns the variances of the SOURCES into expected mean squares: (5, 5)."""
    return np.array(
        [
            [S * n, n, 0, S, 1],
            [0, n, 0, 0, 1],
            [0, 0, n * S, S, 1],
            [0, 0, 0, S, 1],
            [0, 0, 0, 0, 1],
        ],
        float,
    )


def components(scores) -> pd.DataFrame:
    """The standard deviation that each of the SOURCES adds to a score, with 95 % intervals.

    scores: (populations, seeds, populations). The rows are the SOURCES, and then those of TOGETHER,
    whose variances are added.
    Columns: "sd", "low", "high", in the unit of the scores, and "share" of the whole variance.
    A negative estimate of a variance, which chance can give, counts as 0. The intervals are
    generalized ones (Weerahandi 1993): each mean square is divided by a drawn chi-square of its
    degrees of freedom, the variances are solved for, and the middle 95 % are kept.
    Raises InputError as mean_squares() does.
    """
    found, freedom, _ = mean_squares(scores)
    n, S, _ = np.shape(scores)
    solve = np.linalg.inv(_expected(n, S))
    rng = np.random.default_rng(0)
    drawn = found * freedom / rng.chisquare(freedom, (DRAWS, len(found)))

    rows = {}
    total = np.maximum(solve @ found, 0).sum()
    for name, sources in ({source: (source,) for source in SOURCES} | TOGETHER).items():
        chosen = solve[[SOURCES.index(source) for source in sources]].sum(0)
        variance = max(chosen @ found, 0.0)
        low, high = np.quantile(np.maximum(drawn @ chosen, 0), (0.025, 0.975))
        rows[name] = {
            "sd": np.sqrt(variance),
            "low": np.sqrt(low),
            "high": np.sqrt(high),
            "share": variance / total if total else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def home(scores) -> dict:
    """The mean at home and away, and what home adds: "home", "away", "Δ", "low" to "high" (95 %).

    Home: networks tested on the population that they were trained on (its other people). scores and
    errors: as for mean_squares(). The interval is Student's t on the interaction's mean square.
    """
    found, freedom, effect = mean_squares(scores)
    y = as_array(scores, float)
    n, S, _ = y.shape
    at_home = np.eye(n, dtype=bool)
    error = np.sqrt(found[3] / (S * (n - 1)))
    half = stats.t.ppf(0.975, freedom[3]) * error
    of_both = y.mean(1)
    return {
        "home": of_both[at_home].mean(),
        "away": of_both[~at_home].mean(),
        "Δ": effect,
        "low": effect - half,
        "high": effect + half,
    }


def effect_at_home(with_, without) -> dict:
    """The effect of SA over the populations, at home: statistics.difference(), in points.

    with_, without: scores of a form and of no SA, as for mean_squares(), in percent. The mean over
    the seeds is one value for each population, so the interval (Student's t over the populations)
    covers other people and cameras as well as other seeds. "seeds" is the number of populations.
    """
    levels = []
    for scores in (without, with_):
        mean_squares(scores)  # checks them
        levels.append(np.diagonal(as_array(scores, float).mean(1)) / 100)
    return difference(*levels)


def seed_at_home(scores) -> dict:
    """How far a score at home scatters from seed to seed: "sd", "low" to "high" (95 %).

    scores and errors: as for mean_squares(). One variance for all populations.
    """
    mean_squares(scores)  # checks them
    y = np.diagonal(as_array(scores, float), axis1=0, axis2=2)  # (seeds, populations)
    seeds, populations = y.shape
    squares = ((y - y.mean(0)) ** 2).sum()
    return sd_interval(squares, populations * (seeds - 1))


def sd_interval(squares: float, freedom: int) -> dict:
    """A standard deviation from a sum of squares: "sd", "low" to "high" (95 %, chi-square)."""
    low, high = np.sqrt(squares / stats.chi2.ppf([0.975, 0.025], freedom))
    return {"sd": float(np.sqrt(squares / freedom)), "low": float(low), "high": float(high)}


def power(effect: float, sd: float, seeds: int) -> float:
    """The probability that Student's t over the seeds finds a true difference, at p < 0.05.

    effect: the true difference; sd: of one seed's difference, in the same unit; seeds: two or more.
    Raises InputError for other numbers.
    """
    check_number("effect", effect, -1e6, 1e6)
    check_number("sd", sd, 1e-6, 1e6)
    check_whole("seeds", seeds, 2)
    shift = abs(effect) / sd * np.sqrt(seeds)
    limit = stats.t.ppf(0.975, seeds - 1)
    away = stats.nct(seeds - 1, shift)
    found_with_other_sign = np.nan_to_num(away.cdf(-limit))  # scipy says NaN where it is tiny
    return float(away.sf(limit) + found_with_other_sign)


def seeds_needed(effect: float, sd: float, wanted: float = 0.8) -> float:
    """The fewest seeds with which power() reaches `wanted`; infinity beyond MOST_SEEDS."""
    too_few, enough = 1, MOST_SEEDS
    if power(effect, sd, enough) < wanted:
        return np.inf
    while enough - too_few > 1:  # the power grows with the seeds
        middle = (too_few + enough) // 2
        if power(effect, sd, middle) < wanted:
            too_few = middle
        else:
            enough = middle
    return enough


def smallest_effect(sd: float, seeds: int, wanted: float = 0.8) -> float:
    """The smallest true difference that `seeds` seeds find with the power `wanted`."""
    most = 3 * stats.t.ppf(0.975, seeds - 1) * sd / np.sqrt(seeds)
    return optimize.brentq(lambda effect: power(effect, sd, seeds) - wanted, 1e-9 * sd, most)
