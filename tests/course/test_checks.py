"""The checks of the exercises: typical wrong answers are told what is wrong, other right ones pass.

The wrong answers stand here as a reader would write them, and not as the checks hold them.
"""

import numpy as np
import pytest
import torch
from scipy import special

from reidsa_utils.course import check
from reidsa_utils.course.checking import FunctionExercise

WRONG = {}  # name of an exercise: [(attempt, words of the sentence)]
RIGHT = {}  # name of an exercise: [attempts that are written in another way]


def reader(code, name="mine"):
    """A function of a reader, from its source."""
    namespace = {"torch": torch, "np": np, "nnf": torch.nn.functional, "special": special}
    exec(code, namespace)
    return namespace[name]


def wrong(exercise, words, code):
    attempt = reader(code) if isinstance(code, str) and "def " in code else code
    WRONG.setdefault(exercise, []).append((attempt, words))


def right(exercise, code):
    attempt = reader(code) if isinstance(code, str) and "def " in code else code
    RIGHT.setdefault(exercise, []).append(attempt)


# Notebook 01.

wrong("three_positions", "what A would have to be multiplied by", 0.661)
wrong("three_positions", "right for the mean over the two channels", 0.756)
wrong("three_positions", "2.23 positions are effective, not 3.00; try a higher", 1)
wrong("three_positions", "try a lower temperature", 2)
wrong("three_positions", "try a lower temperature", torch.tensor(4.0))
wrong("three_positions", "a temperature is a positive number", -1.5)
wrong("three_positions", "a temperature is a positive number", 0)
wrong("three_positions", "a temperature is a positive number", float("nan"))
wrong("three_positions", "'1,5' is a str; expected a positive number", "1,5")
wrong("three_positions", "is a list; expected a positive number", [1.5, 2.0])
wrong("three_positions", "this is a function", lambda A: A.softmax(0))
right("three_positions", 1.51)
right("three_positions", np.float32(1.513))
right("three_positions", torch.tensor(1.515))

