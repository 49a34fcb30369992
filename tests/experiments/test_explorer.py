"""`reidsa explore`: its numbers are the record's, its maps add up, its controls do what they say, in Chromium from disk."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, need

from reidsa_utils import InputError, reranking
from reidsa_utils.attention import attention_weights, effective_cells
from reidsa_utils.batches import to_input
from reidsa_utils.cam import class_activation_maps
from reidsa_utils.cli import main
from reidsa_utils.config import configure
from reidsa_utils.data import Split, load_images, without_camera_rule
from reidsa_utils.datasets.rendered import Settings, read_settings
from reidsa_utils.evaluation import extract, metrics_of
from reidsa_utils.experiments.examine import open_run
from reidsa_utils.experiments.explorer import features as explorer_features
from reidsa_utils.experiments.explorer import lists as explorer_lists
from reidsa_utils.experiments.explorer import maps as explorer_maps
from reidsa_utils.experiments.explorer import network as explorer_network
from reidsa_utils.experiments.explorer import page as explorer_page
from reidsa_utils.experiments.explorer import pictures as explorer_pictures
from reidsa_utils.experiments.explorer import runs as explorer_runs
from reidsa_utils.experiments.map_measures import missing_parts
from reidsa_utils.experiments.run import train
from reidsa_utils.metrics import euclidean, evaluate_ranking
from reidsa_utils.model import ReIDNet

QUERIES = 6
STORED = "market1501-rendered-laptop-b_p_ds-none-paper-erasing-e10-s3"


# ---- without a browser


@pytest.mark.parametrize(("variant", "kind"), [("b_p_ds_sa12", "parts"), ("b_ds", "global")])
def test_a_similarity_map_sums_to_the_similarity(variant, kind):
    """Against the vectors themselves, and position by position in a loop."""
    torch.manual_seed(0)
    model = ReIDNet(4, variant, "l1", backbone="thin").eval()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 96, 32, 3), np.uint8)
    stage4 = explorer_maps.look_at(model, images)["stage4"]
    vectors = torch.from_numpy(extract(model, images)[kind])
    parts = model.parts if kind == "parts" else 1
    maps = explorer_maps.similarity_maps(stage4, vectors.roll(1, 0), parts)

    others = vectors.roll(1, 0)
    if kind == "parts":
        expected = (vectors * others).sum(1)  # six stripes of unit length
    else:
        expected = torch.cosine_similarity(vectors, others)
    torch.testing.assert_close(maps.sum((1, 2)), expected)
    # One image with several, on either side, as the page wants them.
    one = explorer_maps.similarity_maps(stage4[1:2], vectors[[0, 0]], parts)
    torch.testing.assert_close(one, maps[[1, 1]])
    one = explorer_maps.similarity_maps(stage4[[1, 1]], vectors[:1], parts)
    torch.testing.assert_close(one, maps[[1, 1]])
    h, w = maps.shape[1:]
    for i, j in ((0, 0), (h - 1, w - 1), (2, 1)):
        k = i * parts // h  # the stripe
        rows = slice(k * h // parts, (k + 1) * h // parts)
        other = torch.nn.functional.normalize(vectors.view(4, parts, -1)[0, k], dim=0)
        # A vector is the mean over its stripe, so each position has a share in the product.
        length = stage4[1, :, rows].mean((1, 2)).norm()
        share = stage4[1, :, i, j] @ other / length / (h // parts * w)
        torch.testing.assert_close(maps[1, i, j], share)


def unpacked(packed, shapes, dtype):
    values = np.frombuffer(base64.b64decode(packed["data"]), dtype).astype(float)
    ends = np.cumsum([h * w for h, w in shapes])
    return np.split(values, ends[:-1])


def test_maps_and_scores_survive_packing():
    rng = np.random.default_rng(0)
    shapes = [(6, 2), (3, 1), (4, 4)]
    maps = [rng.normal(size=s) * 10.0**k for k, s in enumerate(shapes)]
    maps[1][:] = -1  # no position speaks for the class
    packed = explorer_maps.packed_maps(maps)
    codes = unpacked(packed, shapes, np.uint8)
    for values, code, top in zip(maps, codes, packed["top"], strict=True):
        positive = np.clip(values, 0, None).ravel()
        assert np.abs(top * (code / 255) ** 2 - positive).max() <= 0.005 * max(positive.max(), 0)

    # Scores of thousands that differ by less than one at the top: where exp(A / T) is decided.
    scores = [np.array([[3787.0, 3786.5], [3700.0, 105.5]]), rng.normal(size=(12, 4)) * 300]
    scores.append(np.full((2, 2), 7.0))
    shapes = [s.shape for s in scores]
    packed = explorer_maps.packed_scores([s.astype(np.float32) for s in scores])
    below = unpacked(packed, shapes, "<f2")
    for values, code, top, distance in zip(
        scores, below, packed["top"], packed["range"], strict=True
    ):
        for temperature in (0.5, 1, 10, 300, 1e5):
            exact = torch.from_numpy(values.ravel() / temperature).softmax(0).numpy()
            found = torch.from_numpy((top - code * distance) / temperature).softmax(0).numpy()
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-3)


def test_int8_vectors_keep_distances():
    vectors = np.random.default_rng(0).gamma(0.5, size=(20, 512)).astype(np.float32)
    codes, scales = explorer_network.as_int8(vectors)
    assert codes.dtype == np.int8
    restored = scales[:, None] * codes
    assert (np.abs(restored - vectors) <= scales[:, None] / 2 + 1e-6).all()
    np.testing.assert_allclose(
        euclidean(vectors[:5], restored), euclidean(vectors[:5], vectors), rtol=0.02, atol=0.5
    )


def test_the_queries_that_are_chosen():
    """Half are evenly spaced; the rest are those that differ most, and the hardest."""
    rng = np.random.default_rng(0)
    precision = rng.uniform(0.3, 0.6, (2, 40))
    precision[:, 7] = 0.01
    precision[:, 14] = 0.02, 0.98
    precision[:, 20] = np.nan  # without a match
    chosen = explorer_lists.choose_queries(precision, 40, 8)
    assert list(chosen) == sorted(chosen) and len(chosen) == 8
    assert chosen[0] == chosen[39] == "evenly spaced"
    assert list(chosen.values()).count("evenly spaced") == 4
    assert chosen.get(14) == "differ" and chosen.get(7) == "hard" and 20 not in chosen
    assert list(explorer_lists.choose_queries(precision, 40, 40)) == list(range(40))


def test_what_counts_in_a_list():
    """Ten ranks have maps: what is left out lies between them and does not count."""
    #             junk, own camera, hit, others ...
    ids = np.array([-1, 5, 5, *range(10, 30)])
    cameras = np.array([1, 1, 2, *[1] * 20])
    query = Split(["q.jpg"], np.array([5]), np.array([1]))
    people = explorer_lists.People("", "own", query, Split([""] * 23, ids, cameras))
    assert [g for g in range(23) if people.is_left_out(0, g)] == [0, 1]
    assert people.matches(0).tolist() == [2]
    shown = explorer_lists.beginning(np.arange(23.0), {}, 0)
    assert explorer_lists.mapped(shown, people, 0) == list(range(12))
    nobody = replace(people, labelled=False)
    assert explorer_lists.mapped(shown, nobody, 0) == list(range(10))
    without_rule = replace(people, camera_rule=False)
    assert without_rule.matches(0).tolist() == [1, 2]
    assert explorer_lists.mapped(shown, without_rule, 0) == list(range(11))


def test_images_that_every_network_has_maps_of():
    """The first that counts of each list, and its best match, however far down it stands."""
    ids = np.array([-1, 5, 7, *range(10, 90), 5, 5])
    cameras = np.array([1, 1, 1, *[1] * 80, 2, 3])
    query = Split(["q.jpg"], np.array([5]), np.array([1]))
    people = explorer_lists.People("", "own", query, Split([""] * 85, ids, cameras))
    one, other = np.arange(85.0), np.arange(85.0)[::-1].copy()
    assert explorer_lists.best_match(one, people, 0) == 83
    assert explorer_lists.best_match(other, people, 0) == 84
    lists = [explorer_page.list_of(row, {}, people, 0, 0) for row in (one, other)]
    assert [shown["best"] for shown in lists] == [83, 84]
    assert explorer_lists.compared(lists, people, 0) == [2, 83, 84]
    nobody = replace(people, labelled=False)
    assert explorer_lists.best_match(one, nobody, 0) is None
    lists = [explorer_page.list_of(row, {}, nobody, 0, 0) for row in (one, other)]
    assert explorer_lists.compared(lists, nobody, 0) == [0, 84]


def test_whom_the_queries_find_first():
    """Six queries, by hand: groups of two wear the same clothes: (5, 6), (7, 8)."""
    ids = np.array([5, 6, 7, 8, 0, 5])
    cameras = np.array([2, 1, 1, 1, 1, 1])
    query = Split([""] * 6, np.array([5, 5, 5, 7, 5, 9]), np.array([1, 1, 1, 2, 1, 1]))
    settings = Settings(look_alikes=2)
    people = explorer_lists.People(
        "", "rendered", query, Split([""] * 6, ids, cameras), settings=settings
    )
    distances = np.array(
        [
            [1, 2, 3, 4, 5, 0],  # its own camera does not count: a hit
            [2, 1, 3, 4, 5, 0],  # in the same clothes
            [2, 3, 1, 4, 5, 0],  # 7 is of another group
            [1, 2, 3, 0, 5, 6],  # 8 is of its group
            [2, 3, 4, 5, 1, 0],  # a distractor wears nobody's clothes
            [0, 1, 2, 3, 4, 5],  # without a match: not counted
        ],
        float,
    )
    assert explorer_lists.whom_first(distances, people) == "hamam-"
    own = replace(people, settings=None)
    assert explorer_lists.whom_first(distances, own) == "hmmmm-"
    without_rule = replace(people, camera_rule=False)
    without = explorer_lists.whom_first(distances, without_rule)
    assert explorer_lists.Ranking({}, {}, without).at_rank_1 == {"hit": 4, "alike": 1, "miss": 0}
    assert explorer_lists.whom_first(distances, replace(people, labelled=False)) == ""


def test_re_ranking_needs_neighbours_and_memory():
    def said(queries, gallery):
        splits = [Split([""] * n, np.zeros(n, int), np.zeros(n, int)) for n in (queries, gallery)]
        return explorer_lists.why_not_reranked(explorer_lists.People("", "own", *splits))

    assert said(5, 21) == said(3368, 15913) == ""
    assert said(5, 20) == "Re-ranking needs more than 20 gallery images."
    assert said(11_659, 82_161) == "Not re-ranked: for 93,820 images that takes 35 GB of memory."


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two networks of smoke size, one with SA, trained on the same rendered people: {name: folder}."""
    root = tmp_path_factory.mktemp("runs")
    folders = {}
    for variant, form in (("b_p_ds", "none"), ("b_p_ds_sa2", "softmax")):
        folders[form] = root / f"{variant}-{form}"
        settings = {"profile": "smoke", "variant": variant, "form": form, "epochs": 1, "threads": 1}
        train(configure(settings | {"run_dir": str(folders[form])}), progress=False)
    return folders


