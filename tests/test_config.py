"""What a run is known by: identities and names that never change, and a name for every setting that differs."""

import json
from pathlib import Path

import pytest

from reidsa_utils import InputError
from reidsa_utils.config import (
    ALWAYS,
    Config,
    configure,
    defaults,
    run_folder,
    run_settings,
    unusual,
)
from reidsa_utils.experiments.records import published_name, read_record
from reidsa_utils.support.files import ROOT


def test_committed_records_keep_identity_name_and_folder():
    """All of them rebuilt from their settings, against the folder names of the version that made them."""
    folders = json.loads(Path(__file__).with_name("committed_runs.json").read_text())
    assert len(folders) == 115
    for name, folder in folders.items():
        record = read_record(ROOT / "results" / f"{name}.json")
        settings = {
            k: v for k, v in record["config"].items() if k != "device"
        }  # one record says it
        config = configure(
            settings | {"data": "real" if record["source"] == "real" else "embedded"}
        )
        assert run_settings(config) == {
            k: v for k, v in record["identity"].items() if k != "fingerprint"
        }, name
        assert run_folder(config).name == folder and published_name(record) == name


def test_a_later_setting_changes_no_old_identity():
    plain, held = configure({"profile": "demo"}), configure({"profile": "demo", "held_out": 5})
    assert "held_out" not in run_settings(plain) and run_settings(held) == run_settings(plain) | {
        "held_out": 5
    }
    assert set(run_settings(plain)) == set(ALWAYS)


def name_of(**settings):
    config = configure({"profile": "demo"} | settings)
    return published_name({"config": run_settings(config), "source": "rendered"})


@pytest.mark.parametrize(
    ("settings", "token"),
    [
        ({"lr": 0.0125}, "lr0.0125"),
        ({"data_seed": 200}, "data_seed200"),
        ({"backbone": "mobilenet_v2"}, "backbone_mobilenet_v2"),
        ({"recipe": "detached"}, "detached"),
        ({"recipe": "temperature_100"}, "temperature_100"),
        ({"held_out": 7}, "held_out7"),
        ({"camera_rule": False}, "no_camera_rule"),
        ({"flip": False}, "no_flip"),
        ({"compile": True}, "compile"),
        ({"precision": "bfloat16"}, "precision_bfloat16"),
        ({"occlusion": 0.0}, "occlusion0"),
        ({"weight_decay": 0.0}, "weight_decay0"),
        ({"dropout": 0.5}, "dropout0.5"),
        ({"height": 192}, "height192"),
    ],
)
def test_every_setting_that_differs_is_named(settings, token):
    assert token in name_of(**settings).split("-") and token not in name_of().split("-")


def test_no_setting_is_forgotten():
    """Each field of Config that the numbers depend on, changed alone, changes the name; the folder's, too."""
    other = {
        "benchmark": "dukemtmc_reid",
        "variant": "b_p_ds_sa12",
        "form": "l1",
        "recipe": "released",
        "profile": "laptop",
        "seed": 7,
        "backbone": "resnet18",
        "weights": "checkpoint.pt 0123456789abcdef",
        "height": 192,
        "width": 48,
        "scale": 0.2,
        "data_seed": 3,
        "occlusion": 0.5,
        "view_overlap": 0.5,
        "epochs": 3,
        "batch": 16,
        "lr": 0.1,
        "warmup": 7,
        "decay_at": 0.5,
        "momentum": 0.8,
        "weight_decay": 1e-3,
        "dropout": 0.1,
        "flip": False,
        "erasing": False,
        "held_out": 3,
        "camera_rule": False,
        "precision": "bfloat16",
        "compile": True,
    }
    own = {"camera_pattern": r"cam(\d+)", "split_seed": 3}  # of data of one's own alone
    fields = set(Config.model_fields) - {"data", "device", "rerank", "run_dir", "threads"}
    assert set(other) | set(own) == fields, "a new setting: say here how it differs"
    mydata = {"benchmark": "mydata", "data": "somewhere"}
    cases = [{}, *({key: value} for key, value in other.items()), mydata]
    cases += [mydata | {key: value} for key, value in own.items()]
    names = {name_of(**settings) for settings in cases}
    folders = {run_folder(configure({"profile": "demo"} | settings)).name for settings in cases}
    assert len(names) == len(folders) == len(cases)


def test_settings_of_own_data_change_no_identity_of_others():
    """They stand in an identity only where they are not as usual."""
    plain, own = configure({"profile": "demo"}), configure(OWN | {"profile": "demo"})
    assert set(run_settings(plain)) == set(run_settings(own)) == set(ALWAYS)
    given = {"camera_pattern": r"cam(\d+)", "split_seed": 2, "camera_rule": False}
    told = configure(OWN | {"profile": "demo"} | given)
    assert run_settings(told) == run_settings(own) | given
    assert own.dropout == 0.5  # section 4: of all but Market-1501


