"""The batch behind Tables 1 to 3: which runs, checked before the first one starts; how far it is; publishing its records.

The Snakefile runs it. Without Snakemake:

    reidsa plan table3 profile=laptop seeds=3      what would run, and for how long
    reidsa status table3 profile=laptop seeds=3    how far it is, from another terminal
    reidsa publish runs/MY_FOLDER                  copy finished records into results/
"""

import argparse
import contextlib
import os
import re
import shlex
import sys
import threading
import time
import tomllib
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from statistics import median

from filelock import FileLock, Timeout

from .. import SETTINGS, InputError, cores, known, run_command
from ..attention import FORMS
from ..config import Config, configure, run_folder, run_settings
from ..data import LAYOUTS, find_folder
from ..model import VARIANTS
from ..support.files import ROOT
from .records import publish, read_record
from .reproduce import START_UP, fail, minutes, state
from .run import open_benchmark

EVIDENCE = tomllib.loads((SETTINGS / "evidence.toml").read_text())
TARGETS = ("tables", "table1", "table2", "table3", "curves", "controls")
PRODUCT = {"controls": "controls"}  # target -> name of its Markdown file; else tables
NOTEBOOK = {"tables": "06_tables.ipynb", "controls": "08_paper_vs_code.ipynb"}  # and who writes it
OWN = ("seeds", "forms", "benchmarks", "gpus")  # settings beside the parameters of a run
CELL = (
    "benchmark",
    "variant",
    "form",
    "erasing",
    "seed",
    "run_dir",
    "occlusion",
    "view_overlap",
    "rerank",
)  # fixed by the tables
CURVES = {
    "occlusion": (0.0, None, 0.6),
    "view_overlap": (0.0, None, 0.6),
}  # levels of the renderer's knobs; None: as frozen
# Notebook 08, one thing changed at a time, on CUHK03-NP labeled: it has the fewest training images. (recipe, variant, form, erasing)
CONTROLS = [
    ("paper", "b_p_ds", "none", True),
    *(("paper", "b_p_ds_sa2", form, True) for form in FORMS if form != "none"),
    ("literal_sum", "b_p_ds", "none", True),
    ("released", "b_p_ds", "none", True),
    ("released", "b_p_ds_sa2", "l1", True),
    *(
        (recipe, "b_p_ds_sa2", "l1", True)
        for recipe in ("mean_after_sa", "equal_loss", "total_10", "ds_reduced", "no_nesterov")
    ),
    ("paper", "b", "none", False),
    ("paper", "b", "none", True),
    ("lambda_0", "b_p_ds", "none", False),
    ("paper", "b_p_ds", "none", False),
    ("lambda_05", "b_p_ds", "none", False),
    ("lambda_decays", "b_p_ds", "none", False),
    ("paper", "b_p_ds_sa12", "l1", True),
    ("sa1_on_parts", "b_p_ds_sa12", "l1", True),
]


@dataclass(frozen=True)
class Batch:
    """The runs of a batch, each once: name -> papermill parameters of 05_train."""

    runs: dict  # those asked for
    every: dict  # of all targets
    asked: list  # targets
    targets: dict  # all targets -> names of their runs
    title: str  # of the folder that the tables go to
    threads: int  # of one run
    gpus: int  # cards of this machine to choose from; 0: do not choose


