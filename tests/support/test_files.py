"""Files written whole or not at all."""

import pytest

from reidsa_utils import InputError
from reidsa_utils.support.files import write_atomic


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
