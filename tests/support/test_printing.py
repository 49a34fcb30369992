"""A job never dies of a print: other code pages, closed pipes, full disks."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

OLD = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}


def reidsa(*words, env=None, **kwargs):
    command = [sys.executable, "-m", "reidsa_utils", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
    return subprocess.run(command, cwd=ROOT, env=environment, **kwargs)


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "cp949:strict"}, OLD], ids=str
)
def test_another_code_page(tmp_path, env):
    """A path that the code page lacks is printed somehow; the files are written all the same."""
    root = tmp_path / "Δ-数据-ã"
    words = ("render", "market1501", root, "--scale", "0.001", "--workers", "1")
    done = reidsa(*words, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"rendered ")
    if env is not OLD:  # there Python itself writes the bytes of the path
        assert b"\\u" in done.stdout
    assert (root / "Market-1501-v15.09.15" / "manifest.json").exists()
    done = reidsa("check", "market1501", root, env=env, capture_output=True)
    assert done.returncode == 0 and b"all have their checksums" in done.stdout, done.stderr


def test_nobody_reads(tmp_path):
    """Standard output and error are closed pipes: the rendering is complete, the exit code as ever."""
    reading, writing = os.pipe()
    os.close(reading)
    words = ("render", "market1501", tmp_path, "--scale", "0.001", "--workers", "1")
    done = reidsa(*words, stdout=writing, stderr=writing)
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "Market-1501-v15.09.15" / "manifest.json").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk(tmp_path):
    words = ("render", "market1501", tmp_path, "--scale", "0.001", "--workers", "1")
    with open("/dev/full", "wb") as full:
        assert reidsa(*words, stdout=full, stderr=subprocess.PIPE).returncode == 0
