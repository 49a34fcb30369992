"""Exercises of notebook 06: how many seeds, Holm's correction, and the best weights of a mean."""

import numpy as np
from scipy import stats

from ..experiments.statistics import holm
from .checking import FunctionExercise, ValueExercise, as_number

# A measured difference, and its standard deviation from seed to seed, in points.
DIFFERENCE, SPREAD = 0.7, 1.5


def half_width(seeds: int) -> float:
    """Half of the 95 % interval of a mean over `seeds` seeds, by Student's t, in points."""
    return stats.t.ppf(0.975, seeds - 1) * SPREAD / np.sqrt(seeds)


FEWEST = next(n for n in range(2, 1000) if half_width(n) < DIFFERENCE)


def _examine_seeds(value) -> str | None:
    seeds = as_number(value)
    if not seeds.is_integer() or seeds < 1:
        return f"a number of seeds is a whole number, and this is {seeds:g}"
    seeds = int(seeds)
    if seeds == 1:
        return "one seed has no spread, so it has no interval"
    if seeds == FEWEST:
        return None
    half = half_width(seeds)
    by_normal = next(n for n in range(2, 1000) if 1.96 * SPREAD / np.sqrt(n) < DIFFERENCE)
    if seeds == by_normal:
        return (
            f"with {seeds} seeds the interval reaches {half:.2f} to each side. 1.96 is for a known "
            "spread; from a measured one, Student's t is wider"
        )
    if seeds > FEWEST:
        return f"with {seeds} seeds the interval reaches {half:.2f} to each side; fewer would do"
    return f"with {seeds} seeds the interval reaches {half:.3f} to each side, and includes zero"


enough_seeds = ValueExercise(
    name="enough_seeds",
    notebook="06_tables",
    title="How many seeds?",
    level="change a number",
    minutes=5,
    asks="a whole number",
    examine=_examine_seeds,
    typical={
        "18": "1.96 is used for a spread that was measured from few seeds",
        "3": "the interval includes zero",
        "100": "enough, but not the fewest",
    },
    right="the interval of so many seeds just does not contain zero",
)


def _bonferroni(p):
    return np.minimum(1, p * len(p))


def _in_order(p, factors) -> np.ndarray:
    """The sorted p values times `factors`, back in their own places."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = p[order] * factors
    return corrected


def _stepped(p, factors) -> np.ndarray:
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return corrected


def _falling(p) -> np.ndarray:
    return np.arange(len(p), 0, -1)


def _step_up(p, factors) -> np.ndarray:
    """From the largest p down, no value is larger than the one after it."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum.accumulate((p[order] * factors)[::-1])[::-1]
    return np.minimum(1, corrected)


def _sidak(p) -> np.ndarray:
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(1 - (1 - p[order]) ** _falling(p))
    return corrected


def _argsort_for_ranks(p) -> np.ndarray:
    """argsort(p) used as the rank of each p."""
    return np.minimum(1, p * (len(p) - np.argsort(p)))


def _with_its_neighbour_only(p):
    order = np.argsort(p)
    stepped = p[order] * _falling(p)
    stepped[1:] = np.maximum(stepped[1:], stepped[:-1])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, stepped)
    return corrected


def _sorted_twice(c):
    """The mistake c[order] instead of corrected[order] = c. c: sorted p -> corrected values."""

    def mistaken(p):
        order = np.argsort(p)
        return c(p[order])[order]

    return mistaken


def _carried(p) -> np.ndarray:
    """p (tests,) times falling factors, then the running maximum, both in the order of p."""
    return np.maximum.accumulate(p * _falling(p))


def _carried_by_test(p) -> np.ndarray:
    """The right factors, but the running maximum is in the order of the tests."""
    return np.minimum(1, np.maximum.accumulate(_in_order(p, _falling(p))))


def _put_back_unsorted(p) -> np.ndarray:
    corrected = np.empty(len(p))
    corrected[np.argsort(p)] = np.minimum(1, _carried(p))
    return corrected


