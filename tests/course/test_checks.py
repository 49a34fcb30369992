"""The checks of the exercises: typical wrong answers are told what is wrong, other right ones pass.

The wrong answers stand here as a reader would write them, and not as the checks hold them.
"""

import numpy as np
import pytest
import torch
from scipy import special

from reidsa_utils.attention import attention_weights
from reidsa_utils.config import configure
from reidsa_utils.course import check, forms, maps, steps
from reidsa_utils.course.checking import FunctionExercise
from reidsa_utils.training import learning_rate

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
    "the softmax runs over the channels, not over the positions",
    "def mine(f):\n    return f.softmax(1).sum(dim=1)",
)
wrong(
    "softmax_over_positions",
    "the softmax runs over the channels, not over the positions",
    "def mine(f):\n    A = f.sum(1, keepdim=True)\n    return torch.nn.Softmax2d()(A)[:, 0]",
)
wrong(
    "softmax_over_positions",
    "can still be hundreds",
    "def mine(f):\n    A = f.sum(1)\n    e = torch.exp(A - A.mean((1, 2), keepdim=True))\n"
    "    return e / e.sum(dim=(1, 2))[:, None, None]",
)
wrong(
    "softmax_over_positions",
    "can still be hundreds",
    "def mine(f):\n    A = f.sum(1)\n    e = torch.exp(A - A.amin((1, 2), keepdim=True))\n"
    "    return e / e.sum(dim=(1, 2))[:, None, None]",
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
    "a dark image beside a bright one",
    "def mine(f):\n    A = f.sum(1)\n    e = torch.exp(A - torch.max(A))\n"
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
    "the result has the shape () for f of shape (1, 2, 2, 2); expected (1, 2, 2)",
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
    "this is dH/dbeta for beta = 1/T": {"power": "-T"},
    "dH/dbeta is not the variance but -beta times it": {"power": "-(T**2)"},
    "the sign is wrong": {"power": "-(T**3)"},
    "right up to the temperature in p": {"A_p": "A"},
    "from the plain mean of A": {"mean": "A.mean(1, keepdim=True)"},
    "every position counts the same in your variance; it": {
        "mean": "A.mean(1, keepdim=True)",
        "spread": "(A - mean) ** 2 / A.shape[1]",
    },
    "the second moment of A": {"mean": "0"},
    "the mean of A under p is not squared": {"spread": "p * A**2 - mean / A.shape[1]"},
}.items():
    wrong("more_heat_more_positions", words, SLOPE.format(**SLOPE_PARTS | change))
ENTROPY = """
def mine(A, T):
    p = (A / T).softmax(1)
    return {}
"""
wrong("more_heat_more_positions", "the entropy H itself", ENTROPY.format("-(p * p.log()).sum(1)"))
wrong(
    "more_heat_more_positions",
    "this is the effective number exp(H)",
    ENTROPY.format("(-(p * p.log()).sum(1)).exp()"),
)
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

# Notebook 02.

wrong("negative_case_one", "the derivative is +", 2)
wrong("negative_case_one", "Which of the two terms of case 1 can be negative", 0)
wrong("negative_case_one", "the first one outweighs it", -0.5)
wrong("negative_case_one", "the first one outweighs it", -1)
wrong("negative_case_one", "at 0 the derivative is +", -0.0)
wrong("negative_case_one", "the number is -40; choose one between -10 and 10", -40)
wrong("negative_case_one", "choose one between -10 and 10", -1e6)
wrong("negative_case_one", "choose one between -10 and 10", float("inf"))
wrong("negative_case_one", "choose one between -10 and 10", float("nan"))
wrong("negative_case_one", "expected a number", "minus two")
right("negative_case_one", -2)
right("negative_case_one", -10)
right("negative_case_one", torch.tensor(-1.5))

JACOBIAN = """
def mine(f):
    C, H, W = f.shape
    N = H * W
    f = f.reshape(C, N)
    A = f.sum(0)
    Z = A.sum()
    p = A / Z
    J = torch.zeros(C, N, C, N, dtype=f.dtype)
    for k in range(C):
        for a in range(N):
            for t in range(C):
                for b in range(N):
                    same = float(a == b)
                    J[k, a, t, b] = {product}
                    if {case_one}:
                        J[k, a, t, b] += p[a]
    return J.view(C, H, W, C, H, W)
"""
PRODUCT = "f[k, a] * (same - p[a]) / Z"
CASE_ONE = "k == t and a == b"
for words, product, case_one in (
    ("case 1 is missing", PRODUCT, "False"),
    ("wherever the positions agree", PRODUCT, "a == b"),
    ("wherever the channels agree", PRODUCT, "k == t"),
    ("p of the wrong position", "f[k, a] * (same - p[b]) / Z", CASE_ONE),
    ("the factor 1/Z is missing", "f[k, a] * (same - p[a])", CASE_ONE),
    ("has Z squared below", "f[k, a] * (same - p[a]) / Z**2", CASE_ONE),
    ("nothing supports itself", "-f[k, a] * p[a] / Z", CASE_ONE),
    ("Z is taken for a constant", "f[k, a] * same / Z", CASE_ONE),
    ("the sign of the competition is wrong", "f[k, a] * (same + p[a]) / Z", CASE_ONE),
    ("this is eq. 12 itself", "0", "False"),
    ("dp has the form of the softmax's", "f[k, a] * p[a] * (same - p[b])", CASE_ONE),
    ("f is that of the channel t", "f[t, a] * (same - p[a]) / Z", CASE_ONE),
):
    code = JACOBIAN.format(product=product, case_one=case_one)
    if words == "this is eq. 12 itself":
        code = JACOBIAN.format(product="f[k, a] * p[a] * (same - p[b])", case_one=CASE_ONE)
        code = code.replace("p = A / Z", "p = A.softmax(0)")
    wrong("jacobian_of_l1", words, code)
right("jacobian_of_l1", JACOBIAN.format(product=PRODUCT, case_one=CASE_ONE))
BY_AUTOGRAD = """
def mine(f):
    F = lambda f: f * f.sum(0) / f.sum()
    J = torch.autograd.functional.jacobian(F, f)
    return J{shaped}
"""
right("jacobian_of_l1", BY_AUTOGRAD.format(shaped=""))
wrong(
    "jacobian_of_l1", "lie in a matrix", BY_AUTOGRAD.format(shaped=".reshape(f.numel(), f.numel())")
)
wrong(
    "jacobian_of_l1",
    "those of F come first",
    BY_AUTOGRAD.format(shaped=".permute(3, 4, 5, 0, 1, 2)"),
)
wrong(
    "jacobian_of_l1",
    "the positions lie in one row",
    BY_AUTOGRAD.format(shaped=".flatten(4, 5).flatten(1, 2)"),
)

HEAT = """
def mine(f, gamma, T):
    A = f.sum(0) / {heat}
    p = A.exp() / A.exp().sum()
    q = (gamma[:, None, None] * f).sum(0)
    competition = {competition}
    return {result}
"""
HEAT_PARTS = {
    "heat": "T",
    "competition": "p * (q - (p * q).sum()) / T",
    "result": "gamma[:, None, None] * p + competition",
}
for words, change in {
    "right at T = 1 only": {"competition": "p * (q - (p * q).sum())"},
    "gamma is divided by T as well": {"result": "gamma[:, None, None] * p / T + competition"},
    "is multiplied by T": {"competition": "p * (q - (p * q).sum()) * T"},
    "divided by T squared": {"competition": "p * (q - (p * q).sum()) / T**2"},
    "right up to the temperature in p": {"heat": "1"},
    "with their plain mean": {"competition": "p * (q - q.mean()) / T"},
    "with their sum": {"competition": "p * (q - q.sum()) / T"},
    "only q is divided by T": {"competition": "p * (q / T - (p * q).sum())"},
    "nobody loses": {"competition": "p * q / T"},
    "not weighted by p": {"competition": "(q - (p * q).sum()) / T"},
    "the term with gamma alone": {"competition": "0"},
    "the sign of the competition": {"competition": "p * ((p * q).sum() - q) / T"},
    "once for all channels": {"result": "competition"},
    "this is the competition alone; the": {"result": "competition + 0 * f"},
}.items():
    wrong("competition_with_heat", words, HEAT.format(**HEAT_PARTS | change))
