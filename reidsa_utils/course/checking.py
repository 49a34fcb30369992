"""How a check finds out what is wrong with a reader's code.

A FunctionExercise holds the right function, some arguments (probes) and the usual mistakes, each
as a function that makes it. The reader's results are compared with the right ones. If they differ,
they are compared with the results of each mistake, and the mistake that fits names what went wrong.
A ValueExercise asks for a value, and a function of the exercise says what is wrong with it.
"""

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

# Far above rounding in float64 and in float32, far below the effect of every mistake in a check.
RTOL, ATOL = 1e-4, 1e-6
SHOWN = 6  # a sentence lists at most this many numbers of an argument


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What both kinds of exercises share. Calling an exercise prints its verdict on an attempt.

    name: of the check; notebook: name of its file without the ending; title, level, minutes: as
    the notebook announces the exercise. right: the sentence about a right attempt.
    """

    name: str
    notebook: str
    title: str
    level: str
    minutes: int
    right: str

    def __call__(self, attempt=None) -> None:
        print(self.judge(attempt))

    def judge(self, attempt) -> str:
        """One sentence about any attempt. It begins with "right", "look again" or "not yet"."""
        if attempt is None or attempt is ...:
            return f"not yet: {self.expects()}"
        complaint = self.complaint(attempt)
        if complaint is None:
            return f"right: {self.right}"
        if complaint.startswith("not yet: "):
            return complaint
        return f"look again: {complaint}"

    def expects(self) -> str:
        """The sentence about an empty starter."""
        raise NotImplementedError

    def complaint(self, attempt) -> str | None:
        """What is wrong with an attempt, or None."""
        raise NotImplementedError

    def known_mistakes(self) -> list[str]:
        """What the check can say about typical wrong answers."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ValueExercise(Exercise):
    """An exercise that asks for a value, such as a number to be changed.

    asks: the value in words. examine: value -> what is wrong with it, or None.
    typical: {a typical wrong value: what it shows}, for teachers.
    """

    asks: str
    examine: Callable
    typical: Mapping[str, str]

    def expects(self):
        return f"replace the ... by {self.asks}, and run the cell again"

    def complaint(self, attempt):
        if callable(attempt):
            return f"this is a function; the check takes {self.asks}"
        try:
            return self.examine(attempt)
        except OverflowError:
            return f"this number is too large for a float; expected {self.asks}"
        except Exception:  # a reader may give anything
            return f"{_introduced(attempt)}; expected {self.asks}"

    def known_mistakes(self):
        return [f"{value}: {meaning}" for value, meaning in self.typical.items()]


@dataclass(frozen=True, kw_only=True)
class FunctionExercise(Exercise):
    """An exercise that asks for a function.

    reference: the right function; arguments: their names, as in the starter cell; probes: their
    values, one tuple per call. Two of the probes have the same shapes and different numbers, so
    that a function that ignores its arguments is found.
    shape: the result's shape in words. mistakes: {sentence: a function that makes the mistake}.
    symptoms: {sentence: (result, *arguments) -> whether the result shows the symptom}, for the case
    that no mistake fits; results are arrays of float64. nan_means: a sentence about the usual cause
    of nan or inf in this exercise.
    """

    reference: Callable
    arguments: tuple[str, ...]
    probes: Sequence[tuple]
    shape: str
    mistakes: Mapping[str, Callable]
    symptoms: Mapping[str, Callable] = field(default_factory=dict)
    nan_means: str = ""

    def expects(self):
        return "the function returns nothing so far; fill in the ... and return the result"

    def known_mistakes(self):
        return list(self.mistakes)

    def complaint(self, attempt):
        if not callable(attempt):
            return (
                f"this is {_kind(attempt)}; give the check the function itself, without calling it"
            )
        results, tuples = [], []
        for arguments in self.probes:
            given = copy.deepcopy(arguments)
            try:
                result = attempt(*given)
            except NotImplementedError:
                return f"not yet: {self.expects()}"
            except Exception as error:  # a reader's code may raise anything
                return _stopped(error, attempt, self.describe(arguments))
            if result is None or result is ...:
                return f"not yet: {self.expects()}"
            tuples.append(isinstance(result, tuple))
            try:
                results.append(_as_array(result))
            except (TypeError, ValueError, RuntimeError):
                return (
                    f"the function returns {_kind(result)}; expected numbers of shape {self.shape}"
                )
            if not _same_arguments(given, arguments):
                return "the function changes its argument; compute on new tensors instead"
        return self._compare(results, tuples)

    def describe(self, values: tuple) -> str:
        """The arguments of a call by name: shapes of arrays, small values as they are."""
        words = [_named(name, value) for name, value in zip(self.arguments, values, strict=True)]
        return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

    def _compare(self, results: list[np.ndarray], tuples: list[bool]) -> str | None:
        """What is wrong with the results of the probes, or None.

        tuples: for each result, whether the reader's function returned it as a tuple.
        """
        expected = self._results_of(self.reference)
        if _all_close(results, expected):
            return None
        for sentence, mistaken in self.mistakes.items():
            if _all_close(results, self._results_of(mistaken)):
                return sentence
        if _ignores_its_arguments(results, expected):
            return (
                "the result is the same for two different inputs; use the arguments of the "
                "function, not variables of the cells above"
            )
        for i, (result, right) in enumerate(zip(results, expected, strict=True)):
            if result.shape != right.shape:
                if tuples[i]:
                    return (
                        f"the function returns a tuple of {len(result)}; return the one result "
                        "that is asked for, without a comma behind it"
                    )
                return (
                    f"the result has the shape {result.shape} for "
                    f"{self.describe(self.probes[i])}; "
                    f"expected {right.shape}, which is {self.shape}"
                )
        for result, right, arguments in zip(results, expected, self.probes, strict=True):
            if not np.isfinite(result[np.isfinite(right)]).all():
                cause = f". {self.nan_means}" if self.nan_means else ""
                return f"the result holds nan or inf for {self.describe(arguments)}{cause}"
        for sentence, shows in self.symptoms.items():
            for result, arguments in zip(results, self.probes, strict=True):
                if shows(result, *arguments):
                    return sentence
        return self._first_difference(results, expected)

    def _results_of(self, function: Callable) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            return [_as_array(function(*copy.deepcopy(a))) for a in self.probes]

    def _first_difference(self, results, expected) -> str:
        agree = [_all_close([r], [e]) for r, e in zip(results, expected, strict=True)]
        first = agree.index(False)
        result, right = results[first], expected[first]
        place = np.argwhere(~np.isclose(result, right, rtol=RTOL, atol=ATOL, equal_nan=True))[0]
        where = f" at {[int(i) for i in place]}" if len(place) else ""
        beginning = ""
        if any(agree):
            are = "is" if sum(agree) == 1 else "are"
            beginning = f"{sum(agree)} of {len(agree)} cases {are} right, but "
        found, wanted = as_number(result[tuple(place)]), as_number(right[tuple(place)])
        return (
            f"{beginning}for {self.describe(self.probes[first])} the result{where} is "
            f"{found:.4g} and should be {wanted:.4g}"
        )


