"""What a batch prints while it runs: a line for each finished run, a sentence for each failure.

Snakemake reports events through a logger. The filter here replaces Snakemake's messages about these
events by our own lines, both on a terminal and in a log.
"""

import json
import logging
import re
import sys
import time
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

from .. import unknown_message
from ..config import configure
from ..support.printing import printing_ends_nothing
from .grid import GRID, TARGETS, duration, finished, training_images


class Lines(logging.Filter):
    """A filter of Snakemake's logger that prints what happens to the runs of a batch."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder  # where the runs lie
        self.runs = {}  # {name: parameters} of the runs that are asked for
        self.jobs = {}  # {Snakemake's number of a job: (its name, when it began)}
        self.seconds = {}  # {name: seconds} of the runs that finished in this batch
        self.finished_before = 0
        self.failures = set()  # sentences already printed: a failed run is tried twice
        self.at_a_time = 1

    def add(self, runs: dict) -> None:
        """Add runs that are asked for: {name: parameters}."""
        for name in runs:
            if name not in self.runs:
                self.finished_before += finished(name, self.folder)
        self.runs |= runs

    def filter(self, record: logging.LogRecord) -> bool:
        """React to a report of Snakemake. Returns True if the report itself shall be shown."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            name = record.wildcards.get("run") or record.wildcards.get("notebook")
            self.jobs[record.jobid] = (name, time.time())
        elif event == LogEvent.JOB_FINISHED:
            self.job_finished(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self.job_failed(record.jobid)
        elif event == LogEvent.ERROR:
            return self.shorten(record)
        if record.levelno >= logging.WARNING and event is None:
            return not record.getMessage().startswith("Exiting because a job execution failed")
        return False

    def shorten(self, record: logging.LogRecord) -> bool:
        """Shorten a refusal to its sentence.

        Returns whether the report is shown: not that of a failed job, which has its own line.
        """
        text = record.getMessage()
        if text.startswith(("RuleException", "WorkflowError:\nAt least one job did not complete")):
            return False
        sentence = text.partition("InputError: ")[2].partition("\n")[0]
        unknown = re.match(r"MissingRuleException:\nNo rule to produce (\S+)", text)
        if unknown:
            sentence = unknown_message("target", unknown[1], TARGETS)
        if sentence:
            record.msg, record.args = f"error: {sentence}", None
        return True

    def job_finished(self, number: int) -> None:
        name, began = self.jobs.pop(number, (None, 0.0))
        if name not in self.runs:
            return
        self.seconds[name] = time.time() - began
        done = self.finished_before + len(self.seconds)
        say(f"[{done}/{len(self.runs)}] {name}: {duration(self.seconds[name])}{self.time_left()}")
        say(f"    {conclusion(self.folder / name / '05_train.ipynb')}")

    def time_left(self) -> str:
        """Words for the time left, estimated from the seconds per image of the finished runs."""
        rate = sum(self.seconds.values()) / sum(self.images(name) for name in self.seconds)
        running = {name: time.time() - began for name, began in self.jobs.values()}
        left, waiting = 0.0, 0
        for name in self.runs:
            if not finished(name, self.folder):
                left += max(5.0, rate * self.images(name) - running.get(name, 0.0))
                waiting += 1
        if not left:
            return ""
        at_a_time = max(1, min(self.at_a_time, waiting))
        return f", about {duration(left / at_a_time)} left"

    def images(self, name: str) -> float:
        config = configure(self.runs[name])
        return training_images(config) * config.epochs

    def job_failed(self, number: int) -> None:
        name, _ = self.jobs.pop(number, (None, 0.0))
        if name not in self.runs:
            return
        folder = self.folder / name
        text = failure(folder / "05_train.ipynb", folder / "papermill.log")
        if text not in self.failures:
            say(text)
        self.failures.add(text)


def say(text: str) -> None:
    """Print to standard error. This never raises."""
    with printing_ends_nothing():
        print(text, file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a result. This never raises."""
    with printing_ends_nothing():
        print(text, flush=True)


def conclusion(notebook: Path) -> str:
    """The line in which an executed 05_train says how far its run is above chance."""
    try:
        cells = json.loads(notebook.read_bytes())["cells"]
    except (OSError, ValueError, KeyError):
        return f"executed notebook: {notebook}"
    for cell in cells:
        for output in cell.get("outputs", []):
            for line in output.get("text", []):
                if line.startswith("mAP ("):
                    return line.strip()
    return f"executed notebook: {notebook}"


def failure(notebook: Path, log: Path) -> str:
    """Why a notebook failed, in one sentence, and where it can be read."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    reason = "no output"
    if lines:
        reason = errors[-1] if errors else lines[-1]
    return f"error: {reason}\nThe executed notebook, with the error: {notebook}\nThe log: {log}"


def summary(targets: dict, folder: Path, products: dict) -> list[str]:
    """The end of a batch: what is missing, what failed, and where the tables are.

    targets: {target: its runs}; products: {target: paths of its notebooks}.
    """
    runs = {name for names in targets.values() for name in names}
    missing = [name for name in runs if not finished(name, folder)]
    if missing:
        return [f"{len(missing)} of {len(runs)} runs are missing; the same command runs only these"]
    lines = []
    for target, paths in products.items():
        for path in paths:
            if (path.parent / f"{path.stem}.failed").exists():
                running = path.with_suffix(".running.ipynb")
                lines.append(failure(running, path.with_suffix(".log")))
            elif path.exists():
                lines.append(f"{target}: {path}, with its figures and tables beside it")
        if into := GRID[target].get("into"):
            lines.append(f"{target}: publish them by: reidsa publish RUN ... --into results/{into}")
            if people := GRID[target].get("test_on_people"):
                seeds = ",".join(map(str, people))
                lines.append(f"{target}: then: reidsa examine --populations {seeds} RUN ...")
    return lines