right(
    "competition_with_heat",
    "def mine(f, gamma, T):\n    f = f.clone().requires_grad_()\n    A = f.sum(0)\n"
    "    p = (A / T).flatten().softmax(0).view_as(A)\n    S = (gamma * (p * f).sum((1, 2))).sum()\n"
    "    return torch.autograd.grad(S, f)[0]",
)

# Notebook 03.

wrong("good_start", "your AP is 0.767", [1, 2, 10])
wrong("good_start", "your AP is 0.722", [1, 3, 6])
wrong("good_start", "your first one is at 2", [2, 9, 10])
wrong("good_start", "the first rank of a list is 1, not 0", [0, 8, 9])
wrong("good_start", "cannot stand at one rank", [1, 9, 9])
wrong("good_start", "these are 4 ranks", [1, 9, 10, 11])
wrong("good_start", "a rank is a whole number", [1, 9.5, 10])
wrong("good_start", "expected a list of three ranks", 1)
right("good_start", np.array([1, 9, 10]))
right("good_start", (30, 1, 20))

SCORE = """
def mine(distances, query_id, query_cam, gallery_ids, gallery_cams):
    hits, rank, total = 0, 0, {first}
    for i in {order}:
        same = gallery_ids[i] == query_id
        own = same and gallery_cams[i] == query_cam
        if {left_out}:
            continue
        rank += 1
        if {match}:
            hits += 1
            total += {term}
    return {result}
"""
SCORE_PARTS = {
    "first": "0.0",
    "order": "np.argsort(distances)",
    "left_out": "gallery_ids[i] == -1 or own",
    "match": "same and not own",
    "term": "hits / rank",
    "result": "total / hits",
}
for words, change in {
    "junk (identity -1) counts as a miss": {"left_out": "own"},
    "junk has the identity -1": {"left_out": "gallery_ids[i] == 0 or own"},
    "are kept and count as matches": {"left_out": "gallery_ids[i] == -1", "match": "same"},
    "from its own camera count as misses": {"left_out": "gallery_ids[i] == -1"},
    "still takes up ranks": {"left_out": "False"},
    "nothing is left out": {"left_out": "False", "match": "same"},
    "all images of the query's camera are dropped": {
        "left_out": "gallery_ids[i] == -1 or gallery_cams[i] == query_cam"
    },
    "distractors (identity 0) are left out": {"left_out": "gallery_ids[i] <= 0 or own"},
    "the furthest image comes first": {"order": "np.argsort(distances)[::-1]"},
    "the list is not sorted": {"order": "range(len(distances))"},
    "not the rank of each image": {"order": "np.argsort(np.argsort(distances))"},
    "this is the trapezoid": {
        "term": "(hits / rank + ((hits - 1) / (rank - 1) if rank > 1 else 1)) / 2"
    },
    "are summed; AP is their mean": {"result": "total"},
    "divided by the length of the list": {"result": "total / rank"},
    "the match itself is missing": {"term": "(hits - 1) / rank"},
    "ranks begin at 0": {"term": "hits / max(rank - 1, 1)"},
    "ranks begin at 2": {"term": "hits / (rank + 1)"},
    "the first match only": {"term": "1 / rank if hits == 1 else 0", "result": "total"},
    "the precision at the last match": {"term": "0", "result": "last / rank_of_last"},
    "its precision is the number of matches so far": {"term": "1 / rank"},
    "in per cent": {"result": "100 * total / hits"},
    "AP lies between 0 and 1": {"term": "rank"},
}.items():
    code = SCORE.format(**SCORE_PARTS | change)
    if "rank_of_last" in code:
        code = code.replace("total += 0", "last, rank_of_last = hits, rank")
    wrong("score_one_query", words, code)
wrong(
    "score_one_query",
    "averaged over all ranks",
    "def mine(d, pid, cam, ids, cams):\n    own = (ids == pid) & (cams == cam)\n"
    "    keep = (ids != -1) & ~own\n    match = (ids[keep] == pid)[np.argsort(d[keep])]\n"
    "    return (match.cumsum() / np.arange(1, keep.sum() + 1)).mean()",
)
wrong(
    "score_one_query",
    "4 of 5 cases are right, but for distances of shape (24,), query_id = 7",
    SCORE.format(**SCORE_PARTS | {"order": "np.argsort(distances)[:14]"}),
)
right("score_one_query", SCORE.format(**SCORE_PARTS))
right(
    "score_one_query",
    "def mine(d, pid, cam, ids, cams):\n    keep = (ids != -1) & ~((ids == pid) & (cams == cam))\n"
    "    match = (ids[keep] == pid)[np.argsort(d[keep])]\n"
    "    return (match.cumsum() / np.arange(1, keep.sum() + 1))[match].mean()",
)

SORTED = """
def mine(d, pid, cam, ids, cams):
    o = np.argsort(d)
    n = np.arange(1, len(d) + 1)
    own = (ids == pid) & (cams == cam)
    junk = ids == -1
    {code}
"""
OF_COUNTS = "\n    return (np.cumsum(m) / np.arange(1, len(m) + 1))[m].mean()"
NAN = "m = np.where(junk | own, np.nan, ids == pid)[o]\n    "
for words, code in {
    "what is left out stands in the order of the gallery; sort it like": (
        "m = (ids == pid)[o][~junk & ~own]" + OF_COUNTS
    ),
    "sort it as you sort the matches": ("m = ((ids == pid) & ~own)[o][~junk & ~own]" + OF_COUNTS),
    "the mask of the matches stands in the order of the gallery; sort it like": (
        "m = (ids == pid)[(~junk & ~own)[o]]" + OF_COUNTS
    ),
    "sort it as you sort what is left out": (
        "m = ((ids == pid) & ~own)[(~junk & ~own)[o]]" + OF_COUNTS
    ),
    "the mask of junk stands": "m = (ids == pid)[o][~junk & ~own[o]]" + OF_COUNTS,
    "the mask of the query's own camera": "m = (ids == pid)[o][~junk[o] & ~own]" + OF_COUNTS,
    "but the cameras are not": (
        "ids = ids[o]\n    own = (ids == pid) & (cams == cam)\n"
        "    m = (ids == pid)[(ids != -1) & ~own]" + OF_COUNTS
    ),
    "but the identities are not": (
        "cams = cams[o]\n    own = (ids == pid) & (cams == cam)\n"
        "    m = (ids == pid)[(ids != -1) & ~own]" + OF_COUNTS
    ),
    "stands at the end of the list": (
        "m = (ids == pid)[np.argsort(np.where(junk | own, np.inf, d))]" + OF_COUNTS
    ),
    "and the query's person counts there": (
        "m = (ids == pid)[np.argsort(np.where(junk | own, np.nan, d))]" + OF_COUNTS
    ),
    "over all ranks that stay (nanmean)": NAN + "return np.nanmean(np.nancumsum(m) / n + 0 * m)",
    "what is left out still takes up ranks": NAN
    + "return np.nanmean((np.nancumsum(m) / n)[m == 1])",
    "it spreads through sums": NAN + "return np.mean(np.cumsum(m) / n)",
    "of the whole gallery": (
        "k = ~junk & ~own\n    m = (ids == pid)[k][np.argsort(d[k])]\n"
        "    return (np.cumsum(m) / np.arange(1, len(m) + 1))[m].sum() / len(d)"
    ),
}.items():
    wrong("score_one_query", words, SORTED.format(code=code))