def make_batch(settings: dict, asked=("tables",)) -> Batch:
    """The runs behind the targets `asked`, for the settings that Snakemake's `--config` gives.

    Own settings: seeds (how many, from 0), forms (of the cells with SA), benchmarks (of Tables 1 and 3), gpus; the others are
    parameters of every run (profile, data, recipe, epochs, ...). Raises InputError for unknown targets, settings and values
    and for what the tables fix themselves.
    """
    settings = {
        key: None if value is None else str(value) for key, value in settings.items()
    }  # YAML makes numbers of some
    for key, value in settings.items():
        if key in CELL:
            raise InputError(
                f"{key} is fixed by the cells of the tables; for one run of your own: reidsa train"
            )
        known("setting", key, [*OWN, *(f.name for f in fields(Config) if f.name not in CELL)])
        if not value:
            raise InputError(f"{key} has no value; expected {key}=VALUE, or leave it out")
    numbers = {}
    for key, low, high, default in (("seeds", 1, 1000, 3), ("gpus", 0, 1000, 0)):
        try:
            numbers[key] = int(settings.get(key, default))
            assert low <= numbers[key] <= high
        except (ValueError, AssertionError):
            raise InputError(
                f"{key} is {settings[key]}; expected a whole number from {low} to {high}"
            ) from None
    forms = _list(settings.get("forms", "softmax"), "form of SA", [f for f in FORMS if f != "none"])
    benchmarks = _list(settings.get("benchmarks", ",".join(LAYOUTS)), "benchmark", LAYOUTS)
    common = {"profile": "laptop", "threads": 1} | {
        k: v for k, v in settings.items() if k not in OWN
    }
    config = configure(common)
    common["data"] = data = config.data
    if data not in (
        "embedded",
        "real",
    ):  # one name for one folder, also where a notebook's kernel runs
        common["data"] = str((Path(data) if Path(data).is_dir() else ROOT / data).resolve())
    if config.weights not in ("none", "imagenet") and not Path(config.weights).is_file():
        raise InputError(
            f"weights is {config.weights}, and there is no such file; expected none, imagenet or a state_dict"
        )

    def cell(variant, benchmark="market1501", **rest):
        for form in forms if {"sa1", "sa2"} & set(VARIANTS[variant]) else ["none"]:
            for seed in range(numbers["seeds"]):
                yield (
                    common
                    | {"benchmark": benchmark, "variant": variant, "form": form, "seed": seed}
                    | rest
                )

    pair = ("b_p_ds", "b_p_ds_sa2")
    knobs = [
        {knob: level} if level is not None else {}
        for knob, levels in CURVES.items()
        for level in levels
    ]
    wanted = {
        "table1": [p for name in benchmarks for p in cell(pair[1], name, erasing=True)],
        "table2": [p for v in VARIANTS for p in cell(v, erasing=False)],
        "table3": [p for name in benchmarks for v in pair for p in cell(v, name, erasing=True)],
        "curves": [p for k in knobs for v in pair for p in cell(v, erasing=True, **k)]
        if data == "embedded"
        else [],
    }
    wanted["tables"] = wanted["table3"] + wanted["table2"]  # and so Table 1
    wanted["controls"] = [
        common
        | dict(
            zip(("recipe", "variant", "form", "erasing"), control, strict=True),
            seed=seed,
            benchmark="cuhk03_np_labeled",
        )
        for control in CONTROLS
        for seed in range(numbers["seeds"])
    ]
    if "controls" in asked and {"recipe", "forms", "benchmarks"} & set(settings):
        told = ", ".join(sorted({"recipe", "forms", "benchmarks"} & set(settings)))
        raise InputError(
            f"found {told} among the settings; recipe, forms and benchmarks are fixed in controls: leave them out"
        )
    if "curves" in asked and data != "embedded":
        raise InputError(f"curves turns knobs of the renderer; data is {data}, expected embedded")
    every, targets = {}, {target: {} for target in TARGETS}
    for target, parameters in wanted.items():
        for p in parameters:
            name = run_folder(configure(p)).name
            every[name] = targets[target][name] = p
    runs = {
        name: p for target in asked for name, p in targets[known("target", target, TARGETS)].items()
    }
    title = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(data).name or "data") + f"-{config.profile}"
    return Batch(
        runs,
        every,
        list(asked),
        {target: list(names) for target, names in targets.items()},
        title,
        config.threads or cores(),
        numbers["gpus"],
    )


def _list(value: str, kind: str, names) -> list:
    return [known(kind, v.strip(), names) for v in dict.fromkeys(value.split(","))]


