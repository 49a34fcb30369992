"""What a bare server lacks is said in a sentence."""


def test_a_missing_system_library_is_explained(tmp_path, command):
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')"
    )  # a bare server's opencv
    done = command("-c", "import reidsa_utils.data", env={"PYTHONPATH": str(tmp_path)})
    assert done.stderr.splitlines()[-1].startswith(
        "ImportError: opencv-python cannot be loaded (libGL.so.1"
    )
    assert "apt-get install libgl1" in done.stderr