FROM_ZERO = "k = ~junk & ~own\n    r = np.flatnonzero((ids == pid)[k][np.argsort(d[k])])\n    "
FROM_ZERO += "with np.errstate(all='ignore'):\n        return {}"
for words, result in {
    "divides by 0; the nearest image has rank 1": "np.mean(np.arange(1, len(r) + 1) / r)",
    "matches and ranks are counted from 0": "np.mean(np.arange(len(r)) / r)",
}.items():
    wrong("score_one_query", words, SORTED.format(code=FROM_ZERO.format(result)))
right(  # nan and infinite distances come last, and nothing counts there
    "score_one_query",
    SORTED.format(
        code="m = ((ids == pid) & ~own)[np.argsort(np.where(junk | own, np.nan, d))]" + OF_COUNTS
    ),
)

KINDS = """
def mine(ranks):
    terms = []
    for h, r in enumerate(ranks, {start}):
        if r == 1:
            terms.append({first})
        else:
            terms.append({term})
    return {result}
"""
KINDS_PARTS = {
    "start": "1",
    "first": "0.0",
    "term": "(h / r - (h - 1) / (r - 1)) / 2",
    "result": "np.mean(terms)",
}
for words, change in {
    "the factor 1/2": {"term": "h / r - (h - 1) / (r - 1)"},
    "the terms are summed": {"result": "sum(terms)"},
    "the sign is wrong": {"term": "((h - 1) / (r - 1) - h / r) / 2"},
    "gives 0/0": {"first": "float('nan')"},
    "is set to 1, not to 0": {"first": "0.5"},
    "h counts the matches from 1": {"start": "0", "term": "(r - h) / (2 * r * (r - 1))"},
    "not r squared": {"term": "(r - h) / (2 * r**2)"},
    "this is the step sum itself": {"first": "1.0", "term": "h / r"},
    "this is the trapezoid itself": {"first": "1.0", "term": "(h / r + (h - 1) / (r - 1)) / 2"},
    "never negative": {"term": "h - r"},
    "never above 1/4": {"term": "r - h"},
}.items():
    wrong("the_two_kinds", words, KINDS.format(**KINDS_PARTS | change))
right("the_two_kinds", KINDS.format(**KINDS_PARTS))

BY_FORMULA = """
def mine(r):
    r = np.asarray(r, float)
    h = np.arange(1, len(r) + 1)
    with np.errstate(all="ignore"):
        return {result}
"""
TERM = "(r - h) / (2 * r * (r - 1))"
for words, result in {
    "drops out of the mean (nanmean)": f"np.nanmean({TERM})",
    "drops out of the trapezoid's mean (nanmean)": (
        "np.mean(h / r) - np.nanmean((h / r + (h - 1) / (r - 1)) / 2)"
    ),
    "you added 1": "np.mean((r + 1 - h) / (2 * (r + 1) * r))",
    "at rank 1 this divides by 0": "np.nanmean((r - h + 1) / (2 * r * (r - 1)))",
    "gives 0/0; there both kinds are 1": f"np.mean({TERM})",
    "nan or inf for ranks = [1, 3, 6]. A match at rank 1 gives 0/0": "np.mean(h / (r - 1))",
}.items():
    wrong("the_two_kinds", words, BY_FORMULA.format(result=result))
right("the_two_kinds", BY_FORMULA.format(result=f"np.nansum({TERM}) / len(r)"))

# Notebook 04.

wrong("rows_of_a_stripe", "the last stride is 1", 576)
wrong("rows_of_a_stripe", "that is one stripe, and there are six", 48)
wrong("rows_of_a_stripe", "16 rows, which six stripes cannot share", 256)
wrong("rows_of_a_stripe", "each stripe has 4 rows, not 3", 384)
wrong("rows_of_a_stripe", "a whole number of pixels", 287.5)
wrong("rows_of_a_stripe", "a whole number of pixels", -288)
wrong("rows_of_a_stripe", "is a list; expected a whole number", [288])
right("rows_of_a_stripe", 280)
right("rows_of_a_stripe", np.int64(288))

LOSSES = """
def mine(S, target):
    lam = 0.2
    rows = torch.arange(len(target))
    L = 0
    for name, s in S.items():
        l = {loss}
        if name == "final":
            L = L + {main} * l
        elif name.startswith("stage"):
            L = L + {stage} * l
        else:
            L = L + {part} * l
    return L
"""
LOSSES_PARTS = {
    "loss": "(torch.logsumexp(s, 1) - s[rows, target]).mean()",
    "main": "lam",
    "stage": "lam",
    "part": "(1 - lam)",
}
for words, change in {
    "the losses of the images are summed": {
        "loss": "(torch.logsumexp(s, 1) - s[rows, target]).sum()"
    },
    "the softmax runs over the images": {"loss": "-s.log_softmax(dim=0)[rows, target].mean()"},
    "you take the largest one": {"loss": "nnf.cross_entropy(s, s.argmax(1))"},
    "pairs every image with every target": {"loss": "-s.log_softmax(1)[:, target].mean()"},
    "one is counted from 1": {
        "loss": "nnf.cross_entropy(s, target - 1 + s.shape[1] * (target < 1))"
    },
    "through a second softmax": {"loss": "nnf.cross_entropy(s.softmax(1), target)"},
    "the logarithm is missing": {"loss": "-s.softmax(1)[rows, target].mean()"},
    "the sign is wrong": {"loss": "s.log_softmax(1)[rows, target].mean()"},
    "the sum of the exponentials is missing": {"loss": "-s[rows, target].mean()"},
    "exp overflows": {"loss": "(s.exp().sum(1).log() - s[rows, target]).mean()"},
    "are exchanged": {"main": "(1 - lam)", "stage": "(1 - lam)", "part": "lam"},
    "weighted like a part": {"main": "(1 - lam)"},
    "the main loss has the weight 1": {"main": "1"},
    "the main loss is missing": {"main": "0"},
    "of the branches are missing": {"stage": "0"},
    "of the parts are missing": {"part": "0"},
    "this is L_released": {"main": "1", "stage": "1", "part": "1"},
    "the six parts are averaged": {"part": "(1 - lam) / 6"},
    "the parts and the branches are averaged": {"part": "(1 - lam) / 6", "stage": "lam / 3"},
    "the branches are averaged": {"stage": "lam / 3"},
    "the ten losses are averaged": {
        "main": "lam / 10",
        "stage": "lam / 10",
        "part": "(1 - lam) / 10",
    },
    "the result has the shape (4,)": {"loss": "torch.logsumexp(s, 1) - s[rows, target]"},
}.items():
    wrong("ten_losses", words, LOSSES.format(**LOSSES_PARTS | change))
right("ten_losses", LOSSES.format(**LOSSES_PARTS))
right(
    "ten_losses",
    "def mine(S, target):\n    l = {k: float(nnf.cross_entropy(v, target)) for k, v in S.items()}\n"
    "    parts = sum(l[f'part{k}'] for k in range(1, 7))\n"
    "    return 0.8 * parts + 0.2 * (l['stage1'] + l['stage2'] + l['stage3'] + l['final'])",
)

