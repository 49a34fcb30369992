"""What a backbone begins with: files as people have them, the conversion by order, broken downloads, other networks' weights."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.batches import to_input
from reidsa_utils.config import configure, run_folder, run_settings
from reidsa_utils.data import load_images
from reidsa_utils.model import BACKBONES, ReIDNet
from reidsa_utils.weights import AGREE, content, convert, named, statistics

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


def test_weights_of_another_network_are_one_sentence(tmp_path, command):
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
        command("-m", "reidsa_utils", "weights", tmp_path / "resnet.pt", tmp_path / "out.pt"),
        "is this a file of another network?",
    )
    assert_one_sentence(
        command("-m", "reidsa_utils", "weights", tmp_path / "none.pt", tmp_path / "out.pt"),
        "no weights at",
    )
    assert_one_sentence(
        command(
            "-m",
            "reidsa_utils",
            "weights",
            tmp_path / "run.pt",
            tmp_path / "out.pt",
            "--images",
            tmp_path,
        ),
        "found 0 images under",
        "16 photographs or more",
    )


def test_pickled_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="not a readable state_dict"):
        ReIDNet(3, **MOBILE, weights=str(tmp_path / "evil.pt"))
    assert not (tmp_path / "touched").exists()
