"""Records into tables."""

import json

import pytest
from conftest import assert_one_sentence

from reidsa_utils import InputError
from reidsa_utils.results import ROOT, aggregate, publish, read_records, table, table3_row


def record(variant, form, seed, rank1, mean_ap):
    config = {"benchmark": "market1501", "profile": "laptop", "variant": variant, "form": form, "recipe": "paper", "erasing": True,
              "epochs": 10, "seed": seed}
    m = {"rank1": rank1, "mean_ap": mean_ap, "mean_ap_trapezoid": mean_ap - 0.01}
    rest = {"identity": {"fingerprint": "f"}} | {key: {} for key in ("counts", "code", "versions")}
    return {"config": config, "source": "rendered", "metrics": {"parts": m}, "history": [], **rest}


def test_table3_row_by_hand(tmp_path):
    runs = [record("b_p_ds", "none", 0, 0.60, 0.40), record("b_p_ds", "none", 1, 0.64, 0.44),
            record("b_p_ds_sa2", "l1", 0, 0.70, 0.45), record("b_p_ds_sa2", "l1", 1, 0.70, 0.47),
            record("b_p_ds_sa2", "softmax", 1, 0.50, 0.35), record("b_p_ds_sa2", "softmax", 2, 0.90, 0.95)]
    for i, r in enumerate(runs):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "record.json").write_text(json.dumps(r))
    cells = aggregate(table(read_records(tmp_path)))
    base = cells[cells.variant == "b_p_ds"].iloc[0]
    assert base.rank1 == pytest.approx(62) and base.rank1_sd == pytest.approx(8**0.5) and base.seeds == 2
    row = table3_row(table(read_records(tmp_path)), "market1501").set_index("form of SA")
    # l1: 70 - 60 and 70 - 64, seed by seed; softmax: only seed 1 has a partner without SA
    assert row.loc["l1", "Δ rank-1"] == pytest.approx(8) and row.loc["l1", "Δ rank-1 sd"] == pytest.approx(8**0.5)
    assert row.loc["softmax", "Δ mAP"] == pytest.approx(-9) and row.loc["softmax", "mAP without"] == pytest.approx(44)
    assert row.loc["l1", "Δ rank-1, paper"] == pytest.approx(0.8) and row.loc["l1", "Δ mAP, paper"] == pytest.approx(2.1)
    assert row.seeds.to_dict() == {"l1": 2, "softmax": 1}
    twice = table([*runs, runs[2]])
    with pytest.raises(InputError, match="several runs of b_p_ds_sa2 with form l1 have one seed"):
        table3_row(twice, "market1501")
    other = record("b_p_ds_sa2", "sigmoid", 0, 0.5, 0.5) | {"identity": {"fingerprint": "g"}}
    with pytest.raises(InputError, match="form sigmoid and those without SA were trained on other data"):
        table3_row(table([*runs, other]), "market1501")
    with pytest.raises(InputError, match="found 0 runs of b_p_ds"):
        table3_row(table(read_records(tmp_path)).query("variant != 'b_p_ds'"), "market1501")
    (tmp_path / "0" / "progress.json").write_text("{}")  # beside a record: not one
    assert len(read_records(tmp_path / "0")) == 1
    into = tmp_path / "published"
    names = [p.name for p in publish(tmp_path, into)]
    assert names[0] == "market1501-rendered-laptop-b_p_ds-none-paper-erasing-e10-s0.json" and len(set(names)) == 6
    assert len(read_records(into)) == 6
    runs[0]["identity"] = {"fingerprint": "other data"}
    (tmp_path / "0" / "record.json").write_text(json.dumps(runs[0]))
    with pytest.raises(InputError, match="holds another run of this name"):
        publish(tmp_path, into)


def test_broken_records(tmp_path, command):
    with pytest.raises(InputError, match="no folder .* with run records"):
        read_records(tmp_path / "nothing")
    with pytest.raises(InputError, match="no run records in"):
        read_records(tmp_path)
    path = tmp_path / "record.json"
    path.write_text("{")
    assert_one_sentence(command("-m", "reidsa_utils.results", "publish", tmp_path), "not valid JSON")
    path.write_text("{}")
    with pytest.raises(InputError, match="no complete run record: config, source"):
        read_records(tmp_path)


def test_committed_records_are_complete_and_private():
    records = read_records(ROOT / "results")
    assert {r["source"] for r in records} == {"rendered", "real"}
    for r in records:
        assert r["history"] and r["identity"]["fingerprint"] and r["code"]["sources"]
        assert all(0 <= m["rank1"] <= 1 and 0 <= m["mean_ap"] <= 1 for m in r["metrics"].values())
        assert "/" not in json.dumps({k: v for k, v in r.items() if k != "title"}), "a path?"
