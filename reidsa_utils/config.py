"""The settings of one run: what they are, what a profile sets, and which of them identify a run.

Notebook 05, the command line and Snakemake all pass their parameters to `configure`.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import SETTINGS, InputError, known, unknown_message
from .attention import known_forms
from .data import LAYOUTS, benchmark_name, camera_regex
from .model import BACKBONES, RECIPES, VARIANTS
from .support.files import ROOT, read_toml
from .weights import named

PROFILES = read_toml(SETTINGS / "profiles.toml")

# These are in the identity of every run. A setting that was added later is in it only if it differs
# from its default, so that the identities of older records stay as they are.
ALWAYS = (
    *("benchmark", "variant", "form", "recipe", "profile", "seed", "backbone", "weights"),
    *("height", "width", "scale", "data_seed", "epochs", "batch", "lr", "warmup", "decay_at"),
    *("momentum", "weight_decay", "dropout", "flip", "erasing", "threads"),
)
# Where and how a run is made. The numbers of a run do not depend on these settings. The exception
# is the device: its usual precision (bfloat16 on many GPUs) is in the record, beside the identity.
NOT_NUMBERS = ("run_dir", "data", "device", "rerank")
# Settings that the name of a record always shows. Of the others it shows only the unusual ones.
IN_EVERY_NAME = ("benchmark", "variant", "form", "recipe", "profile", "erasing", "epochs", "seed")
KNOBS = ("occlusion", "view_overlap")  # settings of the renderer
OWN_DROPOUT = 0.5  # section 4 has it for all but Market-1501


class Config(BaseModel):
    """Everything a run depends on. None is replaced by the profile's value, if it has one.

    Notebook 05 declares the same names, types, defaults and descriptions in its parameters cell.
    Build a Config with `configure`, which reports an error in one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    benchmark: str = Field(
        "market1501", description="or dukemtmc_reid, cuhk03_np_labeled, cuhk03_np_detected"
    )
    data: str | None = Field(
        None, description="embedded (rendered), real (in REIDSA_DATA), folder or CSV"
    )
    variant: str = Field("b_p_ds_sa2", description="row of Table 2, built up in notebook 04")
    form: str = Field(
        "softmax", description="softmax (eq. 1), l1 (released code), softmax_mean, sigmoid, none"
    )
    recipe: str = Field("paper", description="paper, released, or a control of notebook 08")
    profile: str = Field(
        "demo", description="size, data, schedule: smoke, demo, laptop, photographs, paper"
    )
    seed: int = Field(0, ge=0, le=2**31, description="of first weights, order and augmentation")
    backbone: str | None = Field(None, description="thin, resnet18, resnet50 or mobilenet_v2")
    weights: str | None = Field(
        None, description="none, imagenet, or a file: state_dict, checkpoint"
    )
    height: int | None = Field(None, ge=32, le=4096, description="of the input, pixels")
    width: int | None = Field(None, ge=16, le=4096, description="of the input, pixels")
    scale: float | None = Field(
        None, ge=1e-3, le=4, description="rendered people, as a share of the published number"
    )
    data_seed: int = Field(
        0, ge=0, le=2**31, description="of the rendered people; one for all runs of a table"
    )
    occlusion: float | None = Field(
        None, ge=0, le=1, description="rendered: share of images with an occluder"
    )
    view_overlap: float | None = Field(
        None, ge=0, le=1, description="rendered; 0: cameras see one side, 1: all sides"
    )
    camera_pattern: str = Field(
        "", description=r"own data: finds the camera in a path, as cam(\d+)"
    )
    split_seed: int = Field(
        0, ge=0, le=2**31, description="own data without splits: who trains, who is tested"
    )
    camera_rule: bool = Field(
        True, description="False: images from the query's own camera count, too"
    )
    epochs: int | None = Field(
        None, ge=0, le=10**5, description="0: evaluate the weights as they are"
    )
    batch: int | None = Field(None, ge=2, le=10**5, description="images in a step")
    lr: float | None = Field(
        None, ge=0, le=100, description="learning rate; loaded layers: a tenth of it"
    )
    warmup: int | None = Field(None, ge=0, le=10**7, description="steps from lr / 100 to lr")
    decay_at: float | None = Field(
        None, ge=0, le=1, description="share of the epochs at full lr; then lr / 10"
    )
    momentum: float = Field(0.9, ge=0, le=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="of SGD")
    dropout: float | None = Field(
        None, ge=0, le=0.99, description="paper, section 4: 0.47 on Market-1501, else 0.5"
    )
    flip: bool = Field(True, description="half of the training images, left to right")
    erasing: bool = Field(
        True, description="random erasing: the paper has it in Tables 1 and 3, not in 2"
    )
    held_out: int = Field(
        0,
        ge=0,
        le=10**5,
        description="training people kept out, and tested instead of the test people",
    )
    rerank: bool = Field(True, description="also report re-ranked numbers")
    threads: int = Field(0, ge=0, le=4096, description="0: all cores")
    precision: str | None = Field(None, description="float32 or bfloat16; None: as the device can")
    compile: bool | None = Field(None, description="torch.compile; None: no")
    device: str = Field("auto", description="auto, cpu or cuda")
    run_dir: str = Field("", description='"": a folder of runs/ named after the run')

    @classmethod
    def default(cls, name: str):
        """The value of a field that neither the user nor the profile sets."""
        return cls.model_fields[name].default

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, given: dict) -> dict:
        values = {name: value for name, value in given.items() if not _left_open(name, value)}
        for name, value in values.items():
            if isinstance(value, os.PathLike):  # in Python, a path may be a Path
                values[name] = os.fspath(value)
        profile = known("profile", values.get("profile", cls.default("profile")), PROFILES)
        benchmark = values.get("benchmark", cls.default("benchmark"))
        data = values.get("data", PROFILES[profile].get("data", "embedded"))
        benchmark = benchmark_name(benchmark, own=data != "embedded")
        values = defaults(profile, benchmark) | values
        known("variant", values["variant"], VARIANTS)
        known("attention form", values["form"], known_forms())
        if not {"sa1", "sa2"} & set(VARIANTS[values["variant"]]):
            values["form"] = "none"
        return values

    @model_validator(mode="after")
    def _check_together(self) -> "Config":
        known("recipe", self.recipe, RECIPES)
        known("backbone", self.backbone, BACKBONES)
        known("device", self.device, ("auto", "cpu", "cuda"))
        if self.precision:
            known("precision", self.precision, ("float32", "bfloat16"))
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                "device is cuda, and torch sees no CUDA device on this machine; use device=auto or "
                "device=cpu"
            )
        if self.recipe == "sa1_on_parts" and not {"parts", "sa1"} <= set(VARIANTS[self.variant]):
            raise InputError(
                f"recipe sa1_on_parts weighs the parts by SA1; {self.variant} lacks parts or SA1, "
                "use b_p_ds_sa12"
            )
        if not self.epochs and self.weights == "none":
            raise InputError(
                "epochs is 0 and weights is none, so there is nothing to evaluate; epochs=0 "
                "evaluates weights=FILE, the checkpoint of a run"
            )
        if self.data != "embedded" and knobs(self):
            raise InputError(
                f"{' and '.join(knobs(self))} can be turned where the benchmark is rendered; "
                f"data is {self.data}"
            )
        _check_own(self)
        return self


