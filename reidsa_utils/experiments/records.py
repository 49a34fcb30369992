"""Run records: read and check them, say in words what they are, publish them into results/."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

from .. import SETTINGS, InputError
from ..config import defaults, unusual
from ..support.files import ROOT, read_checkpoint, read_text, read_toml, write_atomic

# What a complete record holds, and what its configuration holds.
NEEDED = ("config", "source", "metrics", "history", "counts", "code", "versions", "identity")
CELL = ("benchmark", "variant", "form", "recipe", "profile", "seed", "epochs", "erasing")

# Settings that stand in a column of their own beside those of CELL.
APART = ("weights", "occlusion", "view_overlap")


def read_record(path) -> dict:
    """Read one run record. Raises InputError for a file that is not a complete record."""
    try:
        record = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); delete it and run that run again"
        ) from error
    if not isinstance(record, dict):
        record = {}
    missing = [key for key in NEEDED if key not in record]
    if "config" in record:
        config = record["config"] or ()
        missing += [key for key in CELL if key not in config]
    if missing:
        raise InputError(
            f"{path} is not a complete run record: {', '.join(missing)} missing; "
            "delete it and run that run again"
        )
    return record


def record_paths(folder: Path) -> list:
    """The files of the records in a folder, sorted.

    These are record.json at any depth, and published records, under names of their own, directly
    in the folder.
    """
    of_runs = list(folder.rglob("record.json"))
    published = [
        path for path in folder.glob("*.json") if path.name not in ("record.json", "progress.json")
    ]
    return sorted(of_runs + published)


def read_records(folder) -> list:
    """All run records under a folder, in a fixed order.

    Raises InputError for a missing folder, a folder without records, or a broken record.
    """
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


def settings_of(record: dict) -> dict:
    """All settings of a run, also those that its record leaves out as defaults: {name: value}.

    "data" is the fingerprint of its data, "source" is "rendered" or "real".
    """
    config = record["config"]
    return {
        **defaults(config["profile"], config["benchmark"]),
        **config,
        "data": record["identity"]["fingerprint"],
        "source": record["source"],
    }


def numerics(record: dict) -> int:
    """The version of the numerics (training.NUMERICS) that made a record.

    Older records hold only a hash of the sources. settings/numerics.toml gives its version.
    Raises InputError for a hash that is not there.
    """
    code = record["code"]
    if "numerics" in code:
        return code["numerics"]
    sources = code.get("sources")
    for version, hashes in _older_numerics().items():
        if sources in hashes:
            return int(version)
    raise InputError(
        f"a record of code {sources} does not say which numerics made it; add the hash to "
        "settings/numerics.toml once two steps of that code are compared with those stored"
    )


@cache
def _older_numerics() -> dict:
    """{version: hashes of the sources that belong to it}."""
    return read_toml(SETTINGS / "numerics.toml")["sources"]


def other_settings(config: dict) -> str:
    """The settings of a run that differ from its profile and have no column of their own.

    As a text: "lr=0.1, data_seed=3"; usually "".
    """
    others = [f"{name}={value}" for name, value in unusual(config).items() if name not in APART]
    return ", ".join(others)


def starts(records: list) -> dict:
    """What the networks of some records began with, in words: {weights in a config: words}.

    If a network began with the checkpoint of another of these runs, the words name the data of that
    run.
    """
    trained_on = {}
    for record in records:
        identity = json.dumps(record["identity"])
        trained_on[identity] = f"{record['source']} {record['config']['benchmark']}"
    began_with = {}
    for record in records:
        weights = record["config"].get("weights")
        loaded = record.get("loaded")
        if isinstance(loaded, dict) and "source" in loaded:
            words = loaded["source"].split(" (")[0]
        else:
            words = weights or "none"
        began_with[weights] = trained_on.get(json.dumps(loaded), words)
    return began_with


def published_name(record: dict) -> str:
    """The name of a run's record in results/, without ".json".

    It contains every setting that differs from the profile.
    """
    config = record["config"]
    unusual_settings = [_in_name(name, value) for name, value in unusual(config).items()]
    words = [
        config["benchmark"],
        record["source"],
        config["profile"],
        config["variant"],
        config["form"],
        config["recipe"],
        "erasing" if config["erasing"] else "plain",
        *unusual_settings,
        f"e{config['epochs']}",
        f"s{config['seed']}",
    ]
    return "-".join(words)


def _in_name(setting: str, value) -> str:
    """One setting in the name of a record."""
    if setting == "weights":
        # The value is "NAME HASH" for a run's checkpoint, "state_dict HASH" for other weights.
        if value.startswith("state_dict "):
            return f"weights_{value.split()[1][:8]}"
        return "loaded" if value != "none" else "from_scratch"
    if setting == "camera_pattern":  # not all of its characters may be in a file name
        return f"camera_pattern_{hashlib.sha256(value.encode()).hexdigest()[:8]}"
    if isinstance(value, bool):
        return setting if value else f"no_{setting}"
    if isinstance(value, str):
        return f"{setting}_{value}"
    return f"{setting}{value:g}"


def publish(folders, into=ROOT / "results", weights: bool = False) -> list:
    """Copy the records under folders of runs into results/, named after their runs.

    weights: also the networks' weights, in half precision, into results/weights; that needs torch
    and the checkpoints.
    Returns the new paths.
    Raises InputError, before anything is written, for a broken record, two runs of one name, or a
    missing checkpoint.
    """
    # Imported here: only this function needs it.
    from safetensors.torch import save

    for folder in folders:
        read_records(folder)
    files = {}
    for path in sorted(path for folder in folders for path in record_paths(Path(folder))):
        record = read_record(path)
        name = published_name(record)
        target = Path(into) / f"{name}.json"
        text = _lists_on_one_line(read_text(path))
        if files.get(target, text) != text:
            raise InputError(
                f"{path} and another record are both of the run {name}; publish one of them"
            )
        if target.exists() and read_record(target)["identity"] != record["identity"]:
            raise InputError(
                f"{target} holds another run of this name (other data or settings); "
                "delete or rename it first"
            )
        files[target] = text
        if weights:
            state = read_checkpoint(path.with_name("checkpoint.pt"))["model"]
            halved = {}
            for key, value in state.items():
                halved[key] = (value.half() if value.is_floating_point() else value).contiguous()
            files[Path(into) / "weights" / f"{name}.safetensors"] = save(halved)
    for target, content in files.items():
        write_atomic(target, content.encode() if isinstance(content, str) else content)
    return list(files)


def _lists_on_one_line(text: str) -> str:
    """JSON with every innermost list on one line: a shorter file with the same content."""

    def on_one_line(match):
        return f"[{' '.join(match[1].split())}]"

    return re.sub(r"\[\s+([^][{}]*?)\s+\]", on_one_line, text)