BACK = """
def mine(S, target, w):
    e = S.exp()
    s = {softmax}
    true = torch.zeros_like(S)
    true[torch.arange(len(S)), target] = 1
    return {result}
"""
BACK_PARTS = {"softmax": "e / e.sum(1, keepdim=True)", "result": "w * (s - true) / len(S)"}
for words, change in {
    "the factor 1/B is missing": {"result": "w * (s - true)"},
    "the weight of the loss is missing": {"result": "(s - true) / len(S)"},
    "the factor 1/B and the weight are missing": {"result": "s - true"},
    "the sign is wrong": {"result": "w * (true - s) / len(S)"},
    "the true identity is missing": {"result": "w * s / len(S)"},
    "the softmax is missing": {"result": "-w * true / len(S)"},
    "the logits themselves": {"result": "w * (S - true) / len(S)"},
    "runs over the images of the batch": {"softmax": "e / e.sum(0)"},
    "by the number of identities, too": {"result": "w * (s - true) / S.numel()"},
    "this is divided by the number of identities; the mean": {
        "result": "w * (s - true) / S.shape[1]"
    },
    "the derivative of the probability": {
        "result": "w * (s - true) * (s * true).sum(1, keepdim=True) / len(S)"
    },
    "this is a mean over the batch": {"result": "(w * (s - true) / len(S)).mean(0)"},
    "does not sum to zero over the identities": {"softmax": "e / (e.sum(1, keepdim=True) + 1)"},
}.items():
    wrong("what_a_loss_sends_back", words, BACK.format(**BACK_PARTS | change))
right("what_a_loss_sends_back", BACK.format(**BACK_PARTS))
right(
    "what_a_loss_sends_back",
    "def mine(S, target, w):\n    S = S.clone().requires_grad_()\n"
    "    L = w * nnf.cross_entropy(S, target)\n    return torch.autograd.grad(L, S)[0]",
)

# Notebook 05.

