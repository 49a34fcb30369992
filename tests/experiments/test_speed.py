"""The benchmark script runs, and compares like with like. Nothing here depends on the clock: ratios are for docs/speed.md."""

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


def test_every_group_runs():
    before = {p: p.read_bytes() for p in (ROOT / "results" / "speed").iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", "reidsa_utils", "speed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "REIDSA_SPEED_QUICK": "1"},
    )
    assert done.returncode == 0, done.stderr
    for name in speed.GROUPS:
        assert name in done.stdout.splitlines()
    assert {
        p: p.read_bytes() for p in (ROOT / "results" / "speed").iterdir()
    } == before and before  # a quick run records nothing
