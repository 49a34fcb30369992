"""Run records: read, check, gather into tables beside the paper's numbers."""

import contextlib
import json
import re
import tomllib
from pathlib import Path

with contextlib.suppress(ImportError):  # a machine that only trains need not have them
    import pandas as pd

from .. import SETTINGS, InputError
from ..config import defaults, unusual
from ..data import PUBLISHED
from ..support.files import ROOT, read_checkpoint, write_atomic
from .statistics import bootstrap, difference, holm  # noqa: F401  notebooks take them from here

CLAIMS = tomllib.loads((SETTINGS / "claims.toml").read_text())[
    "claims"
]  # of the paper, each with a verdict
NEEDED = ("config", "source", "metrics", "history", "counts", "code", "versions", "identity")
CELL = ("benchmark", "variant", "form", "recipe", "profile", "seed", "epochs", "erasing")
BASE = {
    "b_sa1": "b",
    "b_ds_sa2": "b_ds",
    "b_ds_sa12": "b_ds",
    "b_p_ds_sa2": "b_p_ds",
    "b_p_ds_sa12": "b_p_ds",
}  # without its SA
METRICS = (
    ("rank-1", "rank1", "first_match"),
    ("mAP", "mean_ap", "average_precision"),
)  # name, in a record, of each query
SHOWN = (
    "benchmark",
    "profile",
    "recipe",
    "epochs",
    "weights",
    "occlusion",
    "view_overlap",
    "other",
)
APART = ("weights", "occlusion", "view_overlap")  # settings with a column of their own


def read_record(path) -> dict:
    """One run record. Raises InputError for a file that is none."""
    try:
        record = json.loads(Path(path).read_text())
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); delete it and run that run again"
        ) from error
    record = record if isinstance(record, dict) else {}
    missing = [key for key in NEEDED if key not in record] + [
        key for key in CELL if key not in (record.get("config", CELL) or ())
    ]
    if missing:
        raise InputError(
            f"{path} is no complete run record: {', '.join(missing)} missing; delete it and run that run again"
        )
    return record


def record_paths(folder: Path) -> list:
    """record.json at any depth of a folder, and published ones, under names of their own, directly in it."""
    return sorted(
        [
            *folder.rglob("record.json"),
            *(p for p in folder.glob("*.json") if p.name not in ("record.json", "progress.json")),
        ]
    )


def read_records(folder) -> list:
    """All run records under a folder, in a fixed order. Raises InputError for a missing folder or a broken record."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f'no folder {folder} with run records; run `make reproduce`, or use records="results"'
        )
    records = [read_record(path) for path in record_paths(folder)]
    if not records:
        raise InputError(
            f'no run records in {folder}; run `make reproduce`, or use records="results"'
        )
    return records


def other_settings(config: dict) -> str:
    """What of a run's settings is not as its profile has it and has no column of its own: "lr=0.1, data_seed=3", mostly ""."""
    return ", ".join(f"{k}={v}" for k, v in unusual(config).items() if k not in APART)


def starts(records: list) -> dict:
    """What networks began with, {weights in a config: in words}: a run's checkpoint is named by the data of that run."""
    runs = {json.dumps(r["identity"]): f"{r['source']} {r['config']['benchmark']}" for r in records}
    out = {}
    for record in records:
        weights, loaded = record["config"].get("weights"), record.get("loaded")
        words = (
            loaded["source"].split(" (")[0]
            if isinstance(loaded, dict) and "source" in loaded
            else weights or "none"
        )
        out[weights] = runs.get(json.dumps(loaded), words)
    return out


def table(records: list):
    """One row per run and retrieval vector, a DataFrame: settings, rank-1 and both mAPs in percent."""
    rows, began = [], starts(records)
    for record in records:
        config = record["config"]
        for name, m in record["metrics"].items():
            rows.append(
                {key: config.get(key) for key in (*CELL, "occlusion", "view_overlap")}
                | {
                    "source": record["source"],
                    "data": record["identity"]["fingerprint"],
                    "weights": began[config.get("weights")],
                    "other": other_settings(config),
                    "vector": name,
                    "rank1": 100 * m["rank1"],
                    "mAP": 100 * m["mean_ap"],
                    "mAP_trapezoid": 100 * m["mean_ap_trapezoid"],
                }
            )
    return pd.DataFrame(rows)


