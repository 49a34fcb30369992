"""Around a run: the queue against the clock, several processes with one run, a machine with little installed, both ways to load."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_sentence
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from reidsa_utils.batches import augment, to_input
from reidsa_utils.config import configure
from reidsa_utils.data import load_benchmark, load_images, read_image
from reidsa_utils.evaluation import extract
from reidsa_utils.experiments.queue import STOPPED, main
from reidsa_utils.experiments.run import train
from reidsa_utils.model import ReIDNet, reid_loss
from reidsa_utils.support.malloc import MALLOC
from reidsa_utils.training import learning_rate

SMALL = "profile=smoke threads=1 epochs={epochs} rerank=false data={data} run_dir={run_dir} variant=b_p_ds_sa2 form={form}"


ENVIRONMENT = {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"}


# -- loading


@pytest.mark.parametrize("size", [(192, 64), (384, 128), (300, 64)])
def test_enlarged_images_are_those_of_torchvision(small_benchmark, size):
    """PIL decodes and resizes, torchvision flips and normalises: the plain pipeline, against ours, pixel by pixel."""
    paths = load_benchmark("market1501", small_benchmark).train.paths[:20]
    plain = v2.Compose(
        [
            v2.Resize(size, InterpolationMode.BILINEAR),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    theirs = torch.stack([plain(Image.open(path).convert("RGB")) for path in paths])
    images = load_images(paths, *size)
    ours = to_input(images)
    levels = (ours - theirs).abs().amax((0, 2, 3)) * torch.tensor([0.229, 0.224, 0.225]) * 255
    assert (
        levels.max() <= 1.01 and (ours - theirs).abs().mean() < 0.005
    )  # one level of 255: rounding
    flipped = to_input(np.ascontiguousarray(images[:, :, ::-1]))
    assert torch.equal(flipped, ours.flip(3)) and not torch.equal(flipped, ours)


def test_shrunk_images_are_means_over_areas(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (400, 200, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    by_hand = image.reshape(100, 4, 50, 4, 3).mean((1, 3))
    assert np.abs(read_image(tmp_path / "a.png", 100, 50) - by_hand).max() <= 0.5 + 1e-6
    # one side shrinks, the other grows: the mean of two columns, then interpolated rows, nothing sharpened or skipped
    mixed = read_image(tmp_path / "a.png", 800, 100).astype(float)
    columns = image.reshape(400, 100, 2, 3).mean(2)
    assert (
        np.abs(mixed[1:-1].reshape(399, 2, 100, 3).mean(1) - (columns[:-1] + columns[1:]) / 2).max()
        <= 1.5
    )


def test_both_ways_to_augment_have_one_distribution():
    """Arrays one by one, tensors (on GPUs) all at once: the same luck gives the same flips and rectangles; noise is uniform."""
    images = np.random.default_rng(0).integers(0, 256, (300, 48, 24, 3), dtype=np.uint8)
    alike = images[:, ::-1].copy()  # no rectangle of noise and no flip leaves an image as it is
    torch.manual_seed(0)
    for flip, erasing in ((True, False), (False, False)):
        one = augment(alike.copy(), np.random.default_rng(5), flip, erasing)
        assert np.array_equal(
            augment(torch.from_numpy(alike), np.random.default_rng(5), flip, erasing), one
        )
    shares, noise = {}, {}
    for kind, batch in (("array", images.copy()), ("tensor", torch.from_numpy(images))):
        erased = np.asarray(augment(batch, np.random.default_rng(7), False, True, (0.1, 0.3)))
        changed = (erased != images).any(3)
        boxes = [(m.any(1).sum(), m.any(0).sum()) for m in changed if m.any()]
        shares[kind] = np.array(
            [
                h * w / m.size
                for (h, w), m in zip(boxes, (m for m in changed if m.any()), strict=True)
            ]
        )
        noise[kind] = erased[changed].astype(float)
    for kind in shares:
        assert 110 < len(shares[kind]) < 190  # p = 0.5 of 300
        assert 0.09 < shares[kind].min() and shares[kind].max() < 0.33  # up to rounding
        assert (
            abs(shares[kind].mean() - 0.2) < 0.012
            and abs(shares[kind].std() - 0.2 / 12**0.5) < 0.008
        )
        assert abs(noise[kind].mean() - 127.5) < 1.5 and abs(noise[kind].std() - 73.9) < 1
    assert np.array_equal(
        images, np.asarray(torch.from_numpy(images))
    )  # the tensor of all images is not changed


def test_the_first_rectangle_is_the_same_both_ways():
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 32, 3), dtype=np.uint8)
    for seed in range(20):
        one, other = (
            np.asarray(augment(x, np.random.default_rng(seed)))
            for x in (images.copy(), torch.from_numpy(images))
        )
        same = [(m != images).any((0, 3)) for m in (one, other)]
        for axis in (0, 1):
            assert np.array_equal(same[0].any(axis), same[1].any(axis))


# -- the queue


@pytest.fixture(scope="module")
def queue(small_benchmark, tmp_path_factory):
    """A queue of two runs, and the same two runs trained without one."""
    folder = tmp_path_factory.mktemp("queue")
    lines = [
        SMALL.format(epochs=3, data=small_benchmark, run_dir=folder / form, form=form)
        for form in ("l1", "softmax")
    ]
    file = folder / "queue.txt"
    file.write_text("# two forms\n\n" + "\n".join(lines) + "   # the last\n")
    apart = [
        train(
            configure(
                dict(pair.split("=", 1) for pair in line.split())
                | {"run_dir": str(folder / f"apart{k}")}
            ),
            progress=False,
        )
        for k, line in enumerate(lines)
    ]
    return file, apart


def start(file, *arguments):
    command = [
        sys.executable,
        "-m",
        "reidsa_utils",
        "train",
        "--queue",
        str(file),
        *map(str, arguments),
    ]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


def test_a_queue_stops_in_time_and_goes_on(queue):
    file, apart = queue
    done = start(file, "--minutes", 0)  # no time at all: nothing is begun, nothing is lost
    assert done.returncode == STOPPED and done.stdout.count("not begun") == 2, (
        done.stdout + done.stderr
    )
    done = start(file, "--minutes", 0.05)  # 3 s: an epoch, perhaps two
    assert done.returncode == STOPPED and "the same command goes on from here" in done.stdout, (
        done.stdout + done.stderr
    )
    begun = torch.load(file.parent / "l1" / "checkpoint.pt", weights_only=True)["epoch"]
    assert f"stopped after epoch {begun} of 3" in done.stdout or begun == 3
    done = start(file, "--minutes", 10)
    assert done.returncode == 0 and done.stdout.count("finished, rank-1") == 2, (
        done.stdout + done.stderr
    )
    for form, expected in zip(("l1", "softmax"), apart, strict=True):
        record = json.loads((file.parent / form / "record.json").read_text())
        assert record["history"] == expected["history"] and record["metrics"] == expected["metrics"]
        assert len(record["timing"]) == 3 and all(
            0 < t["waiting"] < 1 < t["images_per_second"] for t in record["timing"]
        )


def test_a_failing_run_does_not_stop_the_queue(queue, tmp_path, small_benchmark):
    file = tmp_path / "queue.txt"
    bad = (
        SMALL.format(epochs=3, data=small_benchmark, run_dir=tmp_path / "bad", form="l1")
        + " lr=100 warmup=0 seed=1"
    )
    file.write_text(bad + "\n" + "\n".join(queue[0].read_text().splitlines()[2:]))
    done = start(file)
    assert (
        done.returncode == 1
        and "failed: the loss became" in done.stdout
        and done.stdout.count("finished") == 2
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("variant=b form\n", "line 1: form: expected KEY=VALUE"),
        ("variant=b\n\nepoch=3\n", "line 3: unknown parameter 'epoch'"),
        ("# nothing\n", "holds no run"),
    ],
)
def test_a_bad_queue_is_refused_before_the_first_run(tmp_path, capsys, text, words):
    (tmp_path / "queue.txt").write_text(text)
    assert main(["--queue", str(tmp_path / "queue.txt")]) == 1
    told = capsys.readouterr()
    assert (
        words in told.err
        and told.err.startswith("error: ")
        and told.err.count("\n") == 1
        and not told.out
    )


def test_a_missing_queue(tmp_path):
    assert_one_sentence(start(tmp_path / "none.txt"), "none.txt", "No such file")


def test_the_command_starts_itself_again_with_settings_of_malloc(tmp_path):
    """They count from the start of a process. As set by a user they are left alone."""
    code = (
        "import os\nfrom reidsa_utils.support.malloc import MALLOC, with_malloc\nwith_malloc()\n"
        "print({k: os.environ.get(k) for k in MALLOC})"
    )
    (tmp_path / "show.py").write_text(code)
    clean = {k: v for k, v in os.environ.items() if k not in MALLOC}
    for own in ({}, {"MALLOC_TOP_PAD_": "1"}):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "show.py")],
            env={**clean, **own, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        expected = (
            own | {k: None for k in MALLOC if k not in own}
            if own or sys.platform != "linux"
            else MALLOC
        )
        assert eval(done.stdout) == expected, done.stderr
    # the installed command does it, too, before torch is loaded
    code = (
        "import os, sys; sys.argv = ['reidsa', 'train', '--help']\n"
        "from reidsa_utils.cli import main\nassert 'torch' not in sys.modules\n"
        f"try:\n    main()\nfinally:\n    print({{k: os.environ.get(k) for k in {list(MALLOC)}}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert eval(done.stdout.splitlines()[-1]) == (
        MALLOC if sys.platform == "linux" else dict.fromkeys(MALLOC)
    ), done.stderr


def test_a_queue_needs_torch_torchvision_numpy_and_opencv_only(queue, tmp_path, small_benchmark):
    """On a lent GPU machine there may be nothing else (filelock comes with torch)."""
    for name in (
        "pandas",
        "scipy",
        "tqdm",
        "safetensors",
        "matplotlib",
        "seaborn",
        "papermill",
        "sklearn",
        "h5py",
    ):
        (tmp_path / f"{name}.py").write_text(
            f'raise ModuleNotFoundError("No module named {name!r}", name="{name}")'
        )
    file = tmp_path / "queue.txt"
    line = SMALL.format(epochs=3, data=small_benchmark, run_dir=tmp_path / "run", form="l1")
    file.write_text(line.replace("rerank=false", "rerank=true"))
    command = [sys.executable, "-m", "reidsa_utils", "train", "--queue", str(file)]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "no scipy here" in done.stdout, done.stdout + done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["metrics"] == queue[1][0]["metrics"] and record["config"]["rerank"] is False
    again = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["config"]["rerank"] is True and "parts+rerank" in record["metrics"]


# -- several processes with one run


def torchrun(parameters):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "reidsa_utils",
        "train",
        *(x for pair in parameters.split() for x in ("--set", pair)),
    ]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def test_two_processes_share_a_run(small_benchmark, tmp_path):
    """Against one process that does, in plain code, what two do: each batch in two halves with batch norm of their own.

    The halves are the even and the odd images of the very batches that one process would take, augmented alike. Large batches
    and few steps: rounding grows from step to step.
    """
    parameters = (
        SMALL.format(epochs=4, data=small_benchmark, run_dir=tmp_path / "two", form="l1")
        + " dropout=0 batch=192"
    )
    done = torchrun(parameters)
    assert done.returncode == 0 and done.stdout.count("rank-1") == 2, (
        done.stdout + done.stderr
    )  # global and parts, once
    record = json.loads((tmp_path / "two" / "record.json").read_text())
    assert record["processes"] == 2

    config = configure(dict(pair.split("=", 1) for pair in parameters.split()))
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
    alone = train(
        configure(
            dict(pair.split("=", 1) for pair in parameters.split())
            | {"run_dir": str(tmp_path / "one")}
        ),
        progress=False,
    )
    assert alone["history"][0]["loss"] == pytest.approx(
        record["history"][0]["loss"], rel=0.05
    )  # batch norm apart


def test_an_error_in_one_process_is_one_in_all(small_benchmark, tmp_path):
    """A queue of two processes whose first run has no data: both go on to the second run, instead of waiting for each other."""
    lines = [
        SMALL.format(epochs=1, data=data, run_dir=tmp_path / name, form="l1")
        for name, data in (("none", tmp_path / "nothing"), ("some", small_benchmark))
    ]
    (tmp_path / "queue.txt").write_text("\n".join(lines))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "reidsa_utils",
        "train",
        "--queue",
        str(tmp_path / "queue.txt"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200
    )
    assert (
        "1/2 none: failed: Market-1501: the data root" in done.stdout
        and "2/2 some: finished" in done.stdout
    ), done.stdout + done.stderr
    assert (
        done.returncode == 1
        and json.loads((tmp_path / "some" / "record.json").read_text())["processes"] == 2
    )


def test_two_lines_of_one_run(tmp_path, capsys):
    (tmp_path / "queue.txt").write_text("variant=b seed=1\nseed=1 variant=b\n")
    assert (
        main(["--queue", str(tmp_path / "queue.txt")]) == 1
        and "two lines are one run" in capsys.readouterr().err
    )


def test_inputs_whatever_the_default_type():
    """A notebook may have set float64 before it imports this module."""
    code = (
        "import torch; torch.set_default_dtype(torch.float64); import numpy as np; from reidsa_utils.batches import to_input; "
        "x = to_input(np.full((1, 2, 2, 3), 255, np.uint8)); print(x.dtype, *(round(x[0, c, 1, 1].item(), 4) for c in (0, 2)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.split() == ["torch.float32", "2.2489", "2.64"], done.stdout + done.stderr


def test_a_batch_that_processes_cannot_share(small_benchmark, tmp_path):
    done = torchrun(
        SMALL.format(epochs=1, data=small_benchmark, run_dir=tmp_path, form="l1") + " batch=15"
    )
    assert (
        done.returncode != 0
        and "batch is 15, and 2 processes share it; choose a batch that 2 divides" in done.stderr
    )
