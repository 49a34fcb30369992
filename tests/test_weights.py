"""What a backbone begins with: files as people have them, the conversion by order, broken downloads, other networks' weights."""

import argparse
import hashlib
import io
import json
import pickle
import re
import tarfile
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import ROOT, assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.batches import to_input
from reidsa_utils.config import configure, run_folder, run_settings
from reidsa_utils.data import load_images
from reidsa_utils.experiments.run import load_weights
from reidsa_utils.model import BACKBONES, ReIDNet
from reidsa_utils.weights import AGREE, content, convert, named, statistics, tensors_of

MOBILE = {"variant": "b_ds", "form": "none", "backbone": "mobilenet_v2"}


def fresh():
    """A network to convert for, and the name of its classifier."""
    return BACKBONES["mobilenet_v2"].make(), BACKBONES["mobilenet_v2"].classifier


@pytest.fixture(scope="module")
def photographs(small_benchmark):
    paths = sorted(str(p) for p in (small_benchmark / "bounding_box_train").glob("*.jpg"))[:32]
    return to_input(load_images(paths, 96, 48))


@pytest.fixture(scope="module")
def mobile(photographs):
    """A MobileNetV2 whose batch norms hold the statistics of these images, as after training; no ImageNet weights are here."""
    torch.manual_seed(0)
    net = BACKBONES["mobilenet_v2"].make()
    net.train()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean of all batches
    with torch.no_grad():
        net(photographs)
    return net.eval()


@pytest.fixture
def foreign(mobile, tmp_path):
    """Its features under other names, in its own order, without a classifier: as the package of the recipe has them."""
    state = {
        name.replace("features.", "body.").replace(".conv.", ".c."): value
        for name, value in mobile.state_dict().items()
        if not name.startswith("classifier.")
    }
    torch.save(state, tmp_path / "foreign.pt")
    return tmp_path / "foreign.pt"


def test_conversion_by_order(mobile, foreign, photographs, tmp_path):
    agree = convert(foreign, tmp_path / "named.pt", *fresh(), images=photographs)
    assert len(agree) == 52 and all(
        means < AGREE[0] / 5 and variances < AGREE[1] / 5 for means, variances in agree.values()
    )
    net = ReIDNet(3, **MOBILE, weights=str(tmp_path / "named.pt"))
    own = mobile.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in net.backbone.state_dict().items())
    assert net.loaded == {
        "source": "ImageNet (foreign.pt, renamed by order)",
        "sha256": net.loaded["sha256"],
    }
    assert [g["lr"] for g in net.parameter_groups(0.1)] == pytest.approx(
        [0.01, 0.1]
    )  # section 4: a tenth for what was loaded
    assert named(str(tmp_path / "named.pt")) == f"state_dict {net.loaded['sha256']}"


@pytest.mark.parametrize(
    "pair",
    [
        ("features.5.conv.0.0.weight", "features.6.conv.0.0.weight"),
        ("features.8.conv.3.bias", "features.9.conv.3.running_mean"),
        ("features.11.conv.1.1.running_var", "features.12.conv.1.1.weight"),
    ],
)
def test_tensors_in_another_order_are_noticed(mobile, photographs, pair, tmp_path):
    """Equal shapes exchanged: by the last word of the name, or by the statistics that no longer fit."""
    state = {
        name: value
        for name, value in mobile.state_dict().items()
        if not name.startswith("classifier.")
    }
    a, b = pair
    order = {a: b, b: a}
    moved = {order.get(name, name): state[order.get(name, name)] for name in state}
    torch.save(moved, tmp_path / "moved.pt")
    same_word = a.rsplit(".")[-1] == b.rsplit(".")[-1]
    with pytest.raises(
        InputError, match="batch norms are not those" if same_word else "stands features"
    ):
        convert(
            tmp_path / "moved.pt",
            tmp_path / "named.pt",
            *fresh(),
            images=photographs * (3 if same_word else 1),
        )
    assert not (tmp_path / "named.pt").exists()


def test_statistics_of_another_network_do_not_agree(mobile, photographs):
    torch.manual_seed(1)
    other = BACKBONES["mobilenet_v2"].make()  # random weights: its batch norms hold nothing yet
    worst = [max(pair[k] for pair in statistics(other, photographs).values()) for k in (0, 1)]
    assert worst[0] > AGREE[0] or worst[1] > AGREE[1]


