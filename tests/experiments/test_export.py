"""`reidsa export`: the tables say what the records say, and LaTeX can read them."""

import json
import re

import made_records
import numpy as np
import pandas as pd
import pytest

from reidsa_utils import InputError
from reidsa_utils.experiments.export import export, export_tables, latex, latex_text


def write(folder, *records):
    folder.mkdir(parents=True, exist_ok=True)
    for record in records:
        c = record["config"]
        name = f"{c['variant']}-{c['form']}-{c['recipe']}-{c['seed']}-{c.get('lr', '')}.json"
        (folder / name).write_text(json.dumps(record))


def made(variant, form, seed, first_match, average_precision, **config):
    """A made-up run with a vector `parts` and its re-ranked one."""
    record = made_records.record(variant, form, seed, first_match, average_precision)
    record["config"] |= config
    record["metrics"]["parts+rerank"] = record["metrics"]["parts"]
    return record


@pytest.fixture
def folder(tmp_path):
    """Two networks of two seeds, one more seed without SA, a control, and two rates."""
    place = tmp_path / "records"
    without = [
        made("b_p_ds", "none", 0, [1, 2, 1, 3], [1.0, 0.5, 1.0, 0.25]),
        made("b_p_ds", "none", 1, [2, 2, 1, 3], [0.5, 0.5, 1.0, 0.25]),
        made("b_p_ds", "none", 2, [2, 2, 2, 2], [0.5, 0.5, 0.5, 0.5]),
    ]
    with_sa = [
        made("b_p_ds_sa2", "l1", 0, [1, 1, 1, 3], [1.0, 1.0, 1.0, 0.25]),
        made("b_p_ds_sa2", "l1", 1, [2, 1, 1, 3], [0.5, 0.75, 1.0, 0.25]),
    ]
    control = made("b_p_ds_sa2", "l1", 0, [1, 2, 1, 3], [1.0, 0.5, 1.0, 0.25], recipe="no_nesterov")
    write(place, *without, *with_sa, control)
    write(place / "rates", without[0], with_sa[0] | {"config": with_sa[0]["config"]})
    return place


def test_a_row_by_hand(folder):
    """mAP without 68.75, 56.25, 50; with 81.25, 62.5: differences of the shared seeds 12.5, 6.25."""
    table = export_tables(folder)["table3"].set_index("variant")
    row = table.loc["b_p_ds_sa2"]
    assert (row["seeds"], row["paired seeds"]) == (2, 2)
    assert row["mAP mean (%)"] == pytest.approx((81.25 + 62.5) / 2)
    assert row["mAP sd (points)"] == pytest.approx(np.std([81.25, 62.5], ddof=1))
    assert row["delta mAP (points)"] == pytest.approx((12.5 + 6.25) / 2)
    assert (
        row["delta mAP low (points)"] < row["delta mAP (points)"] < row["delta mAP high (points)"]
    )
    assert row["paper's delta mAP (points)"] == pytest.approx(2.1)
    alone = table.loc["b_p_ds"]
    assert alone["seeds"] == 3 and np.isnan(alone["delta mAP (points)"])
    assert alone["mAP mean (%)"] == pytest.approx((68.75 + 56.25 + 50) / 3)


def test_a_control_is_compared_with_the_recipe_paper(folder):
    table = export_tables(folder)["controls"]
    [row] = table.to_dict("records")
    assert row["recipe"] == "no_nesterov" and row["paired seeds"] == 1
    assert row["delta mAP (points)"] == pytest.approx(68.75 - 81.25)
    assert np.isnan(row["delta mAP sd (points)"])  # one seed has none


def test_files(folder, tmp_path):
    paths = export(folder, tmp_path / "deep" / "out")
    names = {path.name for path in paths}
    expected = ("table1", "table3", "controls", "rates")  # no run is without erasing
    assert names == {f"{name}.{kind}" for name in expected for kind in ("csv", "tex")}
    assert sorted(p.name for p in (tmp_path / "deep" / "out").iterdir()) == sorted(names)
    again = pd.read_csv(tmp_path / "deep" / "out" / "table3.csv")
    columns = set(again) - {"seeds", "paired seeds", "epochs", "learning rate"}
    for name in columns:  # a number says its unit
        assert re.search(r"\((%|points)\)$", name) or not pd.api.types.is_float_dtype(again[name])


def test_latex_is_whole(folder, tmp_path):
    """Each line has as many cells as the columns that are declared; nothing special is bare."""
    for path in export(folder, tmp_path / "out"):
        if path.suffix != ".tex":
            continue
        text = path.read_text()
        lines = [line for line in text.splitlines() if not line.startswith("%")]
        columns = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[0])[1]
        assert lines[1] == "\\toprule" and lines[-2:] == ["\\bottomrule", "\\end{tabular}"]
        rows = [line for line in lines if line.endswith(r"\\")]
        assert len(rows) == len(lines) - 5
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1
            bare = re.sub(r"\$[-+0-9.,\[\] ]*\$|\$\\pm\$", "", row)
            assert not re.search(r"(?<!\\)[%$#_^~]", bare)
        assert text.isascii()


def test_special_characters_of_own_data():
    table = pd.DataFrame({"benchmark": [r"50%_off & {x}~^\#$", "b"], "mAP mean (%)": [1.25, 2.0]})
    first = latex(table).splitlines()[5]
    expected = r"50\%\_off \& \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}\#\$"
    assert first.split(" & 1.2")[0] == expected
    assert latex_text("a\nb") == "a b"


def test_numbers_are_rounded_once(folder):
    """0.2451 is 0.2: a file that rounded to 0.25 first would say 0.3, or 0.2, by chance."""
    table = export_tables(folder)["table3"].copy()
    table["mAP mean (%)"] = 43.2451
    assert "43.2 " in latex(table) and "43.3" not in latex(table)


@pytest.mark.parametrize("bad", ["file", "empty", "broken", "twice"])
def test_bad_input_is_one_sentence_and_nothing_is_written(folder, tmp_path, bad):
    out, words = tmp_path / "out", {}
    if bad == "file":
        out.write_text("mine")
    elif bad == "empty":
        folder = tmp_path / "nothing"
        folder.mkdir()
    elif bad == "broken":
        (folder / "broken.json").write_text("{")
    else:
        one = next(folder.glob("*.json"))
        (folder / "again.json").write_bytes(one.read_bytes())
    words = {"file": "is a file", "empty": "nothing", "broken": "not valid", "twice": "two records"}
    with pytest.raises(InputError, match=words[bad]):
        export(folder, out)
    assert out.read_text() == "mine" if bad == "file" else not out.exists()


def test_the_command(folder, tmp_path, command, reidsa):
    words = ["-m", "reidsa_utils", "export", folder, "--out", tmp_path / "out"]
    done = command(*words)
    assert done.returncode == 0 and done.stdout.count("wrote ") == 8
    done = reidsa("export", tmp_path / "none", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
