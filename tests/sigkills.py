"""SIGKILL at random moments, then the same command again: do the files end as without the kill?

    python tests/sigkills.py 100

Outside `make test`, since a hundred kills take about an hour. A third of them each hit a rendering,
a publishing and a batch (the main job at smoke size). Half of them end all processes, as a machine
that is switched off does; the others only the first one, as `kill -9` does, and the processes that
it started may still be at work while the command is given again.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REIDSA = [sys.executable, "-m", "reidsa_utils"]
SNAKEMAKE = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2"]
SNAKEMAKE += ["--snakefile", str(ROOT / "workflow" / "Snakefile")]
# What differs between two runs of the same settings: times, and the processes' own files.
TIMES = ("timing", "seconds")
OWN = (".lock", ".log", ".ipynb", ".failed", ".pt", ".png")


def rendering(folder: Path, _) -> list[str]:
    return [*REIDSA, "render", "market1501", str(folder), "--scale", "0.03", "--seed", "3"]


def publishing(folder: Path, runs: Path) -> list[str]:
    return [*REIDSA, "publish", str(runs), "--into", str(folder / "results"), "--weights"]


def batch(folder: Path, _) -> list[str]:
    settings = ("--config", "profile=smoke", "threads=1")
    return [*SNAKEMAKE, "reproduce", "--directory", str(folder), *settings]


def files(folder: Path) -> dict:
    """{path in the folder: its content}, without times and what a process keeps for itself."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_dir() or path.suffix in OWN or inside.parts[0] == ".snakemake":
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.loads(content)
            if isinstance(content, dict):
                content = {key: value for key, value in content.items() if key not in TIMES}
        found[str(inside)] = content
    return found


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def killed(command: list[str], after: float, everything: bool) -> bool:
    """Start a command and kill it; False if it had ended before."""
    process = start(command)
    try:
        process.wait(after)
        return False
    except subprocess.TimeoutExpired:
        if everything:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        return True


def differences(found: dict, expected: dict) -> list[str]:
    return sorted(name for name in found | expected if found.get(name) != expected.get(name))


def main(times: int, seed: int) -> int:
    rng = random.Random(seed)
    unlike = hits = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        expected, seconds = {}, {}
        for job in (batch, publishing, rendering):
            started = time.time()
            assert start(job(root / job.__name__, root / "batch" / "runs")).wait() == 0, job
            seconds[job] = time.time() - started
            expected[job] = files(root / job.__name__)
        for k in range(times):
            job = (rendering, publishing, batch)[k % 3]
            after, everything = rng.uniform(0, seconds[job]), rng.random() < 0.5
            folder = root / "again"
            command = job(folder, root / "batch" / "runs")
            hit = killed(command, after, everything)
            hits += hit
            code = start(command).wait()
            different = differences(files(folder), expected[job])
            unlike += bool(code or different)
            whom = "all processes" if everything else "the first process"
            when = f"{after:.1f} s, {whom} killed" if hit else "ended before"
            print(
                f"{k + 1}: {job.__name__}, {when}: code {code}, {different or 'equal'}", flush=True
            )
            shutil.rmtree(folder)
    print(f"{hits} kills in {times} trials; {unlike} ended otherwise")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