def effects(records: list, repeats: int = 5000):
    """With SA minus without, all else equal: a DataFrame, one row for each setting, form, retrieval vector and metric, in points.

    Runs of one seed are paired (they share initial weights, order and augmentation); sd is over the seeds. low to high is the
    wider of two 95 % intervals: bootstrap() over seeds and identities, and Student's t over the seeds, which knows how few they
    are; p is the larger of their two-sided p. people: whether identities are in it (a record may not tell which queries were
    right). smallest: the difference that four of five such studies would find at p < 0.05. One seed: bootstrap alone, no
    smallest. table: "" for a pair in no table of the paper; paper: its difference there. Raises InputError for two records of one run.
    """
    ids = {
        r["identity"]["fingerprint"]: r["query_ids"] for r in records if "query_ids" in r
    }  # the same data, the same queries
    cells, rows, began = {}, [], starts(records)
    for r in records:
        c = r["config"]
        rest = tuple(
            sorted((k, v) for k, v in c.items() if k not in ("variant", "form", "seed", "rerank"))
        )
        runs = cells.setdefault(
            (r["identity"]["fingerprint"], r["source"], rest, c["variant"], c["form"]), {}
        )
        if c["seed"] in runs:
            raise InputError(
                f"two records of {c['benchmark']}, {c['variant']}, form {c['form']}, seed {c['seed']} with the same "
                "settings; keep one"
            )
        runs[c["seed"]] = r["metrics"]
    for (data, source, rest, variant, form), runs in cells.items():
        base = cells.get((data, source, rest, BASE.get(variant), "none"), {})
        seeds, c = sorted(set(runs) & set(base)), dict(rest)
        if not seeds:
            continue
        published = (
            PUBLISHED["table3"][c["benchmark"]]
            if c["erasing"]
            else PUBLISHED["table2"]
            if c["benchmark"] == "market1501"
            else {}
        )
        for vector in (v for v in runs[seeds[0]] if v in base[seeds[0]]):
            for k, (metric, mean, queries) in enumerate(METRICS):
                pairs = [(runs[s][vector], base[s][vector]) for s in seeds]
                row = {
                    "table": "table2"
                    if not c["erasing"]
                    else "table3"
                    if variant in published
                    else "",
                    "source": source,
                    "data": data,
                    **{key: c.get(key) for key in SHOWN},
                    "weights": began[c.get("weights")],
                    "other": other_settings(c),
                    "variant": variant,
                    "form": form,
                    "vector": vector,
                    "metric": metric,
                    **difference(pairs, mean, queries, ids.get(data), repeats),
                }
                if {variant, BASE[variant]} <= set(published) and "+" not in vector:
                    row["paper"] = published[variant][k] - published[BASE[variant]][k]
                rows.append(row)
    return pd.DataFrame(
        rows,
        columns=[
            "table",
            "source",
            "data",
            *SHOWN,
            "variant",
            "form",
            "vector",
            "metric",
            "seeds",
            "people",
            "without",
            "with",
            "Δ",
            "deltas",
            "sd",
            "low",
            "high",
            "p",
            "smallest",
            "paper",
        ],
    )


def pick(records: list, wanted: dict) -> dict:
    """The runs of one setting, {seed: record}: those whose settings are as wanted. Raises InputError where they differ in more."""
    out = {}
    for record in records:
        settings = settings_of(record)
        if unknown := [name for name in wanted if name not in settings]:
            raise InputError(f"unknown setting {unknown[0]!r}; known: {', '.join(settings)}")
        if any(settings[name] != value for name, value in wanted.items()):
            continue
        first = settings_of(next(iter(out.values()), record))
        differ = [
            name
            for name in settings
            if name not in ("seed", "rerank") and settings[name] != first[name]
        ]
        if differ:
            name = differ[0]
            raise InputError(
                f"runs with {_words(wanted)} differ in {name} ({first[name]} and {settings[name]}); name it, too"
            )
        if settings["seed"] in out:
            raise InputError(
                f"two runs with {_words(wanted)} have the seed {settings['seed']}; keep one"
            )
        out[settings["seed"]] = record
    return out