def check(batch: Batch, folder: Path) -> None:
    """Before the first run: the real benchmarks are there, and what is finished belongs to this batch. Raises InputError if not."""
    prints, data = {}, next(iter(batch.runs.values()))["data"]
    if data != "embedded":
        find_data(data, {p["benchmark"] for p in batch.runs.values()})
    for name, parameters in batch.runs.items():
        config, path = configure(parameters), folder / name / "record.json"
        images = work(config) / config.epochs
        if config.batch > images:
            raise InputError(
                f"batch is {config.batch}, and {config.benchmark} has {images:.0f} training images; choose a smaller batch"
            )
        if finished(name, folder):
            there = read_record(path)["identity"]
            wanted = run_settings(config) | {"fingerprint": there.get("fingerprint")}
            if data != "embedded":
                wanted["fingerprint"] = prints[config.benchmark] = (
                    prints.get(config.benchmark) or open_benchmark(config).fingerprint()
                )
            differ = sorted(k for k in set(there) | set(wanted) if there.get(k) != wanted.get(k))
            if differ:
                raise InputError(
                    f"{path} is the record of another run ({', '.join(differ)}: found {there.get(differ[0])}, expected "
                    f"{wanted.get(differ[0])}); delete or move its folder"
                )


def find_data(data: str, benchmarks) -> None:
    """Raises InputError that names every real benchmark which is not there."""
    root, missing = os.environ.get("REIDSA_DATA") if data == "real" else data, []
    if not root:
        raise InputError(
            "data=real needs the environment variable REIDSA_DATA: set it to the folder that holds the benchmarks, "
            "or use data=embedded"
        )
    for name in sorted(benchmarks):
        try:
            find_folder(name, root if Path(root).is_dir() else ROOT / root)
        except InputError as error:
            missing.append(str(error))
    if missing:
        raise InputError(
            f"{'; '.join(missing)}. Nothing was started; Tables 1 and 3 can be narrowed down: benchmarks=market1501"
        )


def finished(name: str, folder: Path) -> bool:
    return (folder / name / "record.json").exists()


def failed(name: str, folder: Path) -> bool:
    """Whether the last try of a run ended in an error (the Snakefile marks it)."""
    return (folder / name / "failed").exists() and not finished(name, folder)