@pytest.fixture(scope="module")
def opened(runs):
    """{form: (record, model, config, benchmark)}."""
    return {form: open_run(folder) for form, folder in runs.items()}


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The page of both."""
    out = tmp_path_factory.mktemp("explorer") / "page"
    explorer_runs.explore_runs([str(folder) for folder in runs.values()], out, QUERIES)
    return out


def read(page, name):
    """What a file of data hands to the page."""
    text = (page / "data" / f"{name}.js").read_text()
    content = json.loads(text[text.index(",") + 1 : text.rindex(")")])
    if isinstance(content, str):
        content = json.loads(gzip.decompress(base64.b64decode(content)))
    return content


def test_the_lists_are_the_record_s(page, opened):
    """Average precision and first match of every query shown, plain and re-ranked; and the list itself, walked down."""
    index = read(page, "index")
    assert len(index["queries"]) == QUERIES
    for k, (record, *_) in enumerate(opened.values()):
        for query in index["queries"]:
            for name, key in (("plain", "parts"), ("reranked", "parts+rerank")):
                shown = query["lists"][k][name]
                metrics = record["metrics"][key]
                assert shown["ap"] == metrics["average_precision"][query["number"]]
                assert shown["first"] == metrics["first_match"][query["number"]]
                assert len(shown["images"]) == len(set(shown["images"])) == explorer_lists.LISTED
                assert shown["distances"] == sorted(shown["distances"])
                rank, first = 0, 0
                for g in shown["images"]:
                    _, identity, camera = index["gallery"][str(g)]
                    if identity == -1 or (identity, camera) == (query["id"], query["camera"]):
                        continue
                    rank += 1
                    if identity == query["id"]:
                        first = rank
                        break
                assert first in (shown["first"], 0)
                assert first or shown["first"] > rank
            assert query["file"] and (page / query["file"]).is_file()
        network = index["networks"][k]
        assert network["record"]["plain"]["mean_ap"] == mean_ap_of(record)
        for own in network["here"].values():
            assert own["at_rank_1"]["hit"] == round(own["rank1"] * sum(own["at_rank_1"].values()))
    assert {index["gallery"][str(g)][1] for q in index["queries"] for lists in q["lists"] for g in lists["plain"]["images"]} >= {-1}  # junk is shown  # fmt: skip
    for file, *_ in index["gallery"].values():
        assert (page / file).is_file()
    assert not (page / ".gitignore").exists()  # rendered people may be passed on
    assert index["source"] == "rendered"


def mean_ap_of(record):
    return record["metrics"]["parts"]["mean_ap"]


def test_a_run_without_the_camera_rule(opened):
    """Its lists, too, are as its record's: images of the query's own camera are matches."""
    _, model, config, benchmark = opened["none"]
    benchmark = without_camera_rule(benchmark)
    vectors = []
    for split in (benchmark.query, benchmark.gallery):
        images = load_images(split.paths, config.height, config.width)
        vectors.append(extract(model, images)["parts"])
    people = explorer_runs.people_of(benchmark)
    junk = np.zeros((people.junk, vectors[1].shape[1]), np.float32)
    network = explorer_lists.Network("", vectors[0], np.concatenate([vectors[1], junk]))
    rankings = explorer_lists.rank(network, people, [3])
    expected = metrics_of(euclidean(*vectors), benchmark)
    for name, own in rankings.items():
        if name == "reranked":
            expected = metrics_of(reranking.rerank(*vectors), benchmark)
        shown = explorer_lists.beginning(own.distances[3], own.numbers, 3)
        assert shown["ap"] == expected["average_precision"][3]
        assert own.numbers["first"].tolist() == expected["first_match"]
        assert own.at_rank_1["hit"] == round(expected["rank1"] * len(people.query))


def test_a_part_that_is_missing_changes_the_average_precision(page, opened):
    """As examine --maps has it, which renders, extracts and ranks on its own."""
    index = read(page, "index")
    for k, (_, model, config, benchmark) in enumerate(opened.values()):
        images = load_images(benchmark.gallery.paths, config.height, config.width)
        settings = read_settings(benchmark.folder)
        found = missing_parts(model, config, benchmark, settings, extract(model, images))["after"]
        compared = 0
        for query in index["queries"]:
            shown = read(page, f"query_{query['number']}")["missing"]
            visible = [part for part in found if query["number"] in found[part]["index"]]
            assert set(shown) == set(visible)
            for part, changed in shown.items():
                place = found[part]["index"].index(query["number"])
                expected = found[part]["parts"][place]
                assert changed["lists"][k]["ap"] == pytest.approx(expected, abs=1e-4)
                compared += 1
        assert compared


@pytest.fixture(scope="module")
def features(opened, tmp_path_factory):
    """The vectors of a run as somebody else would write them, paths relative to the file."""
    folder = tmp_path_factory.mktemp("features")
    _, model, config, benchmark = opened["none"]
    arrays = {}
    for split in ("query", "gallery"):
        images = getattr(benchmark, split)
        vectors = extract(model, load_images(images.paths, config.height, config.width))
        arrays[f"{split}_features"] = vectors["parts"]
        arrays[f"{split}_paths"] = np.array([f"{split}/{k}.jpg" for k in range(len(images))])
        arrays[f"{split}_ids"] = images.ids
        arrays[f"{split}_cameras"] = images.cameras
        (folder / split).mkdir()
        for k, path in enumerate(images.paths):
            shutil.copy(path, folder / split / f"{k}.jpg")
    np.savez(folder / "ours.npz", **arrays)
    return folder, arrays


@pytest.fixture(scope="module")
def page_of_features(features, tmp_path_factory):
    out = tmp_path_factory.mktemp("explorer") / "features"
    explorer_features.explore_features([features[0] / "ours.npz"], out, QUERIES)
    return out


def test_vectors_alone_give_the_same_lists(page_of_features, opened):
    index = read(page_of_features, "index")
    metrics = opened["none"][0]["metrics"]
    for query in index["queries"]:
        for name, key in (("plain", "parts"), ("reranked", "parts+rerank")):
            shown = query["lists"][0][name]
            assert shown["ap"] == metrics[key]["average_precision"][query["number"]]
    assert index["network"] is None and index["source"] == "own"
    assert read(page_of_features, f"query_{index['queries'][0]['number']}")["views"] == []


def test_pictures_of_real_people_stay_out_of_git(page_of_features, tmp_path, capsys):
    """Wherever the page lies: git in that very repository ignores all of it."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copytree(page_of_features, tmp_path / "docs" / "page")
    status = ["git", "-C", tmp_path, "status", "--porcelain", "-uall"]
    assert subprocess.run(status, capture_output=True, text=True).stdout == ""


