"""reidsa examine: redundancy of filters by hand, and what it writes about a real run."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.batches import to_input
from reidsa_utils.cli import main
from reidsa_utils.config import configure
from reidsa_utils.data import load_benchmark, load_images
from reidsa_utils.datasets.rendered import LABEL, plan, read_settings, render_shot
from reidsa_utils.evaluation import extract
from reidsa_utils.experiments import examine, map_measures
from reidsa_utils.experiments.nearest import read_nearest
from reidsa_utils.experiments.run import load_run, train
from reidsa_utils.metrics import evaluate_ranking
from reidsa_utils.model import ReIDNet
from reidsa_utils.reranking import rerank


def test_filter_redundancy_by_hand():
    x, y = torch.tensor([[1.0, -1, 1, -1], [1, 1, -1, -1]])
    unrelated = torch.stack([x, y]).view(1, 2, 2, 2)
    assert examine.filter_redundancy(unrelated) == pytest.approx((0, 1))
    assert examine.filter_redundancy(
        torch.stack([x, -3 * x + 2]).view(1, 2, 2, 2)
    ) == pytest.approx((1, 1 / 2))
    dead = torch.stack([x, y, torch.full_like(x, 5.0)]).view(1, 3, 2, 2)
    assert examine.filter_redundancy(dead) == pytest.approx(
        (0, 2 / 3)
    )  # a filter that never changes counts as none
    assert examine.filter_redundancy(torch.ones(1, 3, 2, 2)) == pytest.approx(
        (float("nan"), 0), nan_ok=True
    )
    # any map: against numpy
    f = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    r = np.corrcoef(f.transpose(0, 1).flatten(1).double().numpy())
    values = np.linalg.eigvalsh(r) / 4
    expected = (
        np.abs(r[~np.eye(4, dtype=bool)]).mean(),
        np.exp(-(values * np.log(values)).sum()) / 4,
    )
    assert examine.filter_redundancy(f) == pytest.approx(expected)


def test_a_finished_run(small_benchmark, tmp_path, capfd):
    run = tmp_path / "run"
    config = configure(
        {
            "profile": "smoke",
            "threads": 1,
            "epochs": 1,
            "form": "l1",
            "data": str(small_benchmark),
            "run_dir": str(run),
        }
    )
    record = train(config, progress=False)
    code = main(
        ["examine", str(run), "--data", str(small_benchmark), "--into", str(tmp_path / "out")]
    )
    assert code == 0, capfd.readouterr().err
    [found] = examine.read(tmp_path / "out")
    assert found["run"] in capfd.readouterr().out and found["identity"] == record["identity"]
    for vector in ("global", "parts"):  # the right re-ranking is the record's own
        for key in ("rank1", "mean_ap"):
            assert found["rerank"][vector]["two thirds"][key] == pytest.approx(
                record["metrics"][f"{vector}+rerank"][key], abs=1e-5
            )
        model, config, benchmark = load_run(run, str(small_benchmark))
        query, gallery = (
            extract(model, load_images(s.paths, config.height, config.width))
            for s in (benchmark.query, benchmark.gallery)
        )
        r = evaluate_ranking(
            rerank(query[vector], gallery[vector], integer_division=True),
            benchmark.query.ids,
            benchmark.gallery.ids,
            benchmark.query.cameras,
            benchmark.gallery.cameras,
        )
        assert found["rerank"][vector]["zero"]["mean_ap"] == pytest.approx(r.mean_ap, abs=1e-5)
    assert (
        all(0 < x < 1 for what in ("correlation", "effective") for x in found["filters"][what])
        and found["images"] == 255
    )
    assert (
        max(found["filters"]["effective"]) < 0.2 < max(found["filters"]["correlation"])
    )  # an untrained net's filters are much alike
    assert set(found["weights"]) == {"softmax", "l1", "softmax_mean", "sigmoid", "none"}
    assert all(
        len(v) == 4 and all(0 < x <= 1 for x in v)
        for w in found["weights"].values()
        for v in w.values()
    )
    assert found["weights"]["none"]["cells"] == pytest.approx([1] * 4)
    assert str(tmp_path) not in json.dumps(found)

    # The ranked lists: the first match stands where the record says.
    lists = tmp_path / "lists"
    words = ["examine", "--nearest", str(run), "--data", str(small_benchmark), "--into", str(lists)]
    assert main(words) == 0
    nearest = read_nearest(record, lists)
    ids = benchmark.gallery.ids[nearest] == benchmark.query.ids[:, None]
    other_camera = benchmark.gallery.cameras[nearest] != benchmark.query.cameras[:, None]
    first = np.array(record["metrics"]["parts"]["first_match"])
    assert nearest.shape == (len(first), 5) and (ids <= other_camera).all()
    for row, rank in zip(ids, first, strict=True):
        assert (np.flatnonzero(row) + 1)[:1].tolist() == ([rank] if 0 < rank <= 5 else [])


@pytest.mark.parametrize("name", ["market1501", "cuhk03_np_labeled"])  # .jpg and .png
def test_a_part_is_left_out_and_nothing_else(name, four_benchmarks):
    """The picture with nothing left out is the file; without a part its pixels change, and few others."""
    benchmark, settings = (
        load_benchmark(name, four_benchmarks[name]),
        read_settings(four_benchmarks[name]),
    )
    shots = {s.filename: s for s in plan(settings)}
    masks = map_measures.read_masks(benchmark, "query", benchmark.query.paths)
    tried = 0
    for path, mask in zip(benchmark.query.paths, masks, strict=True):
        shot = shots[path.rsplit("/", 1)[1]]
        [there] = load_images([path], *mask.shape)
        whole = map_measures.without_part(settings, shot, "")
        np.testing.assert_array_equal(whole, there)
        for part in ("hair", "backpack", "bag"):
            if (mask == LABEL[part]).mean() < 0.01:
                continue
            less = map_measures.without_part(settings, shot, part).astype(int)
            changed = np.abs(less - whole).max(2) > 24  # JPEG and blur move the others a little
            assert changed[mask == LABEL[part]].any() and changed[mask != LABEL[part]].mean() < 0.02
            assert (render_shot(settings, shot, {part})[1] != LABEL[part]).all()
            tried += 1
    assert tried >= 3


def test_maps_of_finished_runs(small_benchmark, tmp_path, capfd, monkeypatch):
    """`reidsa examine --maps`: every number against a plain computation of its own, on two short runs."""
    # Four of five seconds went into the curves, 1,280 forward passes of so many images.
    monkeypatch.setattr(map_measures, "SCORED", 16)
    names = {}
    for variant, form in (("b_p_ds", "none"), ("b_p_ds_sa2", "l1")):
        names[form] = str(tmp_path / form)
        train(
            configure(
                {
                    "profile": "smoke",
                    "threads": 1,
                    "epochs": 2,
                    "rerank": False,
                    "variant": variant,
                    "form": form,
                    "data": str(small_benchmark),
                    "run_dir": names[form],
                }
            ),
            progress=False,
        )
    code = main(
        [
            "examine",
            "--maps",
            names["l1"],
            names["none"],
            "--data",
            str(small_benchmark),
            "--into",
            str(tmp_path / "out"),
        ]
    )
    assert code == 0, capfd.readouterr().err
    found = {
        e["run"].split("-")[4]: e for e in examine.read(tmp_path / "out", ("overlap", "missing"))
    }
    assert (
        set(found) == {"none", "l1"}
        and found["none"]["overlap"] == {}
        and list(found["l1"]["overlap"]) == [found["none"]["run"]]
    )
    for e in found.values():
        for split in ("train", "test"):
            numbers = e[split]
            assert numbers["images"] == {"train": 207, "test": 54 + 255}[split]
            assert {
                name: len(v) for name, v in numbers.items() if name != "images"
            } == dict.fromkeys(
                (
                    "cells",
                    "on_person",
                    "negative",
                    "inside",
                    "person",
                    "parts",
                    "vertical",
                    "horizontal",
                    "none",
                ),
                4,
            )
            shares = ("cells", "on_person", "negative", "inside", "person", "parts", "none")
            assert all(0 <= v <= 1 for name in shares for v in numbers[name])
        assert e["scores"]["images"] == 16
        assert all(
            0 < v < 1
            for kind in ("map", "random")
            for v in e["scores"][kind]["deletion"] + e["scores"][kind]["insertion"]
        )
    alone = ["--maps", names["l1"], "--data", str(small_benchmark), "--into", str(tmp_path / "out")]
    assert main(["examine", *alone]) == 0, capfd.readouterr().err
    again = {e["run"]: e for e in examine.read(tmp_path / "out", ("overlap", "missing"))}
    assert again == {
        e["run"]: e for e in found.values()
    }  # examined alone, it keeps what it was compared with
    [against] = found["l1"]["overlap"].values()
    assert set(against) == {"same", "at", "chance"} and all(len(v) == 4 for v in against.values())
    a, b = (
        torch.tensor([[[1.0, 3], [0, 0]], [[-1, 0], [0, 2]]]),
        torch.tensor([[[2.0, 2], [0, 0]], [[1, 1], [1, 1]]]),
    )
    [by_hand] = map_measures.overlaps([a], {"other": [b]}).values()
    assert by_hand == {
        "same": pytest.approx([(3 / 4 + 1 / 4) / 2]),
        "at": pytest.approx([(2 + 1) / 2]),
        "chance": pytest.approx([(2 / 4 + 0) / 2]),
    }
    mask = next((small_benchmark / "part_masks" / "bounding_box_train").glob("*.png"))
    whole = mask.read_bytes()
    mask.unlink()
    assert main(["examine", *alone]) == 1
    assert "is missing or not the part mask of its image" in capfd.readouterr().err
    mask.write_bytes(whole)
    # the missing parts of one run, word for word
    e, (model, config, benchmark) = (
        found["l1"]["missing"],
        load_run(names["l1"], str(small_benchmark)),
    )
    vectors = [
        extract(model, load_images(s.paths, config.height, config.width))["parts"]
        for s in (benchmark.query, benchmark.gallery)
    ]
    d = ((vectors[0][:, None] - vectors[1][None]) ** 2).sum(2)
    r = evaluate_ranking(
        d,
        benchmark.query.ids,
        benchmark.gallery.ids,
        benchmark.query.cameras,
        benchmark.gallery.cameras,
    )
    np.testing.assert_allclose(
        np.array(e["before"]["parts"], float), r.average_precision, atol=2e-4
    )
    assert e["queries"] == benchmark.query.ids.tolist() and {"hair", "occluder"} <= set(e["after"])
    masks = map_measures.read_masks(benchmark, "query", benchmark.query.paths)
    for part, after in e["after"].items():
        assert after["index"] == [
            k for k, mask in enumerate(masks) if (mask == LABEL[part]).mean() >= 0.005
        ]
        assert len(after["parts"]) == len(after["global"]) == len(after["index"])
        before = [e["before"]["parts"][k] for k in after["index"]]
        assert (
            np.abs(np.array(after["parts"], float) - before).max() > 0
        )  # it was rendered again, without the part
    for stage in range(4):
        for most, least, mask in zip(e["most"][stage], e["least"][stage], masks, strict=True):
            seen = [p for p in map_measures.REMOVABLE if (mask == LABEL[p]).mean() >= 0.005]
            assert (most in seen and least in seen) if most else not seen or not least
            assert len(seen) < 2 or not most or most != least


def test_on_the_people_of_other_populations(tmp_path, capfd):
    """A network trained on one population, tested on another: what training's own evaluation gives there; named seeds are kept."""
    settings = {"profile": "smoke", "threads": 1, "epochs": 1, "form": "l1", "rerank": "false"}
    record = train(configure(settings | {"run_dir": str(tmp_path / "run")}), progress=False)
    assert (
        main(
            [
                "examine",
                "--populations",
                "0,3",
                str(tmp_path / "run"),
                "--into",
                str(tmp_path / "out"),
            ]
        )
        == 0
    ), capfd.readouterr().err
    other = train(
        configure(
            settings
            | {
                "epochs": 0,
                "data_seed": 3,
                "weights": str(tmp_path / "run" / "checkpoint.pt"),
                "run_dir": str(tmp_path / "there"),
            }
        ),
        progress=False,
    )
    [found] = examine.read(tmp_path / "out", ("populations",))
    assert found["identity"] == record["identity"] and set(found["populations"]) == {"0", "3"}
    for seed, expected in (("0", record), ("3", other)):
        there = found["populations"][seed]
        assert (
            there["fingerprint"] == expected["identity"]["fingerprint"]
            and there["query_ids"] == expected["query_ids"]
        )
        for vector in ("global", "parts"):
            assert there["metrics"][vector]["mean_ap"] == pytest.approx(
                expected["metrics"][vector]["mean_ap"], abs=1e-5
            )
            assert (
                there["metrics"][vector]["first_match"]
                == expected["metrics"][vector]["first_match"]
            )
    assert (
        main(
            [
                "examine",
                "--saturation",
                str(tmp_path / "run" / "checkpoint.pt"),
                "--backbone",
                "thin",
                "--into",
                str(tmp_path),
            ]
        )
        == 1
    )
    assert (
        "checkpoint.pt is the checkpoint of a run; expected weights from before"
        in capfd.readouterr().err
    )
    assert other["metrics"]["parts"]["mean_ap"] != record["metrics"]["parts"]["mean_ap"]
    assert (
        main(
            [
                "examine",
                "--populations",
                "4",
                str(tmp_path / "run"),
                "--into",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert set(examine.read(tmp_path / "out", ("populations",))[0]["populations"]) == {
        "0",
        "3",
        "4",
    }


def test_attention_before_training(small_benchmark, tmp_path, capfd):
    """The numbers of notebook 08's table, from maps worked out here."""
    assert (
        main(
            [
                "examine",
                "--saturation",
                "none",
                "--data",
                str(small_benchmark),
                "--size",
                "192x96",
                "--into",
                str(tmp_path),
            ]
        )
        == 0
    ), capfd.readouterr().err
    [found] = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert (
        found["backbone"] == "mobilenet_v2"
        and found["began"] == "none"
        and found["source"] == "rendered"
        and found["images"] == 64
    )
    torch.manual_seed(0)
    net = ReIDNet(2, "b_ds_sa2", "softmax", backbone="mobilenet_v2").eval()
    paths = load_benchmark("market1501", small_benchmark).train.paths
    paths = [paths[k] for k in np.linspace(0, len(paths) - 1, 64).astype(int)]
    with torch.no_grad():
        maps = net.feature_maps(to_input(load_images(paths, 192, 96)))
    for stage, f in enumerate(maps):
        p = torch.softmax(f.sum(1).flatten(1), dim=1)
        assert found["weights"]["softmax"]["largest"][stage] == pytest.approx(
            p.amax(1).mean().item(), rel=1e-4
        )


def test_bad_input(tmp_path, reidsa):
    for words, expected in (
        ([], "no run is named"),
        (["--populations", "1,x", tmp_path], "--populations is 1,x; expected data seeds"),
        (["--saturation", "none", "--size", "384"], "--size is 384; expected HEIGHTxWIDTH"),
        (["--saturation", "no.pt"], "no weights at no.pt"),
        (
            ["--saturation", "imagenet", "--backbone", "thin"],
            "no ImageNet weights for the thin backbone",
        ),
    ):
        assert_one_sentence(reidsa("examine", *words, "--into", tmp_path / "into"), expected)
    assert_one_sentence(
        reidsa("examine", tmp_path),
        "no record.json in",
        "name folders of finished runs",
    )
    assert_one_sentence(
        reidsa("examine", "--maps", tmp_path),
        "no record.json in",
        "name folders of finished runs",
    )
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(
        InputError, match="x.json does not hold what reidsa examine writes; name another folder"
    ):
        examine.read(tmp_path)
    with pytest.raises(InputError, match="no folder .*none with what reidsa examine wrote"):
        examine.read(tmp_path / "none")


def test_runs_of_one_setting():
    """07 compares forms seed by seed: other settings, two runs of one seed, or no run without SA are refused, not averaged."""

    def entry(form, seed, **more):
        return {
            "run": f"{form}-{seed}",
            "identity": {
                "form": form,
                "seed": seed,
                "variant": form,
                "fingerprint": "a",
                "epochs": 10,
            }
            | more,
        }

    three = [entry("none", 0), entry("l1", 0), entry("l1", 1, threads=2)]
    assert examine.of_one_setting(three, "x") == {
        "none": {0: three[0]},
        "l1": {0: three[1], 1: three[2]},
    }
    for more, words in (
        (entry("l1", 2, epochs=3), "differ in epochs; keep the runs of one setting"),
        (entry("l1", 0), "both of form l1, seed 0"),
    ):
        with pytest.raises(InputError, match=words):
            examine.of_one_setting([*three, more], "x")
    with pytest.raises(InputError, match=r"no run without SA in x \(it holds l1\)"):
        examine.of_one_setting(three[1:], "x")


def test_runs_are_not_mixed(small_benchmark, tmp_path, reidsa):
    """A checkpoint of another run, two runs of one name, a folder that cannot be made: refused before anything is written."""
    other = shutil.copytree(small_benchmark, tmp_path / "other" / small_benchmark.name)
    max((other / "bounding_box_test").iterdir()).unlink()
    for name, data in (("a", small_benchmark), ("b", other)):  # equal settings, other images
        train(
            configure(
                {
                    "profile": "smoke",
                    "threads": 1,
                    "epochs": 1,
                    "rerank": False,
                    "data": str(data),
                    "run_dir": str(tmp_path / name),
                }
            ),
            progress=False,
        )
    out = tmp_path / "out"
    done = reidsa(
        "examine",
        tmp_path / "a",
        tmp_path / "b",
        "--data",
        small_benchmark,
        "--into",
        out,
    )
    assert_one_sentence(
        done, "are both called market1501-rendered-smoke-b_p_ds_sa2-softmax-paper-erasing-e1-s0"
    )
    shutil.copy(tmp_path / "b" / "checkpoint.pt", tmp_path / "a" / "checkpoint.pt")
    done = reidsa("examine", tmp_path / "a", "--data", small_benchmark, "--into", out)
    assert_one_sentence(done, "are not of one run")
    done = reidsa("examine", tmp_path / "b", "--into", tmp_path / "a" / "record.json")
    assert_one_sentence(done, "--into", "name another folder")
    assert list(out.iterdir()) == []
    # The second run was trained on real data: told before the first is looked at.
    found = json.loads((tmp_path / "b" / "record.json").read_text())
    (tmp_path / "b" / "record.json").write_text(json.dumps(found | {"source": "real"}))
    for options in ([], ["--maps"], ["--populations", "5"]):
        runs = [tmp_path / "a", tmp_path / "b"]
        done = reidsa("examine", *options, *runs, "--into", out)
        assert_one_sentence(done, f"{tmp_path / 'b'} was trained on real data; name it: --data")
    assert list(out.iterdir()) == []