def only_one_batch(folder: Path) -> FileLock:
    """The lock of a batch on a folder of runs, held until this process ends. Raises InputError if another batch holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(
        folder / "batch.lock", timeout=0, thread_local=False
    )  # watch() holds it in a thread
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another batch is at work in {folder}; wait for it, or see how far it is: reidsa status"
        ) from None
    (folder / "batch.started").touch()  # not the lock's own time: every look at a lock renews that
    return lock


def work(config: Config) -> float:
    """Images that a run trains on, over its epochs."""
    return (
        LAYOUTS[config.benchmark].counts["train"]["images"]
        * (config.scale if config.data == "embedded" else 1)
        * config.epochs
    )


def seconds_per_image(config: Config) -> float | None:
    """Median time of a trained image in the recorded runs of this size; None where there is no such record."""
    rates = []
    for path in [*(ROOT / "results").glob("*.json"), *(ROOT / "runs").glob("*/record.json")]:
        with contextlib.suppress(InputError, OSError, KeyError, TypeError, ZeroDivisionError):
            record = read_record(path)
            c = record["config"]
            if all(c[k] == getattr(config, k) for k in ("backbone", "height", "width", "threads")):
                rates.append(
                    record["seconds"]["training"]
                    / c["epochs"]
                    / record["counts"]["train"]["images"]
                )
    return median(rates) if rates else None


def plan(batch: Batch, jobs: int, folder: Path) -> str:
    """What there is and what would run, in one sentence, with the time that it takes with `jobs` runs at a time."""
    waiting = [configure(batch.runs[name]) for name in batch.runs if not finished(name, folder)]
    text = f"{len(batch.runs)} runs: {len(batch.runs) - len(waiting)} finished before, {len(waiting)} to run"
    if not waiting:
        return text
    rate = seconds_per_image(waiting[0])
    if rate is None:
        return f"{text}; how long that takes is not known: no finished run of this size"
    jobs = max(1, min(jobs, len(waiting)))
    seconds = (
        sum(1.1 * rate * work(c) + START_UP for c in waiting) / jobs
    )  # a tenth more: evaluation, re-ranking
    return f"{text}, about {hours(seconds)} with {jobs} at a time on a machine like that of the recorded runs"


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else minutes(seconds)


def status(batch: Batch, folder: Path) -> dict:
    """Names of runs that are done, running, failed and waiting; the share of all images that is trained."""
    try:
        with FileLock(folder / "batch.lock", timeout=0, is_singleton=False):
            since = float("inf")  # no batch is at work
    except Timeout:
        since = (folder / "batch.started").stat().st_mtime
    except OSError:
        since = float("inf")
    out, total, trained = {"done": [], "running": [], "failed": [], "waiting": []}, 0.0, 0.0
    for name, parameters in batch.runs.items():
        log, share = folder / name / "papermill.log", 0.0
        if finished(name, folder):
            where, share = "done", 1.0
        else:
            done, images, _ = state(folder / name)
            share = min(0.95, done / images) if images else 0.0  # the rest is the evaluation
            started = log.exists() and log.stat().st_mtime >= since
            where = "failed" if failed(name, folder) else "running" if started else "waiting"
        out[where].append(name)
        size = work(configure(parameters))
        total, trained = total + size, trained + share * size
    return out | {"share": trained / total}


def line(now: dict, before: dict, seconds: float, folder: Path) -> str:
    """The status line: `before` is the status `seconds` ago."""
    gained = now["share"] - before["share"]
    left = (
        f", about {hours((1 - now['share']) / gained * seconds)} left"
        if gained > 0.002 and now["share"] < 1
        else ""
    )
    running = "; ".join(
        f"{name.rsplit('-', 1)[0]}: {state(folder / name)[2]}" for name in now["running"]
    )
    return (
        f"[{time.strftime('%H:%M')}] {len(now['done'])} done, {len(now['running'])} running, {len(now['waiting'])} waiting, "
        f"{len(now['failed'])} failed{left}" + (f"   {running}" if running else "")
    )


def watch(batch: Batch, folder: Path, lock: FileLock, every: float = 60.0) -> None:
    """Print the status line now and then until this process ends; each failure once, when it happens.

    lock: of only_one_batch. A lock that nobody refers to is let go, and Snakemake forgets what its onstart made; the thread does not.
    """
    started, told, before = time.time(), set(), status(batch, folder)

    def loop():
        while lock.is_locked:
            time.sleep(min(every, 5 + (time.time() - started) / 4))
            now = status(batch, folder)
            for name in set(now["failed"]) - told:
                told.add(name)
                fail(folder / name / "05_train.ipynb", folder / name / "papermill.log")
            print(line(now, before, time.time() - started, folder), file=sys.stderr, flush=True)

    threading.Thread(target=loop, daemon=True).start()


def arguments(parameters: dict, run: Path) -> str:
    """The parameters of a run as papermill's options."""
    return shlex.join(
        word
        for name, value in (parameters | {"run_dir": run.resolve()}).items()
        for word in ("-p", name, str(value))
    )


def tell(batch: Batch, folder: Path) -> None:
    """The end of a batch: what failed and where to read it, and where the tables are."""
    now = status(batch, folder)
    for name in now["failed"]:
        fail(folder / name / "05_train.ipynb", folder / name / "papermill.log")
    left = len(batch.runs) - len(now["done"])
    if left:
        print(
            f"{left} of {len(batch.runs)} runs are missing; the same command runs only these",
            file=sys.stderr,
        )
    for target in batch.asked:
        place, product = folder / "tables" / batch.title / target, PRODUCT.get(target, "tables")
        if (place / "failed").exists():
            fail(place / NOTEBOOK[product], place / f"{product}.log")
        elif (place / f"{product}.md").exists() and not left:
            print(
                f"{target}: {place / product}.md, the notebook and the figures beside it",
                file=sys.stderr,
            )


