"""Shared by all tests: figures of notebooks go to a temporary folder, small rendered benchmarks are made once."""

import contextlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from reidsa_utils import cores

# Each worker of pytest-xdist has its share of the cores, and so have the processes that it starts.
# With a thread for every core in each, threads wait for one another: three times the processor
# time in test_checks. NumPy and torch read this when they are imported.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    share = cores() // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import forks as forked
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / "runs" / ".hypothesis"))


# A worker takes a whole file (make test: --dist loadfile). These take longest and come first, so that
# short ones are left for the worker that ends first.
LONGEST = ("test_workflow", "test_notebooks", "test_run", "test_explorer", "test_processes")
LONGEST += ("test_examine", "test_book", "test_speed", "test_planted_faults", "test_house")


def pytest_collection_modifyitems(items):
    place = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collectstart(collector):
    # Progress bars and warnings go to stderr and differ from run to run.
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += ("stderr",)


@pytest.fixture(autouse=True, scope="session")
def figures_elsewhere(tmp_path_factory):
    os.environ["REIDSA_FIGURES"] = str(tmp_path_factory.mktemp("figures"))


@pytest.fixture(autouse=True)
def same_threads():
    """A training or an explorer with all cores leaves the next test as many threads as there were."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_benchmark(tmp_path_factory):
    """A rendered benchmark of 12 + 12 identities. Tests copy it before they break it."""
    from reidsa_utils.datasets.rendered import render_benchmark

    return render_benchmark(
        "market1501", tmp_path_factory.mktemp("small"), scale=0.016, seed=5, progress=False
    )


@pytest.fixture(scope="session")
def four_benchmarks(tmp_path_factory):
    """All four, rendered very small: {name: folder, "root": where they lie}. Tests copy one before they break it."""
    from reidsa_utils.data import LAYOUTS
    from reidsa_utils.datasets.rendered import render_benchmark

    root = tmp_path_factory.mktemp("four")
    return {"root": root} | {
        name: render_benchmark(name, root, scale=0.012, seed=5, progress=False) for name in LAYOUTS
    }


@pytest.fixture(scope="session")
def command():
    """Run `python -m MODULE ARGUMENTS` as a user would; returns the finished process."""

    def run(*arguments, env=None, **kwargs):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            **kwargs,
        )

    return run


@pytest.fixture(scope="session")
def forks():
    """Forks of one process with the slow imports done; see forks.py."""
    with forked.started() as found:
        yield found


@pytest.fixture
def reidsa(capfd):
    """Run a subcommand in this process, which has torch already; returns it as if it had been one."""
    from reidsa_utils.cli import main

    def run(*words):
        capfd.readouterr()
        words = [str(word) for word in words]
        code = main(words)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run


def need(found, sentence):
    """Fail where CI=true, skip elsewhere, with one sentence about what a browser test lacks."""
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window, as Playwright's Browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    need(path, "no Chromium found: install it (Debian: apt-get install chromium)")
    need(find_spec("playwright"), "no playwright found: install requirements.txt")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


def options(settings):
    """Settings of a run as words of the command line."""
    words = []
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return words


def own_data(folder, n=12, cameras=(1, 2)):
    """A folder for each of n people, of a colour of their own: three images of each camera."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(3)
    for person in range(n):
        colour = rng.integers(0, 256, 3)
        for c in cameras:
            for k in range(3):
                path = folder / f"person {person}" / f"cam{c}_{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(colour + rng.normal(0, 60, (48, 16, 3)), 0, 255)
                cv2.imwrite(str(path), pixels.astype(np.uint8))
    return folder


def tracked():
    """What running a notebook could change: {path: bytes}."""
    folders = [ROOT / name for name in ("figures", "results", "notebooks")]
    return {
        path: path.read_bytes()
        for folder in folders
        for path in folder.glob("*.*")
        if path.is_file()
    }


def assert_one_sentence(done, *parts):
    """Exit code 1, one line on stderr (progress bars aside), no traceback, and the named words in it."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    errors = [
        line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")
    ]
    assert len(errors) == 1, done.stderr
    for part in parts:
        assert part in errors[0], errors[0]


def enclosing_modes():
    """{name: what a caller may have entered before calling us}."""

    def all_at_once():
        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        return stack

    return {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "inference_mode and autocast": all_at_once,
    }


def unkind_features():
    """{what is unkind: (query, gallery)}: 36 people of 16 numbers each, as nobody would choose them."""
    rng = np.random.default_rng(3)
    people = rng.normal(size=(6, 16))
    query = people[rng.integers(6, size=12)] + 0.4 * rng.normal(size=(12, 16))
    gallery = people[rng.integers(6, size=60)] + 0.4 * rng.normal(size=(60, 16))
    cameras = 500 * rng.integers(0, 3, (72, 1))
    odd_one = gallery.copy()
    odd_one[7] *= 1e4
    constant = np.full((72, 1), 1e4)
    kinds = {
        "offset": (query + 1000, gallery + 1000),
        "offset of the queries alone": (query + 30, gallery),
        "offset of each camera": (query + cameras[:12], gallery + cameras[12:]),
        "two far groups": [np.concatenate([x, x + 3000]) for x in (query, gallery)],
        "a constant column": (np.c_[query, constant[:12]], np.c_[gallery, constant[12:]]),
        "two values in a column": (
            np.c_[query, cameras[:12] > 0],
            np.c_[gallery, 1e4 * (cameras[12:] > 0)],
        ),
        "duplicates": (np.concatenate([query, gallery[:5]]), np.concatenate([gallery, gallery])),
        "large norms": (query * 1e15, gallery * 1e15),
        "small norms": (query * 1e-13, gallery * 1e-13),
        "one far image": (query, odd_one),
        "zeros": (np.concatenate([query, np.zeros((2, 16))]), np.concatenate([gallery, 0 * query])),
    }
    kinds = {name: [x.astype(np.float32) for x in both] for name, both in kinds.items()}
    half = [(x + 40).astype(np.float16) for x in (query, gallery)]
    return kinds | {
        "float16 with an offset": half,
        "float64 with an offset": (query + 1e8, gallery + 1e8),
        "whole numbers with an offset": [(100 * x).astype(int) + 10**9 for x in (query, gallery)],
    }