@pytest.mark.filterwarnings("ignore:Market-1501 at")  # a benchmark of this size
def test_a_real_benchmark_is_named_and_kept_private(
    visit_other, runs, opened, tmp_path, monkeypatch, capsys
):
    """Photographs have no masks and no parts to leave out; the page says that they are of real people."""
    monkeypatch.setattr(explorer_network, "RUNTIME", tmp_path / "nowhere")
    *_, benchmark = opened["none"]
    folder = tmp_path / "data" / benchmark.folder.name
    shutil.copytree(
        benchmark.folder, folder, ignore=shutil.ignore_patterns("part_masks", "manifest.json")
    )
    out = tmp_path / "page"
    explorer_runs.explore_runs([str(runs["none"])], out, 2, data=str(folder.parent))
    assert "keep the folder to yourself" in capsys.readouterr().out
    assert (out / ".gitignore").read_text() == "*\n"
    index = read(out, "index")
    assert index["source"] == "real" and index["junk"]
    assert [(q["parts"], q["occluded"]) for q in index["queries"]] == [([], None)] * 2
    shown = visit_other(out).open("#map=parts&without=hair")
    assert shown.is_visible("#warning") and not shown.is_visible("#missing")
    assert not shown.is_visible("input[name=map][value=parts]")
    assert shown.is_visible("input[name=map][value=cam]")


def broken(arrays, **changes):
    changed = {**arrays, **changes}
    return {name: values for name, values in changed.items() if values is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query_cameras": None}, "missing: query_cameras); expected query_features, query_paths"),
        ({"qf": np.zeros(3)}, "unknown: qf); expected query_features"),
        ({"query_ids": np.zeros(3, int)}, "query_ids has shape (3,), and query_features"),
        ({"gallery_ids": np.array(["a"])}, "gallery_ids has shape (1,)"),
        ({"query_features": np.zeros(3)}, "query_features is float64 of shape (3,)"),
        ({"query_features": "nan"}, "holds NaN or infinity"),
        ({"query_paths": "elsewhere"}, "54 of 54 images of query_paths are missing, first elsewhere"),
        ({"query_ids": "names"}, "expected whole numbers: number the names"),
        ({"gallery_paths": "objects"}, "is not an .npz file of plain arrays"),
        ({"gallery_features": "narrow"}, "expected as many"),
    ],
)  # fmt: skip
def test_features_that_do_not_fit(features, tmp_path, changes, said):
    folder, arrays = features
    n = len(arrays["query_ids"])
    made = {
        "nan": np.full_like(arrays["query_features"], np.nan),
        "elsewhere": np.array(["elsewhere/a.jpg"] * n),
        "names": np.array(["anna"] * n),
        "objects": np.array(arrays["gallery_paths"], object),
        "narrow": arrays["gallery_features"][:, :8],
    }
    changes = {k: made[v] if isinstance(v, str) else v for k, v in changes.items()}
    path = folder / "broken.npz"
    np.savez(path, **broken(arrays, **changes))
    with pytest.raises(InputError, match=re.escape(said)):
        explorer_features.explore_features([path], tmp_path / "page", 4)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written(features, page_of_features, tmp_path):
    """A broken picture in the middle of the work; a folder in use; an earlier page, which is replaced."""
    folder, arrays = features
    out = tmp_path / "page"
    lost = folder / "gallery" / "0.jpg"
    whole = lost.read_bytes()
    try:
        lost.write_bytes(whole[:900])
        few = {k: v[:9] if k.startswith("query") else v[:30] for k, v in arrays.items()}
        few["gallery_ids"] = few["query_ids"][:1].repeat(30)
        few["gallery_cameras"] = few["query_cameras"][:1].repeat(30) + 1
        np.savez(folder / "few.npz", **few)
        with pytest.raises(InputError, match=re.escape("0.jpg is truncated or no image")):
            explorer_features.explore_features([folder / "few.npz"], out, 4)
        assert list(tmp_path.iterdir()) == []
    finally:
        lost.write_bytes(whole)

    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=re.escape("holds other files (thesis.tex)")):
        explorer_features.explore_features([folder / "ours.npz"], out, 4)
    assert [path.name for path in tmp_path.rglob("*")] == ["page", "thesis.tex"]

    shutil.rmtree(out)
    shutil.copytree(page_of_features, out)
    explorer_features.explore_features([folder / "few.npz"], out, 4)
    assert len(read(out, "index")["queries"]) == 3  # the others have no match among the few
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_bad_input_is_told_in_one_sentence(capsys, runs, features, tmp_path):
    """What is known before any work: each ends the command with one sentence, and writes nothing."""
    none, softmax = runs.values()
    untrained = tmp_path / "untrained"
    untrained.mkdir()
    shutil.copy(none / "record.json", untrained)
    out = ["--out", tmp_path / "page"]
    for words, said in (
        ((none, untrained, *out), "checkpoint"),
        ((none, softmax, none, softmax, *out), "4 runs are named; the page shows 1 to 3"),
        ((none, none, *out), "is named twice"),
        ((), "--out"),
        (("b_p_ds", *out), "neither the folder of a finished run nor a stored network; stored: market1501-rendered-laptop-b_p_ds-none"),
        ((none, "--query", "me.jpg", *out), "--query is given without --gallery"),
        ((none, "--gallery", tmp_path / "nowhere", *out), "is not a folder"),
        ((none, "--gallery", features[0], "--query", "me.jpg", *out), "--query me.jpg is not a file"),
        ((none, "--features", features[0] / "ours.npz", *out), "--features stands alone"),
        ((none, "--queries", "0", *out), "--queries is 0"),
        (("--features", features[0] / "ours.npz", "--queries", "0", *out), "--queries is 0"),
        ((f"{none}/", none, *out), "is named twice"),
        ((none, STORED, *out), "are runs of different data"),
    ):  # fmt: skip
        code = main(["explore", *map(str, words)])
        errors = capsys.readouterr().err.splitlines()
        assert code == (1 if words else 2)
        assert len(errors) == 1 and errors[0].startswith("error: ") and said in errors[0], errors
    assert not (tmp_path / "page").exists()