wrong(
    "softmax_over_positions",
    "sum to 1 over the channels; eq. 1 sums over positions",
    "def mine(f):\n    return torch.softmax(f, dim=1)",
)
wrong(
    "softmax_over_positions",
    "runs over the channels before they are summed",
    "def mine(f):\n    return f.softmax(1).sum(dim=1)",
)
wrong(
    "softmax_over_positions",
    "runs over the images of the batch",
    "def mine(f):\n    A = f.sum(1)\n    return A.softmax(0)",
)
wrong(
    "softmax_over_positions",
    "weights of the whole batch sum to 1",
    "def mine(f):\n    A = f.sum(1)\n    return A.flatten().softmax(0).view_as(A)",
)
wrong(
    "softmax_over_positions",
    "each row of the map sums to 1",
    "def mine(f):\n    return f.sum(1).softmax(dim=-1)",
)
wrong(
    "softmax_over_positions",
    "each column of the map sums to 1",
    "def mine(f):\n    return f.sum(1).softmax(dim=-2)",
)
wrong(
    "softmax_over_positions",
    "A is the mean over the channels",
    "def mine(f):\n    A = f.mean(dim=1)\n    return A.flatten(1).softmax(1).reshape(A.shape)",
)
wrong(
    "softmax_over_positions",
    "A is the largest channel",
    "def mine(f):\n    A = f.max(dim=1).values\n    return A.flatten(1).softmax(1).reshape(A.shape)",
)
wrong(
    "softmax_over_positions",
    "there is no exponential",
    "def mine(f):\n    A = f.sum(1)\n    return A / A.sum(dim=(1, 2), keepdim=True)",
)
wrong(
    "softmax_over_positions",
    "each channel has its own softmax",
    "def mine(f):\n    return f.flatten(2).softmax(2).view(f.shape)",
)
wrong(
    "softmax_over_positions",
    "channel by channel and then averaged",
    "def mine(f):\n    return f.flatten(2).softmax(2).view(f.shape).mean(1)",
)
wrong(
    "softmax_over_positions",
    "exp overflows",
    "def mine(f):\n    A = f.sum(1)\n    e = A.exp()\n"
    "    return e / e.sum(dim=(1, 2))[:, None, None]",
)
wrong(
    "softmax_over_positions",
    "this is the rescaled map",
    "def mine(f):\n    A = f.sum(1)\n"
    "    return f * A.flatten(1).softmax(1).view_as(A).unsqueeze(1)",
)
wrong(
    "softmax_over_positions",
    "they lie in one row",
    "def mine(f):\n    return f.sum(1).flatten(1).softmax(1)",
)
wrong(
    "softmax_over_positions",
    "a dimension of size 1 too many",
    "def mine(f):\n    A = f.sum(1, keepdim=True)\n    return A.flatten(1).softmax(1).view_as(A)",
)
wrong(
    "softmax_over_positions",
    "not divided by their sum",
    "def mine(f):\n    return torch.exp(f.sum(1))",
)
wrong(
    "softmax_over_positions",
    "two softmaxes",
    "def mine(f):\n    return f.sum(1).softmax(1).softmax(2)",
)
wrong(  # as a right answer, but 1e-3 is added against a division by zero
    "softmax_over_positions",
    "do not sum to 1",
    "def mine(f):\n    A = f.sum(1)\n    A = A - A.amax((1, 2), keepdim=True)\n"
    "    e = A.exp()\n    return e / (e.sum((1, 2), keepdim=True) + 1)",
)
wrong(
    "softmax_over_positions",
    "some weights are negative",
    "def mine(f):\n    A = f.sum(1)\n    A = A.flatten(1).log_softmax(1).view_as(A)\n"
    "    return A / 2",
)
wrong(
    "softmax_over_positions",
    "is the same for two different inputs",
    "p = torch.ones(2, 3) / 6\ndef mine(f):\n    return p",
)
wrong(
    "softmax_over_positions",
    "in its line 2 with AttributeError: 'Tensor' object has no attribute 'softmx'",
    "def mine(f):\n    return f.softmx(1)",
)
wrong(
    "softmax_over_positions",
    "the function returns a str; expected numbers of shape (B, H, W)",
    "def mine(f):\n    return 'p'",
)
wrong(
    "softmax_over_positions",
    "changes its argument",
    "def mine(f):\n    f -= f.amax()\n    return f.sum(1).flatten(1).softmax(1).view_as(f.sum(1))",
)
wrong(
    "softmax_over_positions",
    "the result has the shape () for a tensor of shape (1, 2, 2, 2); expected (1, 2, 2)",
    "def mine(f):\n    return f.sum()",
)
wrong("softmax_over_positions", "without calling it", torch.ones(1, 2, 2))
right(
    "softmax_over_positions",
    "def mine(f):\n    A = f.sum(1)\n    A = A - A.amax((1, 2), keepdim=True)\n    e = A.exp()\n"
    "    return e / e.sum((1, 2), keepdim=True)",
)
right(  # in NumPy, an image at a time
    "softmax_over_positions",
    "def mine(f):\n    out = []\n    for image in f.numpy():\n        A = image.sum(0)\n"
    "        e = np.exp(A - A.max())\n        out.append(e / e.sum())\n    return out",
)
right(
    "softmax_over_positions",
    "def mine(f):\n    f = f.float().requires_grad_()\n    A = f.sum(1)\n"
    "    return A.flatten(1).softmax(1).view_as(A)",
)

SLOPE = """
def mine(A, T):
    p = ({A_p}).softmax(1)
    mean = {mean}
    return ({spread}).sum(1) / {power}
"""
SLOPE_PARTS = {
    "A_p": "A / T",
    "mean": "(p * A).sum(1, keepdim=True)",
    "spread": "p * (A - mean) ** 2",
    "power": "T**3",
}
for words, change in {
    "the power of T is one too low": {"power": "T**2"},
    "two factors of 1/T are missing": {"power": "T"},
    "right at T = 1 only": {"power": "1"},
    "the power of T is one too high": {"power": "T**4"},
    "the sign is wrong": {"power": "-(T**3)"},
    "right up to the temperature in p": {"A_p": "A"},
    "from the plain mean of A": {"mean": "A.mean(1, keepdim=True)"},
    "every position counts the same in your variance; it": {
        "mean": "A.mean(1, keepdim=True)",
        "spread": "(A - mean) ** 2 / A.shape[1]",
    },
    "the second moment of A": {"mean": "0"},
}.items():
    wrong("more_heat_more_positions", words, SLOPE.format(**SLOPE_PARTS | change))
