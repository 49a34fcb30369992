"""Text as people save it, files written whole or not at all, checkpoints that are not whole."""

import pytest
import torch

from reidsa_utils import InputError
from reidsa_utils.support.files import read_checkpoint, read_text, read_toml, write_atomic


def test_write_atomic_keeps_the_old_file(tmp_path):
    write_atomic(tmp_path / "a.json", b"old")
    (tmp_path / "a.json.partial").mkdir()  # the new bytes cannot be written
    with pytest.raises(
        InputError, match="could not write .*a.json.*the one written before is kept"
    ):
        try:
            write_atomic(tmp_path / "a.json", b"new")
        finally:
            assert (tmp_path / "a.json").read_bytes() == b"old"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_as_editors_save_it(tmp_path, encoding):
    """A byte-order mark says how a text goes on; line ends of Windows are line ends."""
    path = tmp_path / "a.toml"
    path.write_bytes('name = "Δ 한"\r\nother = 1\r\n'.encode(encoding))
    assert read_text(path) == 'name = "Δ 한"\nother = 1\n'
    assert read_toml(path) == {"name": "Δ 한", "other": 1}


def test_other_text_is_one_sentence(tmp_path):
    path = tmp_path / "a.toml"
    for data, words in (
        ("größe = 1".encode("cp1252"), r"a.toml is not UTF-8 text \(byte 2\); save it as UTF-8"),
        ("Δ".encode("cp949"), "is not UTF-8 text"),
        (b"\xff\xfe\x00", "is not UTF-16 text"),
        (b"a = \nb = 1", "a.toml is not valid TOML: .*line 1"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=words):
            read_toml(path)


def test_a_hole_in_a_file_of_torch_is_seen(tmp_path):
    """torch.load itself takes the zeros."""
    path = tmp_path / "checkpoint.pt"
    state = {"identity": {"seed": 1}, "model": {"a.weight": torch.ones(5000)}}
    torch.save(state, path)
    assert torch.equal(read_checkpoint(path)["model"]["a.weight"], torch.ones(5000))
    data = path.read_bytes()
    for broken in (data[:9000] + bytes(500) + data[9500:], data[:9000], b""):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="checkpoint.pt is not a readable checkpoint"):
            read_checkpoint(path)
    torch.serialization.set_crc32_options(False)  # such a file holds nothing to compare with
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(path)["identity"] == {"seed": 1}
