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
from reidsa_utils.experiments.grid import EVIDENCE, queue
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
        "precision": "bfloat16",
        "compile": True,
    }
    fields = set(Config.__dataclass_fields__) - {"data", "device", "rerank", "run_dir", "threads"}
    assert set(other) == fields, "a new setting: say here how it differs"
    names = {name_of(), *(name_of(**{key: value}) for key, value in other.items())}
    folders = {
        run_folder(configure({"profile": "demo"} | settings)).name
        for settings in ({}, *({k: v} for k, v in other.items()))
    }
    assert len(names) == len(folders) == 1 + len(other)


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


def test_the_long_lists_name_every_run_once():
    """Within a folder of results/ no two runs of the lists share a name, so that each can be published."""
    names, total = {}, 0
    for name, entry in EVIDENCE.items():
        for line in queue([name]):
            config = configure(dict(word.split("=", 1) for word in line.split()))
            published = published_name(
                {
                    "config": run_settings(config),
                    "source": "real" if config.data == "real" else "rendered",
                }
            )
            names.setdefault(entry["into"], set()).add(published)
            total += 1
    assert sum(map(len, names.values())) == total
    assert {name: len(queue([name])) for name in EVIDENCE} == {
        "rates": 36,
        "causes": 21,
        "parts": 6,
        "backbone": 3,
        "photographs": 9,
        "photographs_rates": 9,
        "photographs_norm": 1,
        "table3": 48,
        "table2": 39,
        "populations": 45,
        "occlusion": 18,
        "view_overlap": 18,
    }
    with pytest.raises(InputError, match="unknown list of runs 'rate'; known: rates"):
        queue(["rate"])
    with pytest.raises(InputError, match="unknown parameter 'dta'"):
        queue(["rates"], {"dta": "real"})
    assert queue(["photographs"], {"weights": "w.pt"})[0].endswith("weights=w.pt")
