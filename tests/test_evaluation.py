"""Retrieval vectors, whatever the caller has set and whatever holds the images."""

import numpy as np
import pytest
import torch
from conftest import enclosing_modes

from reidsa_utils import InputError
from reidsa_utils.evaluation import extract
from reidsa_utils.metrics import euclidean
from reidsa_utils.model import ReIDNet
from reidsa_utils.reranking import rerank

MODES = enclosing_modes()
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 96, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ReIDNet(3, "b_p_ds_sa12", "l1", backbone="thin").eval()


@pytest.mark.parametrize("mode", MODES)
def test_a_callers_mode_changes_no_vector(net, mode):
    expected = extract(net, IMAGES)
    with MODES[mode]():
        found = extract(net, IMAGES)
        vectors = torch.from_numpy(found["global"])
        distances = euclidean(vectors, vectors)
        reranked = rerank(vectors, vectors, 2, 1)
        kinds = {kind: net.embed(torch.zeros(1, 3, 96, 32), kind).shape for kind in net.vectors}
    for kind, values in expected.items():
        np.testing.assert_array_equal(found[kind], values)
        assert kinds[kind] == (1, values.shape[1])
    np.testing.assert_array_equal(distances, euclidean(expected["global"], expected["global"]))
    outside = torch.from_numpy(expected["global"])
    assert torch.equal(reranked, rerank(outside, outside, 2, 1))


def test_any_holder_of_the_images(net):
    expected = extract(net, IMAGES)["parts"]
    read_only = IMAGES.copy()
    read_only.flags.writeable = False
    for images in (
        list(IMAGES),
        torch.from_numpy(IMAGES),
        IMAGES.astype(np.int64),
        np.asfortranarray(IMAGES),
        read_only,
        IMAGES[::-1].copy()[::-1],
    ):
        np.testing.assert_array_equal(extract(net, images)["parts"], expected)
    for images, words in (
        (IMAGES / 255, "images are float64 of shape"),
        (torch.from_numpy(IMAGES).float(), "images are float32 of shape"),
        (IMAGES[0], r"shape \(96, 32, 3\); expected \(B, H, W, 3\) RGB"),
        (IMAGES.transpose(0, 3, 1, 2), r"shape \(5, 3, 96, 32\)"),
        (IMAGES.astype(int) - 1, "expected .* whole numbers from 0 to 255"),
        ([IMAGES[0], IMAGES[0, :9]], "rows of one length"),
    ):
        with pytest.raises(InputError, match=words):
            extract(net, images)
    with pytest.raises(InputError, match="batch is 0; expected a whole number from 1 on"):
        extract(net, IMAGES, batch=0)