# ---- in Chromium


class Visit:
    """A page in the browser that remembers what it asked for and what it complained of."""

    def __init__(self, browser, folder):
        self.page = browser.new_page(reduced_motion="reduce")
        self.folder = folder
        self.address = (folder / "index.html").as_uri()
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self.listen)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def listen(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, words=""):
        """Load the page anew at an address, on a laptop's screen."""
        self.page.set_viewport_size({"width": 1280, "height": 800})
        self.page.goto("about:blank")
        self.page.goto(f"{self.address}{words}")
        self.page.wait_for_selector(".column")
        return self.page

    def check(self):
        """No request has left the folder, nothing went wrong."""
        assert not self.complaints
        for address in self.requests:
            assert address.startswith((self.folder.as_uri(), "data:", "blob:", "about:")), address


@pytest.fixture(scope="module")
def visitor(browser, page):
    """One page in the browser for all tests: a new one takes longer than some of them."""
    visit = Visit(browser, page)
    yield visit
    visit.page.close()


@pytest.fixture
def visit(visitor):
    visitor.requests.clear()
    visitor.complaints.clear()
    yield visitor
    visitor.check()


@pytest.fixture
def visit_other(browser):
    """Visit of another folder than `page`; checked and closed at the end."""
    visits = []

    def visit(folder):
        visits.append(Visit(browser, folder))
        return visits[-1]

    yield visit
    for one in visits:
        one.check()
        one.page.close()


def numbers(page):
    """What stands above each list: [(average precision, rank of the first match), ...]."""
    texts = page.locator(".numbers").all_inner_texts()
    return [re.match(r"AP ([\d.]+).* first match at rank (\d+)", text).groups() for text in texts]


def expected_numbers(opened, query, key):
    metrics = [record["metrics"][key] for record, *_ in opened.values()]
    return [(f"{m['average_precision'][query]:.3f}", str(m["first_match"][query])) for m in metrics]


def listed(page, column=0):
    buttons = page.locator(".column").nth(column).locator("[data-gallery]")
    return buttons.evaluate_all("all => all.map(b => Number(b.dataset.gallery))")


def press(page, key):
    """A key, pressed where nothing has the focus; waits until the address says what is shown."""
    page.evaluate("document.activeElement.blur()")
    before = page.evaluate("location.hash")
    page.keyboard.press(key)
    page.wait_for_function("before => location.hash !== before", arg=before)


def test_numbers_on_the_screen_are_the_record_s(visit, page, opened):
    index = read(page, "index")
    shown = visit.open()
    loaded = [address for address in visit.requests if "/data/" in address]
    assert len(loaded) == 2  # the index and one query: the rest comes when it is chosen
    for query in index["queries"]:
        shown.click(f"[data-query='{query['name']}']")
        shown.wait_for_selector(f"[data-query='{query['name']}'][aria-current]")
        assert numbers(shown) == expected_numbers(opened, query["number"], "parts")
        shown.check("input[name=list][value=reranked]")
        assert numbers(shown) == expected_numbers(opened, query["number"], "parts+rerank")
        assert listed(shown, 1) == query["lists"][1]["reranked"]["images"]
        shown.check("input[name=list][value=plain]")
    # The marks, by identity and camera; ranks count what is neither junk nor of the query's camera.
    marks = (
        shown.locator(".column")
        .first.locator("[data-gallery]")
        .evaluate_all(
            "all => all.map(b => [Number(b.dataset.gallery), b.className, b.textContent.trim()])"
        )
    )
    rank = 0
    for g, mark, text in marks:
        assert (mark, text[0]) == expected_mark(index, query, g)
        counts = mark in ("hit", "alike", "miss")
        rank += counts
        assert text[1:].strip() == (str(rank) if counts else "–")
    assert {mark for _, mark, _ in marks} >= {"hit", "alike", "miss", "junk"}
    for network, (record, *_) in zip((0, 1), opened.values(), strict=True):
        said = shown.locator(".column").nth(network).inner_text()
        assert f"rank-1 {record['metrics']['parts']['rank1']:.3f}, mAP {mean_ap_of(record):.3f}, as in its record" in said  # fmt: skip


def expected_mark(index, query, g):
    _, identity, camera = index["gallery"][str(g)]
    if identity == -1:
        return "junk", "J"
    if identity == query["id"]:
        return ("camera", "C") if camera == query["camera"] else ("hit", "✓")
    # Four consecutive identities wear the same clothes; 0 is a distractor.
    if identity and (identity - 1) // 4 == (query["id"] - 1) // 4:
        return "alike", "≈"
    return "miss", "✗"


def said_of_rank_1(index, queries, network, order):
    """What the page says above the thumbnails of some queries."""
    found = []
    for query in queries:
        images = query["lists"][network][order]["images"]
        marks = [expected_mark(index, query, g)[0] for g in images]
        found.append(next(mark for mark in marks if mark not in ("junk", "camera")))

    def times(mark):
        return "once" if found.count(mark) == 1 else f"{found.count(mark)} times"

    return (
        f"a hit {times('hit')}, somebody else in the same clothes {times('alike')}, "
        f"another miss {times('miss')}"
    )