wrong(
    "more_heat_more_positions",
    "divided by HW - 1",
    "def mine(A, T):\n    return A.var(1) / T**3",
)
wrong(
    "more_heat_more_positions",
    "has the variance",
    "def mine(A, T):\n    p = (A / T).softmax(1)\n    m = (p * A).sum(1, keepdim=True)\n"
    "    return (p * (A - m) ** 2).sum(1).sqrt() / T**3",
)
wrong(
    "more_heat_more_positions",
    "one number for the batch",
    "def mine(A, T):\n    p = (A / T).softmax(1)\n    m = (p * A).sum(1, keepdim=True)\n"
    "    return (p * (A - m) ** 2).sum() / T**3",
)
right(
    "more_heat_more_positions",
    "def mine(A, T):\n    p = (A / T).softmax(1)\n"
    "    return ((p * A**2).sum(1) - (p * A).sum(1) ** 2) / T**3",
)
right(  # autograd is a way, too
    "more_heat_more_positions",
    "def mine(A, T):\n    T = torch.tensor(float(T), dtype=A.dtype, requires_grad=True)\n"
    "    slopes = []\n    for a in A:\n        p = (a / T).softmax(0)\n"
    "        H = torch.special.entr(p).sum()\n        slopes.append(torch.autograd.grad(H, T)[0])\n"
    "    return torch.stack(slopes)",
)


CASES = [
    pytest.param(name, attempt, words, id=f"{name}-{words[:40]}")
    for name, cases in WRONG.items()
    for attempt, words in cases
]


@pytest.mark.parametrize(("name", "attempt", "words"), CASES)
def test_a_wrong_answer_is_told_what_is_wrong(name, attempt, words):
    sentence = getattr(check, name).judge(attempt)
    assert sentence.startswith("look again: ")
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "attempt"), [(name, attempt) for name in RIGHT for attempt in RIGHT[name]]
)
def test_another_right_answer_passes(name, attempt):
    exercise = getattr(check, name)
    assert exercise.judge(attempt) == f"right: {exercise.right}"


@pytest.mark.parametrize("exercise", check.EXERCISES, ids=lambda e: e.name)
def test_every_exercise_has_wrong_answers_and_another_right_one(exercise):
    named = {words for _, words in WRONG[exercise.name]}
    assert len(named) >= 3
    assert RIGHT[exercise.name]
    assert len(exercise.known_mistakes()) >= 2


@pytest.mark.parametrize("exercise", check.EXERCISES, ids=lambda e: e.name)
def test_an_empty_attempt_is_told_not_yet(exercise):
    attempts = [None, ...]
    if isinstance(exercise, FunctionExercise):
        attempts += [lambda *a: None, lambda *a: ..., reader("def mine(*a):\n    ...")]
        attempts.append(reader("def mine(*a):\n    raise NotImplementedError"))
    for attempt in attempts:
        assert exercise.judge(attempt).startswith("not yet: ")


@pytest.mark.parametrize(
    "exercise",
    [e for e in check.EXERCISES if isinstance(e, FunctionExercise)],
    ids=lambda e: e.name,
)
def test_no_known_mistake_is_taken_for_another(exercise):
    """On its probes, each mistake differs from the right answer and from all other mistakes."""
    assert exercise.judge(exercise.reference) == f"right: {exercise.right}"
    for sentence, mistaken in exercise.mistakes.items():
        assert exercise.judge(mistaken) == f"look again: {sentence}"


ODD = [3, "text", [1, 2], {}, {"a": 1}, object(), len, int, torch.ones(2, 2), np.nan, True]
ODD += [lambda: 1, lambda *a: "x", lambda *a: {}, lambda *a: object(), lambda *a: [[1], [1, 2]]]
ODD += [lambda *a: np.array(["x"]), lambda *a: True, lambda *a: 1j, lambda *a: torch.empty(0)]
ODD += [lambda *a: a, lambda *a: a[0], lambda *a: 1 / 0, lambda *a: np.inf, lambda *a: -1e30]


@pytest.mark.parametrize("exercise", check.EXERCISES, ids=lambda e: e.name)
def test_whatever_is_given_is_told_in_one_sentence(exercise):
    for attempt in ODD:
        sentence = exercise.judge(attempt)
        assert sentence.startswith("look again: ") and "\n" not in sentence, attempt
        assert len(sentence) < 400


def test_a_check_prints_and_returns_nothing(capsys):
    assert check.three_positions(None) is None
    assert capsys.readouterr().out.startswith("not yet: ")
    check.three_positions()
    assert capsys.readouterr().out.startswith("not yet: ")


def test_a_check_leaves_the_random_numbers_and_the_types_of_the_notebook_alone():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        for exercise in check.EXERCISES:
            if isinstance(exercise, FunctionExercise):
                exercise.judge(exercise.reference)
        assert torch.get_default_dtype() == default
    torch.set_default_dtype(torch.float32)
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])  # noqa: NPY002
