"""Run records: broken ones are refused, the committed ones are complete."""

import json

import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.experiments.records import ROOT, read_records


def test_broken_records(tmp_path, command):
    with pytest.raises(InputError, match="no folder .* with run records"):
        read_records(tmp_path / "nothing")
    with pytest.raises(InputError, match="no run records in"):
        read_records(tmp_path)
    path = tmp_path / "record.json"
    path.write_text("{")
    assert_one_sentence(command("-m", "reidsa_utils", "publish", tmp_path), "not valid JSON")
    path.write_text("{}")
    with pytest.raises(InputError, match="no complete run record: config, source"):
        read_records(tmp_path)


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
