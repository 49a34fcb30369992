"""Runs against the clock: one run, or a queue file of many, that stops in time and goes on at the next call.

reidsa train --set profile=smoke --set variant=b_p_ds_sa2 --set form=l1
reidsa train --queue FILE --minutes 60       many runs, a line each; stops in time, goes on at the next call
torchrun --nproc-per-node 2 -m reidsa_utils train --set ...  one run on several GPUs or nodes
"""

import argparse
import math
import time
from dataclasses import fields
from pathlib import Path

from torch import distributed

from .. import InputError, run_command
from ..config import Config, configure, run_folder
from ..support.processes import from_first, processes, rank_and_world
from .run import train

STOPPED = 75  # exit code of a queue that ran out of time: "try again later"


def read_queue(path: Path) -> list:
    """The runs of a queue file: a line each, KEY=VALUE ...; # begins a comment. Raises InputError naming the line."""
    runs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if bad := [word for word in words if "=" not in word]:
            raise InputError(
                f"{path}, line {number}: {bad[0]}: expected KEY=VALUE, separated by spaces"
            )
        if words:
            runs.append((number, dict(word.split("=", 1) for word in words)))
    if not runs:
        raise InputError(
            f"{path} holds no run; expected lines like: variant=b_p_ds_sa2 form=l1 seed=0"
        )
    return runs


def work_through(path: Path, minutes: float, make) -> int:
    """Train the runs of a queue file one after the other until the time is used up; the same call goes on where this one stopped.

    A run that cannot finish stops after its last epoch that fits, with a checkpoint. Returns 0 when all are finished, STOPPED
    when time ran out, 1 when a run failed (the others are done all the same).
    """
    deadline, configs, code, out_of_time = time.time() + 60 * minutes, [], 0, False
    for number, parameters in read_queue(path):
        try:
            configs.append(make(parameters))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    if len({run_folder(config) for config in configs}) < len(configs):
        raise InputError(f"{path}: two lines are one run, or share a run_dir; each needs its own")
    for k, config in enumerate(configs, 1):
        name, say = (
            run_folder(config).name,
            print if rank_and_world()[0] == 0 else lambda *_, **__: None,
        )
        out_of_time = from_first(lambda stopped=out_of_time: stopped or time.time() >= deadline)
        if out_of_time:
            say(f"{k}/{len(configs)} {name}: not begun", flush=True)
            code = code or STOPPED
            continue
        try:
            record = train(config, deadline=deadline)
        except (InputError, RuntimeError, OSError) as error:  # out of memory, say
            if not isinstance(error, InputError) and distributed.is_initialized():
                raise  # the others wait for this one: torchrun ends them
            say(f"{k}/{len(configs)} {name}: failed: {error}", flush=True)
            code = 1
            continue
        if "metrics" in record:
            best = record["metrics"].get("parts", record["metrics"]["global"])
            say(
                f"{k}/{len(configs)} {name}: finished, rank-1 {best['rank1']:.3f}, mAP {best['mean_ap']:.3f}",
                flush=True,
            )
        else:
            say(
                f"{k}/{len(configs)} {name}: stopped after epoch {record['epoch']} of {config.epochs}, out of time",
                flush=True,
            )
            out_of_time, code = True, code or STOPPED
    if code == STOPPED and rank_and_world()[0] == 0:
        print("the same command goes on from here")
    return code


def main(argv=None) -> int:
    """The command line of `reidsa train`."""
    parser = argparse.ArgumentParser(
        prog="reidsa train", description="One run, or many against the clock."
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="pairs",
        help="a parameter: " + ", ".join(f.name for f in fields(Config)),
    )
    parser.add_argument(
        "--queue",
        type=Path,
        metavar="FILE",
        help="many runs instead: a line KEY=VALUE KEY=VALUE ... for each",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop in time; the same command goes on later (exit code 75)",
    )
    arguments = parser.parse_args(argv)

    def work():
        bad = [pair for pair in arguments.pairs if "=" not in pair]
        if bad:
            raise InputError(f"--set {bad[0]}: expected KEY=VALUE")
        common = dict(pair.split("=", 1) for pair in arguments.pairs)
        with processes():
            if arguments.queue:
                return work_through(
                    arguments.queue, arguments.minutes, lambda own: configure(common | own)
                )
            record = train(configure(common), deadline=time.time() + 60 * arguments.minutes)
            if rank_and_world()[0]:
                return 0
        if "metrics" not in record:
            print(f"out of time after epoch {record['epoch']}; the same command goes on from here")
            return STOPPED
        for name, m in record["metrics"].items():
            print(
                f"{name:16} rank-1 {m['rank1']:.3f}  mAP {m['mean_ap']:.3f}  trapezoid {m['mean_ap_trapezoid']:.3f}  {record['source']}"
            )

    return run_command(work)