def test_filters_leave_what_they_say(visit, page):
    index = read(page, "index")
    queries = index["queries"]
    shown = visit.open()

    def names():
        return shown.locator("#grid button").evaluate_all("all => all.map(b => b.dataset.query)")

    assert names() == [q["name"] for q in queries]
    for order in ("plain", "reranked"):
        shown.check(f"input[name=list][value={order}]")
        said = shown.locator("#at-rank-1-of li").all_inner_texts()
        for k in (0, 1):
            expected = said_of_rank_1(index, queries, k, order)
            assert said[k] == f"{index['networks'][k]['heading']}: {expected}"
    shown.check("input[name=list][value=plain]")
    one = queries[-1]
    shown.fill("#identity", str(one["id"]))
    few = [q for q in queries if q["id"] == one["id"]]
    assert names() == [q["name"] for q in few]
    said = shown.locator("#at-rank-1-of li").first.inner_text()
    assert said.endswith(said_of_rank_1(index, few, 0, "plain"))
    shown.fill("#identity", "")
    shown.select_option("#camera", str(one["camera"]))
    shown.select_option("#match", str(one["match_cameras"][0]))
    assert names() == [
        q["name"]
        for q in queries
        if q["camera"] == one["camera"] and one["match_cameras"][0] in q["match_cameras"]
    ]
    shown.select_option("#camera", "")
    shown.select_option("#match", "")
    shown.select_option("#filter", "occluded")
    assert names() == [q["name"] for q in queries if q["occluded"] > 0.05]
    shown.select_option("#filter", "hardest")
    by_precision = sorted(queries, key=lambda q: sum(own["plain"]["ap"] for own in q["lists"]))
    assert names() == [q["name"] for q in by_precision]
    shown.select_option("#filter", "all")

    def are_found(*wanted):
        """The queries that each network finds (True), misses (False), or either (None)."""
        return [
            q["name"]
            for q in queries
            if all(
                want in (None, own["plain"]["first"] == 1)
                for want, own in zip(wanted, q["lists"], strict=True)
            )
        ]

    shown.check("#found input[value='0']")
    assert names() == are_found(True, None)
    shown.check("#missed input[value='1']")
    assert names() == are_found(True, False)
    # A network cannot find and miss: the last choice holds.
    shown.check("#missed input[value='0']")
    assert not shown.is_checked("#found input[value='0']")
    assert names() == are_found(False, False)
    shown.check("#found input[value='1']")
    assert names() == are_found(False, True)
    shown.click("#widen")
    assert names() == [q["name"] for q in queries] and not shown.is_visible("#widen")
    for reason in {q["reason"] for q in queries}:
        shown.select_option("#why", reason)
        assert names() == [q["name"] for q in queries if q["reason"] == reason]


def test_why_a_query_is_shown(visit, page):
    """Each thumbnail says it, by a sign and to screen readers; one sentence says what a sample is."""
    queries = read(page, "index")["queries"]
    shown = visit.open()
    signs = {"evenly spaced": "=", "differ": "≠", "hard": "!"}
    assert shown.locator("#grid .why").all_inner_texts() == [signs[q["reason"]] for q in queries]
    labels = shown.locator("#grid button").evaluate_all("all => all.map(b => b.ariaLabel)")
    said = {"evenly spaced": "evenly spaced", "differ": "differ most", "hard": "hardest"}
    for label, query in zip(labels, queries, strict=True):
        assert said[query["reason"]] in label
    spaced = sum(q["reason"] == "evenly spaced" for q in queries)
    assert f"Only the {spaced} evenly spaced queries (=) are a sample" in shown.inner_text("#sample")  # fmt: skip


def test_two_networks_crossed_over_the_whole_test_set(visit, page, opened):
    """Counted again from the records; a cell's button leaves its queries in the grid."""
    index = read(page, "index")
    benchmark = opened["none"][3]
    hidden = [explorer_pictures.part_mask(path) for path in benchmark.query.paths]
    hidden = [explorer_page.hidden_share(mask) > 0.05 for mask in hidden]
    shown = visit.open()
    for order, key in (("plain", "parts"), ("reranked", "parts+rerank")):
        shown.check(f"input[name=list][value={order}]")
        firsts = [record["metrics"][key]["first_match"] for record, *_ in opened.values()]
        whom = [network["here"][order]["whom"] for network in index["networks"]]
        assert [[code == "h" for code in codes] for codes in whom] == [
            [first == 1 for first in of_network] for of_network in firsts
        ]
        total = 0
        cells = {"both": (True, True), "a": (True, False), "b": (False, True), "neither": (False, False)}  # fmt: skip
        for cell, wanted in cells.items():
            inside = [
                n for n in range(index["total"]) if tuple(own[n] == 1 for own in firsts) == wanted
            ]
            total += len(inside)
            element = shown.locator(f"[data-cell={cell}]")
            assert element.locator("b").inner_text() == str(len(inside))
            assert f"occluded: {sum(hidden[n] for n in inside)}" in element.inner_text()
            for k, side in enumerate("AB"):
                if inside and not wanted[k]:
                    alike = sum(whom[k][n] == "a" for n in inside)
                    assert f"{side} {alike} of {len(inside)}" in element.inner_text()
            here = [q["name"] for q in index["queries"] if q["number"] in inside]
            button = element.locator("button")
            assert button.count() == bool(here)
            if here:
                button.click()
                names = shown.locator("#grid button").evaluate_all(
                    "all => all.map(b => b.dataset.query)"
                )
                assert names == here
        assert total == index["total"]
    # The same network on both sides says nothing: they change places.
    before = shown.inner_text("[data-cell=a] b"), shown.inner_text("[data-cell=b] b")
    shown.select_option("#network-a", "1")
    shown.wait_for_function("state.a === 1 && state.b === 0")
    assert (shown.inner_text("[data-cell=b] b"), shown.inner_text("[data-cell=a] b")) == before


def test_a_query_that_the_filters_leave_out(visit, page):
    """The page says so, and goes to one that fits."""
    queries = read(page, "index")["queries"]
    shown = visit.open()
    assert not shown.is_visible("#left-out")
    other = next(q for q in queries if q["id"] != queries[0]["id"])
    shown.fill("#identity", str(other["id"]))
    assert queries[0]["name"] in shown.inner_text("#left-out")
    shown.click("#first-that-fits")
    shown.wait_for_selector("#grid [aria-current]")
    assert shown.evaluate("state.query") == other["name"] and not shown.is_visible("#left-out")
    shown.fill("#identity", "999999")
    assert "No query fits" in shown.inner_text("#count")
    assert not shown.is_visible("#first-that-fits")


