"""Numbers that a run's record does not hold, from finished runs with their checkpoints.

    reidsa examine runs/MY_RUN ...
        filters, attention, the mistake in re-ranking -> results/examined/NAME.json, for 08
    reidsa examine --maps runs/MY_RUN ...
        class activation maps, missing parts -> results/maps/NAME.json, for 07
    reidsa examine --populations 200,201 runs/MY_RUN ...
        other rendered test people -> results/populations/NAME.json
    reidsa examine --nearest NAME ...
        the first images of every ranked list -> results/nearest/NAME.json, for 07 (nearest.py)
    reidsa examine --saturation imagenet
        attention on the maps of a network before any training -> results/saturation

The first command takes half a minute per run at `laptop`, --maps two minutes, on one core. --maps
also compares the maps of each run with those of the runs without SA in the same command.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from .. import InputError
from ..attention import FORMS, attention_weights, effective_cells
from ..batches import to_input
from ..config import configure
from ..data import load_images
from ..evaluation import evaluate, extract, metrics_of
from ..model import ReIDNet
from ..reranking import rerank
from ..support.files import ROOT, read_checkpoint, write_atomic
from .filters import filter_redundancy
from .map_measures import evenly, examine_maps, overlaps
from .records import published_name, read_record
from .run import load_run, open_benchmark

IMAGES = 256  # gallery images, evenly spaced, on which filters and weights are measured
# {what is written: (its folder in results/, keys that each of its files has)}
KINDS = {
    "run": ("examined", ("filters", "weights", "rerank")),
    "maps": ("maps", ("overlap", "missing")),
    "populations": ("populations", ("populations",)),
}


def look(model, paths, height: int, width: int) -> dict:
    """Measure the filters and the attention weights of stages 1 to 4, in eval mode.

    paths: of images, which are resized to height x width.
    Returns {"filters": {"correlation", "effective"}, "weights": {form: {"largest", "cells"}}}, a
    number for each stage. correlation, effective: see filter_redundancy(). largest: the largest
    weight of a map; cells: its effective number of positions, as a share of all; both are means
    over the images.
    """
    batches = []
    with torch.inference_mode():
        for k in range(0, len(paths), 64):
            images = load_images(paths[k : k + 64], height, width)
            batches.append(model.feature_maps(to_input(images)))
    maps = [torch.cat(stage) for stage in zip(*batches, strict=True)]

    correlation, effective = [], []
    for f in maps:
        between, share = filter_redundancy(f)
        correlation.append(between)
        effective.append(share)
    weights = {}
    for form in FORMS:
        largest, cells = [], []
        for f in maps:
            p = attention_weights(f, form).double()  # (B, h, w)
            largest.append(p.amax((1, 2)).mean().item())
            cells.append((effective_cells(p) / p[0].numel()).mean().item())
        weights[form] = {"largest": largest, "cells": cells}
    return {
        "filters": {"correlation": correlation, "effective": effective},
        "weights": weights,
    }


def open_run(run_dir: Path, data: str = "embedded") -> tuple:
    """Open a finished run: (record, model, Config, Benchmark).

    data: what it was trained on, as in config.Config.
    Raises InputError for a run without record or checkpoint, or with those of two runs.
    """
    path = Path(run_dir) / "record.json"
    if not path.exists():
        raise InputError(f"no record.json in {run_dir}; name folders of finished runs")
    record = read_record(path)
    _check_source(record, run_dir, data)
    checkpoint = read_checkpoint(path.with_name("checkpoint.pt"))
    if checkpoint["identity"] != record["identity"]:
        raise InputError(
            f"record.json and checkpoint.pt in {run_dir} are not of one run; name folders as the "
            "training left them"
        )
    torch.set_num_threads(1)
    model, config, benchmark = load_run(Path(run_dir).resolve(), data)
    return record, model, config, benchmark


def _check_source(record: dict, run_dir: Path, data: str) -> None:
    """Raises InputError for a run on real data, if `data` names the rendered data only."""
    if record["source"] == "real" and data == "embedded":
        raise InputError(
            f"{run_dir} was trained on real data; name it: --data real, or --data FOLDER "
            "(--populations are rendered, and only for runs on rendered data)"
        )


def extract_both(model, config, benchmark) -> tuple[dict, dict]:
    """The features of a benchmark's query and gallery: {vector: (N, D)} each."""
    features = []
    for split in (benchmark.query, benchmark.gallery):
        images = load_images(split.paths, config.height, config.width)
        features.append(extract(model, images))
    query, gallery = features
    return query, gallery


