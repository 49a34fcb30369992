"""docs/own_attention.md: its blocks are one program, and it runs from end to end at `smoke`."""

import math
import os
import re
import shutil
import subprocess
import sys

from conftest import ROOT

PAGE = ROOT / "docs" / "own_attention.md"


def test_the_page_runs_from_end_to_end(tmp_path):
    """Elsewhere, on a copy of the package, so that its runs are made anew and land there."""
    shutil.copytree(
        ROOT / "reidsa_utils",
        tmp_path / "reidsa_utils",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    out = done.stdout
    effective = {form: float(x) for form, x in re.findall(r"(\w+) +([\d.]+) of 4 positions", out)}
    assert effective["none"] == 4
    # Squares of the sums 3, 0, 1 and 1: p is 9/11, 0, 1/11 and 1/11.
    entropy = 9 / 11 * math.log(11 / 9) + 2 / 11 * math.log(11)
    assert effective["square"] == round(math.exp(entropy), 2)
    assert effective["softmax"] < effective["l1"]
    assert "the Jacobian by hand is that of autograd" in out
    table, effects = out.split("seeds  rank1")[1].split("seeds")
    for form in ("none", "l1", "softmax", "square"):
        assert re.search(rf"^{form} +1 +\d+\.\d +\d+\.\d +NaN$", table, re.M)
    assert re.findall(r"^(\w+) +1 +-?\d+\.\d", effects, re.M) == ["l1", "softmax", "square"]
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert sum("-square-" in name for name in runs) == 1
