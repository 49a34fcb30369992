"""Batches of runs: which runs a target of settings/grid.toml has. All are checked before the first.

The Snakefile (workflow/) makes the runs, each by papermill from notebook 05.
"""

import contextlib
import re
import shlex
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median

from filelock import FileLock, Timeout

from .. import SETTINGS, InputError, cores, known
from ..attention import FORMS
from ..config import KNOBS, Config, configure, run_folder, run_settings
from ..data import LAYOUTS, Benchmark, find_folder
from ..model import ReIDNet
from ..support.files import ROOT, check_room, read_toml
from .records import read_record
from .run import check_training_set, checkpoint_bytes, data_root, planned

GRID = read_toml(SETTINGS / "grid.toml")
TARGETS = tuple(GRID)
# The settings of a batch, beside the parameters of a run, with their defaults.
BATCH_SETTINGS = {"seeds": 3, "forms": "softmax", "benchmarks": ",".join(LAYOUTS), "gpus": 0}
# Parameters of a run that the targets set. Use reidsa train for a single run with other values.
FIXED = ("benchmark", "variant", "form", "erasing", "seed", "run_dir", "rerank")
FIXED += ("occlusion", "view_overlap")
MAP_FORMS = ("b_p_ds-none", "b_p_ds_sa2-softmax", "b_p_ds_sa2-l1")  # of notebook 07
# The settings that the files of a benchmark depend on.
DATA = ("benchmark", "data", "scale", "data_seed", "held_out", *KNOBS)
DATA += ("camera_pattern", "split_seed", "camera_rule")
START_UP = 20  # seconds before the first step: kernel, imports, the untrained network's numbers


@dataclass(frozen=True)
class Asked:
    """The checked settings that the user gives, for all targets of one call."""

    batch: dict  # those of seeds, forms, benchmarks and gpus that were given
    parameters: dict  # those parameters of every run that were given

    @property
    def own(self) -> list:
        """The requested benchmarks that are data of your own."""
        return [name for name in self.batch.get("benchmarks", []) if name not in LAYOUTS]

    @property
    def example(self) -> dict:
        """The parameters of every run, with a benchmark that they fit."""
        return ({"benchmark": self.own[0]} if self.own else {}) | self.parameters

    @property
    def gpus(self) -> int:
        """How many GPUs of this machine to choose from; 0: no GPU is chosen."""
        return self.batch.get("gpus", 0)


def read_settings(settings: dict) -> Asked:
    """The settings that Snakemake's `--config` gives, checked.

    Raises InputError for unknown names and values, and for parameters that the targets set.
    """
    texts = {}
    for name, value in settings.items():
        if name in FIXED:
            raise InputError(
                f"{name} is set by the targets of a batch; for one run of your own: reidsa train"
            )
        known(
            "setting", name, [*BATCH_SETTINGS, *(n for n in Config.model_fields if n not in FIXED)]
        )
        if value is None or value == "":
            raise InputError(f"{name} has no value; expected {name}=VALUE, or leave it out")
        texts[name] = str(value)  # YAML has turned some into numbers
    batch = {name: texts[name] for name in texts if name in BATCH_SETTINGS}
    for name, low in (("seeds", 1), ("gpus", 0)):
        if name in batch:
            batch[name] = _whole_number(name, batch[name], low, 1000)
    if "forms" in batch:
        batch["forms"] = _names(batch["forms"], "form of SA", [f for f in FORMS if f != "none"])
    if "benchmarks" in batch:
        names = batch["benchmarks"].split(",")
        batch["benchmarks"] = list(dict.fromkeys(name.strip() for name in names))
    parameters = {name: texts[name] for name in texts if name not in BATCH_SETTINGS}
    asked = Asked(batch, parameters)
    for name in batch.get("benchmarks", []):
        configure(parameters | {"benchmark": name})
    config = configure(asked.example)
    if not config.epochs:
        raise InputError("epochs is 0, and a batch trains; for weights as they are: reidsa train")
    # Absolute paths of files and folders, since a notebook's kernel runs in notebooks/.
    if "data" in parameters and config.data not in ("embedded", "real"):
        parameters["data"] = str(data_root(config.data).resolve())
    if config.weights not in ("none", "imagenet"):
        path = Path(config.weights)
        if not path.is_file():
            raise InputError(
                f"weights is {path}, and there is no such file; expected none, imagenet or a "
                "state_dict"
            )
        parameters["weights"] = str(path.resolve())
    return asked