def _check_own(config: Config) -> None:
    """Raises InputError for settings of own data that are wrong or used with a benchmark."""
    if config.benchmark in LAYOUTS:
        for name in ("camera_pattern", "split_seed"):
            if getattr(config, name) != Config.default(name):
                raise InputError(
                    f"{name} is for data of your own, under a name of its own; benchmark is "
                    f"{config.benchmark}, whose files say it"
                )
    camera_regex(config.camera_pattern)


def configure(parameters: dict) -> Config:
    """A checked Config from {name: value}; text is converted to the type of the field.

    Raises InputError for an unknown parameter, variant, form, recipe, profile or value: one
    sentence that names what was found and what is allowed.
    """
    try:
        return Config(**parameters)
    except ValidationError as error:
        raise InputError(sentence(error)) from None


def sentence(error: ValidationError) -> str:
    """The first error, in one sentence."""
    first = error.errors()[0]
    for problem in error.errors():
        if problem["type"] == "extra_forbidden":
            return unknown_message("parameter", problem["loc"][-1], list(Config.model_fields))
    if first["type"] == "value_error":  # an InputError of our own
        return str(first["ctx"]["error"])
    name, found = first["loc"][-1], first["input"]
    field = Config.model_fields[name]
    kind = _kind(name)
    bounds = {k: getattr(m, k) for m in field.metadata for k in ("ge", "le") if hasattr(m, k)}
    if first["type"] in ("greater_than_equal", "less_than_equal"):
        number = int(float(found)) if kind is int else float(found)
        return f"{name} is {number}; expected between {bounds['ge']} and {bounds['le']}"
    if found is None:
        return f"{name} has no value; expected {kind.__name__}"
    return f"{name} is {found!r}; expected {kind.__name__}"


