"""The main job on the embedded benchmark: render, train three models, evaluate, draw. See README.

reidsa reproduce                     about 12 minutes on 2 cores; everything goes to runs/reproduce/demo
reidsa reproduce --profile smoke     the same path in about 2 minutes, too small to learn anything
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..support.files import ROOT

RUNS = [
    ("b_p_ds", "none"),
    ("b_p_ds_sa2", "softmax"),
    ("b_p_ds_sa2", "l1"),
]  # Table 3's pair, both readings of SA
EVALUATION = 0.3  # cost of an evaluated image, in trained ones
START_UP = 20  # seconds before the first step: kernel, imports, the untrained network's numbers


def papermill(notebook: str, output: Path, parameters: dict, log) -> subprocess.Popen:
    """Start one papermill run. The output notebook is saved up to the failing cell if it fails."""
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "notebooks" / notebook),
        str(output),
        "--cwd",
        str(ROOT / "notebooks"),
        "-k",
        "python3",
        "--no-progress-bar",
    ]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    # one thread a run: two runs share the machine better than four threads do, and the numbers stay the same
    environment = (
        {**os.environ, "OMP_NUM_THREADS": "1"} if "run_dir" in parameters else dict(os.environ)
    )
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def state(run_dir: Path) -> tuple:
    """(work done, all work, what to show) of a run, from the progress file that it writes."""
    try:
        p = json.loads((run_dir / "progress.json").read_text())
        total = p["totals"]["training"] + EVALUATION * p["totals"]["evaluating"]
        p["done"], p["stage"]
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or broken
        return 0.0, None, "starting"
    if p["stage"] == "training":
        return (
            p["done"],
            total,
            f"epoch {p.get('epoch', 1)}, loss {p.get('loss', float('nan')):.2f}",
        )
    return p["totals"]["training"] + EVALUATION * p["done"], total, "evaluating"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def fail(output: Path, log: Path) -> None:
    """Say why a notebook failed in one sentence, and where it can be read."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    reason = next(
        (line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "no output"
    )
    print(
        f"\nerror: {reason.strip()}\nThe executed notebook, with the error: {output}\nThe log: {log}",
        file=sys.stderr,
    )


def learned(notebook: Path) -> str:
    """The line in which an executed 05_train says how far above chance and an untrained network its run is."""
    cells = json.loads(notebook.read_text())["cells"]
    lines = [
        line
        for cell in cells
        for output in cell.get("outputs", [])
        for line in output.get("text", [])
    ]
    return next(line.strip() for line in lines if line.startswith("mAP ("))


def time_left(left: list, spent: list, waiting: int, jobs: int) -> str:
    """Text for the status line: seconds left and spent of each running run, how many wait, how many run at a time."""
    if not left or None in left:
        return ""
    whole = max(a + b for a, b in zip(left, spent, strict=True))
    slots = sorted(left + [0.0] * (jobs - len(left)))
    for _ in range(waiting):  # the next run starts where a place is free first
        slots = sorted([slots[0] + whole, *slots[1:]])
    return f"   {minutes(slots[-1])} left"