def examine(run_dir: Path, data: str = "embedded") -> dict:
    """Everything that notebook 08 needs of one run. Arguments and errors: as open_run()."""
    record, model, config, benchmark = open_run(run_dir, data)
    chosen = [benchmark.gallery.paths[k] for k in evenly(benchmark.gallery, IMAGES)]
    found = {"run": published_name(record), "identity": record["identity"], "images": len(chosen)}
    found |= look(model, chosen, config.height, config.width)
    query, gallery = extract_both(model, config, benchmark)
    found["rerank"] = {}
    for vector in query:
        metrics = {}
        # In Python 2 the released code's 2/3 is an integer division: zero.
        for name, integer_division in (("two thirds", False), ("zero", True)):
            distances = rerank(query[vector], gallery[vector], integer_division=integer_division)
            result = metrics_of(distances, benchmark)
            metrics[name] = {key: result[key] for key in ("rank1", "mean_ap")}
        found["rerank"][vector] = metrics
    return found


def elsewhere(run_dir: Path, data_seeds: list[int]) -> dict:
    """Test a run's network on the test people of other populations.

    These are rendered benchmarks that differ in the data seed alone. The test people of a
    population are in no training set of another. So a learning rate that is chosen on them is not
    chosen on the run's own test set.
    Raises InputError as open_run() does, and for a run on real data.
    """
    record, model, config, _ = open_run(run_dir)
    populations = {}
    for seed in data_seeds:
        other = open_benchmark(config.model_copy(update={"data_seed": seed}))
        query, gallery = extract_both(model, config, other)
        populations[str(seed)] = {
            "fingerprint": other.fingerprint(),
            "query_ids": other.query.ids.tolist(),
            "metrics": evaluate(query, gallery, other, with_rerank=False),
        }
    return {
        "run": published_name(record),
        "identity": record["identity"],
        "populations": populations,
    }