wrong("when_the_rate_drops", "so it is dropped", 572)
wrong("when_the_rate_drops", "to the nearest epoch", 516)
wrong("when_the_rate_drops", "the first epoch is 0", 602)
wrong("when_the_rate_drops", "not within one", 541)
wrong("when_the_rate_drops", "not within one", 545)
wrong("when_the_rate_drops", "this is an epoch", 13)
wrong("when_the_rate_drops", "steps and epochs are counted from 0", 560)
wrong("when_the_rate_drops", "the last step at the full rate", 558)
wrong("when_the_rate_drops", "of the whole run", 774)
wrong("when_the_rate_drops", "too early: with 43 steps an epoch, it lies in epoch 6", 300)
wrong("when_the_rate_drops", "too late", 600)
wrong("when_the_rate_drops", "is a whole number", 12.6)
wrong("when_the_rate_drops", "steps are counted from 0", -1)
wrong("when_the_rate_drops", "expected the number of a step", "epoch 13")
right("when_the_rate_drops", 559)
right("when_the_rate_drops", np.int64(13 * (1384 // 32)))

SGD = """
def mine(w, gradients, rates, momentum, decay):
    w = w.clone()
    first = w.clone()
    v = {start}
    for g, lr in {steps}:
        d = {decayed}
        v = {buffer}
        w = {update}
    return w
"""
SGD_PARTS = {
    "start": "torch.zeros_like(w)",
    "steps": "zip(gradients, rates)",
    "decayed": "g + decay * w",
    "buffer": "momentum * v + d",
    "update": "w - lr * (d + momentum * v)",
}
for words, change in {
    "there is no momentum": {"update": "w - lr * d"},
    "the weight decay is missing": {"decayed": "g"},
    "this is plain SGD": {"decayed": "g", "update": "w - lr * d"},
    "this is momentum without Nesterov; a step": {"update": "w - lr * v"},
    "the gradient itself is missing": {"update": "w - lr * momentum * v"},
    "multiplies the buffer by the momentum once": {"update": "w - lr * (d + v)"},
    "comes after the momentum (as in AdamW)": {
        "decayed": "g",
        "update": "w - lr * (d + momentum * v + decay * w)",
    },
    "shrink by the decay without the rate": {
        "decayed": "g",
        "update": "(1 - decay) * w - lr * (d + momentum * v)",
    },
    "but not the gradient that is added": {"update": "w - lr * (g + momentum * v)"},
    "that of the first weights": {"decayed": "g + decay * first"},
    "the sign of the decay": {"decayed": "g - decay * w"},
    "the decay is doubled": {"decayed": "g + 2 * decay * w"},
    "the rate is inside the buffer; a rate": {
        "buffer": "momentum * v + lr * d",
        "update": "w - (lr * d + momentum * v)",
    },
    "the rate is inside the buffer, and": {
        "buffer": "momentum * v - lr * d",
        "update": "w + v",
    },
    "multiplied by 1 - momentum": {"buffer": "momentum * v + (1 - momentum) * d"},
    "a running mean of the gradients": {
        "buffer": "momentum * v + (1 - momentum) * d",
        "update": "w - lr * v",
    },
    "which then counts twice": {"start": "gradients[0]"},
    "this goes up the gradient": {"update": "w + lr * (d + momentum * v)"},
    "all steps have the first rate": {"update": "w - rates[0] * (d + momentum * v)"},
    "the last step is missing": {"steps": "zip(gradients[:-1], rates)"},
    "only the first step is made": {"steps": "zip(gradients[:1], rates)"},
    "shrink behind the step": {
        "decayed": "g",
        "update": "(1 - lr * decay) * (w - lr * (d + momentum * v))",
    },
    "(as in AdamW), and there is no Nesterov": {
        "decayed": "g",
        "update": "w - lr * v - lr * decay * w",
    },
    "neither Nesterov nor weight decay": {"decayed": "g", "update": "w - lr * v"},
    "the changes of the weights": {"steps": "zip(gradients, rates)"},
}.items():
    code = SGD.format(**SGD_PARTS | change)
    if words == "the changes of the weights":
        code = code.replace("return w", "return w - first")
    wrong("sgd_by_hand", words, code)
wrong(
    "sgd_by_hand",
    "the weights after every step",
    SGD.format(**SGD_PARTS)
    .replace("first = w.clone()", "all_w = []")
    .replace("    return w", "        all_w.append(w)\n    return torch.stack(all_w)"),
)
wrong(
    "sgd_by_hand",
    "changes its argument",
    SGD.format(**SGD_PARTS | {"update": "w.sub_(lr * (d + momentum * v))"}).replace(
        "w = w.clone()", "first = w"
    ),
)
wrong(  # the buffer as well as the weights
    "sgd_by_hand",
    "a tuple of 2",
    SGD.format(**SGD_PARTS).replace("return w", "return w, v"),
)
right("sgd_by_hand", SGD.format(**SGD_PARTS))
right(  # torch's own
    "sgd_by_hand",
    "def mine(w, gradients, rates, momentum, decay):\n    w = w.clone().requires_grad_()\n"
    "    o = torch.optim.SGD([w], 1.0, momentum, weight_decay=decay, nesterov=True)\n"
    "    for g, lr in zip(gradients, rates):\n        o.param_groups[0]['lr'] = float(lr)\n"
    "        w.grad = g.clone()\n        o.step()\n    return w.detach()",
)
right(  # in NumPy, with the step written out
    "sgd_by_hand",
    "def mine(w, gradients, rates, momentum, decay):\n    w, v = w.numpy().copy(), 0\n"
    "    for g, lr in zip(gradients.numpy(), rates.numpy()):\n        g = g + decay * w\n"
    "        v = v * momentum + g\n        w = w - lr * g - lr * momentum * v\n    return w",
)

BLIND = """
def mine(counts):
    q = counts / counts.sum()
    {kept}
    return {result}
"""
KEPT = "q = q[q > 0]"
for words, result in {
    "this is ln N": "np.log(len(counts))",
    "the sign is wrong": "(q * np.log(q)).sum()",
    "base 2": "-(q * np.log2(q)).sum()",
    "base 10": "-(q * np.log10(q)).sum()",
    "every class counts the same": "-np.log(q).mean()",
    "the logarithms of the classes are summed": "-np.log(q).sum()",
    "of classes that have an image": "np.log(len(q))",
    "with the most frequent class": "1 - q.max()",
    "the logarithm is that of a mean": "-np.log((q**2).sum())",
    "the sum over all images": "-(counts[counts > 0] * np.log(q)).sum()",
    "divided by the number of classes": "-(q * np.log(q)).sum() / len(counts)",
    "as a share of ln N": "-(q * np.log(q)).sum() / np.log(len(counts))",
    "sure of the most frequent class": "-np.log(max(q))",
    "this is exp of the loss": "np.exp(-(q * np.log(q)).sum())",
    "the logarithm is missing": "1 - sum(q * q)",
    "more than ln N": "np.log(counts.sum())",
    "never negative": "-np.log(counts.sum())",
}.items():
    wrong("the_blind_head", words, BLIND.format(kept=KEPT, result=result))
wrong(
    "the_blind_head",
    "gives 0 ln 0",
    "def mine(counts):\n    q = counts / counts.sum()\n"
    "    with np.errstate(all='ignore'):\n        return -(q * np.log(q)).sum()",
)
wrong(
    "the_blind_head",
    "the softmax of the counts",
    "def mine(counts):\n    q = counts / counts.sum()\n"
    "    return -(q * special.log_softmax(counts)).sum()",
)
right("the_blind_head", BLIND.format(kept=KEPT, result="-(q * np.log(q)).sum()"))
right(
    "the_blind_head",
    "from scipy import stats\ndef mine(counts):\n    return stats.entropy(counts)",
)
right(  # as the loss of a head whose logits are the logarithms of the counts
    "the_blind_head",
    "def mine(counts):\n    S = torch.tensor(counts).double().log()\n"
    "    targets = torch.tensor(np.repeat(np.arange(len(counts)), counts))\n"
    "    return nnf.cross_entropy(S.expand(len(targets), -1), targets)",
)
right(  # by a small number in the logarithm
    "the_blind_head",
    "def mine(counts):\n    q = counts / counts.sum()\n    return -(q * np.log(q + 1e-12)).sum()",
)

# Notebook 06.

wrong("enough_seeds", "1.96 is for a known spread", 18)
wrong("enough_seeds", "fewer would do", 30)
wrong("enough_seeds", "includes zero", 20)
wrong("enough_seeds", "includes zero", 3)
wrong("enough_seeds", "one seed has no spread", 1)
wrong("enough_seeds", "is a whole number", 20.5)
wrong("enough_seeds", "is a whole number", 0)
wrong("enough_seeds", "expected a whole number", "many")
right("enough_seeds", 21)
right("enough_seeds", np.int64(21))

HOLM = """
def mine(p):
    n = len(p)
    tests = sorted(range(n), key=lambda i: p[i])
    out = np.zeros(n)
    largest = 0
    for place, i in enumerate(tests):
        value = {value}
        largest = {largest}
        out[{where}] = {kept}
    return out
"""
HOLM_PARTS = {
    "value": "(n - place) * p[i]",
    "largest": "max(largest, value)",
    "where": "i",
    "kept": "min(1, largest)",
}
for words, change in {
    "this is Bonferroni's correction": {"value": "n * p[i]"},
    "by the number of tests, and some exceed 1": {"value": "n * p[i]", "kept": "value"},
    "carry the largest so far on": {"kept": "min(1, value)"},
    "than the one before it, and some exceed 1": {"kept": "value"},
    "some corrected p exceed 1; a": {"kept": "largest"},
    "in the order of their size": {"where": "place"},
    "the largest p is multiplied by the number of tests": {"value": "(place + 1) * p[i]"},
    "the factors are one too small": {"value": "(n - place - 1) * p[i]"},
    "this is the version of": {"value": "1 - (1 - p[i]) ** (n - place)"},
    "p is left as it is": {"value": "p[i]"},
    "never makes a result surer": {"value": "p[i] / 2"},
}.items():
    wrong("holm_by_hand", words, HOLM.format(**HOLM_PARTS | change))
STEP_UP = """
def mine(p):
    n = len(p)
    out = np.zeros(n)
    smallest = 1
    for place, i in enumerate(np.argsort(p)[::-1]):
        smallest = min(smallest, p[i] * {factor})
        out[i] = smallest
    return out
"""
wrong("holm_by_hand", "(Hochberg)", STEP_UP.format(factor="(place + 1)"))
wrong("holm_by_hand", "(Benjamini and Hochberg)", STEP_UP.format(factor="n / (n - place)"))
wrong(
    "holm_by_hand",
    "compared with its neighbour before that was raised",
    "def mine(p):\n    o = np.argsort(p)\n    c = p[o] * np.arange(len(p), 0, -1)\n"
    "    c[1:] = np.maximum(c[1:], c[:-1])\n    out = np.empty(len(p))\n"
    "    out[o] = np.minimum(1, c)\n    return out",
)
wrong(
    "holm_by_hand",
    "sort p first",
    "def mine(p):\n    k = len(p) - np.arange(len(p))\n"
    "    return np.maximum.accumulate(k * p).clip(max=1)",
)
wrong(
    "holm_by_hand",
    "not the place of each test",
    "def mine(p):\n    rank = np.argsort(p)\n    return (p * (len(p) - rank)).clip(0, 1)",
)
right("holm_by_hand", HOLM.format(**HOLM_PARTS))
right(
    "holm_by_hand",
    "from statsmodels.stats.multitest import multipletests\ndef mine(p):\n"
    "    return multipletests(p, method='holm')[1]",
)

IN_PLACE = """
def mine(p):
    n = len(p)
    order = np.argsort(p)
    place = np.argsort(order)
    k = n - np.arange(n)
    out = np.empty(n)
    {code}
"""
for words, code in {
    "c[order] sorts the corrected values once more; corrected": (
        "c = np.minimum(1, np.maximum.accumulate(p[order] * k))\n    return c[order]"
    ),
    "c[order] sorts the corrected values once more, and some exceed 1": (
        "c = np.maximum.accumulate(p[order] * k)\n    return c[order]"
    ),
    "c[order] sorts the corrected values once more, and no value": (
        "c = np.minimum(1, p[order] * k)\n    return c[order]"
    ),
    "the factors follow the order of the tests, and some": "return np.maximum.accumulate(p * k)",
    "the factors follow the order of the tests, and no": "return np.minimum(1, p * k)",
    "in the order of the tests; sort it first": "return p * k",
    "but it was not sorted": (
        "out[order] = np.minimum(1, np.maximum.accumulate(p * k))\n    return out"
    ),
    "carry it from the smallest p": (
        "return np.minimum(1, np.maximum.accumulate(p * (n - place)))"
    ),
    "and none is carried on": "return np.minimum(1, p[order] * k)",
}.items():
    wrong("holm_by_hand", words, IN_PLACE.format(code=code))
wrong(  # the same mistake from the other side
    "holm_by_hand",
    "c[order] sorts the corrected values once more; corrected",
    IN_PLACE.format(
        code="out[place] = np.minimum(1, np.maximum.accumulate(p[order] * k))\n    return out"
    ),
)
right(
    "holm_by_hand",
    IN_PLACE.format(code="return np.minimum(1, np.maximum.accumulate(p[order] * k))[place]"),
)

POOL = "def mine(V, tau2):\n    n = len(V)\n    {}\n    return {}"
for words, matrix, result in (
    ("do not depend on tau2", "W = np.linalg.inv(V + tau2)", "W.sum(0) / W.sum()"),
    ("do not depend on tau2", "W = np.linalg.inv(V)", "W.sum(0) / W.sum()"),
    ("only the variances", "w = 1 / np.diag(V + tau2 * np.eye(n))", "w / w.sum()"),
    ("one over the standard deviation", "w = (np.diag(V) + tau2) ** -0.5", "w / w.sum()"),
    ("every setting has the same weight", "w = np.ones(n)", "w / n"),
    ("the weights do not sum to 1", "W = np.linalg.inv(V + tau2 * np.eye(n))", "W.sum(1)"),
    ("V must be inverted", "W = V + tau2 * np.eye(n)", "W.sum(1) / W.sum()"),
    ("tau is squared twice", "W = np.linalg.inv(V + tau2**2 * np.eye(n))", "W.sum(1) / W.sum()"),
    ("variances are added", "W = np.linalg.inv(V + tau2**0.5 * np.eye(n))", "W.sum(1) / W.sum()"),
    ("sum its rows", "d = np.diag(np.linalg.inv(V + tau2 * np.eye(n)))", "d / d.sum()"),
    ("this is the inverse itself", "W = np.linalg.inv(V + tau2 * np.eye(n))", "W"),
    ("the whole inverse over its sum", "W = np.linalg.inv(V + tau2 * np.eye(n))", "W / W.sum()"),
    (
        "each row of this matrix",
        "W = np.linalg.inv(V + tau2 * np.eye(n))",
        "W / W.sum(1, keepdims=True)",
    ),
    ("each column of this matrix", "W = np.linalg.inv(V + tau2 * np.eye(n))", "W / W.sum(0)"),
    (
        "by the sum of all its entries",
        "W = np.linalg.inv(V + tau2 * np.eye(n))",
        "np.diag(W) / W.sum()",
    ),
    (
        "they stand in a column",
        "W = np.linalg.inv(V + tau2 * np.eye(n)) @ np.ones((n, 1))",
        "W / W.sum()",
    ),
    ("the variance of the best mean", "W = np.linalg.inv(V + tau2 * np.eye(n))", "1 / W.sum()"),
    ("the sum of the whole inverse", "W = np.linalg.inv(V + tau2 * np.eye(n))", "W.sum()"),
    (
        "cut to zero",
        "w = np.linalg.inv(V + tau2 * np.eye(n)).sum(1); w = np.clip(w / w.sum(), 0, None)",
        "w / w.sum()",
    ),
    ("so the mean would be biased", "w = np.linalg.inv(V + tau2 * np.eye(n)).sum(1)", "w / n"),
):
    wrong("weights_of_a_pool", words, POOL.format(matrix, result))
WITH_ZEROS = "def mine(V, tau2):\n    with np.errstate(divide='ignore'):\n        W = 1 / ({})\n"
wrong(
    "weights_of_a_pool",
    "divides entry by entry",
    WITH_ZEROS.format("V + tau2 * np.eye(len(V))")
    + "    with np.errstate(invalid='ignore'):\n        return W.sum(1) / W.sum()",
)
right(
    "weights_of_a_pool",
    "def mine(V, tau2):\n    w = np.linalg.solve(V + np.diag(np.full(len(V), tau2)), np.ones(len(V)))\n"
    "    return w / w.sum()",
)
right(  # by search, where only the minimum is known
    "weights_of_a_pool",
    "from scipy import optimize\ndef mine(V, tau2):\n    S = V + tau2 * np.eye(len(V))\n"
    "    full = lambda w: np.append(w, 1 - w.sum())\n"
    "    found = optimize.minimize(lambda w: full(w) @ S @ full(w), np.zeros(len(V) - 1), tol=1e-14)\n"
    "    return full(found.x)",
)

# Notebook 07.

wrong("one_activation", "if G were the sum", 4.75)
wrong("one_activation", "without the bias", 3)
wrong("one_activation", "it is added once", 7)
wrong("one_activation", "the bias is subtracted", 2)
wrong("one_activation", "the weight of channel 2 is negative", -6)
wrong("one_activation", "the sum of channel 2", 5)
wrong("one_activation", "the mean of channel 2", 1.25)
wrong("one_activation", "with 0 the logit is 1.5, not 0.5", 0)
wrong("one_activation", "behind a ReLU", -1)
wrong("one_activation", "behind a ReLU", float("nan"))
wrong("one_activation", "behind a ReLU", float("inf"))
wrong("one_activation", "expected a number that is not negative", "four")
right("one_activation", 4)
right("one_activation", torch.tensor(4.0))

CAM = """
def mine(f, p, weight, bias, classes):
    maps = []
    S = (f * p.unsqueeze(1)).sum((2, 3)) @ weight.t() + bias
    for n in range(len(f)):
        c = {c}
        w = {w}
        M = 0
        for k in range(f.shape[1]):
            M = M + {term}
        maps.append({M})
    return torch.stack(maps)
"""
CAM_PARTS = {"c": "classes[n]", "w": "weight[c]", "term": "w[k] * p[n] * f[n, k]", "M": "M"}
for words, change in {
    "the map of the most likely class": {"c": "S[n].argmax()"},
    "the class of the first one": {"c": "classes[0]"},
    "classes are counted from 0": {"c": "classes[n] - 1"},
    "the maps of all classes": {"w": "weight.sum(0)"},
    "the bias is added at every position": {"M": "M + bias[c]"},
    "spread over the positions": {"M": "M + bias[c] / M.numel()"},
    "the bias is subtracted at every": {"M": "M - bias[c]"},
    "the same at every position": {"M": "M.sum().expand(M.shape)"},
    "through a sigmoid": {"M": "M.sigmoid()"},
    "a softmax over its positions": {"M": "M.flatten().softmax(0).view_as(M)"},
    "its positions lie in one row": {"M": "M.flatten()"},
    "a dimension of size 1 too many": {"M": "M[None]"},
    "A map need not have a positive value": {"M": "M.relu() / M.relu().sum()"},
    "only the positive part is left": {"M": "M.clamp(min=0)"},
    "the ReLU comes before the sum": {"term": "(w[k] * p[n] * f[n, k]).relu()"},
    "the absolute values": {"term": "abs(w[k]) * p[n] * f[n, k]"},
    "the mean over the channels": {"M": "M / f.shape[1]"},
    "a softmax over the channels; eq. 7 takes": {"w": "weight[c].softmax(0)"},
    "a softmax over the classes": {"w": "weight.softmax(0)[c]"},
    "p is missing": {"term": "w[k] * f[n, k]"},
    "right without SA only": {"term": "w[k] * f[n, k] / f[n, k].numel()"},
    "p is multiplied twice": {"term": "w[k] * p[n] * (p[n] * f[n, k])"},
    "p and 1/HW are both in it": {"M": "M / M.numel()"},
    "as the softmax of f": {
        "term": "w[k] * f[n].sum(0).flatten().softmax(0).view_as(p[n]) * f[n, k]"
    },
    "as l1 of f": {"term": "w[k] * f[n].sum(0) / f[n].sum() * f[n, k]"},
    "stretched from 0 to 1": {"M": "(M - M.min()) / (M.max() - M.min())"},
    "divided by its largest value": {"M": "M / M.max()"},
    "divided by its sum": {"M": "M / M.sum()"},
    "these are the sums of the maps": {"M": "M.sum()"},
    "must sum to the logit": {"M": "M.clamp(max=0)"},
}.items():
    wrong("a_map_by_hand", words, CAM.format(**CAM_PARTS | change))
PRODUCTS = "def mine(f, p, weight, bias, classes):\n    x = weight[classes][..., None, None] * f\n"
PRODUCTS += "    x = x * p[:, None]\n    return "
wrong("a_map_by_hand", "this is the largest channel", PRODUCTS + "x.max(1).values")
wrong(
    "a_map_by_hand", "softmax over the channels; eq. 7 sums", PRODUCTS + "(x * x.softmax(1)).sum(1)"
)
wrong("a_map_by_hand", "the channels are not summed", PRODUCTS + "x")
wrong("a_map_by_hand", "sums over the positions, one a channel", PRODUCTS + "x.sum((2, 3))")
wrong(
    "a_map_by_hand",
    "the maps of all identities",
    "def mine(f, p, weight, bias, classes):\n    F = f * p[:, None]\n"
    "    return torch.einsum('ck,nkij->ncij', weight, F)",
)
wrong(
    "a_map_by_hand",
    "the maps of all classes of the batch",
    "def mine(f, p, weight, bias, classes):\n    F = f * p[:, None]\n"
    "    return torch.einsum('ck,nkij->ncij', weight[classes], F)",
)
right("a_map_by_hand", CAM.format(**CAM_PARTS))
right("a_map_by_hand", PRODUCTS + "x.sum(dim=1)")
right(
    "a_map_by_hand",
    "def mine(f, p, weight, bias, classes):\n    F = f * p[:, None]\n"
    "    return torch.einsum('nk,nkij->nij', weight[classes], F)",
)
right(  # the gradient times the activation, as in HiResCAM
    "a_map_by_hand",
    "def mine(f, p, weight, bias, classes):\n    F = (f * p[:, None]).requires_grad_()\n"
    "    S = F.sum((2, 3)) @ weight.T + bias\n    S = S[torch.arange(len(f)), classes].sum()\n"
    "    return (torch.autograd.grad(S, F)[0] * F).sum(1).detach()",
)

REST = """
def mine(G, U, a, v, b):
    rest = {bias}
    for u in range(len(v)):
        z = (U[u] * G).sum() + a[u]
        if {active}:
            rest = rest + {term}
    return {result}
"""
REST_PARTS = {"bias": "b", "active": "z > 0", "term": "v[u] * a[u]", "result": "rest"}
for words, change in {
    "this is the bias alone": {"active": "False"},
    "these are the offsets alone": {"bias": "0"},
    "all units count": {"active": "True"},
    "you asked U G": {"active": "z - a[u] > 0"},
    "you asked a.": {"active": "a[u] > 0"},
    "that are not active": {"active": "z <= 0"},
    "each reaches the logit times its v": {"term": "a[u]"},
    "it is v times the offset": {"term": "v[u]"},
    "the logit S itself": {"term": "v[u] * z"},
    "the sum of the map": {"bias": "0", "term": "v[u] * (U[u] @ G)"},
    "the sign is wrong": {"result": "-rest"},
    "the bias is subtracted": {"bias": "-b"},
}.items():
    wrong("what_a_map_leaves_out", words, REST.format(**REST_PARTS | change))
right("what_a_map_leaves_out", REST.format(**REST_PARTS))
right(  # the logit less its gradient times G
    "what_a_map_leaves_out",
    "def mine(G, U, a, v, b):\n    G = G.clone().requires_grad_()\n"
    "    S = v @ torch.relu(U @ G + a) + b\n    g = torch.autograd.grad(S, G)[0]\n"
    "    return (S - g @ G).detach()",
)

# Notebook 08.

wrong("one_of_768", "of one other position", 0.69)
wrong("one_of_768", "of base 10", 2.88)
wrong("one_of_768", "of base 2", 9.58)
wrong("one_of_768", "this is what e^d must be; solve it for d", 767)
wrong("one_of_768", "this is what e^d must be; solve", 768)
wrong("one_of_768", "of the channel means", 0.026)
wrong("one_of_768", "the sign is wrong", -6.64)
wrong("one_of_768", "has 16.2 % of the weight; try a larger d", 5)
wrong("one_of_768", "try a smaller d", 1e308)
wrong("one_of_768", "try a larger d", -1e308)
wrong("one_of_768", "a finite number", float("nan"))
wrong("one_of_768", "a finite number", float("inf"))
wrong("one_of_768", "expected a number", [6.64])
right("one_of_768", 6.64)
right("one_of_768", 6.6)
right("one_of_768", np.log(767))

RELEASED = """
def mine(f):
    B, C, H, W = f.shape
    m = {m}
    p = {p}
    F = p[:, None] * f
    return {G}
"""
RELEASED_PARTS = {
    "m": "f.mean(1)",
    "p": "m / m.sum((1, 2), keepdim=True)",
    "G": "F.mean((2, 3))",
}
for words, change in {
    "the weighted mean of recipe paper": {"G": "F.sum((2, 3))"},
    "the softmax of eq. 1; the": {"p": "f.sum(1).flatten(1).softmax(1).view(B, H, W)"},
    "this is the text": {
        "p": "f.sum(1).flatten(1).softmax(1).view(B, H, W)",
        "G": "F.sum((2, 3))",
    },
    "a softmax of the means": {"p": "m.flatten(1).softmax(1).view(B, H, W)"},
    "a sigmoid divided": {"p": "f.sum(1).sigmoid() / f.sum(1).sigmoid().sum((1, 2), keepdim=True)"},
    "this is average pooling": {"p": "torch.ones(B, H, W)"},
    "the weights are not divided by their sum": {"p": "m"},
    "not divided by their sum over the positions": {"p": "f.sum(1)"},
    "over the whole batch": {"p": "m / m.sum()"},
    "divided by the largest one": {"p": "m / m.amax((1, 2), keepdim=True)"},
    "(l2)": {"p": "m / m.norm(dim=(1, 2), keepdim=True)"},
    "the weights of a column": {"p": "m / m.sum(-2, keepdim=True)"},
    "made of squares": {"m": "(f * f).mean(1)"},
    "a plain sum over the positions": {"G": "f.sum((2, 3))"},
    "dimensions of size 1 too many": {"G": "F.mean((2, 3), keepdim=True)"},
    "the weights of a row": {"p": "m / m.sum(-1, keepdim=True)"},
    "over its channels": {"p": "m", "G": "(f / f.sum(1, keepdim=True) * f).mean((2, 3))"},
    "each channel has weights of its own": {
        "G": "(f / f.sum((2, 3), keepdim=True) * f).mean((2, 3))"
    },
    "sum to 1/C": {"p": "m / f.sum((1, 2, 3)).view(B, 1, 1)"},
    "sum to C": {"p": "f.sum(1) / m.sum((1, 2), keepdim=True)"},
    "the brightest channel": {"m": "f.amax(1)"},
    "the largest values of the rescaled map": {"G": "F.amax((2, 3))"},
    "the mean over the channels, too": {"G": "F.mean((1, 2, 3))"},
    "this is the rescaled map": {"G": "F"},
    "this is p;": {"G": "p"},
}.items():
    wrong("the_released_layer", words, RELEASED.format(**RELEASED_PARTS | change))
right("the_released_layer", RELEASED.format(**RELEASED_PARTS))
right("the_released_layer", RELEASED.format(**RELEASED_PARTS | {"m": "f.sum(1)"}))
right(  # as the released code does it, in PyTorch's functions
    "the_released_layer",
    "def mine(f):\n    m = f.mean(1, keepdim=True)\n"
    "    p = nnf.normalize(m.flatten(1), p=1).view_as(m)\n"
    "    return nnf.adaptive_avg_pool2d(p * f, 1).flatten(1)",
)

ALPHA = "def mine(f, t):\n    B, C, H, W = f.shape\n    s = f.sum((1, 2, 3))\n    return {}"
for words, result in {
    "the channels are forgotten": "s / (s + H * W * t)",
    "the positions are forgotten": "s / (s + C * t)",
    "channels and positions are forgotten": "s / (s + t)",
    "this is 1 - alpha": "C * H * W * t / (s + C * H * W * t)",
    "this is 1 / alpha": "1 + C * H * W * t / s",
    "right for the softmax": "torch.ones(B)",
    "one number for the batch": "(s.sum() / (s.sum() + f.numel() * t)).repeat(B)",
    "l1 does not see a scale": "s / (s * t)",
    "the weights of the shifted map": "(f + t).sum(1) / (f + t).sum((1, 2, 3))[:, None, None]",
    "this is alpha at each position": "f.sum(1) / (f.sum(1) + C * t)",
    "alpha lies between 0 and 1": "s / t",
}.items():
    wrong("a_shift_of_the_map", words, ALPHA.format(result))
right("a_shift_of_the_map", ALPHA.format("s / (s + C * H * W * t)"))
right("a_shift_of_the_map", ALPHA.format("f.mean((1, 2, 3)) / (f.mean((1, 2, 3)) + t)"))
right(  # solved for from the weights of one position
    "a_shift_of_the_map",
    "def mine(f, t):\n    l1 = lambda f: f.sum(1).flatten(1) / f.sum((1, 2, 3))[:, None]\n"
    "    p, q = l1(f), l1(f + t)\n    n = p.shape[1]\n    k = (p - 1 / n).abs().argmax(1)\n"
    "    i = torch.arange(len(f))\n    return (q[i, k] - 1 / n) / (p[i, k] - 1 / n)",
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
        with np.errstate(all="ignore"):
            judged = exercise.judge(mistaken)
        assert judged == f"look again: {sentence}"


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


def judged(name, attempt):
    return getattr(check, name).judge(attempt)


def test_a_sentence_names_the_arguments_as_the_starter_does():
    by_hand = reader("def mine(f, gamma, T):\n    return 7 * f + T")
    _, gamma, T = check.competition_with_heat.probes[0]
    values = ", ".join(f"{value:.4g}" for value in gamma.tolist())
    called = f"f of shape (2, 2, 2), gamma = [{values}] and T = 1.0"
    assert len(gamma) == 2 and T == 1
    assert f"for {called} the result at" in judged("competition_with_heat", by_hand)
    stops = judged("competition_with_heat", lambda f, gamma, T: 1 / 0)
    assert f"(called with {called})" in stops
    query = judged("score_one_query", lambda *query: 1 / 0)
    assert "(called with distances = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], query_id = 2" in query
    assert "gallery_ids = [-1, 2, 5, 2, 2, 0] and gallery_cams = [2, 1, 2, 2, 3, 1])" in query
    losses = judged("ten_losses", lambda S, target: 1 / 0)
    assert "(called with S with " in losses and " and target = [" in losses


def test_one_case_is_right_and_two_are():
    """Right on the first probes only."""
    exercise = check.more_heat_more_positions
    for cases, words in ((1, "1 of 4 cases is right"), (2, "2 of 4 cases are right")):
        calls = []

        def mine(A, T, cases=cases, calls=calls):
            calls.append(T)
            return exercise.reference(A, T) + (len(calls) > cases)

        assert words in exercise.judge(mine)


def test_zero_has_no_sign():
    assert "this is 0" in judged("three_positions", -0.0)
    assert "this is 0" in judged("enough_seeds", -0.0)
    assert "this is 0" in judged("rows_of_a_stripe", -0.0)

    def mine(A, T):
        slopes = check.more_heat_more_positions.reference(A, T)
        slopes[0] = -0.0
        return slopes

    sentence = judged("more_heat_more_positions", mine)
    assert "the result at [0] is 0 and should be " in sentence


@pytest.mark.parametrize("name", ["three_positions", "enough_seeds", "rows_of_a_stripe"])
def test_a_number_without_end_is_no_wrong_kind_of_thing(name):
    for value in (float("inf"), np.float64("inf"), torch.tensor(torch.inf)):
        assert "number" in judged(name, value) and judged(name, value).endswith("this is inf")
    assert "too large" in judged(name, 10**400)
    assert "too large" in judged(name, 10**5000)  # which cannot even be printed


def test_a_list_with_an_endless_rank_is_told_what_a_rank_is():
    assert "a rank is a whole number" in judged("good_start", [1, 9, float("inf")])
    assert "a rank is a whole number" in judged("good_start", [1, 9, float("nan")])


def test_the_slider_is_called_a_slider():
    ipywidgets = pytest.importorskip("ipywidgets")
    for slider in (
        ipywidgets.FloatLogSlider(1),
        ipywidgets.FloatSlider(2),
        ipywidgets.IntSlider(3),
    ):
        sentence = judged("three_positions", slider)
        assert sentence == "look again: this is the slider; expected a positive number"


def test_what_is_given_has_its_article_and_is_named_once():
    assert judged("more_heat_more_positions", 3).startswith("look again: this is an int; give")
    assert judged("more_heat_more_positions", "a").startswith("look again: this is a str; give")
    array = judged("more_heat_more_positions", np.ones(3))
    assert array.startswith("look again: this is an array of shape (3,); give")
    tensor = judged("three_positions", torch.ones(2, 2))
    assert tensor == "look again: this is a tensor of shape (2, 2); expected a positive number"
    long = judged("three_positions", [1.5] * 40)
    assert long == "look again: this is a list; expected a positive number"
    returned = judged("more_heat_more_positions", lambda A, T: object())
    assert "the function returns an object; expected numbers" in returned


@pytest.mark.parametrize(
    "returned",
    [
        "p, A",  # of one shape
        "p, f",  # of two shapes
        "p, 'weights'",
        "f.max(dim=1)",  # PyTorch's pair of values and places
    ],
)
def test_a_tuple_is_called_one(returned):
    code = "def mine(f):\n    A = f.sum(1)\n    p = A.flatten(1).softmax(1).view_as(A)\n    return "
    assert "the function returns a tuple of 2; " in judged(
        "softmax_over_positions", reader(code + returned)
    )
    assert "the function returns a tuple of 1; " in judged(
        "softmax_over_positions", reader(code + "p,")
    )


def test_a_tuple_of_the_right_numbers_is_right():
    exercise = check.holm_by_hand
    assert exercise.judge(lambda p: tuple(exercise.reference(p))) == f"right: {exercise.right}"


def test_the_rate_drops_where_the_package_drops_it():
    """In a run of notebook 05 with its default parameters, step by step."""
    config = configure({})
    assert (config.batch, config.epochs) == (steps.BATCH, steps.EPOCHS)
    rates = [
        learning_rate(config, step // steps.STEPS, step)
        for step in range(config.epochs * steps.STEPS)
    ]
    is_low = np.isclose(rates, config.lr / 10) & (np.arange(len(rates)) > config.warmup)
    assert judged("when_the_rate_drops", int(is_low.argmax())).startswith("right: ")


def test_the_logit_of_the_missing_activation():
    f = torch.tensor([maps.CHANNEL_1, (1.0, 0.0, 4.0, 0.0)])
    S = torch.tensor(maps.WEIGHTS) @ f.mean(1) + maps.BIAS
    assert S.item() == maps.LOGIT and judged("one_activation", 4).startswith("right: ")


def test_half_of_the_weight_on_one_position_of_the_softmax():
    f = torch.zeros(1, 1, 48, 16, dtype=torch.float64)
    f[0, 0, 0, 0] = forms.HALF
    assert f[0, 0].numel() == forms.POSITIONS
    assert attention_weights(f)[0, 0, 0].item() == pytest.approx(0.5)


def test_a_head_that_ignores_the_image_does_no_better_than_the_entropy():
    """Trained to its end: the logits are the same for all images."""
    counts = np.array([3, 10, 5, 6, 6])
    targets = torch.tensor(np.repeat(np.arange(5), counts))
    S = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([S], max_iter=100, tolerance_grad=1e-12)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(S.expand(30, -1), targets)
        value.backward()
        return value

    optimizer.step(loss)
    assert loss().item() == pytest.approx(steps.entropy_of_classes(counts), abs=1e-9)


def test_l1_of_a_shifted_map_is_a_mixture():
    f = torch.rand(3, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha = forms.share_of_own_weights(f, 0.7)[:, None, None]
    mixed = alpha * attention_weights(f, "l1") + (1 - alpha) / 15
    torch.testing.assert_close(attention_weights(f + 0.7, "l1"), mixed)
