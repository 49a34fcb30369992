"""The learning rate by hand, and that looking inside changes nothing."""

import pytest
import torch
from conftest import enclosing_modes

from reidsa_utils import InputError
from reidsa_utils.config import configure
from reidsa_utils.experiments.run import train
from reidsa_utils.model import ReIDNet
from reidsa_utils.training import learning_rate, look_inside


def test_the_learning_rate_by_hand():
    """Section 4: 0.1, and a tenth of it after 40 of 60 epochs. Ours: a warm-up before."""
    paper = configure({"profile": "paper"})
    rates = [learning_rate(paper, epoch, 0) for epoch in (0, 39, 40, 59)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    warm = configure({"epochs": 4, "lr": 1.0, "warmup": 10, "decay_at": 1.0})
    rates = [round(learning_rate(warm, 0, step), 3) for step in (0, 5, 10, 99)]
    assert rates == [0.01, 0.505, 1.0, 1.0]


def test_looking_inside_changes_nothing():
    torch.manual_seed(0)
    model = ReIDNet(5, "b_p_ds_sa2", "l1", backbone="thin").train()
    maps = model.feature_maps(torch.randn(4, 3, 96, 32))
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    inside = look_inside(model, maps, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(torch.get_rng_state(), random) and all(
        torch.equal(v, state[k]) for k, v in model.state_dict().items()
    )
    assert all(p.grad is None for p in model.parameters())
    # by hand for average pooling: dl/df = (softmax - one-hot) W / HW at every position, so its norm is that over sqrt(HW)
    head, target = model.stages[2], torch.tensor([0, 1, 2, 3])
    error = head(maps[2].mean((2, 3))).softmax(1) - torch.eye(5)[target]
    assert inside["none"]["through"][2] == pytest.approx(
        ((error @ head.weight).norm(dim=1) / 12**0.5).mean().item(), rel=1e-4
    )


MODES = enclosing_modes()


@pytest.mark.parametrize("mode", [*MODES, "float64"])
def test_training_says_what_it_needs(mode, tmp_path):
    """At once, before anything is rendered or written."""
    config = configure({"profile": "smoke", "run_dir": str(tmp_path / "run")})
    words = {"autocast": "sets its precision itself: call it outside of torch.autocast"}
    words |= {"float64": "torch's default type, and it is set to torch.float64"}
    with pytest.raises(InputError, match=words.get(mode, "needs gradients: call it outside of")):
        try:
            if mode == "float64":
                torch.set_default_dtype(torch.float64)
                train(config)
            else:
                with MODES[mode]():
                    train(config)
        finally:
            torch.set_default_dtype(torch.float32)
    assert not (tmp_path / "run").exists()