def as_number(value) -> float:
    """float(value), with 0 instead of -0, so that a sentence does not show "-0"."""
    return float(value) + 0.0


def _as_array(value) -> np.ndarray:
    """Numbers of any kind as an array of float64. Raises TypeError or ValueError for others."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()  # numpy has no bfloat16
        value = value.numpy()
    if isinstance(value, list | tuple):
        value = [_as_array(item) for item in value]
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"values of type {array.dtype}")
    return array.astype(float)


def _all_close(results, others) -> bool:
    return all(
        result.shape == other.shape and np.allclose(result, other, RTOL, ATOL, equal_nan=True)
        for result, other in zip(results, others, strict=True)
    )


def _ignores_its_arguments(results, expected) -> bool:
    """Whether probes that should give different results of one shape all give the same."""
    pairs = []
    for i in range(len(results)):
        for j in range(i):
            should_differ = not np.array_equal(expected[i], expected[j])
            if should_differ and expected[i].shape == expected[j].shape:
                pairs.append((results[i], results[j]))
    return bool(pairs) and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _same_arguments(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same_arguments(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same_arguments, one, other))
    return one == other


def _stopped(error: Exception, attempt: Callable, arguments: str) -> str:
    """A sentence about the error of a reader's code, with its line in the function if possible."""
    said = str(error).strip().splitlines()
    words = f": {said[0]}" if said else ""
    where = ""
    code = getattr(attempt, "__code__", None)
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code is code:
            where = f" in its line {line - code.co_firstlineno + 1}"
    return f"the function stops{where} with {type(error).__name__}{words} (called with {arguments})"


def _named(name: str, value) -> str:
    """An argument of a call, with its name, in a few words."""
    if isinstance(value, torch.Tensor | np.ndarray) and value.ndim:
        if value.ndim == 1 and len(value) <= SHOWN:
            return f"{name} = [{', '.join(f'{number:.4g}' for number in value.tolist())}]"
        return f"{name} of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"{name} with {', '.join(map(str, value))}"
    return f"{name} = {value!r}"


def _introduced(value) -> str:
    """The beginning of a sentence about a value of the wrong kind."""
    if type(value).__name__.endswith("Slider"):
        return "this is the slider"
    try:
        words = repr(value)
    except Exception:  # an object whose repr() fails
        words = ""
    if (
        not words
        or len(words) > 60
        or (isinstance(value, torch.Tensor | np.ndarray) and value.ndim)
    ):
        return f"this is {_kind(value)}"
    return f"{words} is {_kind(value)}"


def _kind(value) -> str:
    """What a value is, with its article."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "a tensor" if isinstance(value, torch.Tensor) else "an array"
        return f"{kind} of shape {tuple(value.shape)}" if value.ndim else kind
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    name = type(value).__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"{article} {name}"
