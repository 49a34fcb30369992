"""What `check` sees: every byte where a checksum is known; elsewhere what structure and decoder show, and no more."""

import hashlib
import io
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidsa_utils import InputError
from reidsa_utils.data import LAYOUTS, SPLITS, decode, load_benchmark, load_images
from reidsa_utils.datasets import check as module
from reidsa_utils.datasets.check import check
from reidsa_utils.datasets.rendered import render_benchmark

LIST = "SHA256SUMS"


def middle_zeroed(data):
    n = len(data) // 3
    return data[:n] + bytes(n) + data[2 * n :]


def middle_missing(data):
    """Bytes taken out, end and beginning kept: only a decoder notices."""
    return data[:-400] + data[-300:]


def as_format(form):
    def convert(data):
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).save(file, form)
        return file.getvalue()

    return convert


def with_thumbnail(data):
    body = b"Exif\0\0" + data
    return data[:2] + b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body + data[2:]


# (what happens to a file, what is said of it by structure or decoder)
DAMAGE = {
    "hole": (middle_zeroed, "is damaged (", "by its structure, there is a hole of"),
    "bytes missing": (middle_missing, "is damaged: its decoder says", "Corrupt JPEG data"),
    "cut": (lambda data: data[:-200], "is truncated", "by its structure, the JPEG lacks its end"),
    "empty": (lambda data: b"", "is truncated or no image (0 bytes)", ""),
    "end never written": (lambda data: data[:-900] + bytes(900), "by its structure", "hole"),
    "PNG": (as_format("PNG"), "is a PNG image, by its first bytes, under the name of a JPEG", ""),
    "WebP": (as_format("WEBP"), "is a WebP image, where a JPEG or PNG was expected", ""),
    "BMP": (as_format("BMP"), "is a BMP image", ""),
    "GIF": (as_format("GIF"), "is a GIF image", ""),
    "page": (lambda data: b"<!doctype html><html>404</html>", "is an HTML page", ""),
}
ALLOWED = {
    "data behind the end": lambda data: data + b"of a telephone" * 100,
    "another image behind the end": lambda data: data + data,
    "EXIF with a thumbnail": with_thumbnail,
    "a comment": lambda data: data[:2] + b"\xff\xfe\0\x07hello" + data[2:],
}


@pytest.fixture
def copy(small_benchmark, tmp_path):
    return Path(shutil.copytree(small_benchmark, tmp_path / small_benchmark.name))


def victim_of(folder, k=5):
    return sorted((folder / "query").iterdir())[k]


def problems(folder, capfd, name="market1501"):
    """The exit code, the problems, and the last line."""
    code = check(name, folder, progress=False)
    lines = capfd.readouterr().out.splitlines()
    return code, [line for line in lines if line.startswith("problem: ")], lines[-1]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("listed", [True, False])
def test_damage_is_named(copy, capfd, kind, listed):
    change, *words = DAMAGE[kind]
    victim = victim_of(copy)
    victim.write_bytes(change(victim.read_bytes()))
    if not listed:
        (copy / LIST).unlink()
    code, [problem], last = problems(copy, capfd)
    assert code == 1 and victim.name in problem and "problems: 1" in last
    if listed and kind == "bytes missing":
        words = ["by its checksum not the one that was made"]
    assert all(word in problem for word in words), problem
    assert "Corrupt" not in capfd.readouterr().err  # no decoder speaks without a name


@pytest.mark.parametrize("kind", ALLOWED)
def test_what_a_format_allows(copy, capfd, kind):
    """No damage by structure; but no byte may differ from a known checksum."""
    victim = victim_of(copy)
    before = decode(victim)
    victim.write_bytes(ALLOWED[kind](victim.read_bytes()))
    assert np.array_equal(decode(victim), before)
    code, [problem], _ = problems(copy, capfd)
    assert code == 1 and victim.name in problem and "by its checksum" in problem
    (copy / LIST).unlink()
    code, found, last = problems(copy, capfd)
    assert code == 0 and not found
    assert last.startswith("all counts as expected; all 577 images decode; damage was looked for")


def test_one_bit(copy, capfd):
    victim = victim_of(copy)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    code, [problem], _ = problems(copy, capfd)
    assert code == 1 and victim.name in problem and "by its checksum" in problem


def test_png_has_its_own_checksums(four_benchmarks, tmp_path, capfd):
    name = "cuhk03_np_labeled"
    folder = Path(shutil.copytree(four_benchmarks[name], tmp_path / "labeled"))
    (folder / LIST).unlink()
    victim = victim_of(folder)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    code, [problem], _ = problems(folder, capfd, name)
    assert code == 1 and victim.name in problem and "does not fit its checksum" in problem