def queue(names, settings: dict | None = None) -> list:
    """The runs of lists of evidence.toml, as lines of a queue file; seeds first, so that every setting has one soon.

    settings: more parameters of every run (weights, data, threads), checked with each. Raises InputError for an unknown list or value.
    """
    lines = []
    for name in names:
        entry = EVIDENCE[known("list of runs", name, EVIDENCE)]
        axes = {
            key: value if isinstance(value, list) else [value]
            for key, value in entry["runs"].items()
        }
        for values in product(*axes.values()):
            for variant, form in entry["pairs"]:
                run = (
                    dict(zip(axes, values, strict=True))
                    | {"variant": variant, "form": form, "threads": 1}
                    | (settings or {})
                )
                configure(run)
                lines.append(" ".join(f"{key}={value}" for key, value in run.items()))
    return lines


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="reidsa", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("plan", "what would run, and for how long"),
        ("status", "how far the batch is"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument(
            "words",
            nargs="*",
            metavar="TARGET or KEY=VALUE",
            help=f"targets: {', '.join(TARGETS)}; else settings",
        )
        sub.add_argument("--jobs", type=int, default=cores(), help="runs at a time")
        sub.add_argument("--runs", type=Path, default=ROOT / "runs", help="where the runs lie")
    sub = commands.add_parser(
        "queue", help="the runs of lists of evidence.toml, a line each, for training --queue"
    )
    sub.add_argument(
        "words",
        nargs="+",
        metavar="LIST or KEY=VALUE",
        help=f"lists: {', '.join(EVIDENCE)}; else settings of every run",
    )
    sub = commands.add_parser("publish", help="copy the records of finished runs into results/")
    sub.add_argument("folders", nargs="+", type=Path)
    sub.add_argument("--into", type=Path, default=ROOT / "results")
    sub.add_argument(
        "--weights",
        action="store_true",
        help="the trained networks too, 9 MB each, into results/weights",
    )
    sub = commands.add_parser(
        "readme",
        help="write the README's tables, its summary of the claims, and the numbers in sentences anew",
    )
    sub.add_argument(
        "--check", action="store_true", help="write nothing; say what is not as the records give it"
    )
    arguments, more = parser.parse_known_args(argv)  # words after an option, too
    if any(word.startswith("-") for word in more) or more and "words" not in arguments:
        parser.error(f"unrecognized: {' '.join(more)}")
    if "jobs" in arguments and arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; expected 1 or more")

    def do():
        if arguments.command == "readme":
            from .readme import write_readme  # draws, too: not needed by a batch

            return write_readme(arguments.check)
        if arguments.command == "publish":
            print(
                *(
                    f"published {p}"
                    for p in publish(arguments.folders, arguments.into, arguments.weights)
                ),
                sep="\n",
            )
            return
        words = arguments.words + more
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        if arguments.command == "queue":
            names = [word for word in words if "=" not in word]
            print(*queue(names, settings), sep="\n")
            for name in names:
                if seeds := EVIDENCE[name].get("populations"):
                    print(
                        f"# {name}: then test each run on other people: reidsa examine --populations {','.join(map(str, seeds))} RUN ..."
                    )
            return
        batch = make_batch(settings, [word for word in words if "=" not in word] or ["tables"])
        if arguments.command == "plan":
            check(batch, arguments.runs)
            for name in batch.runs:
                print("finished" if finished(name, arguments.runs) else "to run  ", name)
            print(plan(batch, arguments.jobs, arguments.runs))
        else:
            now = status(batch, arguments.runs)
            print(line(now, now, 0.0, arguments.runs))

    return run_command(do)
