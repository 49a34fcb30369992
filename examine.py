"""What a run's record does not hold: its filters, its attention after training, and the slip in re-ranking. For notebook 08.

    python examine.py runs/MY_RUN ...      # finished runs with their checkpoints -> results/examined/NAME.json, numbers only

Half a minute a run at `laptop`, on one core.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batch import published_name
from reidsa_utils import InputError, run_command
from reidsa_utils.attention import FORMS, attention_weights, effective_cells
from reidsa_utils.benchmarks import load_images
from reidsa_utils.metrics import evaluate_ranking
from reidsa_utils.reranking import rerank
from reidsa_utils.results import read_record
from reidsa_utils.training import extract, load_run, read_checkpoint, to_input, write_atomic

ROOT = Path(__file__).resolve().parent
IMAGES = 256  # of the gallery, evenly spaced: what filters and weights are looked at on


def filter_redundancy(f: Tensor) -> tuple:
    """How alike the filters of a layer answer: (mean absolute correlation of two filters, effective share of the filters).

    f: (B, C, H, W). Filters whose answer never changes have no correlation and count as none. The effective number of filters is
    exp of the entropy of the eigenvalues of the correlation matrix: C for unrelated filters, 1 if all answer alike; at most B * H * W.
    """
    x = f.double().transpose(0, 1).flatten(1)                   # (C, BHW)
    x = x[x.std(dim=1) > 1e-9]
    if len(x) < 2:
        return float("nan"), len(x) / f.shape[1]
    r = torch.corrcoef(x)                                       # (C, C) without the dead
    between = r[~torch.eye(len(r), dtype=torch.bool)].abs().mean()
    share = torch.linalg.eigvalsh(r).clamp(min=0) / len(r)
    return between.item(), torch.exp(torch.special.entr(share).sum()).item() / f.shape[1]


def look(model, paths, height: int, width: int) -> dict:
    """Filters and weights of stages 1-4 on images in eval mode: {"filters": ..., "weights": {form: ...}}, a number a stage."""
    with torch.inference_mode():
        parts = [model.feature_maps(to_input(load_images(paths[k:k + 64], height, width))) for k in range(0, len(paths), 64)]
    maps = [torch.cat(stage) for stage in zip(*parts, strict=True)]
    correlation, effective = zip(*(filter_redundancy(f) for f in maps), strict=True)
    weights = {}
    for form in FORMS:
        p = [attention_weights(f, form).double() for f in maps]
        weights[form] = {"largest": [q.amax((1, 2)).mean().item() for q in p],
                         "cells": [(effective_cells(q) / q[0].numel()).mean().item() for q in p]}
    return {"filters": {"correlation": list(correlation), "effective": list(effective)}, "weights": weights}


def examine(run_dir: Path, data: str = "embedded") -> dict:
    """Everything about one finished run; data: as in training.Config. Raises InputError for a run without record or checkpoint."""
    path = Path(run_dir) / "record.json"
    if not path.exists():
        raise InputError(f"no record.json in {run_dir}; name folders of finished runs")
    record = read_record(path)
    if record["source"] == "real" and data == "embedded":
        raise InputError(f"{run_dir} was trained on real data; name it: --data real, or --data FOLDER")
    if read_checkpoint(path.with_name("checkpoint.pt"))["identity"] != record["identity"]:
        raise InputError(f"record.json and checkpoint.pt in {run_dir} are not of one run; name folders as the training left them")
    torch.set_num_threads(1)
    model, config, benchmark = load_run(Path(run_dir).resolve(), data)
    gallery = benchmark.gallery.paths
    chosen = [gallery[k] for k in np.linspace(0, len(gallery) - 1, min(IMAGES, len(gallery))).astype(int)]
    out = {"run": published_name(record), "identity": record["identity"], "images": len(chosen)}
    out |= look(model, chosen, config.height, config.width)
    query, found = (extract(model, load_images(split.paths, config.height, config.width)) for split in (benchmark.query, benchmark.gallery))
    out["rerank"] = {}
    for vector in query:
        out["rerank"][vector] = {}
        for name, slip in (("two thirds", False), ("zero", True)):
            r = evaluate_ranking(rerank(query[vector], found[vector], integer_division=slip), benchmark.query.ids, benchmark.gallery.ids,
                                 benchmark.query.cameras, benchmark.gallery.cameras)
            out["rerank"][vector][name] = {"rank1": float(r.cmc[0]), "mean_ap": r.mean_ap}
    return out


def read(folder) -> list:
    """All that was written about runs into a folder, in a fixed order. Raises InputError for a broken file."""
    out = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            out.append(json.loads(path.read_text()))
            assert {"run", "identity", "filters", "weights", "rerank"} <= set(out[-1])
        except (ValueError, AssertionError, TypeError):
            raise InputError(f"{path} was not written by examine.py; delete it and examine that run again") from None
    return out


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python examine.py", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--into", type=Path, default=ROOT / "results" / "examined")
    parser.add_argument("--data", default="embedded", help="what they were trained on: embedded (the default), real, or a folder")
    arguments = parser.parse_args(argv)

    def work():
        try:
            arguments.into.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--into {arguments.into} cannot be made ({error.strerror}); name another folder") from error
        there = {e["run"]: e["identity"] for e in read(arguments.into)}
        for run in arguments.runs:
            if (run / "record.json").exists():
                record = read_record(run / "record.json")
                if there.setdefault(published_name(record), record["identity"]) != record["identity"]:
                    raise InputError(f"{run} and another run are both called {published_name(record)}; examine one of them, or use --into")
        for run in arguments.runs:
            found = examine(run, arguments.data)
            target = arguments.into / f"{found['run']}.json"
            rounded = json.loads(json.dumps(found), parse_float=lambda v: float(f"{float(v):.6g}"))
            write_atomic(target, (json.dumps(rounded, indent=1) + "\n").encode())
            print(target)

    return run_command(work)


if __name__ == "__main__":
    raise SystemExit(main())