def _kind(name: str) -> type:
    """The type of a field without its "or None"."""
    annotation = Config.model_fields[name].annotation
    return next((k for k in (bool, int, float, str) if k.__name__ in str(annotation)), str)


def _left_open(name: str, value) -> bool:
    """Whether a value leaves an optional field open: None, "None" (papermill) or "" (Snakemake)."""
    if name not in Config.model_fields:
        return False
    optional = "None" in str(Config.model_fields[name].annotation)
    return optional and value in (None, "None", "")


def defaults(profile: str, benchmark: str) -> dict:
    """The settings of a run that sets only profile and benchmark: {name: value}."""
    own = {name: Config.default(name) for name in Config.model_fields}
    of_benchmark = {"dropout": LAYOUTS[benchmark].dropout if benchmark in LAYOUTS else OWN_DROPOUT}
    return own | {"data": "embedded", "weights": "none"} | of_benchmark | PROFILES[profile]


def knobs(config: Config) -> dict:
    """The renderer's settings that were given: {name: value}."""
    return {name: getattr(config, name) for name in KNOBS if getattr(config, name) is not None}


def run_folder(config: Config) -> Path:
    """The folder of a run's record and checkpoint.

    It is run_dir, or a folder of runs/ whose name ends in a hash of all settings.
    """
    if config.run_dir:
        return ROOT / config.run_dir
    settings = run_settings(config) | {"data": config.data}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:6]
    c = config
    named = (c.benchmark, c.profile, c.variant, c.form, c.recipe, f"s{c.seed}", digest)
    return ROOT / "runs" / "-".join(named)


def run_settings(config: Config) -> dict:
    """The settings that a run's numbers depend on: {name: value}.

    Settings that only say where things lie are not among them. Weights are named by their content.
    """
    usual = defaults(config.profile, config.benchmark)
    out = {}
    for name, value in config.model_dump().items():
        if name in NOT_NUMBERS or value is None:
            continue
        if name in ALWAYS or value != usual[name]:
            out[name] = value
    return out | {"weights": named(config.weights)}


def unusual(settings: dict) -> dict:
    """The settings of a record that differ from its profile: {name: value}, in Config's order.

    Left out are threads and the settings that a record's name always shows (benchmark, variant,
    form, recipe, profile, erasing, epochs, seed).
    """
    usual = defaults(settings["profile"], settings["benchmark"])
    out = {}
    for name, value in usual.items():
        if name in IN_EVERY_NAME or name in NOT_NUMBERS or name == "threads":
            continue
        if settings.get(name, value) != value:
            out[name] = settings[name]
    return out
