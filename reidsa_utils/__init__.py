"""Parameter-free spatial attention for person re-identification: the code behind the notebooks.

The paper's parts, in the order in which they import each other (downwards only):

    training, evaluation    one epoch and its steps; images -> vectors -> metrics
                            (the loop over epochs: Run.train_epochs in experiments/run.py)
    cam, config             class activation maps (eq. 3, 5, 7); the settings of one run
    model                   Fig. 3 on a ResNet or MobileNetV2, recipes, losses
    metrics, reranking      the protocol: CMC, both average precisions; k-reciprocal re-ranking
    data, batches           a benchmark on disk -> arrays; arrays -> augmented batch -> input
    weights                 what a backbone begins with
    attention               the layer: eq. 1, 6, 12

Around them: datasets (rendered benchmarks, data of one's own, CUHK03-NP, check), experiments
(runs, records, statistics, tables, claims, README, explorer), figures (what the notebooks show),
course (checks of the notebooks' exercises), support (files, what is in them, arrays, processes,
workers, memory, printing), settings (profiles, recipes, benchmarks, grid, claims: TOML), cli (the
command `reidsa`).
"""

import difflib
import os
from pathlib import Path

__version__ = "0.1.0"
# What is data and not code: benchmarks, profiles, recipes, claims.
SETTINGS = Path(__file__).with_name("settings")


def cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InputError(ValueError):
    """Bad input, told in one sentence: what was found, what was expected, what to do."""

    def _render_traceback_(self):
        # IPython asks an exception for its own picture: so a notebook shows the sentence only.
        return [f"{type(self).__name__}: {self}"]


def unknown_message(kind: str, name: str, names) -> str:
    """One sentence about a name that is none of `names`: it lists them, and the nearest."""
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"unknown {kind} {name!r}; known: {', '.join(names)}{hint}"


def known(kind: str, name: str, names) -> str:
    """`name`, if it is one of `names`. Raises InputError that lists them otherwise."""
    if not isinstance(name, str) or name not in list(names):
        raise InputError(unknown_message(kind, name, names))
    return name