def train_all(folder: Path, profile: str, jobs: int) -> bool:
    """Run 05_train for every model, `jobs` at a time, with one status line. Finished runs are kept."""
    from ..config import configure, run_settings
    from .records import read_record

    waiting, running, finished, rates = [], {}, 0, []
    for variant, form in RUNS:
        run_dir = folder / f"{variant}-{form}"
        parameters = {
            "variant": variant,
            "form": form,
            "profile": profile,
            "seed": 0,
            "threads": 1,
            "run_dir": str(run_dir),
        }
        output = run_dir / "05_train.ipynb"
        config, path = configure(parameters), run_dir / "record.json"
        if (
            output.exists()
            and path.exists()
            and (record := read_record(path))["config"]["rerank"] == config.rerank
            and {k: v for k, v in record["identity"].items() if k != "fingerprint"}
            == run_settings(config)
        ):
            print(f"  {variant} ({form}): finished before, kept")
            finished += 1
        else:
            waiting.append((run_dir, parameters, output))
    shown = 0.0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run_dir, parameters, output = waiting.pop(0)
                run_dir.mkdir(parents=True, exist_ok=True)
                (run_dir / "progress.json").unlink(missing_ok=True)
                log = open(run_dir / "papermill.log", "w")
                running[run_dir] = (
                    papermill("05_train.ipynb", output, parameters, log),
                    output,
                    log,
                    time.time(),
                )
            time.sleep(0.5)
            left, parts = [], []
            for run_dir, (process, output, log, since) in list(running.items()):
                if process.poll() is not None:
                    log.close()
                    del running[run_dir]
                    finished += 1
                    if process.returncode:
                        fail(output, run_dir / "papermill.log")
                        return False
                    rates.append(time.time() - since)
                    print(
                        f"\r  {run_dir.name}: done in {minutes(time.time() - since)}".ljust(
                            shutil.get_terminal_size().columns - 1
                        )
                    )
                    continue
                done, total, text = state(run_dir)
                if rates:  # the runs are alike: as long as the finished ones took
                    left.append(max(5.0, sum(rates) / len(rates) - (time.time() - since)))
                elif total and done > 300:
                    left.append(
                        max(0.0, time.time() - since - START_UP) * (total - done) / done
                        + START_UP / 2
                    )
                else:
                    left.append(None)
                parts.append(f"{run_dir.name}: {text}")
            if running and time.time() - shown > (1 if sys.stdout.isatty() else 30):
                shown = time.time()
                spent = [time.time() - since for *_, since in running.values()]
                line = (
                    f"  [{finished}/{len(RUNS)} done]{time_left(left, spent, len(waiting), jobs)}   "
                    + " · ".join(parts)
                )
                width = shutil.get_terminal_size().columns - 1
                live = sys.stdout.isatty()
                print(
                    "\r" + line[:width].ljust(width) if live else line,
                    end="" if live else "\n",
                    flush=True,
                )
    finally:
        for process, *_ in running.values():
            process.terminate()
    return True


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="reidsa reproduce", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--profile", default="demo", choices=("demo", "smoke", "laptop"), help="default: demo"
    )
    parser.add_argument("--out", type=Path, help="default: runs/reproduce/PROFILE")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time"
    )
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; expected 1 or more")
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a terminated driver stops its runs too
    from .. import InputError
    from ..config import configure
    from .run import open_benchmark

    started = time.time()
    folder = (arguments.out or ROOT / "runs" / "reproduce" / arguments.profile).resolve()
    os.environ["REIDSA_FIGURES"] = str(folder / "figures")
    try:
        config = configure({"profile": arguments.profile})
        print("1/3  the embedded benchmark")
        benchmark = open_benchmark(config)
        print(
            f"  {benchmark.counts['train']['images']:,} training images, {len(benchmark.query):,} queries, gallery of "
            f"{len(benchmark.gallery):,}"
        )
        print(f"2/3  {len(RUNS)} trainings by papermill, {arguments.jobs} at a time")
        if not train_all(folder, arguments.profile, arguments.jobs):
            return 1
        print("3/3  tables and pictures")
        for notebook, parameters in (
            ("06_tables.ipynb", {"records": str(folder)}),
            ("07_cam.ipynb", {"runs": str(folder)}),
        ):
            output, running, log = (
                folder / notebook,
                folder / f"{notebook[:-6]}.running.ipynb",
                folder / f"{notebook}.log",
            )
            sources = [ROOT / "notebooks" / notebook, *folder.glob("*/record.json")]
            if output.exists() and output.stat().st_mtime > max(p.stat().st_mtime for p in sources):
                print(f"  {notebook}: made before from the same runs, kept")
                continue
            with open(log, "w") as file:
                code = papermill(notebook, running, parameters, file).wait()
            if code:
                fail(running, log)
                return 1
            running.replace(output)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nstopped; start the same command again and it goes on from the last finished epoch",
            file=sys.stderr,
        )
        return 130
    for variant, form in RUNS:
        print(f"  {variant} ({form}): {learned(folder / f'{variant}-{form}' / '05_train.ipynb')}")
    print("\n" + (folder / "tables.md").read_text().split("## Table 3, vector parts+rerank")[0])
    print(
        f"Executed notebooks, records and checkpoints: {folder}\nFigures: {folder / 'figures'}\n"
        f"{minutes(time.time() - started)} in all"
    )
    return 0