NEAR = "market Market-1501 MARKET1501 markt1501 makret1501 dukemtmc duke_reid DukeMTMC-reID cuhk03"


@pytest.mark.parametrize("name", [*NEAR.split(), "cuhk03_np", "cuhk03_np_labelled"])
def test_a_near_miss_of_a_benchmark_is_no_name_of_own_data(name):
    with pytest.raises(InputError, match=f"unknown benchmark '{name}'; known: .*did you mean "):
        configure({"benchmark": name, "data": "somewhere"})


@pytest.mark.parametrize("name", ["mydata", "my_market", "market1501_night", "MARS-mini", "사람들"])
def test_names_of_own_data(name):
    config = configure({"benchmark": name, "data": "somewhere"})
    assert run_folder(config).name.startswith(f"{name}-demo-b_p_ds_sa2")


def test_names_of_weights():
    photographs = {"profile": "photographs", "data": "embedded"}
    assert "weights" not in name_of(**photographs) and "from_scratch" in name_of(
        **photographs, weights="none"
    )
    assert "weights_01234567" in name_of(**photographs, weights="state_dict 0123456789abcdef")


def test_the_profile_photographs():
    c = configure({"profile": "photographs"})
    assert (c.backbone, c.weights, c.data, c.height, c.width) == (
        "mobilenet_v2",
        "imagenet",
        "real",
        192,
        96,
    )
    assert (c.batch, c.epochs, c.lr, c.warmup, c.decay_at, c.flip) == (32, 12, 0.1, 200, 0.7, True)
    assert (
        unusual(run_settings(c)) == {} and defaults("photographs", "market1501")["dropout"] == 0.47
    )


OWN = {"benchmark": "mydata", "data": "somewhere"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeed": 3}, "unknown parameter 'seeed'; known: benchmark, data.*; did you mean seed?"),
        ({"seed": None}, "seed has no value; expected int"),
        ({"seed": ""}, "seed is ''; expected int"),
        ({"epochs": 7.5}, "epochs is 7.5; expected int"),
        ({"lr": float("nan")}, "lr is nan; expected between 0 and 100"),
        ({"flip": "maybe"}, "flip is 'maybe'; expected bool"),
        ({"precision": "half"}, "unknown precision 'half'; known: float32, bfloat16"),
        ({"variant": "b", "form": "sofmax"}, "unknown attention form 'sofmax'.*mean softmax?"),
        ({"benchmark": ["market1501"]}, r"unknown benchmark \['market1501'\]"),
        ({"benchmark": "mydata"}, "unknown benchmark 'mydata'.*need their folder or CSV"),
        ({"benchmark": "markt1501", "data": "x"}, "unknown benchmark 'markt1501'.*mean market1501"),
        ({"benchmark": "my data", "data": "x"}, "benchmark is 'my data'; expected a name of lett"),
        ({"camera_pattern": "c(1)"}, "camera_pattern is for data of your own.*benchmark is market"),
        ({"split_seed": 1, "data": "x"}, "split_seed is for data of your own"),
        (
            OWN | {"camera_pattern": "c("},
            r"camera_pattern 'c\(' is not a regular expression \(missing",
        ),
        (OWN | {"camera_pattern": "(c)(1)"}, "has 2 groups; expected one, which finds the camera"),
    ],
)
def test_bad_values_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        configure(settings)


def test_text_becomes_the_type_of_the_field():
    """papermill and the command line hand over text."""
    texts = {"epochs": "7", "lr": "1e-2", "erasing": "False", "flip": "true", "width": "None"}
    config = configure(texts | {"batch": ""})
    assert (config.epochs, config.lr, config.erasing, config.flip) == (7, 0.01, False, True)
    assert (config.width, config.batch) == (32, 32)  # as the profile has them


def test_run_folders_tell_settings_apart():
    changes = (
        {},
        {"erasing": False},
        {"epochs": 3},
        {"data_seed": 1},
        {"data": "elsewhere"},
        {"seed": 1},
    )
    assert len({run_folder(configure(p)) for p in changes}) == 6
    assert run_folder(configure({"run_dir": "runs/x"})) == ROOT / "runs" / "x"


def test_a_profile_and_a_variant_without_attention():
    config = configure({"profile": "paper", "variant": "b_p_ds", "form": "softmax"})
    assert config.form == "none"  # no SA in this variant
    size = (config.height, config.width, config.batch, config.backbone, config.data)
    assert size == (384, 128, 48, "resnet50", "real")