def settings_of(record: dict) -> dict:
    """All settings of a run, those too that its record leaves at their default, and its data."""
    config = record["config"]
    return (
        defaults(config["profile"], config["benchmark"])
        | config
        | {"data": record["identity"]["fingerprint"]}
    )


def between(records: list, a: dict, b: dict, vector: str = "parts", repeats: int = 5000) -> dict:
    """Setting a minus setting b, paired by seed: {metric: difference()}.

    a, b: what picks the runs of each, as {"variant": "b_p_ds_sa2", "form": "softmax", "lr": 0.025}. What neither of them names
    must be the same in both: only so the difference is theirs. Raises InputError where it is not, or where no seed is in both.
    """
    first, second = pick(records, a), pick(records, b)
    seeds = sorted(set(first) & set(second))
    if not seeds:
        raise InputError(
            f"no seed has both a run with {_words(a)} (seeds {sorted(first)}) and one with {_words(b)} "
            f"(seeds {sorted(second)})"
        )
    x, y = settings_of(first[seeds[0]]), settings_of(second[seeds[0]])
    if differ := [name for name in x if name not in {*a, *b, "rerank"} and x[name] != y[name]]:
        name = differ[0]
        raise InputError(
            f"runs with {_words(a)} and with {_words(b)} differ in {name}, too ({x[name]} and {y[name]}); name it in one "
            "of them"
        )
    pairs = [(first[s]["metrics"][vector], second[s]["metrics"][vector]) for s in seeds]
    return {
        metric: difference(pairs, mean, queries, first[seeds[0]].get("query_ids"), repeats)
        for metric, mean, queries in METRICS
    }


def _words(settings: dict) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items())


def published_name(record: dict) -> str:
    """The name of a run's record in results/: it says every setting that is not as the profile has it."""
    c = record["config"]
    return "-".join(
        [
            c["benchmark"],
            record["source"],
            c["profile"],
            c["variant"],
            c["form"],
            c["recipe"],
            "erasing" if c["erasing"] else "plain",
            *(_in_name(k, v) for k, v in unusual(c).items()),
            f"e{c['epochs']}",
            f"s{c['seed']}",
        ]
    )


def _in_name(setting: str, value) -> str:
    if (
        setting == "weights"
    ):  # content: "NAME HASH" of a run's checkpoint, "state_dict HASH" of other weights
        return (
            f"weights_{value.split()[1][:8]}"
            if value.startswith("state_dict ")
            else "loaded"
            if value != "none"
            else "from_scratch"
        )
    if isinstance(value, bool):
        return setting if value else f"no_{setting}"
    return f"{setting}_{value}" if isinstance(value, str) else f"{setting}{value:g}"


def publish(folders, into=ROOT / "results", weights: bool = False) -> list:
    """Copy the records under folders of runs into results/, named after their runs. Returns the new paths.

    weights: also the networks' weights, in half precision, into results/weights; that needs torch and the checkpoints.
    Raises InputError, before anything is written, for a broken record, two runs of one name, or no checkpoint.
    """
    from safetensors.torch import save  # here: a machine that only trains need not have it

    for folder in folders:
        read_records(folder)
    files = {}
    for path in sorted(path for folder in folders for path in record_paths(Path(folder))):
        record = read_record(path)
        name = published_name(record)
        target = Path(into) / f"{name}.json"
        short = re.sub(
            r"\[\s+([^][{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", path.read_text()
        )  # a list on one line
        if files.get(target, short) != short:
            raise InputError(
                f"{path} and another record are both of the run {name}; publish one of them"
            )
        if target.exists() and read_record(target)["identity"] != record["identity"]:
            raise InputError(
                f"{target} holds another run of this name (other data or settings); delete or rename it first"
            )
        files[target] = short
        if weights:
            state = read_checkpoint(path.with_name("checkpoint.pt"))["model"]
            files[Path(into) / "weights" / f"{name}.safetensors"] = save(
                {
                    k: (v.half() if v.is_floating_point() else v).contiguous()
                    for k, v in state.items()
                }
            )
    for target, content in files.items():
        write_atomic(target, content.encode() if isinstance(content, str) else content)
    return list(files)
