"""A run against the clock, and a run that several processes share."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, options

from reidsa_utils.batches import augment, to_input
from reidsa_utils.config import configure
from reidsa_utils.data import load_benchmark, load_images
from reidsa_utils.evaluation import extract
from reidsa_utils.experiments.run import STOPPED, train
from reidsa_utils.model import ReIDNet, reid_loss
from reidsa_utils.training import learning_rate

SMALL = {"profile": "smoke", "threads": 1, "rerank": False, "variant": "b_p_ds_sa2", "form": "l1"}


def small(data, run_dir, **more):
    return SMALL | {"data": str(data), "run_dir": str(run_dir)} | more


def test_a_run_stops_in_time_and_goes_on(small_benchmark, tmp_path, command, reidsa):
    """In a process of its own where the clock counts; before and after it in this one, which has torch already."""
    words = ["train", *options(small(small_benchmark, tmp_path / "run", epochs=3)), "--minutes"]
    done = reidsa(*words, 0)  # no time at all: nothing is begun, nothing is lost
    assert done.returncode == STOPPED and "out of time after epoch 0" in done.stdout, done.stderr
    done = command("-m", "reidsa_utils", *words, 0.05)  # 3 s: an epoch, perhaps two
    assert done.returncode == STOPPED and "the same command goes on from here" in done.stdout
    begun = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["epoch"]
    assert f"out of time after epoch {begun};" in done.stdout
    done = reidsa(*words, 10)
    assert done.returncode == 0 and done.stdout.count("rank-1") == 2, done.stdout + done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    whole = train(configure(small(small_benchmark, tmp_path / "whole", epochs=3)), progress=False)
    assert record["history"] == whole["history"] and record["metrics"] == whole["metrics"]
    assert len(record["timing"]) == 3
    for timing in record["timing"]:
        assert 0 < timing["waiting"] < 1 < timing["images_per_second"]


def torchrun(parameters):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "reidsa_utils", "train", *options(parameters)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_two_processes_share_a_run(small_benchmark, tmp_path):
    """Against one process that does, in plain code, what two do: each batch in two halves with batch norm of their own.

    The halves are the even and the odd images of the very batches that one process would take, augmented alike. Large batches
    and few steps: rounding grows from step to step.
    """
    parameters = small(small_benchmark, tmp_path / "two", epochs=4, dropout=0, batch=192)
    done = torchrun(parameters)
    assert done.returncode == 0 and done.stdout.count("rank-1") == 2, (
        done.stdout + done.stderr
    )  # global and parts, once
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert record["processes"] == 2

    config = configure(parameters)
    benchmark = load_benchmark("market1501", small_benchmark)
    classes, targets = np.unique(benchmark.train.ids, return_inverse=True)
    images, targets = (
        load_images(benchmark.train.paths, config.height, config.width),
        torch.from_numpy(targets),
    )
    torch.manual_seed(config.seed)
    model = ReIDNet(
        len(classes), config.variant, config.form, config.recipe, config.backbone, config.dropout
    )
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(targets) // config.batch
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for epoch in range(config.epochs):
        rng = np.random.default_rng([config.seed, 7, epoch])
        order, losses = rng.permutation(len(targets)), []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate(config, epoch, epoch * steps + step)
            chosen = order[step * config.batch : (step + 1) * config.batch]
            x = to_input(
                augment(images[chosen], rng, config.flip, config.erasing, model.recipe.erase_area)
            )
            optimizer.zero_grad()
            first = reid_loss(model(x[::2]), targets[chosen[::2]]) / 2
            first.backward()
            kept = [
                (m.running_mean.clone(), m.running_var.clone()) for m in norms
            ]  # the first process's are kept
            second = reid_loss(model(x[1::2]), targets[chosen[1::2]]) / 2
            second.backward()  # gradients add up
            for m, (mean, var) in zip(norms, kept, strict=True):
                m.running_mean.copy_(mean), m.running_var.copy_(var)
            optimizer.step()
            losses.append((first + second).item())
        assert record["history"][epoch]["loss"] == pytest.approx(np.mean(losses), rel=2e-6)
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)["model"]
    ours = model.state_dict()
    for name in state:
        if "num_batches" not in name:
            torch.testing.assert_close(ours[name], state[name], rtol=2e-3, atol=2e-4)
    features = extract(model, load_images(benchmark.query.paths[:8], config.height, config.width))[
        "parts"
    ]
    assert np.isfinite(features).all()
    alone = train(configure(parameters | {"run_dir": str(tmp_path / "one")}), progress=False)
    assert alone["history"][0]["loss"] == pytest.approx(
        record["history"][0]["loss"], rel=0.05
    )  # batch norm apart


def test_an_error_in_one_process_is_one_in_all(tmp_path):
    """Only the first process looks for the data: both end, instead of waiting for each other."""
    done = torchrun(small(tmp_path / "nothing", tmp_path / "run", epochs=1))
    assert done.returncode != 0
    assert done.stderr.count("error: Market-1501: the data root") == 2, done.stderr


def test_a_batch_that_processes_cannot_share(small_benchmark, tmp_path):
    done = torchrun(small(small_benchmark, tmp_path, epochs=1, batch=15))
    words = "batch is 15, and 2 processes share it; choose a batch that 2 divides"
    assert done.returncode != 0 and words in done.stderr
