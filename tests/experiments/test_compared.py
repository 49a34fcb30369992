"""The three networks of notebook 07: their maps sum to their logits, their lists are the record's."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT

from reidsa_utils import InputError
from reidsa_utils.batches import to_input
from reidsa_utils.cam import class_activation_maps
from reidsa_utils.datasets.rendered import LABEL
from reidsa_utils.evaluation import extract
from reidsa_utils.experiments import nearest, tables
from reidsa_utils.experiments.compared import open_compared
from reidsa_utils.experiments.records import read_records
from reidsa_utils.metrics import euclidean, evaluate_ranking


@pytest.fixture(scope="module")
def stored():
    return open_compared()


@pytest.mark.parametrize("form", ["none", "softmax", "l1"])
def test_maps_of_stage_4_sum_to_their_logits(stored, form):
    """Less the classifier's bias, and batch norm's offset in each active unit: all seven heads."""
    model = stored.models[form]
    chosen = np.linspace(0, len(stored.ids["train"]) - 1, 12).astype(int)
    classes = stored.classes(chosen)
    with torch.no_grad():
        f = model.feature_maps(to_input(stored.images("train", chosen)))
        logits = model.heads(f)
        bn = model.reduce[1]
        offset = bn.bias - bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt()
        pooled = model.pool_parts(model.attend(f[3]))  # (B, C, 6, 1)
        active = (model.reduce(pooled) > 0)[..., 0].float()  # (B, 256, 6)
        heads = {"final": (model.final, active.mean(2))}
        for k, part in enumerate(model.part):
            heads[f"part{k + 1}"] = (part, active[:, :, k])
    assert len(heads) == 7
    for head, (linear, units) in heads.items():
        M = class_activation_maps(model, None, classes, 4, head, maps=f)  # (B, h, w)
        from_offset = (linear.weight[classes] * offset * units).sum(1)
        own = logits[head][torch.arange(len(chosen)), classes]
        expected = (own - linear.bias[classes] - from_offset).detach()
        torch.testing.assert_close(M.sum((1, 2)), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("form", ["none", "softmax", "l1"])
def test_lists_on_file_are_those_of_the_record(stored, form):
    """The first match stands where the record says, and nothing is listed that is left out.

    The weights are stored in half precision: one of 674 queries may have another order.
    """
    lists = stored.nearest(form)
    first_match = np.array(stored.records[form]["metrics"]["parts"]["first_match"])
    assert lists.shape == (len(stored.ids["query"]), nearest.FIRST) == (674, 5)
    other = 0
    for q, images in enumerate(lists):
        same_camera = stored.cameras["gallery"][images] == stored.cameras["query"][q]
        same_person = stored.ids["gallery"][images] == stored.ids["query"][q]
        assert not (same_camera & same_person).any()
        ranks = np.flatnonzero(np.isin(images, stored.matches(q))) + 1
        expected = [first_match[q]] if first_match[q] <= nearest.FIRST else []
        other += ranks[:1].tolist() != expected
    assert other <= 1


def test_lists_on_file_are_in_the_order_of_distances(stored):
    for q in (3, 400):
        images = stored.nearest("l1")[q]
        vectors = extract(stored.models["l1"], stored.images("gallery", images))["parts"]
        query = extract(stored.models["l1"], stored.images("query", [q]))["parts"]
        distances = euclidean(query, vectors)[0]
        assert (np.diff(distances) >= -1e-5).all()


class Made:
    """As much of a benchmark as lists need."""

    def __init__(self, rng, cameras=True):
        self.ids = rng.integers(0, 4, 8), rng.integers(0, 4, 30)
        self.cameras = (rng.integers(1, 4, 8), rng.integers(1, 4, 30)) if cameras else (None, None)

    @property
    def truth(self):
        return *self.ids, *self.cameras


@pytest.mark.parametrize("cameras", [True, False])
def test_lists_begin_as_the_evaluation_ranks(cameras):
    rng = np.random.default_rng(0)
    made = Made(rng, cameras)
    query, gallery = (rng.integers(0, 3, (n, 2)).astype(np.float32) for n in (8, 30))  # with ties
    lists = nearest.nearest_images(query, gallery, made, n=30)
    ranking = evaluate_ranking(euclidean(query, gallery), *made.truth)
    for q, images in enumerate(lists):
        images = images[images >= 0]
        left_out = np.zeros(30, bool)
        if cameras:
            left_out = (made.ids[1] == made.ids[0][q]) & (made.cameras[1] == made.cameras[0][q])
        assert sorted(images) == np.flatnonzero(~left_out).tolist()
        ranks = np.flatnonzero(made.ids[1][images] == made.ids[0][q]) + 1
        assert ranking.first_match[q] == (ranks[0] if len(ranks) else 0)


def test_lists_of_another_run_are_refused(stored, tmp_path):
    record = stored.records["none"]
    with pytest.raises(InputError, match="write it: reidsa examine --nearest market1501-rendered"):
        nearest.read_nearest(record, tmp_path)
    path = next((ROOT / "results" / "nearest").glob("*-none-*.json"))
    found = json.loads(path.read_bytes())
    found["identity"] = found["identity"] | {"seed": 9}
    (tmp_path / path.name).write_text(json.dumps(found))
    with pytest.raises(InputError, match="is of another run than the record"):
        nearest.read_nearest(record, tmp_path)


def test_look_alikes_wear_the_same_clothes(stored):
    for q in (0, 50, 333):
        own = stored.ids["query"][q]
        other = stored.ids["gallery"][stored.look_alike(q)]
        assert other != own and (other - 1) // 4 == (own - 1) // 4


def test_a_person_in_view_is_not_hidden(stored):
    some = np.arange(40)
    in_view = stored.is_in_view("query", some)
    covered = [(mask == LABEL["occluder"]).mean() for mask in stored.masks("query", some)]
    assert 0 < in_view.sum() < 40
    assert in_view.tolist() == [share <= 0.02 for share in covered]


def test_data_of_other_networks_are_refused():
    with pytest.raises(InputError, match="the stored networks are drawn on rendered images"):
        open_compared(data="real")


def test_queries_that_only_one_finds_are_counted_over_the_seeds_on_file():
    records = read_records(ROOT / "results")
    chosen = [
        r
        for r in records
        if r["config"]["benchmark"] == "market1501"
        and r["config"]["profile"] == "laptop"
        and r["source"] == "rendered"
        and r["config"]["erasing"]
    ]
    table = tables.found_by_one(chosen)
    counts = np.zeros(2, int)
    for seed in (3, 4):  # older records do not say which queries are right
        first = {}
        for r in chosen:
            if r["config"]["seed"] == seed and r["config"]["form"] in ("none", "l1"):
                first[r["config"]["form"]] = np.array(r["metrics"]["parts"]["first_match"]) == 1
        counts += [
            (first["l1"] & ~first["none"]).sum(),
            (first["none"] & ~first["l1"]).sum(),
        ]
    row = table.loc[("Market-1501", "l1")]
    assert row.tolist() == [2, 2 * 674, *counts]
