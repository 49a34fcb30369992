"""Random damage and random wrappings: files on disk and weights, as no list of cases has them."""

import io
import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reidsa_utils import InputError
from reidsa_utils.data import decode, load_images
from reidsa_utils.support.image_files import flaw_of
from reidsa_utils.weights import content, named, read_weights, tensors_of

BOUNDED = settings(max_examples=120, deadline=None, derandomize=True)
BEHIND = st.one_of(st.just(b""), st.binary(max_size=300), st.just(bytes(5000)))


@st.composite
def images(draw, forms=("JPEG", "PNG")):
    """(format, the bytes of a sound file): a flat, smooth or noisy picture in any usual coding."""
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    pixels = rng.normal(0, draw(st.sampled_from([0, 10, 80])), (height, width, 3))
    pixels = cv2.GaussianBlur(pixels, (0, 0), draw(st.sampled_from([0.4, 2.0])))
    picture = Image.fromarray((pixels + draw(st.integers(0, 255))).clip(0, 255).astype(np.uint8))
    picture = picture.convert(draw(st.sampled_from(["RGB", "L"])))
    form = draw(st.sampled_from(forms))
    options = {}
    if form == "JPEG":
        options = {
            "quality": draw(st.integers(1, 100)),
            "optimize": draw(st.booleans()),
            "progressive": draw(st.booleans()),
            "exif": draw(st.sampled_from([b"", b"Exif\0\0" + bytes(40) + b"\xff\xd9" * 20])),
        }
    file = io.BytesIO()
    picture.save(file, form, **options)
    return form, file.getvalue()


@BOUNDED
@given(images(), BEHIND)
def test_a_sound_image_is_never_refused(image, behind):
    """Whatever stands behind its end, and whatever its name says."""
    form, data = image
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    with TemporaryDirectory() as folder:
        for name in ("a.jpg", "a.png"):
            path = Path(folder) / name
            path.write_bytes(data + behind)
            assert np.array_equal(decode(path), whole), form


@BOUNDED
@given(images(), st.data())
def test_a_cut_is_always_seen(image, data):
    _, whole = image
    length = data.draw(st.integers(0, len(whole) - 1))
    assert flaw_of(whole[:length])
    unwritten = whole[:length] + bytes(data.draw(st.integers(0, 4000)))
    assert flaw_of(unwritten) or unwritten.startswith(whole)


@BOUNDED
@given(images(forms=("PNG",)), st.data())
def test_every_hole_in_a_png_is_seen(image, data):
    _, whole = image
    size = data.draw(st.integers(1, len(whole) // 2))
    place = data.draw(st.integers(0, len(whole) - size))
    holed = whole[:place] + bytes(size) + whole[place + size :]
    assert bool(flaw_of(holed)) == (holed != whole)


@BOUNDED
@given(images(), st.data())
def test_damage_is_a_picture_or_one_sentence(image, data):
    """Bytes changed, moved, taken out or put in anywhere: an array or InputError, and nothing else."""
    form, whole = image
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(broken)))
        end = min(len(broken), place + data.draw(st.integers(0, 200)))
        broken[place:end] = data.draw(st.binary(max_size=40))
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{form.lower()}"
        path.write_bytes(broken)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a decoder's complaint, which names the file
                found = load_images([str(path)], 16, 8, threads=1)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert found.shape == (1, 16, 8, 3)


class Small(torch.nn.Module):
    """A backbone of a few numbers, with the kinds of tensors that backbones have."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 2, 1)
        self.layer1 = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 1))
        self.fc = torch.nn.Linear(1, 1)


WORDS = st.sampled_from(["module", "_orig_mod", "backbone", "base", "model", "net", "encoder"])
KEYS = st.sampled_from(["state_dict", "model", "model_state_dict", "net", "params", "mine"])
BESIDE = st.fixed_dictionaries(
    {},
    optional={
        "epoch": st.integers(0, 99),
        "rank1": st.floats(0, 1).map(np.float64),
        "optimizer": st.just(
            {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
        ),
        "arch": st.text(max_size=9),
        "losses": st.lists(st.floats(0, 9), max_size=3),
        "loss": st.just(torch.tensor(0.3)),
    },
)


@BOUNDED
@given(
    st.lists(WORDS, max_size=4),
    st.lists(st.tuples(KEYS, BESIDE), max_size=3),
    st.booleans(),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_wrapping_is_taken_off(words, keys, counters, new, random):
    """The tensors arrive, in any order and under any name of a file; the hash is that of the plain state_dict."""
    torch.manual_seed(0)
    state = Small().state_dict()
    if not counters:
        state = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    saved = {".".join([*words, name]): value for name, value in state.items()}
    names = list(saved)
    random.shuffle(names)
    saved = {name: saved[name] for name in names}
    for key, beside in keys:
        saved = beside | {key: saved}
    assert set(tensors_of(saved)) == set(state)
    with TemporaryDirectory() as folder:
        plain, wrapped = Path(folder) / "plain.pt", Path(folder) / "w.pth.tar"
        torch.save(dict(state), plain)
        torch.save(saved, wrapped, _use_new_zipfile_serialization=new)
        torch.manual_seed(1)
        net = Small()
        origin = read_weights(net, "small", "fc", str(wrapped))
        assert named(str(wrapped)) == named(str(plain))
    needed = {n: v for n, v in state.items() if n[:3] != "fc." and not n.endswith("tracked")}
    assert all(torch.equal(net.state_dict()[n], v) for n, v in needed.items())
    assert origin["sha256"] == content(needed)


@BOUNDED
@given(st.data())
def test_damaged_weights_are_one_sentence(data):
    """Cut, holed or changed: refused, or (old files and safetensors have no checksums) the damage is in a number."""
    file = io.BytesIO()
    torch.save(Small().state_dict(), file, _use_new_zipfile_serialization=data.draw(st.booleans()))
    broken = bytearray(file.getvalue())
    place = data.draw(st.integers(0, len(broken) - 1))
    if data.draw(st.booleans()):
        del broken[place:]
    else:
        broken[place : place + 64] = data.draw(st.binary(min_size=1, max_size=64))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        path.write_bytes(broken)
        try:
            json.dumps(read_weights(Small(), "small", "fc", str(path)))
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
