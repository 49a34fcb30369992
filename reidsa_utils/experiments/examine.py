"""What a run's record does not hold, from finished runs with their checkpoints; numbers only.

    reidsa examine runs/MY_RUN ...          # filters, attention, the slip in re-ranking -> results/examined/NAME.json, for 08
    reidsa examine --maps runs/MY_RUN ...   # class activation maps, missing parts -> results/maps/NAME.json, for 07
    reidsa examine --populations 200,201 runs/MY_RUN ...   # other rendered test people -> results/populations/NAME.json
    reidsa examine --saturation imagenet    # attention on the maps of a network before any training -> results/saturation

Half a minute and two minutes a run at `laptop`, on one core. --maps also compares the maps of each run with those of the runs without
SA that are named beside it.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import InputError, run_command
from ..attention import FORMS, attention_weights, effective_cells
from ..batches import to_input
from ..config import configure
from ..data import load_images
from ..evaluation import evaluate, extract
from ..metrics import evaluate_ranking
from ..model import ReIDNet
from ..reranking import rerank
from ..support.files import ROOT, read_checkpoint, write_atomic
from .map_measures import evenly, examine_maps, overlaps
from .records import published_name, read_record
from .run import load_run, open_benchmark

IMAGES = 256  # of the gallery, evenly spaced: what filters and weights are looked at on
# what is written -> (its folder in results/, keys that each of its files has)
KINDS = {
    "run": ("examined", ("filters", "weights", "rerank")),
    "maps": ("maps", ("overlap", "missing")),
    "populations": ("populations", ("populations",)),
}


def filter_redundancy(f: Tensor) -> tuple:
    """How alike the filters of a layer answer: (mean absolute correlation of two filters, effective share of the filters).

    f: (B, C, H, W). Filters whose answer never changes have no correlation and count as none. The effective number of filters is
    exp of the entropy of the eigenvalues of the correlation matrix: C for unrelated filters, 1 if all answer alike; at most B * H * W.
    """
    x = f.double().transpose(0, 1).flatten(1)  # (C, BHW)
    x = x[x.std(dim=1) > 1e-9]
    if len(x) < 2:
        return float("nan"), len(x) / f.shape[1]
    r = torch.corrcoef(x)  # (C, C) without the dead
    between = r[~torch.eye(len(r), dtype=torch.bool)].abs().mean()
    share = torch.linalg.eigvalsh(r).clamp(min=0) / len(r)
    return between.item(), torch.exp(torch.special.entr(share).sum()).item() / f.shape[1]


def look(model, paths, height: int, width: int) -> dict:
    """Filters and weights of stages 1-4 on images in eval mode: {"filters": ..., "weights": {form: ...}}, a number a stage."""
    with torch.inference_mode():
        parts = [
            model.feature_maps(to_input(load_images(paths[k : k + 64], height, width)))
            for k in range(0, len(paths), 64)
        ]
    maps = [torch.cat(stage) for stage in zip(*parts, strict=True)]
    correlation, effective = zip(*(filter_redundancy(f) for f in maps), strict=True)
    weights = {}
    for form in FORMS:
        p = [attention_weights(f, form).double() for f in maps]
        weights[form] = {
            "largest": [q.amax((1, 2)).mean().item() for q in p],
            "cells": [(effective_cells(q) / q[0].numel()).mean().item() for q in p],
        }
    return {
        "filters": {"correlation": list(correlation), "effective": list(effective)},
        "weights": weights,
    }


def open_run(run_dir: Path, data: str = "embedded") -> tuple:
    """(record, model, Config, Benchmark) of a finished run; data: as in config.Config.

    Raises InputError for a run without record or checkpoint, or with those of two runs.
    """
    path = Path(run_dir) / "record.json"
    if not path.exists():
        raise InputError(f"no record.json in {run_dir}; name folders of finished runs")
    record = read_record(path)
    if record["source"] == "real" and data == "embedded":
        raise InputError(
            f"{run_dir} was trained on real data; name it: --data real, or --data FOLDER"
        )
    if read_checkpoint(path.with_name("checkpoint.pt"))["identity"] != record["identity"]:
        raise InputError(
            f"record.json and checkpoint.pt in {run_dir} are not of one run; name folders as the training left them"
        )
    torch.set_num_threads(1)
    return record, *load_run(Path(run_dir).resolve(), data)


def examine(run_dir: Path, data: str = "embedded") -> dict:
    """Everything that 08 needs of one run. Arguments and errors: as open_run."""
    record, model, config, benchmark = open_run(run_dir, data)
    gallery = benchmark.gallery.paths
    chosen = [gallery[k] for k in evenly(gallery, IMAGES)]
    out = {"run": published_name(record), "identity": record["identity"], "images": len(chosen)}
    out |= look(model, chosen, config.height, config.width)
    query, found = (
        extract(model, load_images(split.paths, config.height, config.width))
        for split in (benchmark.query, benchmark.gallery)
    )
    out["rerank"] = {}
    for vector in query:
        out["rerank"][vector] = {}
        for name, slip in (("two thirds", False), ("zero", True)):
            r = evaluate_ranking(
                rerank(query[vector], found[vector], integer_division=slip),
                benchmark.query.ids,
                benchmark.gallery.ids,
                benchmark.query.cameras,
                benchmark.gallery.cameras,
            )
            out["rerank"][vector][name] = {"rank1": float(r.cmc[0]), "mean_ap": r.mean_ap}
    return out


def elsewhere(run_dir: Path, data_seeds: list) -> dict:
    """A run's network on the test people of other populations: rendered benchmarks that differ in the data seed alone.

    A population's test people are in no training set of another: what is chosen on them (a learning rate) is not chosen on the
    run's own test. Raises InputError as open_run, and for a run on real data.
    """
    record, model, config, _ = open_run(run_dir)
    out = {"run": published_name(record), "identity": record["identity"], "populations": {}}
    for seed in data_seeds:
        other = open_benchmark(replace(config, data_seed=seed))
        query, gallery = (
            extract(model, load_images(split.paths, config.height, config.width))
            for split in (other.query, other.gallery)
        )
        out["populations"][str(seed)] = {
            "fingerprint": other.fingerprint(),
            "query_ids": other.query.ids.tolist(),
            "metrics": evaluate(query, gallery, other, with_rerank=False),
        }
    return out


def saturation(
    weights: str, backbone: str, data: str, height: int, width: int, images: int = 64
) -> dict:
    """Every attention form on the maps of a network before any training for people: notebook 08.

    weights: as in config.Config; data: "real" or a folder (Market-1501's training images), or "embedded" (rendered ones).
    Raises InputError for the checkpoint of a run, which has been trained for people.
    """
    config = configure(
        {
            "profile": "photographs" if data != "embedded" else "laptop",
            "data": data,
            "height": height,
            "width": width,
            "backbone": backbone,
            "weights": weights,
        }
    )
    benchmark = open_benchmark(config)
    torch.manual_seed(0)
    model = ReIDNet(2, "b_ds_sa2", "softmax", backbone=backbone, weights=weights).eval()
    if model.loaded and "source" not in model.loaded:
        raise InputError(
            f"{weights} is the checkpoint of a run; expected weights from before any training for people: imagenet, none or "
            "a state_dict"
        )
    chosen = [benchmark.train.paths[k] for k in evenly(benchmark.train.paths, images)]
    name = "-".join(
        [
            "market1501",
            benchmark.source,
            backbone,
            "untrained" if weights == "none" else "pretrained",
            f"{height}x{width}",
        ]
    )
    return {
        "run": name,
        "backbone": backbone,
        "began": model.loaded or "none",
        "source": benchmark.source,
        "images": len(chosen),
        "height": height,
        "width": width,
        "channels": list(model.channels),
    } | look(model, chosen, height, width)


def read(folder, needed=("filters", "weights", "rerank")) -> list:
    """All that was written about runs into a folder, in a fixed order. Raises InputError for a missing folder or a broken file."""
    if not Path(folder).is_dir():
        raise InputError(
            f"no folder {folder} with what reidsa examine wrote; examine finished runs first (reidsa examine, --maps)"
        )
    out = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            out.append(json.loads(path.read_text()))
            assert {"run", "identity", *needed} <= set(out[-1]) and {"form", "seed"} <= set(
                out[-1]["identity"]
            )
        except (ValueError, AssertionError, TypeError):
            command = f"reidsa examine{' --maps' if 'overlap' in needed else ''}"
            raise InputError(
                f"{path} does not hold what {command} writes; name another folder, "
                "or if that file is broken delete it and examine that run again"
            ) from None
    return out


def of_one_setting(entries: list, folder) -> dict:
    """{form: {seed: entry}} of runs that differ in form and seed only, "none" among them. Raises InputError otherwise."""
    out, first = {}, None
    for e in entries:
        i = e["identity"]
        setting = {k: v for k, v in i.items() if k not in ("variant", "form", "seed", "threads")}
        first = first or (setting, e["run"])
        if other := [k for k in setting if setting[k] != first[0].get(k)]:
            raise InputError(
                f"{first[1]} and {e['run']} in {folder} differ in {', '.join(other[:4])}; keep the runs of one setting in a "
                "folder (reidsa examine --into) and name that"
            )
        if i["seed"] in out.setdefault(i["form"], {}):
            raise InputError(
                f"{out[i['form']][i['seed']]['run']} and {e['run']} in {folder} are both of form {i['form']}, "
                f"seed {i['seed']}; keep one"
            )
        out[i["form"]][i["seed"]] = e
    if not out.get("none"):
        raise InputError(
            f"no run without SA in {folder} (it holds {', '.join(out) or 'nothing'}); examine one: "
            f"reidsa examine --maps RUN --into {folder}"
        )
    return out


def examine_all(runs: list, data: str, with_maps: bool):
    """What is to be written about each of some runs, one after the other; those without SA first, to compare their maps with."""
    if not with_maps:
        yield from (examine(run, data) for run in runs)
        return
    plain = {}
    for run in sorted(
        runs, key=lambda run: read_record(run / "record.json")["config"]["form"] != "none"
    ):
        record, model, config, benchmark = open_run(run, data)
        found, own = examine_maps(model, config, benchmark)
        name, same = (
            published_name(record),
            (record["identity"]["fingerprint"], config.height, config.width),
        )
        found |= {
            "run": name,
            "identity": record["identity"],
            "overlap": overlaps(own, plain.setdefault(same, {})),
        }
        if config.form == "none":
            plain[same][name] = own
        yield found


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="reidsa examine", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    parser.add_argument(
        "--maps",
        action="store_true",
        help="class activation maps and missing parts, for notebook 07",
    )
    parser.add_argument(
        "--populations",
        metavar="SEED,SEED",
        help="data seeds of other rendered people that finished runs are tested on",
    )
    parser.add_argument(
        "--saturation",
        metavar="WEIGHTS",
        help="attention before any training; none, imagenet or a file",
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="with --saturation")
    parser.add_argument("--size", default="384x128", help="HEIGHTxWIDTH, with --saturation")
    parser.add_argument(
        "--into", type=Path, help="a folder; default: results/examined, with --maps results/maps"
    )
    parser.add_argument(
        "--data", help="what they were trained on: embedded (the default), real, or a folder"
    )
    arguments = parser.parse_args(argv)
    kind = "maps" if arguments.maps else "populations" if arguments.populations else "run"
    into = arguments.into or ROOT / "results" / (
        "saturation" if arguments.saturation else KINDS[kind][0]
    )

    def work():
        try:
            into.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--into {into} cannot be made ({error.strerror}); name another folder"
            ) from error
        if arguments.saturation:
            height, width = size_of(arguments.size)
            data = arguments.data or ("real" if os.environ.get("REIDSA_DATA") else "embedded")
            write(into, saturation(arguments.saturation, arguments.backbone, data, height, width))
            return
        if not arguments.runs:
            raise InputError("no run is named; name folders of finished runs")
        seeds = seeds_of(arguments.populations) if arguments.populations else []
        before = {e["run"]: e for e in read(into, KINDS[kind][1])}
        there = {name: e["identity"] for name, e in before.items()}
        for run in arguments.runs:
            if not (run / "record.json").exists():
                raise InputError(f"no record.json in {run}; name folders of finished runs")
            record = read_record(run / "record.json")
            if not (run / "checkpoint.pt").exists():
                raise InputError(
                    f"no checkpoint.pt in {run}; name folders of finished runs as the training left them"
                )
            if there.setdefault(published_name(record), record["identity"]) != record["identity"]:
                raise InputError(
                    f"{run} and another run are both called {published_name(record)}; examine one of them, or use --into"
                )
        if seeds:
            every = (elsewhere(run, seeds) for run in arguments.runs)
        else:
            every = examine_all(arguments.runs, arguments.data or "embedded", arguments.maps)
        for found in every:
            for key in {"overlap", "populations"} & set(
                found
            ):  # those that are not named this time are kept
                found[key] = before.get(found["run"], {}).get(key, {}) | found[key]
            write(into, found)

    return run_command(work)


def write(into: Path, found: dict) -> None:
    """One file of numbers; those with a number for every query without a line for each."""
    rounded = json.loads(json.dumps(found), parse_float=lambda v: float(f"{float(v):.6g}"))
    text = (
        json.dumps(rounded)
        if {"overlap", "populations"} & set(rounded)
        else json.dumps(rounded, indent=1)
    )
    write_atomic(into / f"{found['run']}.json", (text + "\n").encode())
    print(into / f"{found['run']}.json")


def seeds_of(text: str) -> list:
    """Data seeds, separated by commas. Raises InputError."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"--populations is {text}; expected data seeds, as in 200,201") from None


def size_of(text: str) -> tuple:
    """(height, width) of HEIGHTxWIDTH. Raises InputError."""
    words = text.lower().split("x")
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise InputError(f"--size is {text}; expected HEIGHTxWIDTH, as in 384x128")
    return int(words[0]), int(words[1])