holm_by_hand = FunctionExercise(
    name="holm_by_hand",
    notebook="06_tables",
    title="Holm's correction",
    level="write",
    minutes=20,
    reference=holm,
    arguments=("p",),
    probes=(
        (np.array([0.01, 0.04, 0.03]),),
        (np.array([0.3, 0.002, 0.011, 0.04, 0.012]),),
        (np.array([0.02, 0.05, 0.004, 0.6, 0.021]),),
        (np.array([0.9, 0.5, 0.7, 0.2]),),
        (np.array([0.02, 0.021, 0.022, 0.5]),),  # two in a row fall below the first
        (np.array([0.02, 0.02, 0.5]),),  # a tie
    ),
    shape="(tests,)",
    mistakes={
        "every p is multiplied by the number of tests: this is Bonferroni's correction": (
            _bonferroni
        ),
        "every p is multiplied by the number of tests, and some exceed 1": lambda p: p * len(p),
        "a corrected p can be less than the one before it; carry the largest so far on": (
            lambda p: np.minimum(1, _in_order(p, _falling(p)))
        ),
        "each value is compared with its neighbour before that was raised itself; carry the "
        "largest so far on": _with_its_neighbour_only,
        "a corrected p can be less than the one before it, and some exceed 1": lambda p: _in_order(
            p, _falling(p)
        ),
        "some corrected p exceed 1; a probability does not": lambda p: _over_one(p),
        "the values are right, but in the order of their size; give them in the order of p": (
            lambda p: np.sort(holm(p))
        ),
        "the largest p is multiplied by the number of tests; it should be the smallest": (
            lambda p: _stepped(p, np.arange(1, len(p) + 1))
        ),
        "the factors are one too small: the smallest p is multiplied by the number of all "
        "tests": lambda p: _stepped(p, _falling(p) - 1),
        "this steps from the largest p down (Hochberg); Holm steps up from the smallest": (
            lambda p: _step_up(p, _falling(p))
        ),
        "this controls the share of false findings (Benjamini and Hochberg), not the chance of a "
        "single one": lambda p: _step_up(p, len(p) / np.arange(1, len(p) + 1)),
        "this is the version of Šidák, 1 - (1 - p)^k; Holm multiplies": _sidak,
        "the factors follow the order of the tests; sort p first": lambda p: np.minimum(
            1, _carried(p)
        ),
        "the factors follow the order of the tests, and some corrected p exceed 1; sort p first": (
            _carried
        ),
        "the factors follow the order of the tests, and no value is carried on; sort p first": (
            lambda p: np.minimum(1, p * _falling(p))
        ),
        "p is only multiplied by n, n - 1, ..., 1 in the order of the tests; sort it first": (
            lambda p: p * _falling(p)
        ),
        "p is put back into its order, but it was not sorted: p[order] has the smallest first": (
            _put_back_unsorted
        ),
        "the factors are right, but the largest so far is carried on in the order of the tests; "
        "carry it from the smallest p to the largest": _carried_by_test,
        "c[order] sorts the corrected values once more; corrected[order] = c puts them back": (
            _sorted_twice(lambda p: np.minimum(1, _carried(p)))
        ),
        "c[order] sorts the corrected values once more, and some exceed 1; corrected[order] = c "
        "puts them back": _sorted_twice(_carried),
        "c[order] sorts the corrected values once more, and no value is carried on; "
        "corrected[order] = c puts them back": _sorted_twice(
            lambda p: np.minimum(1, p * _falling(p))
        ),
        "the values are in the order of their size, and none is carried on": lambda p: np.minimum(
            1, np.sort(p) * _falling(p)
        ),
        "argsort gives the test at each place, not the place of each test": _argsort_for_ranks,
        "p is left as it is": lambda p: p,
    },
    symptoms={
        "some corrected p are less than p; a correction never makes a result surer": (
            lambda result, p: (result < p - 1e-9).any()
        ),
        "some corrected p exceed 1": lambda result, p: (result > 1 + 1e-9).any(),
    },
    right="the smallest p pays for all tests, the next for one less, and none overtakes another",
)


def _over_one(p) -> np.ndarray:
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * _falling(p))
    return corrected


def best_weights(V, tau2: float) -> np.ndarray:
    """Weights of the unbiased mean with the least variance, (settings,): W 1 / (1' W 1)."""
    W = np.linalg.inv(V + tau2 * np.eye(len(V)))
    return W.sum(1) / W.sum()


def _normal(weights) -> np.ndarray:
    return weights / weights.sum()


def _rows_to_one(matrix) -> np.ndarray:
    return matrix / matrix.sum(1, keepdims=True)