def saturation(
    weights: str, backbone: str, data: str, height: int, width: int, images: int = 64
) -> dict:
    """Measure every attention form on the maps of a network before any training on people.

    Notebook 08 shows the result.

    weights: as in config.Config. data: "real" or a folder (Market-1501's training images), or
    "embedded" (rendered ones). images: how many.
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
            f"{weights} is the checkpoint of a run; expected weights from before any training for "
            "people: imagenet, none or a state_dict"
        )
    chosen = [benchmark.train.paths[k] for k in evenly(benchmark.train.paths, images)]
    start = "untrained" if weights == "none" else "pretrained"
    found = {
        "run": f"market1501-{benchmark.source}-{backbone}-{start}-{height}x{width}",
        "backbone": backbone,
        "began": model.loaded or "none",
        "source": benchmark.source,
        "images": len(chosen),
        "height": height,
        "width": width,
        "channels": list(model.channels),
    }
    return found | look(model, chosen, height, width)


def read(folder, needed=KINDS["run"][1]) -> list[dict]:
    """Read all that was written about runs into a folder, in a fixed order.

    needed: keys that each file must have. Raises InputError for a missing folder or a broken file.
    """
    if not Path(folder).is_dir():
        raise InputError(
            f"no folder {folder} with what reidsa examine wrote; examine finished runs first "
            "(reidsa examine, --maps)"
        )
    entries = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            entry = json.loads(path.read_bytes())
            is_complete = _is_complete(entry, needed)
        except (ValueError, TypeError):
            is_complete = False
        if not is_complete:
            command = "reidsa examine --maps" if "overlap" in needed else "reidsa examine"
            raise InputError(
                f"{path} does not hold what {command} writes; name another folder, "
                "or if that file is broken delete it and examine that run again"
            )
        entries.append(entry)
    return entries


def _is_complete(entry: dict, needed: tuple) -> bool:
    """Whether an entry has all its keys. Raises TypeError if it is not a dict."""
    if not {"run", "identity", *needed} <= set(entry):
        return False
    return {"form", "seed"} <= set(entry["identity"])


def of_one_setting(entries: list[dict], folder) -> dict[str, dict]:
    """Sort runs that differ in form and seed only: {form: {seed: entry}}, "none" among the forms.

    Raises InputError for runs that differ in more, two of one form and seed, or none without SA.
    """
    seeds_of_form = {}
    first_run, first_setting = None, None
    for entry in entries:
        identity, run = entry["identity"], entry["run"]
        setting = {}
        for key, value in identity.items():
            if key not in ("variant", "form", "seed", "threads"):
                setting[key] = value
        if first_run is None:
            first_run, first_setting = run, setting
        different = [key for key in setting if setting[key] != first_setting.get(key)]
        if different:
            raise InputError(
                f"{first_run} and {run} in {folder} differ in {', '.join(different[:4])}; keep the "
                "runs of one setting in a folder (reidsa examine --into) and name that"
            )
        form, seed = identity["form"], identity["seed"]
        seeds = seeds_of_form.setdefault(form, {})
        if seed in seeds:
            raise InputError(
                f"{seeds[seed]['run']} and {run} in {folder} are both of form {form}, seed {seed}; "
                "keep one"
            )
        seeds[seed] = entry
    if "none" not in seeds_of_form:
        raise InputError(
            f"no run without SA in {folder} (it holds {', '.join(seeds_of_form) or 'nothing'}); "
            f"examine one: reidsa examine --maps RUN --into {folder}"
        )
    return seeds_of_form


def examine_all(runs: list[Path], data: str, with_maps: bool) -> Iterator[dict]:
    """Examine some runs one after the other. Yields what is to be written about each.

    with_maps: runs without SA then come first, since the maps of the others are compared with
    theirs.
    """
    if not with_maps:
        for run in runs:
            yield examine(run, data)
        return
    maps_without_sa = {}  # {what two runs must share: {run: maps of training images}}
    for run in sorted(runs, key=_has_sa):
        record, model, config, benchmark = open_run(run, data)
        found, train_maps = examine_maps(model, config, benchmark)
        shared = (record["identity"]["fingerprint"], config.height, config.width)
        comparable = maps_without_sa.setdefault(shared, {})
        name = published_name(record)
        found["run"] = name
        found["identity"] = record["identity"]
        found["overlap"] = overlaps(train_maps, comparable)
        if config.form == "none":
            comparable[name] = train_maps
        yield found


def _has_sa(run: Path) -> bool:
    return read_record(run / "record.json")["config"]["form"] != "none"


def examine_untrained(
    weights: str, backbone: str, size: str, into: Path | None = None, data: str = ""
) -> None:
    """`reidsa examine --saturation`: measure a network before any training, and write a file.

    size: HEIGHTxWIDTH. data: "" for the photographs in REIDSA_DATA, if it is set, or rendered data.
    Raises InputError for bad options.
    """
    height, width = size_of(size)
    usual = "real" if os.environ.get("REIDSA_DATA") else "embedded"
    into = _folder(into, "saturation")
    write(into, saturation(weights, backbone, data or usual, height, width))


def examine_runs(
    runs: Sequence[Path],
    maps: bool = False,
    populations: str = "",
    into: Path | None = None,
    data: str = "",
) -> None:
    """`reidsa examine`: examine finished runs, and write a file for each.

    Raises InputError for runs that are not complete, and for bad options.
    """
    if not runs:
        raise InputError("no run is named; name folders of finished runs")
    if maps:
        kind = "maps"
    elif populations:
        kind = "populations"
    else:
        kind = "run"
    directory, needed = KINDS[kind]
    into = _folder(into, directory)
    seeds = seeds_of(populations) if populations else []
    written = {entry["run"]: entry for entry in read(into, needed)}
    data = "embedded" if seeds else data or "embedded"
    _check_runs(runs, written, data)
    examined = examine_all(runs, data, maps)
    if seeds:
        examined = (elsewhere(run, seeds) for run in runs)
    for found in examined:
        earlier = written.get(found["run"], {})
        for key in ("overlap", "populations"):
            if key in found:
                # Comparisons with runs or populations that are not named this time are kept.
                found[key] = earlier.get(key, {}) | found[key]
        write(into, found)


def _folder(into: Path | None, usual: str) -> Path:
    """The folder to write to, made if it is not there; usual: its name in results/."""
    into = into or ROOT / "results" / usual
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--into {into} cannot be made ({error.strerror}); name another folder"
        ) from error
    return into


def _check_runs(runs: list[Path], written: dict[str, dict], data: str) -> None:
    """Raises InputError, before anything is written, for runs that cannot be examined.

    These are runs that are not complete, share a name or need other data.

    written: {name: what an earlier call wrote}. data: what the runs were trained on.
    """
    identities = {name: entry["identity"] for name, entry in written.items()}
    for run in runs:
        if not (run / "record.json").exists():
            raise InputError(f"no record.json in {run}; name folders of finished runs")
        record = read_record(run / "record.json")
        if not (run / "checkpoint.pt").exists():
            raise InputError(
                f"no checkpoint.pt in {run}; name folders of finished runs as the training left "
                "them"
            )
        _check_source(record, run, data)
        name = published_name(record)
        if identities.setdefault(name, record["identity"]) != record["identity"]:
            raise InputError(
                f"{run} and another run are both called {name}; examine one of them, or use --into"
            )


def write(into: Path, found: dict) -> None:
    """Write one file of numbers, and print its name.

    A file with a number for every query has one long line; other files have a line per number.
    """
    rounded = json.loads(
        json.dumps(found), parse_float=lambda digits: float(f"{float(digits):.6g}")
    )
    has_queries = not {"overlap", "populations", "nearest"}.isdisjoint(rounded)
    text = json.dumps(rounded, indent=None if has_queries else 1)
    path = into / f"{found['run']}.json"
    write_atomic(path, (text + "\n").encode())
    print(path)


def seeds_of(text: str) -> list[int]:
    """Data seeds, separated by commas. Raises InputError."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"--populations is {text}; expected data seeds, as in 200,201") from None


def size_of(text: str) -> tuple[int, int]:
    """(height, width) of HEIGHTxWIDTH. Raises InputError."""
    words = text.lower().split("x")
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise InputError(f"--size is {text}; expected HEIGHTxWIDTH, as in 384x128")
    return int(words[0]), int(words[1])
