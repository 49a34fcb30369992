"""Run records: read, check, gather into tables beside the paper's numbers, publish.

    python -m reidsa_utils.results publish runs/reproduce/demo
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import pandas as pd

from . import InputError, run_command
from .benchmarks import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("config", "source", "metrics", "history", "counts", "code", "versions", "identity")

TABLE3 = PUBLISHED["table3"]


def read_record(path) -> dict:
    """One run record. Raises InputError for a file that is none."""
    try:
        record = json.loads(Path(path).read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); delete it and run that run again") from error
    missing = [key for key in NEEDED if key not in record]
    if missing:
        raise InputError(f"{path} is no complete run record: {', '.join(missing)} missing; delete it and run that run again")
    return record


def read_records(folder) -> list:
    """All run records under a folder, in a fixed order. Raises InputError for a missing folder or a broken record."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no folder {folder} with run records; run `make reproduce`, or use records=\"results\"")
    published = [path for path in folder.glob("*.json") if path.name not in ("record.json", "progress.json")]
    records = [read_record(path) for path in sorted([*folder.rglob("record.json"), *published])]
    if not records:
        raise InputError(f"no run records in {folder}; run `make reproduce`, or use records=\"results\"")
    return records


def table(records: list) -> pd.DataFrame:
    """One row per run and retrieval vector: settings, rank-1 and both mAPs in percent."""
    rows = []
    for record in records:
        config = record["config"]
        for name, m in record["metrics"].items():
            rows.append({key: config[key] for key in ("benchmark", "profile", "variant", "form", "recipe", "erasing", "epochs", "seed")}
                        | {"source": record["source"], "data": record["identity"]["fingerprint"], "vector": name,
                           "rank1": 100 * m["rank1"], "mAP": 100 * m["mean_ap"], "mAP_trapezoid": 100 * m["mean_ap_trapezoid"]})
    return pd.DataFrame(rows)


def aggregate(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of every cell of a table of runs."""
    keys = ["benchmark", "source", "data", "profile", "variant", "form", "recipe", "erasing", "epochs", "vector"]
    out = runs.groupby(keys, sort=False).agg(rank1=("rank1", "mean"), rank1_sd=("rank1", "std"), mAP=("mAP", "mean"),
                                             mAP_sd=("mAP", "std"), seeds=("seed", "nunique"))
    return out.reset_index()


def table3_row(runs: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """Table 3 for one benchmark: each attention form against no attention, the paper's difference beside ours.

    runs: rows of table() of b_p_ds and b_p_ds_sa2, of one source, profile, recipe and retrieval vector. The difference is
    taken seed by seed (runs of one seed share initial weights, order and augmentation), then averaged; sd is over seeds.
    What is compared is the difference, never the level: a rendered benchmark is no Market-1501.
    """
    runs = runs[runs.benchmark == benchmark]
    base = runs[runs.variant == "b_p_ds"]
    if base.empty or base.seed.duplicated().any():
        raise InputError(f"found {len(base)} runs of b_p_ds for {benchmark} with {base.seed.nunique()} seeds, expected one a seed; "
                         "name one profile, recipe and vector")
    with_sa, without = TABLE3[benchmark]["sa"], TABLE3[benchmark]["none"]
    paper = {"rank1": with_sa[0] - without[0], "mAP": with_sa[1] - without[1]}
    rows = []
    for form, group in runs[runs.variant == "b_p_ds_sa2"].groupby("form", sort=False):
        if group.seed.duplicated().any():
            raise InputError(f"several runs of b_p_ds_sa2 with form {form} have one seed; name one profile, recipe and vector")
        pairs = group.merge(base, on="seed", suffixes=("", "_without"))
        if (pairs.data != pairs.data_without).any():
            raise InputError(f"the runs with form {form} and those without SA were trained on other data; compare runs of one data seed")
        row = {"form of SA": form, "seeds": len(pairs)}
        for key, title in (("rank1", "rank-1"), ("mAP", "mAP")):
            delta = pairs[key] - pairs[f"{key}_without"]
            row |= {f"{title} without": pairs[f"{key}_without"].mean(), f"{title} with": pairs[key].mean(), f"Δ {title}": delta.mean(),
                    f"Δ {title} sd": delta.std(), f"Δ {title}, paper": paper[key]}
        rows.append(row)
    return pd.DataFrame(rows)


def save_figure(figure, name: str, source: str = "rendered") -> None:
    """Write a figure under its fixed name into figures/, or the folder named in REIDSA_FIGURES.

    source: what it shows. Pictures of real people go to runs/figures, which git ignores.
    """
    folder = Path(os.environ.get("REIDSA_FIGURES", ROOT / "figures")) if source == "rendered" else ROOT / "runs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / name, dpi=110, bbox_inches="tight", metadata={"Software": None})


def publish(folder, into=ROOT / "results", weights: bool = False) -> list:
    """Copy the records under a folder of runs into results/, named after their runs. Returns the new paths.

    weights: also the networks' weights, in half precision, into results/weights; that needs torch and the checkpoints.
    """
    read_records(folder)  # all of them sound, before the first is copied
    out = []
    for path in sorted(Path(folder).rglob("record.json")):
        record = read_record(path)
        c = record["config"]
        name = "-".join([c["benchmark"], record["source"], c["profile"], c["variant"], c["form"], c["recipe"],
                         "erasing" if c["erasing"] else "plain", f"e{c['epochs']}", f"s{c['seed']}"])
        Path(into).mkdir(exist_ok=True)
        target = Path(into) / f"{name}.json"
        if target.exists() and read_record(target)["identity"] != record["identity"]:
            raise InputError(f"{target} holds another run of this name (other data or settings); delete or rename it first")
        shutil.copyfile(path, target)
        out.append(target)
        if weights:
            from safetensors.torch import save

            from .training import read_checkpoint, write_atomic

            state = read_checkpoint(path.with_name("checkpoint.pt"))["model"]
            out.append(Path(into) / "weights" / f"{name}.safetensors")
            write_atomic(out[-1], save({k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in state.items()}))
    return out


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reidsa_utils.results", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("publish", help="copy the records of finished runs into results/")
    sub.add_argument("folder")
    sub.add_argument("--weights", action="store_true", help="the trained networks too, 9 MB each, into results/weights")
    arguments = parser.parse_args(argv)
    return run_command(lambda: print(*(f"published {p.relative_to(ROOT)}" for p in publish(arguments.folder, weights=arguments.weights)),
                                     sep="\n"))


if __name__ == "__main__":
    raise SystemExit(main())
