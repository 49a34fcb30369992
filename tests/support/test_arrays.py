"""Array-likes: whatever holds the numbers, the result is that of a tensor; anything else is one sentence."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidsa_utils import InputError
from reidsa_utils.attention import (
    FORMS,
    SpatialAttention,
    attended_pool,
    attention_jacobian,
    attention_weights,
    effective_cells,
)
from reidsa_utils.batches import augment, to_input
from reidsa_utils.cam import class_activation_maps
from reidsa_utils.experiments.statistics import bootstrap, difference, holm, pool
from reidsa_utils.metrics import euclidean, evaluate_ranking, pool_queries, single_shot_cmc
from reidsa_utils.model import ReIDNet, reid_loss
from reidsa_utils.reranking import rerank
from reidsa_utils.support.arrays import as_array, as_tensor

WHOLE = ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint64"]
DTYPES = [*WHOLE, "bool", "float16", "bfloat16", "float32", "float64", "longdouble"]

# What holds an array; each gives the same numbers.
ARRAYS = {
    "array": lambda a: a,
    "Fortran order": np.asfortranarray,
    "negative strides": lambda a: a[::-1].copy()[::-1],
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "list": lambda a: a.tolist(),
    "tuple of arrays": tuple,
    "list of tensors": lambda a: [torch.tensor(np.asarray(row)) for row in a],
    "objects that are numbers": lambda a: a.astype(object),
}
TENSORS = {
    "tensor": lambda t: t,
    "on the tape": lambda t: t.requires_grad_() if t.is_floating_point() else t,
    "transposed": lambda t: t.mT.contiguous().mT if t.dim() > 1 else t,
    "expanded": lambda t: t[None].expand(2, *t.shape)[1],
    "parameter": lambda t: torch.nn.Parameter(t, requires_grad=False),
}
TABLES = {1: pd.Series, 2: pd.DataFrame}
NULLABLE = {"int8": "Int8", "int64": "Int64", "float32": "Float32", "float64": "Float64"}


@st.composite
def array_likes(draw, values, dtypes=DTYPES):
    """The numbers of `values` in some type, some container and some layout."""
    dtype = draw(st.sampled_from(dtypes))
    ways = list(TENSORS) if dtype == "bfloat16" else [*ARRAYS, *TENSORS, "read-only"]
    if values.ndim in TABLES and dtype != "bfloat16":
        ways += ["table", "table with another index", *["nullable table"] * (dtype in NULLABLE)]
    way = draw(st.sampled_from(ways))
    if way in TENSORS:
        known_to_torch = "float64" if dtype == "longdouble" else dtype
        return TENSORS[way](torch.tensor(values).to(getattr(torch, known_to_torch)))
    array = values.astype(dtype)
    if way in ARRAYS:
        if dtype in ("uint64", "longdouble") and "tensor" in way:
            array = values  # torch does not make them from arrays
        return ARRAYS[way](array)
    if way == "read-only":
        array.flags.writeable = False
        return array
    index = range(7, 7 + len(array)) if "index" in way else None
    table = TABLES[values.ndim](array, index=index)
    return table.astype(NULLABLE[dtype]) if way == "nullable table" else table


def spoilt(values, whole=False):
    """What is no array of such numbers."""
    text = values.astype(str)
    hole = values.astype(object)
    hole.flat[-1] = None
    missing = values.astype(float)
    missing.flat[-1] = np.nan
    things = {
        "text": text,
        "a list of text": text.tolist(),
        "a table of text": TABLES.get(values.ndim, np.asarray)(text),
        "None inside": hole.tolist(),
        "NaN": missing,
        "objects": np.full(values.shape, object()),
        "complex": values + 1j,
        "ragged": [*values.tolist(), [[0]]],
        "a dimension more": values[None],
        "one number": 3,
        "nothing": None,
        "a generator": (row for row in values),
        "a set": {1, 2},
        "a dict": {0: values},
        "dates": np.zeros(values.shape, "M8[D]"),
        "masked": np.ma.masked_array(values, np.eye(*[*values.shape, 1][:2]).sum(1) > 0)
        if values.ndim == 1
        else np.ma.masked_array(values, values >= 0),
        "sparse": torch.tensor(values).to_sparse(),
        "on no device": torch.zeros(values.shape, device="meta"),
    }
    if whole:
        things["fractions"] = values + 0.5
        things["Fraction"] = [Fraction(1, 2)] * len(values)
        things["truth values"] = values > 0
        things["too large"] = [2**70] * len(values)
    return things


rng = np.random.default_rng(0)
LABELS = {"query": [1, 2, 3, 1], "gallery": [1, 2, 3, 1, 2, 3, -1, 0]}
CAMERAS = {"query": [1, 1, 2, 2], "gallery": [2, 2, 1, 1, 3, 3, 1, 1]}
Q, G = len(LABELS["query"]), len(LABELS["gallery"])
torch.manual_seed(0)
NET = ReIDNet(4, "b_ds_sa2", "l1", backbone="thin").eval()
with torch.no_grad():
    MAPS = NET.feature_maps(torch.randn(3, 3, 96, 32))
LOGITS = {"final": torch.randn(3, 4), "stage1": torch.randn(3, 4)}


def ranking(distances, *labels):
    found = evaluate_ranking(distances, *labels)
    return np.concatenate([found.cmc, found.average_precision, found.first_match])


def protocol(function, **more):
    """A call of an evaluation: (numbers, labels) -> result; the labels are drawn, too."""

    def call(distances, query_ids, gallery_ids, query_cams, gallery_cams):
        return function(distances, query_ids, gallery_ids, query_cams, gallery_cams, **more)

    return call


def flat(result) -> np.ndarray:
    values = result.values() if isinstance(result, dict) else [result]
    return np.concatenate([np.ravel(as_array(v)) for v in values]).astype(float)


IDS = [np.array(v) for v in (*LABELS.values(), *CAMERAS.values())]
SIGNED = ["int8", "int16", "int32", "int64"]
# name: the function, and for each argument its shape or its numbers, and their types (None: any)
CALLS = {
    "evaluate_ranking": (ranking, [(Q, G), *IDS], [None, *[SIGNED] * 4]),
    "single_shot_cmc": (
        protocol(single_shot_cmc, repeats=2),
        [(Q, G), *IDS],
        [None, *[SIGNED] * 4],
    ),
    "pool_queries": (
        pool_queries,
        [(Q, 5), IDS[0], IDS[2], (G, 5), IDS[1], IDS[3]],
        [None, SIGNED, SIGNED, None, SIGNED, SIGNED],
    ),
    "euclidean": (euclidean, [(4, 5), (7, 5)], [None, None]),
    "rerank": (lambda q, g: rerank(q, g, 4, 2), [(4, 5), (9, 5)], [None, None]),
    "attention_jacobian": (attention_jacobian, [(2, 3, 2)], [None]),
    "effective_cells": (effective_cells, [(2, 3, 2)], [None]),
    **{
        f"attention_weights, {form}": (
            lambda f, form=form: attention_weights(f, form),
            [(2, 3, 3, 2)],
            [None],
        )
        for form in FORMS
    },
    **{
        f"attended_pool, {form}": (
            lambda f, form=form: attended_pool(f, form),
            [(2, 3, 3, 2)],
            [None],
        )
        for form in FORMS
    },
    "SpatialAttention": (SpatialAttention("l1"), [(2, 3, 3, 2)], [None]),
    "class_activation_maps": (
        lambda classes: class_activation_maps(NET, None, classes, 2, maps=MAPS),
        [np.array([3, 0, 2])],
        [WHOLE],
    ),
    "reid_loss": (lambda target: reid_loss(LOGITS, target), [np.array([3, 0, 2])], [WHOLE]),
    "to_input": (to_input, [(2, 4, 3, 3)], [WHOLE]),
    "augment": (
        lambda images: augment(images, np.random.default_rng(2), erasing=False),
        [(2, 4, 3, 3)],
        [WHOLE],
    ),
    "difference": (difference, [(4,), (4,)], [None, None]),
    "difference with queries": (
        lambda *metrics: difference(*metrics, ids=[1, 1, 2], repeats=20),
        [(4,), (4,), (4, 3), (4, 3)],
        [None] * 4,
    ),
    "bootstrap": (lambda d: bootstrap(d, [1, 1, 2], repeats=20), [(4, 3)], [None]),
    "holm": (holm, [(4,)], [None]),
    "pool": (pool, [(2,), np.eye(2, dtype=int)], [None, None]),
}
ROUNDING = {"float16": 2e-3, "bfloat16": 2e-2}
LABEL_ARGUMENTS = (WHOLE, SIGNED)


@pytest.mark.parametrize("name", CALLS)
def test_the_same_numbers_give_the_same_result(name):
    function, arguments, dtypes = CALLS[name]

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.data(), st.integers(0, 2**31))
    def check(data, seed):
        draws = np.random.default_rng(seed)
        values = [
            a if isinstance(a, np.ndarray) else draws.integers(0, 2, a, dtype=np.int64)
            for a in arguments
        ]
        likes = [
            data.draw(array_likes(v, d or DTYPES)) for v, d in zip(values, dtypes, strict=True)
        ]
        plain = [
            torch.tensor(v, dtype=torch.float64 if d is None else torch.int64)
            for v, d in zip(values, dtypes, strict=True)
        ]
        expected = flat(function(*plain))
        half = {str(getattr(x, "dtype", "")).removeprefix("torch.") for x in likes} & set(ROUNDING)
        tolerance = max((ROUNDING[kind] for kind in half), default=1e-6)
        np.testing.assert_allclose(flat(function(*likes)), expected, rtol=tolerance, atol=tolerance)

    check()


@pytest.mark.parametrize("name", CALLS)
def test_anything_else_is_a_sentence(name):
    function, arguments, dtypes = CALLS[name]
    good = [a if isinstance(a, np.ndarray) else np.ones(a) for a in arguments]
    if dtypes[0] is WHOLE:
        good = [a.astype(int) for a in good]
    for k, (argument, kind) in enumerate(zip(good, dtypes, strict=True)):
        for what, bad in spoilt(argument, whole=kind is not None).items():
            if what == "NaN" and (name == "holm" or argument.ndim > 2):
                continue  # NaN is no test; a map of a diverged network stays NaN
            if what == "on no device" and argument.ndim > 2 and kind is None:
                continue  # torch computes shapes there
            with pytest.raises(InputError) as error:
                function(*[bad if i == k else other for i, other in enumerate(good)])
                pytest.fail(f"{what} as argument {k} is taken")
            assert "\n" not in str(error.value).strip(), (what, str(error.value))


def test_types():
    assert as_tensor([[1.5]]).dtype == torch.float64
    assert (
        as_tensor(np.float16([1])).dtype == as_tensor(torch.ones(1).half()).dtype == torch.float16
    )
    assert as_tensor(np.ones(1, bool)).dtype == as_tensor(torch.ones(1, dtype=torch.uint8)).dtype
    large = 2**40 + np.arange(3)
    assert as_tensor(large).tolist() == as_tensor(torch.tensor(large)).tolist() == large.tolist()
    kept = np.ones(3, np.float32)
    assert np.shares_memory(as_tensor(kept).numpy(), kept) and as_array(kept) is kept
