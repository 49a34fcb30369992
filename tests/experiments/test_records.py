"""Run records: broken ones are refused, the committed ones are complete."""

import json

import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.experiments.records import ROOT, publish, read_records


def test_broken_records(tmp_path, reidsa):
    with pytest.raises(InputError, match="no folder .* with run records"):
        read_records(tmp_path / "nothing")
    with pytest.raises(InputError, match="no run records in"):
        read_records(tmp_path)
    path = tmp_path / "record.json"
    path.write_text("{")
    assert_one_sentence(reidsa("publish", tmp_path), "not valid JSON")
    path.write_text("{}")
    with pytest.raises(InputError, match="not a complete run record: config, source"):
        read_records(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_record_that_an_editor_saved(tmp_path, encoding):
    """It is read, and published as UTF-8 without a mark."""
    source = next(iter(sorted((ROOT / "results").glob("*.json"))))
    text = source.read_text(encoding="utf-8")
    path = tmp_path / "run" / "record.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(encoding))
    [published] = publish([tmp_path / "run"], tmp_path / "into")
    assert published.name == source.name
    assert json.loads(published.read_bytes().decode("ascii")) == json.loads(text)


def test_committed_records_are_complete_and_private():
    records = read_records(ROOT / "results")
    assert {r["source"] for r in records} == {"rendered", "real"}
    for r in records:
        assert len(r["history"]) == r["config"]["epochs"], "an entry for each epoch"
        assert r["history"] or r["config"]["weights"] != "none", (
            "no training: only as a transfer of what was trained elsewhere"
        )
        assert r["identity"]["fingerprint"] and r["code"]["sources"]
        assert all(0 <= m["rank1"] <= 1 and 0 <= m["mean_ap"] <= 1 for m in r["metrics"].values())
        assert "/" not in json.dumps({k: v for k, v in r.items() if k != "title"}), "a path?"