def _whole_number(name: str, text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise InputError(f"{name} is {text}; expected a whole number from {low} to {high}")
    return number


def _names(text: str, kind: str, names) -> list:
    return [known(kind, name.strip(), names) for name in dict.fromkeys(text.split(","))]


def runs_of(target: str, asked: Asked) -> dict:
    """The runs of a target, each once: {name of the run: papermill parameters of 05_train}.

    Raises InputError if the user sets something that the target sets itself, or if the target turns
    settings of the renderer and the data are real.
    """
    _check_fixed(target, asked)
    runs = {}
    for part in GRID[target].get("all_of", [target]):
        for parameters in _parameters_of(_entry(part, asked), asked):
            runs[run_folder(configure(parameters)).name] = parameters
    return runs


def _check_fixed(target: str, asked: Asked) -> None:
    """Raises InputError if the user sets something that the target sets itself."""
    names = GRID[known("target", target, TARGETS)].get("all_of", [target])
    parts = [_entry(part, asked) for part in names]
    fixed, open_ = set(), set()
    for entry in parts:
        for settings in [entry["settings"], *entry["cases"], *entry.get("knobs", [])]:
            fixed |= set(settings)
            open_ |= {value for value in settings.values() if isinstance(value, str)}
    for name in asked.parameters:
        if name in fixed:
            raise InputError(f"{name} is fixed in {target}; leave it out")
    for name in asked.batch:
        if name != "gpus" and name.upper() not in open_:
            raise InputError(f"{name} is fixed in {target}; leave it out")
    data = _common(parts[0], asked)["data"]
    if data != "embedded" and any("knobs" in entry for entry in parts):
        raise InputError(f"{target} turns knobs of the renderer; data is {data}, expected embedded")


def _entry(part: str, asked: Asked) -> dict:
    """A part of the grid. If only own data are asked for, Table 2 uses these, not Market-1501."""
    entry = GRID[part]
    is_table = entry.get("report") == ["06_tables"]
    if is_table and asked.own and len(asked.own) == len(asked.batch["benchmarks"]):
        return entry | {"settings": entry["settings"] | {"benchmark": "BENCHMARKS"}}
    return entry


def _common(entry: dict, asked: Asked) -> dict:
    """The parameters that all runs of an entry share."""
    usual = {"profile": entry.get("usual", {}).get("profile", "laptop"), "threads": 1}
    fixed = {name: value for name, value in entry["settings"].items() if name == "profile"}
    common = usual | asked.parameters | fixed
    return common | {"data": configure(asked.example | common).data}


def _parameters_of(entry: dict, asked: Asked) -> list[dict]:
    batch = BATCH_SETTINGS | entry.get("usual", {}) | asked.batch
    values = {
        "SEEDS": range(batch["seeds"]),
        "FORMS": batch["forms"],
        "BENCHMARKS": batch["benchmarks"],
    }
    for name in ("FORMS", "BENCHMARKS"):
        if isinstance(values[name], str):
            values[name] = values[name].split(",")
    out = []
    for settings in _combinations(entry["settings"], values):
        for knobs in entry.get("knobs", [{}]):
            for case in entry["cases"]:
                for of_case in _combinations({"form": "none"} | case, values):
                    out.append(_common(entry, asked) | settings | knobs | of_case)
    return out


def _combinations(settings: dict, values: dict) -> list[dict]:
    """All combinations of settings. A list of values stands for one run with each value."""
    axes = []
    for value in settings.values():
        if isinstance(value, str):
            value = values.get(value, value)
        axes.append([value] if isinstance(value, (str, int, float)) else list(value))
    return [dict(zip(settings, chosen, strict=True)) for chosen in product(*axes)]


def every_run(asked: Asked) -> dict:
    """The runs of all targets that the user's settings allow."""
    runs = {}
    for target in TARGETS:
        with contextlib.suppress(InputError):
            runs |= runs_of(target, asked)
    return runs


def products(target: str, asked: Asked) -> list[str]:
    """The notebooks that a target makes beside its runs, relative to the batch's folder."""
    folder = f"runs/tables/{title(target, asked)}/{target}"
    notebooks = list(GRID[target].get("report", []))
    if "07_cam" in notebooks and not set(MAP_FORMS) <= set(networks_of(target, asked)):
        notebooks.remove("07_cam")  # it compares three networks
    return [f"{folder}/{notebook}.ipynb" for notebook in notebooks]


def networks_of(target: str, asked: Asked) -> dict:
    """The networks that notebook 07 looks into: {VARIANT-FORM: name of the run}.

    If there are several benchmarks or seeds, the first is taken.
    """
    networks = {}
    for name, parameters in runs_of(target, asked).items():
        networks.setdefault(f"{parameters['variant']}-{parameters['form']}", name)
    return networks


def title(target: str, asked: Asked) -> str:
    """DATA-PROFILE: the name of the folder that a target's tables go to."""
    entry = GRID[GRID[target].get("all_of", [target])[0]]
    common = _common(entry, asked)
    data = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(common["data"]).name) or "data"
    return f"{data}-{common['profile']}"