def test_the_list_is_sha256sums_own(copy, capfd):
    """It names every image; what other programs make of it is read, what is no list is told."""
    lines = (copy / LIST).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 577 and not [line for line in lines if "part_masks" in line]
    _, _, last = problems(copy, capfd)
    assert last.endswith("all 577 images decode; all have their checksums")

    text = "".join(line.replace("  ", " *./") + "\r\n" for line in lines[:500])
    (copy / LIST).write_bytes(text.encode("utf-16"))  # PowerShell
    code, found, last = problems(copy, capfd)
    assert code == 0 and "500 have their checksums; in the others damage was looked for" in last

    for broken, words in (
        ("\n".join(lines)[:2000], "is not a checksum and name"),
        ("<html>", "line 1 is not a checksum"),
    ):
        (copy / LIST).write_text(broken, encoding="utf-8")
        code, [problem], _ = problems(copy, capfd)
        assert code == 1 and LIST in problem and words in problem
    (copy / LIST).write_bytes(b"\xe9\xe8")
    code, [problem], _ = problems(copy, capfd)
    assert code == 1 and "is not UTF-8 text" in problem


def test_a_list_changes_nothing_else(small_benchmark, copy):
    """Fingerprint, counts and what is kept or rendered again are those of a folder without it."""
    (copy / LIST).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        old, new = (load_benchmark("market1501", folder) for folder in (copy, small_benchmark))
    assert old.fingerprint() == new.fingerprint() and old.counts == new.counts
    assert render_benchmark("market1501", copy.parent, 0.016, 5, progress=False) == copy
    assert not (copy / LIST).exists()  # what is there is kept as it is


def test_a_fingerprint_that_differs_is_a_problem(copy, capfd):
    """A real copy whose files are sound, and are not those of the copy that is known."""
    found = load_benchmark("market1501", copy)
    assert module._compare_fingerprint(found) == []
    [problem] = module._compare_fingerprint(replace(found, source="real"))
    known = LAYOUTS["market1501"].fingerprint
    assert f"the fingerprint is {found.fingerprint()}, expected {known}" in problem
    duke = replace(found, source="real", name="dukemtmc_reid")  # of which none is known
    assert module._compare_fingerprint(duke) == []


def test_market1501_is_known_by_the_checksum_of_every_file(copy):
    """The stored ones are of its archive, in the order of the stored names."""
    names = module._unpacked("published_names.json.gz")["market1501"]
    paths = []
    for split, listed in names.items():
        paths += [str(copy / SPLITS[split] / f"{name}.jpg") for name in listed.split()]
    real = replace(load_benchmark("market1501", copy), source="real")
    known, problems = module._known_checksums(real, paths)
    assert list(known) == paths and not problems and len(paths) == 36036
    assert {len(digits) for digits in known.values()} == {module.DIGITS}
    assert len(set(known.values())) > 36000
    victim = victim_of(copy)
    words = "is an image, but by its checksum not the one that was made"
    assert words in module._damage(str(victim), known[paths[0]])


@pytest.mark.skipif("REIDSA_DATA" not in os.environ, reason="set REIDSA_DATA: a real Market-1501")
def test_the_real_files_have_these_checksums(tmp_path):
    found = load_benchmark("market1501", os.environ["REIDSA_DATA"])
    known, _ = module._known_checksums(found, found.query.paths)
    for path in found.query.paths[::50]:
        data = bytearray(Path(path).read_bytes())
        assert hashlib.sha256(data).hexdigest().startswith(known[path])
        data[len(data) // 2] ^= 1
        changed = tmp_path / Path(path).name
        changed.write_bytes(data)
        assert not module._damage(path, known[path]) and module._damage(str(changed), known[path])


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_manifest_from_another_editor(copy, capfd, mark):
    path = copy / "manifest.json"
    path.write_bytes(json.dumps(json.loads(path.read_bytes())).encode(mark))
    assert load_benchmark("market1501", copy).source == "rendered"
    assert problems(copy, capfd)[0] == 0


def test_loading_names_what_a_decoder_complains_of(copy, capfd):
    """A picture that may be lost in part is loaded, and named; one that surely is, is refused."""
    victim = victim_of(copy)
    whole = victim.read_bytes()
    paths = load_benchmark("market1501", copy).query.paths
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(paths, 96, 32)
    victim.write_bytes(middle_missing(whole))
    with pytest.warns(UserWarning, match=f"{victim.name}: the decoder says .Corrupt JPEG data"):
        load_images(paths, 96, 32)
    assert "Corrupt" not in capfd.readouterr().err
    victim.write_bytes(middle_zeroed(whole))
    with pytest.raises(InputError, match=f"{victim.name} is damaged .* hole"):
        load_images(paths, 96, 32)
    victim.write_bytes(as_format("WEBP")(whole))
    with pytest.raises(InputError, match=f"{victim.name} is a WebP image, where a JPEG or PNG"):
        load_images(paths, 96, 32)


def test_a_png_under_the_name_of_a_jpeg_is_read(copy):
    victim = victim_of(copy)
    before = decode(victim)
    victim.write_bytes(as_format("PNG")(victim.read_bytes()))
    assert np.abs(decode(victim).astype(int) - before).max() <= 2  # two decoders of JPEG


def test_the_orientation_in_exif_is_applied(tmp_path):
    """As load_images says: unlike in code that opens files by PIL alone."""
    picture = Image.fromarray(np.arange(96 * 48, dtype=np.uint8).reshape(96, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert np.array(Image.open(tmp_path / "a.jpg")).shape == (96, 48)
    assert decode(tmp_path / "a.jpg").shape == (48, 96, 3)
    assert "EXIF" in load_images.__doc__ and "EXIF" in decode.__doc__
