"""Work in other processes, called as users call Python: without a guard, from standard input, from elsewhere; and how it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from reidsa_utils import InputError
from reidsa_utils.data import decode
from reidsa_utils.datasets.rendered import render_benchmark
from reidsa_utils.support.workers import in_processes

RENDER = """
from reidsa_utils.datasets.rendered import render_benchmark
print(render_benchmark("market1501", {root!r}, scale=0.004, seed=5, workers=2, progress=False))
"""
# The same in a kernel, which runs its cells as IPython does.
NOTEBOOK = """
import sys
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
notebook = new_notebook(cells=[new_code_cell(sys.stdin.read())])
NotebookClient(notebook, kernel_name="python3").execute()
print(notebook.cells[0].outputs[0].text)
"""
# A job a second, so that a test can come between.
# A shell starts what it puts in the background (`make test &`) with SIGINT ignored.
WAIT = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from reidsa_utils.support.workers import in_processes
for _ in in_processes(time.sleep, [1] * 100, 2): print("job", flush=True)
"""


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    return files(render_benchmark("market1501", root, scale=0.004, seed=5, progress=False))


@pytest.mark.parametrize("way", ["script", "standard input", "-c", "REPL", "notebook"])
def test_rendering_needs_no_guard(way, by_one_process, tmp_path):
    elsewhere = tmp_path / "work"
    elsewhere.mkdir()
    code = RENDER.format(root=str(tmp_path / "data"))
    script = tmp_path / "script.py"
    script.write_text(code)
    if way == "script":  # where one works lies a file with the name of a module
        (elsewhere / "pickle.py").write_text("raise SystemExit('the wrong pickle')")
    arguments = {
        "script": [str(script)],
        "standard input": ["-"],
        "-c": ["-c", code],
        "REPL": ["-i"],
        "notebook": ["-c", NOTEBOOK],
    }
    done = subprocess.run(
        [sys.executable, *arguments[way]],
        input=code,
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "data").iterdir()
    assert folder.name in done.stdout
    assert files(folder) == by_one_process


def test_results_come_in_order_and_errors_as_they_are(tmp_path):
    assert list(in_processes(abs, list(range(-9, 0)), 3)) == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    with pytest.raises(FileNotFoundError) as error:
        list(in_processes(os.listdir, [str(tmp_path), str(tmp_path / "none")], 2))
    assert error.value.filename == str(tmp_path / "none")
    with pytest.raises(InputError, match=r"none\.jpg cannot be read \(No such file"):
        list(in_processes(decode, [tmp_path / "none.jpg"], 1))
    with pytest.raises(RuntimeError, match="ValueError: invalid literal for int.*'x'"):
        list(in_processes(int, ["1", "x"], 2))
    with pytest.raises(InputError, match=r"ended before its work was done \(exit code 7\)"):
        list(in_processes(os._exit, [7] * 3, 2))


def test_what_is_printed_is_no_result(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('welcome', end='')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert list(in_processes(print, ["a", "b"], 2)) == [None, None]


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and nobody has asked for its exit code


def children(pid):
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return [child for child, parent in stats.items() if parent == pid]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_caller(sent):
    caller = subprocess.Popen(
        [sys.executable, "-c", WAIT],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert caller.stdout.readline() == "job\n"
    workers = children(caller.pid)
    assert len(workers) == 2
    if sent == signal.SIGINT:
        os.killpg(caller.pid, sent)  # Ctrl-C reaches all
    else:
        caller.send_signal(sent)
    _, said = caller.communicate()
    assert caller.returncode == -sent
    if sent == signal.SIGINT:  # one traceback, the caller's
        assert said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt")
    while any(alive(pid) for pid in workers):
        time.sleep(0.1)