def test_the_lists_come_into_view(visit, page):
    """After a click on a query; on a phone a bar that stays in view names it."""
    queries = read(page, "index")["queries"]
    shown = visit.open()
    for width, has_bar in ((1280, False), (390, True)):
        shown.set_viewport_size({"width": width, "height": 800})
        shown.evaluate("scrollTo(0, 0)")
        shown.click(f"[data-query='{queries[2]['name']}']")
        shown.wait_for_function(
            "Math.abs(document.getElementById('lists').getBoundingClientRect().top) < 2"
        )
        assert shown.is_visible("#bar") == has_bar
    shown.evaluate("document.querySelector('.column').scrollIntoView()")
    assert 0 <= shown.locator("#bar").bounding_box()["y"] < 2
    shown.click("#after")
    shown.wait_for_function("name => state.query === name", arg=queries[3]["name"])
    assert queries[3]["name"] in shown.inner_text("#bar")
    shown.click("#before")
    shown.wait_for_function("name => state.query === name", arg=queries[2]["name"])


def test_keys_and_an_address_that_can_be_shared(visit, page):
    queries = [q["name"] for q in read(page, "index")["queries"]]
    shown = visit.open()
    press(shown, "ArrowRight")
    assert shown.evaluate("state.query") == queries[1]
    press(shown, "ArrowLeft")
    press(shown, "ArrowLeft")
    assert shown.evaluate("state.query") == queries[-1]
    press(shown, "3")
    assert shown.evaluate("[state.map, state.stage]") == ["cam", 3]
    press(shown, "s")
    assert shown.is_checked("input[name=map][value=similarity]")
    press(shown, "r")
    assert shown.is_checked("input[name=list][value=reranked]")
    press(shown, "4")
    shown.locator("[data-gallery]").nth(5).click()
    shown.wait_for_function("location.hash.includes('pair')")
    # Typing an identity is no choice of a stage.
    shown.fill("#identity", "")
    shown.press("#identity", "1")
    assert shown.evaluate("state.stage") == 4
    # The filters stand in the address, too.
    shown.select_option("#filter", "hardest")
    shown.select_option("#why", "evenly spaced")
    shown.check("#missed input[value='1']")
    shown.select_option("#network-a", "1")
    shown.wait_for_function("location.hash.includes('missed=1')")
    address = shown.evaluate("location.hash")
    grid = shown.inner_text("#grid")
    assert f"query={queries[-1]}" in address and "stage=4" in address
    chosen = shown.evaluate("JSON.stringify(state)")
    columns = shown.locator("#columns").inner_text()
    visit.open(address)
    assert shown.evaluate("JSON.stringify(state)") == chosen
    assert shown.locator("#columns").inner_text() == columns
    assert shown.inner_text("#grid") == grid and shown.is_checked("#missed input[value='1']")
    # What an address asks for beyond what there is does no harm.
    visit.open(
        "#query=nobody&stage=9&map=x&t=-1&pair=99999&without=wings&opacity=x&filter=x&why=x&found=09&missed=0&camera=99&identity=me&a=1&b=1"
    )
    assert shown.evaluate("[state.query, state.stage, state.without]") == [queries[0], 2, ""]


def effective(page, column):
    said = page.locator(".said").nth(column).inner_text()
    return [float(n) for n in re.search(r"Effective positions: ([\d.]+) of (\d+)", said).groups()]


def slide_to(page, position):
    page.evaluate(
        """position => { const slider = document.getElementById("temperature");
        slider.value = position; slider.dispatchEvent(new Event("input")); }""",
        position,
    )


def test_the_temperature_recomputes_eq_1(visit, page, opened):
    """Effective positions and the map itself, against torch on the network's own scores; the ranking stays."""
    query = read(page, "index")["queries"][2]
    shown = visit.open(f"#query={query['name']}&map=attention&stage=2")
    before = [listed(shown, k) for k in (0, 1)]
    maps = {}
    for k, (_, model, config, benchmark) in enumerate(opened.values()):
        path = benchmark.query.paths[query["number"]]
        with torch.no_grad():
            maps[k] = model.feature_maps(to_input(load_images([path], config.height, config.width)))

    def expected(k, form="softmax", temperature=1.0):
        p = attention_weights(maps[k][1].double(), form, temperature)
        return effective_cells(p).item()

    positions = maps[0][1][0, 0].numel()
    for position, temperature in ((250, 1.0), (500, 100.0), (625, 1000.0)):
        slide_to(shown, position)
        for k in (0, 1):
            assert effective(shown, k) == [pytest.approx(expected(k, "softmax", temperature), abs=0.06), positions]  # fmt: skip
    slide_to(shown, 0)
    assert [effective(shown, k)[0] for k in (0, 1)] == [1, 1]
    slide_to(shown, 1000)
    assert [effective(shown, k)[0] for k in (0, 1)] == [positions, positions]
    for place, (form, text) in enumerate(
        (("softmax", "T = 1"), ("softmax_mean", "T = 512"), ("l1", "l1"))
    ):
        mark = shown.locator("#marks button").nth(place)
        mark.click()
        assert mark.get_attribute("aria-pressed") == "true"
        assert shown.inner_text("#temperature-value") == text
        for k in (0, 1):
            assert effective(shown, k)[0] == pytest.approx(expected(k, form), abs=0.06)
    # Each as it was trained: no attention weighs evenly, the other network has softmax at T = 1.
    shown.click("#marks button:has-text('as it was trained')")
    shown.wait_for_function("state.t === 'own'")
    assert effective(shown, 0) == [positions, positions]
    assert effective(shown, 1)[0] == pytest.approx(expected(1), abs=0.06)
    assert "every position weighs the same" in shown.locator(".said").first.inner_text()
    assert [listed(shown, k) for k in (0, 1)] == before
    assert "gradient of a branch reaches the backbone" in shown.inner_text("#heat")
    assert "the slider moves the map, and not the ranking" in " ".join(
        shown.inner_text("#heat").split()
    )
    # The slider acts on attention weights: moved over another map, it brings them.
    shown.check("input[name=map][value=cam]")
    slide_to(shown, 400)
    shown.wait_for_selector("input[name=map][value=attention]:checked")


def brightest(page, selector):
    """Size of a canvas, and its lightest pixel."""
    return page.locator(selector).first.evaluate(
        """canvas => { const { width, height } = canvas;
        const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
        let best = 0; for (let i = 0; i < width * height; i++)
          if (data[4 * i] + data[4 * i + 1] > data[4 * best] + data[4 * best + 1]) best = i;
        return [height, width, best]; }"""
    )


def test_maps_are_the_network_s(visit, page, opened):
    query = read(page, "index")["queries"][1]
    _, model, config, benchmark = opened["none"]
    path = benchmark.query.paths[query["number"]]
    x = to_input(load_images([path], config.height, config.width))
    likeliest = model(x)["final"].argmax(1)
    shown = visit.open(f"#query={query['name']}&map=cam&stage=1")
    for stage in (1, 2, 3, 4):
        if stage > 1:
            press(shown, str(stage))
        cam = class_activation_maps(model, x, likeliest, stage)[0].detach()
        height, width, place = brightest(shown, ".pair canvas")
        assert (height, width) == tuple(cam.shape)
        # The lightest colour stands for 6 times an even map and all above.
        even = cam.clamp(min=0) / cam.clamp(min=0).sum() * cam.numel()
        assert even.flatten()[place] >= min(6, even.max().item()) - 0.1
        assert f"number {likeliest.item()}" in shown.locator(".said").first.inner_text()
    press(shown, "s")
    g = query["lists"][0]["plain"]["images"][3]
    shown.locator(f".column [data-gallery='{g}']").first.click()
    both = load_images([path, all_gallery(benchmark)[g]], config.height, config.width)
    a, b = extract(model, both)["parts"].reshape(2, 6, -1).astype(float)
    said = shown.locator(".said").first.inner_text()
    assert float(re.search(r"sum to (-?[\d.]+):", said)[1]) == pytest.approx(
        (a * b).sum(), abs=2e-3
    )
    assert shown.locator(".column").first.locator(".pair canvas").count() == 2
    shown.check("input[name=map][value=parts]")
    mask = shown.locator(".pair img.mask").first.get_attribute("src")
    drawn = cv2.imread(str(page / mask), cv2.IMREAD_UNCHANGED)
    true = explorer_pictures.part_mask(path)
    assert ((drawn[..., 3] > 0) == (true > 0)).all() and "torso" in shown.inner_text("#scale")
    shown.check("input[name=map][value=none]")
    assert shown.locator("#columns canvas, #columns .mask").count() == 0