_SHARED = np.array([[0.5, 0.2, 0.0], [0.2, 0.4, 0.1], [0.0, 0.1, 1.5]])
_OTHER = np.array([[0.8, 0.1, 0.3], [0.1, 0.9, 0.2], [0.3, 0.2, 0.6]])
_OVERLAP = np.array([[1.0, 1.3], [1.3, 2.0]])

weights_of_a_pool = FunctionExercise(
    name="weights_of_a_pool",
    notebook="06_tables",
    title="The best weights",
    level="prove",
    minutes=30,
    reference=best_weights,
    arguments=("V", "tau2"),
    probes=((np.diag([0.1, 0.3]), 0.1), (_SHARED, 0.2), (_OTHER, 0.2), (_OVERLAP, 0.05)),
    shape="(settings,)",
    mistakes={
        "your weights do not depend on tau2: it is missing, or added to every entry of V as if all "
        "settings shared one deviation; each has its own": lambda V, tau2: _normal(
            np.linalg.inv(V).sum(1)
        ),
        "only the variances are used; V also says what two settings share": lambda V, tau2: _normal(
            1 / (np.diag(V) + tau2)
        ),
        "the weights are one over the standard deviation; take one over the variance": (
            lambda V, tau2: _normal(1 / np.sqrt(np.diag(V) + tau2))
        ),
        "every setting has the same weight": lambda V, tau2: np.full(len(V), 1 / len(V)),
        "the weights do not sum to 1": lambda V, tau2: np.linalg.inv(V + tau2 * np.eye(len(V))).sum(
            1
        ),
        "the less certain setting has the larger weight; V must be inverted": lambda V, tau2: (
            _normal((V + tau2 * np.eye(len(V))).sum(1))
        ),
        "tau is squared twice": lambda V, tau2: best_weights(V, tau2**2),
        "the root of tau2 is added; variances are added": lambda V, tau2: best_weights(
            V, np.sqrt(tau2)
        ),
        "the diagonal of the inverse is used; sum its rows": lambda V, tau2: _normal(
            np.diag(np.linalg.inv(V + tau2 * np.eye(len(V))))
        ),
        "1 / matrix divides entry by entry; that is no inverse": lambda V, tau2: _normal(
            (1 / (V + tau2 * np.eye(len(V)))).sum(1)
        ),
        "a negative weight is cut to zero; it is right where two settings share much": (
            lambda V, tau2: _normal(np.maximum(best_weights(V, tau2), 0))
        ),
        "this is the whole inverse over its sum, a matrix; sum its rows, too": lambda V, tau2: (
            _normal(np.linalg.inv(V + tau2 * np.eye(len(V))))
        ),
        "each row of this matrix sums to 1; the weights are the row sums over the whole sum": (
            lambda V, tau2: _rows_to_one(np.linalg.inv(V + tau2 * np.eye(len(V))))
        ),
        "each column of this matrix sums to 1; the weights are the row sums over the whole sum": (
            lambda V, tau2: _rows_to_one(np.linalg.inv(V + tau2 * np.eye(len(V)))).T
        ),
        "the diagonal of the inverse is divided by the sum of all its entries; sum its rows": (
            lambda V, tau2: (
                np.diag(np.linalg.inv(V + tau2 * np.eye(len(V))))
                / np.linalg.inv(V + tau2 * np.eye(len(V))).sum()
            )
        ),
        "the weights are right, but they stand in a column; give them one dimension": (
            lambda V, tau2: best_weights(V, tau2)[:, None]
        ),
        "this is the variance of the best mean; give its weights": lambda V, tau2: (
            1 / np.linalg.inv(V + tau2 * np.eye(len(V))).sum()
        ),
        "this is the sum of the whole inverse; divide its row sums by it": lambda V, tau2: (
            np.linalg.inv(V + tau2 * np.eye(len(V))).sum()
        ),
        "this is the inverse itself, a matrix; the weights are its row sums over its whole sum": (
            lambda V, tau2: np.linalg.inv(V + tau2 * np.eye(len(V)))
        ),
    },
    symptoms={
        "the weights do not sum to 1, so the mean would be biased": lambda result, V, tau2: (
            abs(result.sum() - 1) > 1e-4
        ),
    },
    right="the mean with the least variance; where two settings share much, one weight is negative",
)
