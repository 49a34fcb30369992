"""The settings of one run: what they are, where a profile sets them, what of them a run is known by."""

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from . import SETTINGS, InputError, known
from .attention import FORMS
from .data import LAYOUTS
from .model import BACKBONES, RECIPES, VARIANTS
from .support.files import ROOT
from .weights import named

# In every run's identity. A setting that came later stands there only where it is not at its default: old identities stay.
ALWAYS = (
    "benchmark",
    "variant",
    "form",
    "recipe",
    "profile",
    "seed",
    "backbone",
    "weights",
    "height",
    "width",
    "scale",
    "data_seed",
    "epochs",
    "batch",
    "lr",
    "warmup",
    "decay_at",
    "momentum",
    "weight_decay",
    "dropout",
    "flip",
    "erasing",
    "threads",
)
NOT_NUMBERS = (
    "run_dir",
    "data",
    "device",
    "rerank",
)  # where and how a run is made: the numbers do not depend on these
PROFILES = tomllib.loads((SETTINGS / "profiles.toml").read_text())


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. Values left at None come from the profile."""

    benchmark: str = "market1501"
    data: str | None = None  # "embedded" (rendered), "real" (the folder in REIDSA_DATA) or a folder
    variant: str = "b_p_ds_sa2"
    form: str = "softmax"  # of the variant's SA; "none" in variants without SA
    recipe: str = "paper"
    profile: str = "demo"
    seed: int = 0
    backbone: str | None = None
    weights: str | None = (
        None  # "none", "imagenet", or the path of a state_dict or a run's checkpoint (see weights.py)
    )
    height: int | None = None  # pixels
    width: int | None = None
    scale: float | None = None  # of the rendered benchmark
    data_seed: int = 0  # of the rendered benchmark: fixed over the runs of a table
    occlusion: float | None = (
        None  # knobs of the rendered benchmark; None: as frozen in datasets.rendered.Settings
    )
    view_overlap: float | None = None
    epochs: int | None = None  # 0: evaluate the weights as they are
    batch: int | None = None
    lr: float | None = None
    warmup: int | None = None  # steps from lr / 100 to lr
    decay_at: float | None = None  # share of the epochs after which lr is divided by ten
    momentum: float = 0.9
    weight_decay: float = 5e-4
    dropout: float | None = None  # section 4: 0.47 on Market-1501, 0.5 elsewhere
    flip: bool = True
    erasing: bool = True  # random erasing: on in Tables 1 and 3, off in Table 2
    held_out: int = 0  # training identities that are not trained on; they are the query and gallery instead of the test's
    rerank: bool = True  # also report re-ranked numbers
    threads: int = 0  # 0: all cores
    precision: str | None = (
        None  # "float32" or "bfloat16"; None: bfloat16 on a GPU that has it, float32 elsewhere
    )
    compile: bool | None = None  # torch.compile; None: no
    device: str = "auto"  # "auto", "cpu" or "cuda"
    run_dir: str = ""  # "": a folder of runs/ named after the run; relative to the repository


def configure(parameters: dict) -> Config:
    """A checked Config from named values; text is turned into the field's type.

    Raises InputError that names the known ones for an unknown parameter, variant, form, recipe, profile or value.
    """
    types = {f.name: f.type for f in fields(Config)}
    unknown = [name for name in parameters if name not in types]
    if unknown:
        raise InputError(
            f"unknown parameter {', '.join(map(repr, unknown))}; known: {', '.join(types)}"
        )
    values = {}
    for name, value in parameters.items():
        kind = next(t for t in (bool, int, float, str) if t.__name__ in str(types[name]))
        optional = "None" in str(types[name])
        if value is None or (optional and value in ("None", "")):
            if not optional:
                raise InputError(f"{name} has no value; expected {kind.__name__}")
            values[name] = None
            continue
        try:
            if (
                kind is bool
                and str(value).lower() not in ("true", "false", "0", "1")
                or kind is int
                and float(value) != int(float(value))
            ):
                raise ValueError
            values[name] = (
                str(value).lower() in ("true", "1")
                if kind is bool
                else kind(float(value))
                if kind is int
                else kind(value)
            )
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{name} is {value!r}; expected {kind.__name__}") from None
    config = Config(**values)
    known("profile", config.profile, PROFILES)
    known("benchmark", config.benchmark, LAYOUTS)
    config = replace(
        config,
        **{
            k: v
            for k, v in defaults(config.profile, config.benchmark).items()
            if getattr(config, k) is None
        },
    )
    for kind, names in (
        ("variant", VARIANTS),
        ("attention form", FORMS),
        ("recipe", RECIPES),
        ("backbone", BACKBONES),
        ("device", ("auto", "cpu", "cuda")),
    ):
        known(kind, getattr(config, kind.split()[-1]), names)
    if config.precision:
        known("precision", config.precision, ("float32", "bfloat16"))
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "device is cuda, and torch sees no CUDA device on this machine; use device=auto or device=cpu"
        )
    if not {"sa1", "sa2"} & set(VARIANTS[config.variant]):
        config = replace(config, form="none")
    if config.recipe == "sa1_on_parts" and not {"parts", "sa1"} <= set(VARIANTS[config.variant]):
        raise InputError(
            f"recipe sa1_on_parts weighs the parts by SA1; {config.variant} has not both, b_p_ds_sa12 has"
        )
    bounds = {
        "height": (32, 4096),
        "width": (16, 4096),
        "epochs": (0, 10**5),
        "batch": (2, 10**5),
        "lr": (0, 100),
        "threads": (0, 4096),
        "dropout": (0, 0.99),
        "decay_at": (0, 1),
        "warmup": (0, 10**7),
        "seed": (0, 2**31),
        "scale": (1e-3, 4),
        "momentum": (0, 1),
        "weight_decay": (0, 1),
        "data_seed": (0, 2**31),
        "occlusion": (0, 1),
        "view_overlap": (0, 1),
        "held_out": (0, 10**5),
    }
    for name, (low, high) in bounds.items():
        if (value := getattr(config, name)) is not None and not low <= value <= high:
            raise InputError(f"{name} is {value}; expected between {low} and {high}")
    if not config.epochs and config.weights == "none":
        raise InputError(
            "epochs is 0 and weights is none, so nothing is learned; epochs=0 evaluates weights=FILE, the checkpoint of a run"
        )
    if config.data != "embedded" and knobs(config):
        raise InputError(
            f"{' and '.join(knobs(config))} can be turned where the benchmark is rendered; data is {config.data}"
        )
    return config


def defaults(profile: str, benchmark: str) -> dict:
    """What the settings of a run are where nothing is said: {name: value}."""
    own = {f.name: f.default for f in fields(Config)}
    return (
        own
        | {"data": "embedded", "weights": "none", "dropout": LAYOUTS[benchmark].dropout}
        | PROFILES[profile]
    )


def knobs(config: Config) -> dict:
    return {
        k: getattr(config, k)
        for k in ("occlusion", "view_overlap")
        if getattr(config, k) is not None
    }


def run_folder(config: Config) -> Path:
    """Where a run's record and checkpoint lie: run_dir, or a folder of runs/ whose name ends in a hash of all settings."""
    if config.run_dir:
        return ROOT / config.run_dir
    digest = hashlib.sha256(
        json.dumps(run_settings(config) | {"data": config.data}, sort_keys=True).encode()
    ).hexdigest()[:6]
    named = (
        config.benchmark,
        config.profile,
        config.variant,
        config.form,
        config.recipe,
        f"s{config.seed}",
        digest,
    )
    return ROOT / "runs" / "-".join(named)


def run_settings(config: Config) -> dict:
    """What the numbers depend on, beside the data itself: not where things lie. Weights count by their content."""
    usual = defaults(config.profile, config.benchmark)
    out = {
        k: v
        for k, v in asdict(config).items()
        if k not in NOT_NUMBERS and v is not None and (k in ALWAYS or v != usual[k])
    }
    return out | {"weights": named(config.weights)}


def unusual(settings: dict) -> dict:
    """The settings of a record that are not as its profile has them: {name: value}, in the order of Config.

    Without what a record's name always says (benchmark, variant, form, recipe, profile, erasing, epochs, seed) and threads.
    """
    usual = defaults(settings["profile"], settings["benchmark"])
    said = (
        "benchmark",
        "variant",
        "form",
        "recipe",
        "profile",
        "erasing",
        "epochs",
        "seed",
        "threads",
        *NOT_NUMBERS,
    )
    return {
        k: settings[k] for k in usual if k not in said and settings.get(k, usual[k]) != usual[k]
    }