def threads(asked: Asked) -> int:
    """Threads of one run."""
    return configure({"threads": 1} | asked.example).threads or cores()


def check(runs: dict, folder: Path) -> None:
    """Check, before the first run, for everything that would end a run later.

    folder: where the runs lie. Raises InputError for missing or unusable data, a batch larger than
    the training set, weights that do not fit, a disk without room for the checkpoints, or the
    record of another run in a run's folder.
    """
    configs = {name: configure(parameters) for name, parameters in runs.items()}
    data = next(iter(configs.values())).data
    if data != "embedded":
        find_data(data, {c.benchmark for c in configs.values() if c.benchmark in LAYOUTS})
    benchmarks, fingerprints = {}, {}
    waiting = []  # (config, number of classes) of each run that is not finished
    for name, config in configs.items():
        of_data = tuple(getattr(config, setting) for setting in DATA)
        if of_data not in benchmarks:
            benchmarks[of_data] = planned(config)
            benchmarks[of_data].check_matches()
        check_training_set(config, benchmarks[of_data])
        if not finished(name, folder):
            waiting.append((config, len(set(benchmarks[of_data].train.ids.tolist()))))
            continue
        if of_data not in fingerprints:
            embedded = config.data == "embedded"
            fingerprints[of_data] = None if embedded else benchmarks[of_data].fingerprint()
        _check_record(folder / name / "record.json", config, fingerprints[of_data])
    _check_networks(waiting, folder)


def _check_networks(waiting: list[tuple], folder: Path) -> None:
    """Make a network of each kind once: the weights must fit, the disk must have enough room."""
    sizes = {}
    needed = []
    for config, classes in waiting:
        kind = (classes, config.backbone, config.weights, config.variant, config.recipe)
        if kind not in sizes:
            network = ReIDNet(
                classes,
                config.variant,
                recipe=config.recipe,
                backbone=config.backbone,
                weights=config.weights,
            )
            sizes[kind] = checkpoint_bytes(network)
        needed.append(sizes[kind])
    if needed:
        # While a checkpoint is written, the previous one is still there.
        check_room(folder, sum(needed) + max(needed))