def test_content_counts_and_not_the_file(tmp_path):
    """One identity for a state_dict, whatever it is called and wrapped in; another as soon as a number differs."""
    state = BACKBONES["mobilenet_v2"].make().state_dict()
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state, "source": "mine"}, tmp_path / "b.pt")
    torch.save({f"backbone.{k}": v for k, v in state.items()}, tmp_path / "c.pt")
    names = {named(str(tmp_path / f"{name}.pt")) for name in "abc"}
    assert len(names) == 1
    settings = [
        run_settings(configure(MOBILE | {"weights": str(tmp_path / f"{name}.pt")})) for name in "ab"
    ]
    assert (
        settings[0] == settings[1]
        and settings[0]["weights"] == names.pop()
        and str(tmp_path) not in json.dumps(settings)
    )
    changed = {k: v.clone() for k, v in state.items()}
    changed["features.0.0.weight"][0, 0, 0, 0] += 1e-6
    torch.save(changed, tmp_path / "a.pt")
    assert named(str(tmp_path / "a.pt")) != settings[0]["weights"]
    assert content({"x": torch.zeros(2, 3)}) != content({"x": torch.zeros(3, 2)})
    folders = {
        run_folder(configure(MOBILE | {"weights": str(tmp_path / f"{name}.pt")})).name
        for name in "abc"
    }
    assert len(folders) == 2