def all_gallery(benchmark):
    return explorer_runs.people_of(benchmark).gallery.paths


def test_removing_a_part_changes_list_and_numbers(visit, page):
    queries = read(page, "index")["queries"]
    query = next(q for q in queries if q["parts"])
    part = query["parts"][0]
    missing = read(page, f"query_{query['number']}")["missing"][part]
    shown = visit.open(f"#query={query['name']}&list=reranked")
    shown.check(f"input[name=missing][value={part}]")
    shown.wait_for_function("location.hash.includes('without')")
    for k in (0, 1):
        assert listed(shown, k) == missing["lists"][k]["images"]
        now = numbers(shown)[k]
        assert now == (f"{missing['lists'][k]['ap']:.3f}", str(missing["lists"][k]["first"]))
    assert shown.is_disabled("input[name=list][value=reranked]")
    assert missing["file"] in shown.locator(".pair img").first.get_attribute("src")
    shown.check("input[name=map][value=parts]")
    assert f"it would show the {part} that is removed" in shown.locator(".said").first.inner_text()
    # The table: a row for each part, a column for each network.
    cells = shown.locator("#missing-rows tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    plain = [own["plain"]["ap"] for own in query["lists"]]
    assert cells[0] == ["nothing removed", *(f"{ap:.3f}" for ap in plain)]
    assert [row[0] for row in cells[1:]] == [f"without {part}" for part in query["parts"]]
    all_missing = read(page, f"query_{query['number']}")["missing"]
    for row in cells[1:]:
        for k, text in enumerate(row[1:]):
            ap = all_missing[row[0].removeprefix("without ")]["lists"][k]["ap"]
            assert text.startswith(f"{ap:.3f} (")
            change = float(re.search(r"\((.*)\)", text)[1].replace("−", "-").replace("±", ""))
            assert change == pytest.approx(ap - plain[k], abs=6e-4)
    shown.check("input[name=missing][value='']")
    assert listed(shown) == query["lists"][0]["plain"]["images"]


def test_the_other_network_s_images_have_pair_maps(visit, page, opened):
    """The first image and the best match of each network, in every column, whatever their rank there."""
    index = read(page, "index")
    compared = 0
    for query in index["queries"]:
        views = read(page, f"query_{query['number']}")["views"]
        for list_name in ("plain", "reranked"):
            for own in query["lists"]:
                images = own[list_name]["images"]
                marks = {g: expected_mark(index, query, g)[0] for g in images}
                first = next(g for g in images if marks[g] not in ("junk", "camera"))
                best = own[list_name]["best"]
                if "hit" in marks.values():
                    assert best == next(g for g in images if marks[g] == "hit")
                for g in (first, best):
                    assert all(str(g) in view["pairs"][""] for view in views)
                    assert all(str(g) in view["gallery"] for view in views)
                    assert str(g) in index["gallery"]
                compared += 1
    assert compared == 4 * QUERIES
    far = max(index["queries"], key=lambda q: max(own["plain"]["first"] for own in q["lists"]))
    firsts = [own["plain"]["first"] for own in far["lists"]]
    k = firsts.index(max(firsts))
    shown = visit.open(f"#query={far['name']}&map=similarity")
    shown.locator(".column").nth(k).locator(".best").click()
    shown.wait_for_function("state.pair !== null")
    best = far["lists"][k]["plain"]["best"]
    _, model, config, benchmark = opened["none"]
    files = [benchmark.query.paths[far["number"]], all_gallery(benchmark)[best]]
    a, b = extract(model, load_images(files, config.height, config.width))["parts"].astype(float)
    said = shown.locator(".said").first.inner_text()
    assert float(re.search(r"sum to (-?[\d.]+):", said)[1]) == pytest.approx(a @ b, abs=2e-3)
    for column in (0, 1):
        assert shown.locator(".column").nth(column).locator(".pair canvas").count() == 2
    assert f"rank {max(firsts)}, hit" in shown.locator(".column").nth(k).inner_text()


def test_a_map_without_a_positive_part_says_so(visit, page):
    """Its colours would be those of an even map."""
    shown = visit.open("#map=cam&stage=4")
    shown.evaluate("details.views[0].query[''].cam.top.fill(0)")
    press(shown, "3")
    said = shown.locator(".said").first.inner_text()
    assert "The map of the query has no positive part" in said
    query_picture = shown.locator(".pair .picture").first
    assert query_picture.inner_text() == "no positive part"
    assert query_picture.locator("canvas").count() == 0
    assert "The slider does not change this map" in shown.inner_text("#explain")


def test_a_query_without_a_part_to_remove_says_why(visit, page):
    shown = visit.open()
    shown.evaluate("query().parts = []; details.missing = {}; show()")
    note = shown.inner_text("#missing-note")
    assert "hair, hat" in note and "fills less than 0.5 % of the picture" in note
    assert not shown.is_visible("#missing-table")


def test_what_columns_share_is_said_once(visit, page):
    shown = visit.open()
    for column in shown.locator(".column").all():
        assert "earned from" not in column.inner_text()
    assert shown.inner_text("#common").startswith("All of these networks learned from")
    # Images behind the tenth rank say how many of them have the map.
    shown.check("input[name=map][value=none]")
    assert re.fullmatch(r"the next \d+ images", shown.inner_text(".column summary"))
    shown.check("input[name=map][value=similarity]")
    for column in shown.locator(".column").all():
        n = column.locator("details .mapped").count()
        expected = f"({n} of them with this map)" if n else "(without this map)"
        assert column.locator("summary").inner_text().endswith(expected)


def contrast(page, *names):
    """The contrast of two colours of the style sheet, as WCAG defines it: 1 to 21."""
    luminances = []
    for name in names:
        colour = page.evaluate(
            "name => getComputedStyle(document.documentElement).getPropertyValue(name)", name
        )
        share = np.array(list(bytes.fromhex(colour.strip().lstrip("#")))) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        luminances.append(linear @ (0.2126, 0.7152, 0.0722))
    dark, light = sorted(luminances)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_signs_stand_out(visit, scheme):
    """axe passes over signs of one letter."""
    shown = visit.open()
    shown.emulate_media(color_scheme=scheme)
    for colour in ("--hit", "--miss", "--alike", "--out"):
        assert contrast(shown, colour, "--ground") >= 4.5, colour
    shown.emulate_media(color_scheme="light")


def serious(page):
    """What axe finds that is serious or worse."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(page, options=options).response["violations"]
    return [v["id"] for v in found if v["impact"] in ("serious", "critical")]


def test_everybody_can_read_it(visit, visit_other, page, page_of_features):
    """axe finds nothing serious, with all marks; on a phone nothing is wider than the screen."""
    index = read(page, "index")
    marks = {}  # of each query's first list
    for query in index["queries"]:
        images = query["lists"][0]["plain"]["images"]
        marks[query["name"]] = {expected_mark(index, query, g)[0] for g in images}
    most = max(marks, key=lambda name: len(marks[name]))
    assert marks[most] == {"hit", "alike", "miss", "junk", "camera"}
    for one, kinds in ((visit, ("attention", "none")), (visit_other(page_of_features), ())):
        shown = one.open(f"#query={most}")
        shown.set_viewport_size({"width": 360, "height": 740})
        assert shown.evaluate("document.documentElement.scrollWidth") <= 360
        shown.click(".column summary")
        assert serious(shown) == []
        for kind in kinds:
            shown.check(f"input[name=map][value={kind}]")
            assert serious(shown) == []
        shown.emulate_media(color_scheme="dark")
        assert serious(shown) == []
        shown.emulate_media(color_scheme="light")


def test_an_image_dropped_onto_the_page_is_ranked_there(visit, page, opened, tmp_path):
    """As torch ranks it: the vector within 1e-3, the nearest images the same."""
    need(not explorer_network.why_not(), explorer_network.why_not())
    _, model, config, benchmark = opened["none"]
    shown = visit.open()
    picture = cv2.imread(benchmark.query.paths[3])
    contents = {}  # of images that grow, shrink, or do either
    for width, height in ((32, 96), (21, 61), (21, 157), (67, 61), (41, 157)):
        path = tmp_path / f"{width}x{height}.png"
        cv2.imwrite(str(path), cv2.resize(picture, (width, height)))
        contents[path] = base64.b64encode(path.read_bytes()).decode()
    assert "has seen rendered people only" in shown.inner_text("#own-about")
    assert not any("network/" in address for address in visit.requests)
    shown.click("#own-load")
    shown.wait_for_selector("#own-file-label:not([hidden])", timeout=120_000)
    dropped = """content => { const data = new DataTransfer();
        data.items.add(new File([bytesOf(content)], "photograph.png", { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true })); }"""
    shown.evaluate(dropped, contents[path])
    shown.wait_for_selector("#own-result [data-gallery]")
    nearest = shown.locator("#own-result [data-gallery]").evaluate_all(
        "all => all.map(item => Number(item.dataset.gallery))"
    )
    vector_of = """async content => {
        const image = await createImageBitmap(new Blob([bytesOf(content)]));
        const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
        context.drawImage(image, 0, 0);
        return Array.from(await vectorOf(context.getImageData(0, 0, image.width, image.height))); }"""
    for one, content in contents.items():
        own = extract(model, load_images([one], config.height, config.width))["global"]
        vector = np.array(shown.evaluate(vector_of, content))
        assert np.abs(vector - own[0]).max() < 1e-3, one.name
    images = load_images(benchmark.gallery.paths, config.height, config.width)
    distances = euclidean(own, extract(model, images)["global"])[0]
    # Nearest by int8 vectors: each is as near as the one that torch puts there, but for their rounding.
    expected = np.sort(distances)[: len(nearest)]
    np.testing.assert_allclose(distances[nearest], expected, rtol=0.02, atol=0.02)
    for source in shown.locator("#own-result img").evaluate_all("all => all.map(i => i.getAttribute('src'))"):  # fmt: skip
        assert (page / source).is_file()


def test_vectors_alone_show_lists_and_offer_no_maps(visit_other, page_of_features):
    shown = visit_other(page_of_features).open()
    assert shown.is_visible("#order") and shown.locator(".hit").count()
    assert not shown.is_visible("#heat") and not shown.is_visible("#maps")
    assert not shown.is_visible("#own-load") and "vectors alone" in shown.inner_text("#own-about")
    assert "do not pass this page or its pictures on" in shown.inner_text("#warning")
    assert "same clothes" not in shown.inner_text("#at-rank-1")
    help_and_lists = shown.inner_text("main section:last-child") + shown.inner_text("#columns")
    assert "re-ranked" in help_and_lists and " map" not in help_and_lists


def test_vectors_without_cameras(visit_other, features, tmp_path):
    """All images of a query's identity are matches, and the page does not speak of cameras."""
    folder, arrays = features
    path = folder / "two_keys_less.npz"
    np.savez(path, **broken(arrays, query_cameras=None, gallery_cameras=None))
    with pytest.raises(InputError, match="differ in query_cameras"):
        explorer_features.read_features([path, folder / "ours.npz"])
    out = tmp_path / "page"
    explorer_features.explore_features([path], out, 3)
    distances = euclidean(arrays["query_features"], arrays["gallery_features"])
    found = evaluate_ranking(distances, arrays["query_ids"], arrays["gallery_ids"], None, None)
    shown = visit_other(out).open()
    [query] = [q for q in read(out, "index")["queries"] if q["number"] == 0]
    own = (f"{found.average_precision[0]:.3f}", str(found.first_match[0]))
    assert numbers(shown) == [own]
    ids = arrays["gallery_ids"][listed(shown)]
    assert shown.locator(".column .hit").count() == (ids == query["id"]).sum() > 0
    assert not shown.is_visible("#camera") and not shown.is_visible("#match")
    assert "amera" not in shown.inner_text("#grid") + shown.inner_text("#columns")


def test_crops_of_one_s_own(visit_other, runs, opened, tmp_path, monkeypatch, capsys):
    """A folder and an image: ranked without marks, as torch ranks them. Without npm, a page without its network."""
    monkeypatch.setattr(explorer_network, "RUNTIME", tmp_path / "nowhere")
    _, model, config, benchmark = opened["softmax"]
    gallery = tmp_path / "crops" / "monday"
    gallery.mkdir(parents=True)
    for path in benchmark.gallery.paths[:30]:
        shutil.copy(path, gallery)
    out = tmp_path / "page"
    crop = benchmark.query.paths[0]
    explorer_runs.explore_runs(
        [str(runs["softmax"])], out, 60, gallery=tmp_path / "crops", crops=[crop]
    )
    files = sorted(gallery.iterdir())
    vectors = [extract(model, load_images(some, config.height, config.width))["parts"] for some in ([crop], files)]  # fmt: skip
    order = np.argsort(euclidean(*vectors)[0], kind="stable")
    shown = visit_other(out).open()
    assert listed(shown) == order.tolist()
    assert shown.locator(".hit, .miss").count() == 0 and "AP" not in shown.inner_text(".column")
    assert (out / ".gitignore").read_text() == "*\n"
    [said] = [line for line in capsys.readouterr().err.splitlines() if "without a network" in line]
    assert "npm ci --prefix docs" in said
    assert not shown.is_visible("#own-load") and "without its network" in shown.inner_text("#own")


def test_the_committed_lock_file_names_no_host():
    text = (ROOT / "docs" / "package-lock.json").read_text()
    assert "://" not in text and "onnxruntime-web" in text
