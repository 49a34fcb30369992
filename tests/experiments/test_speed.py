"""The benchmark script runs, and compares like with like. Nothing here depends on the clock: ratios are for docs/speed.md."""

import json
import os
import subprocess
import sys

import numpy as np
from conftest import ROOT

from reidsa_utils.experiments import speed
from reidsa_utils.metrics import euclidean, evaluate_ranking
from reidsa_utils.reranking import rerank


def test_the_baselines_compute_the_same():
    query, gallery, ids, cameras = speed.features(40, 300, 32)
    distances = euclidean(query, gallery)
    assert (
        abs(
            speed.by_sorting(distances, ids, cameras)
            - evaluate_ranking(distances, *ids, *cameras).mean_ap
        )
        < 1e-12
    )
    np.testing.assert_allclose(
        speed.rerank_dense(query, gallery), rerank(query, gallery), atol=1e-5
    )


def quick(*words):
    return subprocess.run(
        [sys.executable, "-m", "reidsa_utils", "speed", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "REIDSA_SPEED_QUICK": "1"},
    )


def test_every_group_runs():
    """In one process, since each would import torch again."""
    done = quick("--here", *speed.GROUPS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(speed.GROUPS)
    for name, results in found.items():
        assert results, name
        numbers = [value for value in results.values() if isinstance(value, float)]
        assert numbers and not min(numbers) < 0, (name, results)


def test_a_group_has_a_process_of_its_own_and_a_quick_run_records_nothing():
    before = {p: p.read_bytes() for p in (ROOT / "results" / "speed").iterdir()}
    done = quick("distances")  # the quickest: "attention" compiles
    assert done.returncode == 0, done.stderr
    assert "distances" in done.stdout.splitlines()
    after = {p: p.read_bytes() for p in (ROOT / "results" / "speed").iterdir()}
    assert after == before and before
