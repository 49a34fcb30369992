"""What trainings recorded epoch by epoch, as tables: losses, gradients, attention weights.

Each line of a record's history holds the mean losses of an epoch, the norm of the gradient of each
layer of the ResNet (mean and standard deviation over the steps), and what training.look_inside
found at its first step.
"""

import numpy as np
import pandas as pd

from .records import ROOT, read_records

STAGES = (1, 2, 3)  # those with a branch
LAYERS = (1, 2, 3, 4)


def demo_runs(folder=ROOT / "results") -> list:
    """The committed runs of the profile `demo` that notebooks 01 and 02 compare.

    These are the network without SA (b_p_ds), and with SA in its branches (b_p_ds_sa2): the pair
    of the paper's Table 3, of 18 epochs on rendered images.
    """
    return [record for record in read_records(folder) if _is_demo_run(record)]


def _is_demo_run(record: dict) -> bool:
    config = record["config"]
    return (
        record["source"] == "rendered"
        and config["profile"] == "demo"
        and config["recipe"] == "paper"
        and config["epochs"] == 18
        and config["variant"] in ("b_p_ds", "b_p_ds_sa2")
    )


def epoch_table(records: list) -> pd.DataFrame:
    """One row for each run and epoch, with what was recorded for the form that was trained.

    Columns: form, seed, epoch; loss (the weighted sum of all losses), accuracy (%), l_F, parts (the
    mean of the six part losses), and l_s1 to l_s3, means over the epoch; branch 1 to branch 3, the
    norm of the gradient of a branch's loss at its map, for one image at the first step; layer 1 to
    layer 4, the mean norm of the gradient of a layer's weights; scatter 1 to scatter 4, its
    standard deviation over its mean.
    """
    rows = []
    for record in records:
        config = record["config"]
        for line in record["history"]:
            losses, gradient = line["losses"], line["gradient"]
            row = {
                "form": config["form"],
                "seed": config["seed"],
                "epoch": line["epoch"],
                "loss": line["loss"],
                "accuracy": 100 * line["accuracy"],
                "l_F": losses["final"],
                "parts": np.mean([losses[f"part{k}"] for k in range(1, 7)]),
            }
            for s in STAGES:
                row[f"l_s{s}"] = losses[f"stage{s}"]
                row[f"branch {s}"] = line["first_step"][config["form"]]["through"][s - 1]
            for s in LAYERS:
                mean, sd = gradient["mean"][s - 1], gradient["sd"][s - 1]
                row[f"layer {s}"] = mean
                row[f"scatter {s}"] = sd / mean
            rows.append(row)
    return pd.DataFrame(rows)


def first_step_table(records: list) -> pd.DataFrame:
    """One row for each run, epoch, form and stage with a branch, seen at the epoch's first step.

    Columns: trained with, seed, epoch; form, the form that is measured, and stage; share, the share
    of the positions that its weights are effectively spread over; through, the norm of the gradient
    that this form would send back through the branch, for one image.
    """
    rows = []
    for record in records:
        for line in record["history"]:
            for form, inside in line["first_step"].items():
                for s in STAGES:
                    row = {
                        "trained with": record["config"]["form"],
                        "seed": record["config"]["seed"],
                        "epoch": line["epoch"],
                        "form": form,
                        "stage": s,
                        "share": inside["cells"][s - 1],
                        "through": inside["through"][s - 1],
                    }
                    rows.append(row)
    return pd.DataFrame(rows)


def against_gap(lines: pd.DataFrame, columns: dict, epochs) -> pd.DataFrame:
    """Each form minus average pooling, seed by seed, in means over some epochs.

    lines: as epoch_table() returns them; columns: {name of a row of the result: column of lines}.
    Returns in each row the level of average pooling ("GAP"), and for each form the mean of the
    differences over the seeds (Δ), their standard deviation (sd), and in how many seeds the
    difference is positive (Δ > 0).
    """
    of_epochs = lines[lines.epoch.isin(epochs)]
    rows = {}
    for name, column in columns.items():
        mean = of_epochs.groupby(["form", "seed"])[column].mean().unstack("form")
        row = {("GAP", "mean"): mean["none"].mean()}
        for form in ("softmax", "l1"):
            delta = mean[form] - mean["none"]
            row[form, "Δ"] = delta.mean()
            row[form, "sd"] = delta.std()
            row[form, "Δ > 0"] = (delta > 0).sum()
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    counts = [column for column in table.columns if column[1] == "Δ > 0"]
    return table.astype(dict.fromkeys(counts, int))