def _check_record(path: Path, config: Config, fingerprint: str | None) -> None:
    """Raises InputError for the record of another run than config's.

    fingerprint: of the data; None if the settings determine the data, as for rendered images.
    """
    found = read_record(path)["identity"]
    expected = run_settings(config) | {"fingerprint": fingerprint or found.get("fingerprint")}
    names = sorted(set(found) | set(expected))
    differ = [k for k in names if found.get(k) != expected.get(k)]
    if differ:
        first = differ[0]
        raise InputError(
            f"{path} is the record of another run ({', '.join(differ)}: found "
            f"{found.get(first)}, expected {expected.get(first)}); delete or move its folder"
        )


def find_data(data: str, benchmarks) -> None:
    """Raises InputError, which names every real benchmark that is not there."""
    root = data_root(data)
    missing = []
    for name in sorted(benchmarks):
        try:
            find_folder(name, root)
        except InputError as error:
            missing.append(str(error))
    if missing:
        raise InputError(
            f"{'; '.join(missing)}. Nothing was started; Tables 1 and 3 can be narrowed down: "
            "benchmarks=market1501"
        )


def finished(name: str, folder: Path) -> bool:
    return (folder / name / "record.json").exists()


_held = []  # Snakemake drops what its onstart makes, and a lock that nobody refers to is released


def only_one_batch(folder: Path) -> FileLock:
    """The lock of a batch on a folder of runs, held until this process ends.

    Raises InputError if another batch holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "batch.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another batch is at work in {folder}; wait for it, or see how far it is: make plan"
        ) from None
    _held.append(lock)
    return lock


@cache
def _own_data(**settings) -> Benchmark:
    """The file lists of data of your own. Raises InputError if they cannot be read."""
    return planned(configure(settings))


def training_images(config: Config) -> int:
    """How many images a run trains on in an epoch."""
    if config.benchmark not in LAYOUTS:
        names = ("benchmark", "data", "camera_pattern", "split_seed", "camera_rule", "held_out")
        return len(_own_data(**{name: getattr(config, name) for name in names}).train)
    images = LAYOUTS[config.benchmark].counts["train"]["images"]
    return round(images * config.scale) if config.data == "embedded" else images


def seconds_per_image(config: Config) -> float | None:
    """Median training time per image in the recorded runs of this size, in seconds.

    None if there is no such record.
    """
    rates = []
    for path in [*(ROOT / "results").glob("*.json"), *(ROOT / "runs").glob("*/record.json")]:
        with contextlib.suppress(InputError, OSError, KeyError, TypeError, ZeroDivisionError):
            record = read_record(path)
            c = record["config"]
            same = [c[k] == getattr(config, k) for k in ("backbone", "height", "width", "threads")]
            if all(same):
                images = c["epochs"] * record["counts"]["train"]["images"]
                rates.append(record["seconds"]["training"] / images)
    return median(rates) if rates else None


def plan(target: str, runs: dict, jobs: int, folder: Path) -> str:
    """One sentence: how many runs are finished, how many would run, and how long that takes.

    jobs: how many run at the same time.
    """
    waiting = [configure(runs[name]) for name in runs if not finished(name, folder)]
    text = (
        f"{target}: {len(runs)} runs: {len(runs) - len(waiting)} finished before, "
        f"{len(waiting)} to run"
    )
    if not waiting:
        return text
    rate = seconds_per_image(waiting[0])
    if rate is None:
        return f"{text}; how long that takes is not known: no finished run of this size"
    jobs = max(1, min(jobs, len(waiting)))
    images = sum(training_images(config) * config.epochs for config in waiting)
    # A tenth more for evaluation and re-ranking.
    seconds = (1.1 * rate * images + START_UP * len(waiting)) / jobs
    return (
        f"{text}, about {duration(seconds)} with {jobs} at a time on a machine like that of the "
        "recorded runs"
    )


def duration(seconds: float) -> str:
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def arguments(parameters: dict, run: Path) -> str:
    """The parameters of a run as papermill's options."""
    words = []
    for name, value in (parameters | {"run_dir": run.resolve()}).items():
        words += ["-p", name, str(value)]
    return shlex.join(words)
