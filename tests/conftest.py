"""Shared by all tests: figures of notebooks go to a temporary folder, small rendered benchmarks are made once."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / "runs" / ".hypothesis"))


def pytest_collectstart(collector):
    # Progress bars and warnings go to stderr and differ from run to run.
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += ("stderr",)


@pytest.fixture(autouse=True, scope="session")
def figures_elsewhere(tmp_path_factory):
    os.environ["REIDSA_FIGURES"] = str(tmp_path_factory.mktemp("figures"))


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
