"""The house: imports point down, light modules stay light, notebooks use public names, the wheel stands alone."""

import inspect
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from reidsa_utils import cli
from reidsa_utils.config import Config
from reidsa_utils.datasets.rendered import Settings


def test_imports_point_down():
    """The layers of pyproject.toml, by import-linter."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("attention", ("cv2", "pandas", "matplotlib", "scipy", "torchvision")),
        ("metrics", ("cv2", "pandas", "torchvision")),
        ("model", ("cv2", "pandas", "matplotlib", "scipy.stats", "torchvision")),
        ("experiments.grid", ("pandas", "matplotlib", "torchvision", "torch._dynamo")),
        ("experiments.tables", ("matplotlib", "torchvision", "torch._dynamo")),
        ("datasets.rendered", ("torch", "pandas")),
    ],
)
def test_a_light_import(module, absent):
    """What a reader imports first brings in nothing that it does not need, and starts no process of its own (torch starts one)."""
    torch = "" if module in ("metrics", "datasets.rendered") else "import torch; "
    code = (
        f"{torch}import sys, subprocess; subprocess.Popen = None; import reidsa_utils.{module}; "
        f"print([name for name in {absent} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").rglob("*.ipynb")), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_notebooks_import_public_names(path):
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    imports = re.findall(r"^\s*from (reidsa_utils[\w.]*) import ([^\n#]+)", "\n".join(cells), re.M)
    assert not [m for m, _ in imports if ".support" in m], "support is for the package itself"
    assert not [
        name for _, names in imports for name in re.split(r"[,() ]+", names) if name.startswith("_")
    ]


def test_the_wheel_stands_alone(tmp_path):
    """Built and put elsewhere: one package at the top level, its settings in it; the command answers; runs land where one works."""
    source = tmp_path / "source"  # a build leaves folders beside the code
    shutil.copytree(
        ROOT / "reidsa_utils", source / "reidsa_utils", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", source)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(tmp_path),
            str(source),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    assert {p.name for p in place.iterdir() if not p.name.endswith(".dist-info")} == {
        "reidsa_utils"
    }
    explorer = place / "reidsa_utils" / "experiments" / "explorer"
    for asset in (ROOT / "reidsa_utils" / "experiments" / "explorer" / "assets").iterdir():
        assert (explorer / "assets" / asset.name).read_bytes() == asset.read_bytes()
    elsewhere = tmp_path / "work"
    elsewhere.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(place)!r}); from reidsa_utils.cli import main; from reidsa_utils.config import *; "
        "print(run_folder(configure({}))); sys.exit(main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True
    )
    assert done.returncode == 0 and "Usage: reidsa COMMAND" in done.stdout, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(elsewhere.resolve() / "runs"))


def test_the_help_is_readable_in_a_narrow_terminal(command):
    overview = command("-m", "reidsa_utils", "--help", env={"COLUMNS": "80"}).stdout
    for name in (
        "train",
        "check",
        "prepare-cuhk03",
        "render",
        "examine",
        "explore",
        "publish",
        "readme",
    ):
        assert re.search(rf"^│ {name} ", overview, re.M), name
    train = command("-m", "reidsa_utils", "train", "--help", env={"COLUMNS": "80"}).stdout
    assert max(map(len, train.splitlines())) <= 80
    said = " ".join(train.replace("│", " ").split())
    for name, field in Config.model_fields.items():
        assert f"--{name.replace('_', '-')}" in said
        assert field.description.split()[0] in said


def test_every_text_has_an_encoding():
    """In the package, the notebooks and the Snakefile; ruff's PLW1514 sees only what is surely a path."""
    sources = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("reidsa_utils/**/*.py")}
    snakefile = ROOT / "workflow" / "Snakefile"
    sources[snakefile] = snakefile.read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = nbformat.read(path, 4).cells
        sources[path] = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    call = re.compile(
        r"(?:\.read_text|\.write_text|(?<![\w.])open)\(([^()]|\((?:[^()]|\([^()]*\))*\))*\)"
    )
    found = [(path, match[0]) for path, text in sources.items() for match in call.finditer(text)]
    without = [
        (path.name, words)
        for path, words in found
        if "encoding=" not in words and not re.search(r'"[rwa+]+b[+]?"', words)
    ]
    assert len(found) > 8 and not without
    assert not [path.name for path, text in sources.items() if re.search(r"\btext=True", text)]


def test_render_has_an_option_for_every_setting():
    options = set(inspect.signature(cli.render).parameters)
    assert options - {"root", "workers"} == {field.name for field in fields(Settings)}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], 'Unknown command "trian". Did you mean "train"?'),
        (["train", "--sed", "3"], "Unknown option: --sed. Did you mean --seed?"),
        (["train", "extra"], "Unused Tokens: ['extra']"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(reidsa, words, sentence):
    done = reidsa(*words)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {sentence}")
    assert done.stderr.count("\n") == 1