def test_a_broken_download_is_named(tmp_path, monkeypatch):
    """A file in torch's cache whose checksum is another: which file to delete."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of a file")
    begins = hashlib.sha256(b"half of a file").hexdigest()[:8]
    with pytest.raises(
        InputError,
        match=f"mobilenet_v2-b0353104.pth is not the file.*{begins}.*expected b0353104; delete it",
    ):
        ReIDNet(3, **MOBILE, weights="imagenet")


def test_weights_of_another_network_are_one_sentence(tmp_path, reidsa):
    torch.save(
        {
            "identity": {"backbone": "thin"},
            "model": ReIDNet(3, "b", "none", backbone="thin").state_dict(),
        },
        tmp_path / "run.pt",
    )
    for name, words in (
        ("run.pt", "is the checkpoint of a run with backbone thin"),
        ("resnet.pt", "do not fit mobilenet_v2: 260 of 260"),
    ):
        if name == "resnet.pt":
            torch.save(
                ReIDNet(3, "b", "none", backbone="resnet18").backbone.state_dict(), tmp_path / name
            )
        with pytest.raises(InputError, match=words):
            ReIDNet(3, **MOBILE, weights=str(tmp_path / name))
    with pytest.raises(InputError, match="128 pixels high.*the nearest heights that work: 96, 192"):
        ReIDNet(3, "b_p_ds", "none", backbone="mobilenet_v2")(torch.randn(1, 3, 128, 64))
    assert_one_sentence(
        reidsa("weights", tmp_path / "resnet.pt", tmp_path / "out.pt"),
        "is this a file of another network?",
    )
    assert_one_sentence(
        reidsa("weights", tmp_path / "none.pt", tmp_path / "out.pt"),
        "no weights at",
    )
    assert_one_sentence(
        reidsa(
            "weights",
            tmp_path / "run.pt",
            tmp_path / "out.pt",
            "--images",
            tmp_path,
        ),
        "found 0 images under",
        "16 photographs or more",
    )


@pytest.fixture(scope="module")
def thin():
    """A small backbone's tensors, its batch norms' counters moved."""
    torch.manual_seed(0)
    state = ReIDNet(4, "b", backbone="thin").backbone.state_dict()
    return {
        name: value + 3 if name.endswith("num_batches_tracked") else value
        for name, value in state.items()
    }


def behind(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def refusal(path, backbone="thin"):
    """The sentence in which a file is refused; "" where it is taken."""
    try:
        ReIDNet(4, "b", backbone=backbone, weights=str(path))
    except InputError as error:
        return str(error)
    return ""


def loaded_from(path, backbone="thin"):
    return ReIDNet(4, "b", backbone=backbone, weights=str(path)).backbone.state_dict()


def as_others_save(state):
    """{what others save of a network: that}; each holds these tensors of the backbone."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    beside = {
        "epoch": 60,
        "arch": "resnet50",
        "rank1": np.float64(0.9),
        "best": np.array([1.0, 2.0]),
        "random": np.random.default_rng(0).bit_generator.state,
        "numpy": ("MT19937", np.arange(624, dtype=np.uint32), 624, 0, 0.0),
        "args": argparse.Namespace(lr=0.1, milestones=[40, 70]),
        "optimizer": optimizer.state_dict(),
    }
    heads = {"classifier.weight": torch.ones(5, 7), "bottleneck.bias": torch.zeros(7)}
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(1, 1)).state_dict()
    return {
        "as it is": state,
        "ordered": OrderedDict(state),
        "DataParallel": behind("module.", state),
        "torch.compile": behind("_orig_mod.", state),
        "compiled, then DataParallel": behind("module._orig_mod.", state),
        "a part compiled": {n.replace("layer1.", "layer1._orig_mod."): v for n, v in state.items()},
        "torchreid": {"state_dict": behind("module.", state), **beside},
        "fast-reid": {"model": behind("backbone.", state), "iteration": 3, **beside},
        "strong baseline": behind("base.", state) | heads,
        "layumi": behind("model.", state) | heads,
        "open-reid": {"state_dict": behind("module.base.", state) | heads, "best_top1": 0.9},
        "mmcv": {"meta": {"epoch": 1}, "state_dict": behind("backbone.", state)},
        "Lightning": {"state_dict": behind("model.net.", state), "epoch": 3, "callbacks": {}},
        "model_state_dict": {"model_state_dict": state, "loss": torch.tensor(0.3)},
        "net": {"net": behind("module.", state), "acc": 90.0},
        "params": {"params": state, "params_ema": behind("", averaged)},
        "nested": {"state_dict": {"model": behind("module.backbone.", state)}},
        "a name of one's own": {"my resnet": state, "epoch": 3, "optimizer": beside["optimizer"]},
        "with its average": {"model": state, "model_ema": {n: v + 1 for n, v in state.items()}},
        "MoCo": behind("module.encoder_q.", state)
        | behind("module.encoder_k.", {n: v + 1 for n, v in state.items()}),
        "the same under two names": behind("model.", state) | behind("backbone.", state),
        "another classifier": state | {"fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)},
        "ours, a file of weights": {"state_dict": state, "source": "mine"},
    }


@pytest.mark.parametrize("name", as_others_save({"a.b": torch.ones(1)}))
def test_files_as_people_have_them(thin, name, tmp_path):
    """Every usual wrapping is taken off, the tensors arrive, and a file's name says nothing."""
    saved = as_others_save(thin)[name]
    old = {"_use_new_zipfile_serialization": False}
    for file, options in (("a.pth.tar", {}), ("b.pkl", old)):
        torch.save(saved, tmp_path / file, **options)
        found = loaded_from(tmp_path / file)
        assert list(found) == list(thin)
        assert all(torch.equal(found[n], value) for n, value in thin.items())
    plain = tmp_path / "plain.pt"
    torch.save(thin, plain)
    network = ReIDNet(4, "b", backbone="thin", weights=str(tmp_path / "b.pkl"))
    same = ReIDNet(4, "b", backbone="thin", weights=str(plain))
    assert network.loaded["sha256"] == same.loaded["sha256"]
    assert named(str(tmp_path / "a.pth.tar")) == named(str(tmp_path / "b.pkl"))
    if set(tensors_of(saved)) == set(thin):  # nothing but the backbone
        assert named(str(tmp_path / "a.pth.tar")) == named(str(plain))


def test_counters_and_precision_of_others(thin, tmp_path):
    """Counters of batch norms may be missing; half precision is loaded as float32."""
    path = tmp_path / "a.pt"
    without = {n: v for n, v in thin.items() if not n.endswith("num_batches_tracked")}
    torch.save(without, path)
    found = loaded_from(path)
    assert all(torch.equal(found[n], v) for n, v in without.items())
    assert found["bn1.num_batches_tracked"] == 0
    torch.save(without | {"bn1.num_batches_tracked": torch.ones(1)}, path)
    assert loaded_from(path)["bn1.num_batches_tracked"] == 0
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({n: v.to(kind) for n, v in without.items()}, path)
        assert all(
            torch.equal(v, without[n].to(kind).float())
            for n, v in loaded_from(path).items()
            if n in without
        )
        assert named(str(path)).startswith("state_dict ")


def test_safetensors_under_any_name(thin, tmp_path):
    for file, state in (("a.bin", thin), ("b.pth", behind("module.", thin))):
        (tmp_path / file).write_bytes(
            safetensors.torch.save({n: v.contiguous() for n, v in state.items()})
        )
        found = loaded_from(tmp_path / file)
        assert all(torch.equal(found[n], v) for n, v in thin.items())
    assert named(str(tmp_path / "a.bin")) == named(str(tmp_path / "b.pth"))


def test_our_own_formats(thin, tmp_path):
    """A run's checkpoint, with its heads, and the published networks in half precision."""
    torch.manual_seed(1)
    network = ReIDNet(4, "b_p_ds_sa2", backbone="thin")
    identity = {"backbone": "thin", "seed": 1}
    torch.save({"identity": identity, "model": network.state_dict()}, tmp_path / "checkpoint.pt")
    taken = ReIDNet(9, "b", backbone="thin", weights=str(tmp_path / "checkpoint.pt"))
    own = network.backbone.state_dict()
    assert taken.loaded == identity
    assert all(torch.equal(v, own[n]) for n, v in taken.backbone.state_dict().items())
    published = sorted((ROOT / "results" / "weights").glob("*.safetensors"))
    assert published
    for path in published:
        model, _ = load_weights(path.stem)
        own = model.backbone.state_dict()
        assert all(torch.equal(v, own[n]) for n, v in loaded_from(path).items())


def test_what_is_no_wrapping_is_refused(thin, tmp_path):
    path = tmp_path / "a.pt"
    first = next(iter(thin))
    other = {n: v + 1 for n, v in thin.items()}
    cases = (
        (
            {n: v for n, v in thin.items() if n != first},
            f"1 of 85 tensors are missing .* first {first}",
        ),
        (
            thin | {first: torch.zeros(64, 1, 7, 7)},
            rf"first {first} \(64, 3, 7, 7\); found \(64, 1, 7, 7\)",
        ),
        (
            dict(ReIDNet(4, "b", backbone="thin").backbone.named_parameters()),
            "first bn1.running_mean",
        ),
        (
            behind("student.", thin),
            "they are there behind 'student.', which is not a usual wrapping",
        ),
        (
            {"a.weight": torch.ones(1), "b.c.weight": torch.ones(1)},
            "found 2 tensors named a.weight, b.c.weight",
        ),
        ({"student": thin, "teacher": other}, r"it holds several networks \(student, teacher\)"),
        (
            behind("base.", thin) | behind("model.", other),
            rf"2 different tensors for {first} of thin \(base.{first}, model.{first}\)",
        ),
        ([thin, other], "it holds one list"),
        (torch.ones(3), "it holds one Tensor"),
        ({"epoch": 3, "loss": torch.ones(1)}, "it holds no tensors with names"),
    )
    for saved, words in cases:
        torch.save(saved, path)
        said = refusal(path)
        assert re.search(words, said) and "\n" not in said and str(path) in said, said
        assert any(word in said for word in ("; name ", "; save ", ": if "))


def test_unused_tensors_of_one_name_are_no_rivals(thin, tmp_path):
    """A backbone that kept its own fc inside a network with another fc."""
    state = behind("base.", thin | {"fc.weight": torch.ones(2)}) | {"fc.weight": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pt")
    assert torch.equal(loaded_from(tmp_path / "a.pt")["conv1.weight"], thin["conv1.weight"])


def broken_files(thin):
    """{a file: (its bytes, what is said of it)}."""
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(thin, new)
    torch.save(thin, old, _use_new_zipfile_serialization=False)
    new, old = new.getvalue(), old.getvalue()
    safe = safetensors.torch.save({n: v.contiguous() for n, v in thin.items()})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pth"))
    cut = "it is cut short or damaged .*; delete it and fetch it again"
    third = len(new) // 3
    return {
        "cut": (new[: 2 * third], cut),
        "cut by a byte": (new[:-1], cut),
        "hole": (new[:third] + bytes(4096) + new[third + 4096 :], cut),
        "old, cut": (old[: len(old) // 2], cut),
        "safetensors, cut": (safe[: len(safe) // 2], cut),
        "empty": (b"", "delete it and fetch it again"),
        "noise": (bytes(range(256)) * 9, "delete it and fetch it again"),
        "zeros": (bytes(5000), "it is a file of zero bytes .*; delete it"),
        "page": (
            b"<!DOCTYPE html><html>Sign in</html>",
            r"it is an HTML page \(.* bytes\); delete it",
        ),
        "page of an archive": (b"<?xml version='1.0'?><Error>", "it is an XML file .*; delete it"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "it is a Git LFS pointer"),
        "answer": (b'{"message": "not found"}', "it is a JSON file"),
        "image": (b"\x89PNG\r\n\x1a\n", "it is a PNG image"),
        "tar": (archive.getvalue(), "it is a tar archive .*; unpack it"),
        "pickled arrays": (
            pickle.dumps({n: v.numpy() for n, v in thin.items()}),
            "was not written by torch.save",
        ),
    }


@pytest.mark.parametrize("name", broken_files({"a.b": torch.ones(1)}))
def test_a_file_that_is_no_weights_says_what_it_is(thin, name, tmp_path):
    data, words = broken_files(thin)[name]
    path = tmp_path / "resnet.pth"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = refusal(path)
    assert said.startswith(f"{path} is not a readable state_dict: ") and "\n" not in said
    assert re.search(words, said), said


def test_a_page_in_the_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    path.parent.mkdir(parents=True)
    for data, words in (
        (b"<html>Sign in</html>", "an HTML page"),
        (b"PK\x03\x04" * 9, "cut short"),
    ):
        path.write_bytes(data)
        with pytest.raises(
            InputError, match=rf"{path.name} is not the file .*{words}.*; delete it"
        ):
            ReIDNet(3, "b", weights="imagenet")


class Evil:
    """What runs code when it is unpickled by Python itself."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(thin, tmp_path):
    """Nor in old files, in plain pickles, beside good tensors, or in classes that are allowed."""
    touched = tmp_path / "touched"
    evil = Evil(touched)
    inside = argparse.Namespace(x=evil)
    for saved in ({"x": evil}, {"state_dict": thin, "x": evil}, {"model": thin, "args": inside}):
        for new in (True, False):
            torch.save(saved, tmp_path / "evil.pt", _use_new_zipfile_serialization=new)
            said = refusal(tmp_path / "evil.pt")
            assert "not a readable state_dict: it holds " in said, said
            assert "run that as code, so it was not opened" in said and "\n" not in said
            with pytest.raises(InputError):
                named(str(tmp_path / "evil.pt"))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps(evil, protocol))
        assert "not a readable state_dict" in refusal(tmp_path / "evil.pkl")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    assert "it holds torch.nn.modules.linear.Linear" in refusal(tmp_path / "module.pt")
    assert not touched.exists()


def test_what_is_no_file(tmp_path):
    assert "which is a folder; expected" in refusal(tmp_path)
    assert "which is not there; expected" in refusal(tmp_path / "a.pt")


def test_hashes_of_weights_stay_as_they_are(tmp_path):
    """Records name weights by them: these were computed before other wrappings were taken off."""
    state = {
        "a.w": torch.arange(6.0).reshape(2, 3),
        "b.n": torch.tensor(3),
        "c.h": torch.ones(3).half(),
        "d.t": torch.tensor([True, False]),
    }
    assert content(state) == "a3ece055893fd370"
    assert content({"x": torch.arange(6.0).reshape(2, 3).T}) == "f562ed1a8189de86"
    path = tmp_path / "a.pt"
    for saved in (state, behind("backbone.", state), {"state_dict": state, "source": "x"}):
        torch.save(saved, path)
        assert named(str(path)) == "state_dict a3ece055893fd370"
    torch.save({"model": behind("backbone.", state) | {"final.weight": torch.ones(1)}}, path)
    assert named(str(path)) == "state_dict e1a7c9dbcd5f79e7"
    more = {"fc.weight": torch.ones(2), "bn.num_batches_tracked": torch.tensor(1)}
    torch.save(state | more, path)
    assert named(str(path)) == "state_dict adbcd3d4fdb5d63a"


def test_values_that_numpy_1_wrote(thin, tmp_path):
    """NumPy 1 calls its module numpy.core, NumPy 2 numpy._core."""
    path = tmp_path / "a.pt"
    saved = {"state_dict": thin, "rank1": np.float32(0.9), "best": np.arange(3)}
    torch.save(saved, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"numpy._core." in data
    path.write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    assert refusal(path) == ""
