"""Parameter-free spatial attention for person re-identification: the code behind the notebooks.

The paper's parts, in the order in which they import each other (downwards only):

    training, evaluation    one epoch and its steps; images -> vectors -> metrics
                            (the loop over epochs: Run.train_epochs in experiments/run.py)
    cam, config             class activation maps (eq. 3, 5, 7); the settings of one run
    model                   Fig. 3 on a ResNet or MobileNetV2, recipes, losses
    metrics, reranking      the protocol: CMC, both average precisions; k-reciprocal re-ranking
    data, batches           a benchmark on disk -> arrays; arrays -> augmented batch -> input
    weights                 the weights that a backbone starts from
    attention               the layer: eq. 1, 6, 12

Around them: datasets (rendered benchmarks, data of your own, CUHK03-NP, check), experiments
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
    """How many cores this process may use; in a container these may be fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InputError(ValueError):
    """Bad input. The message is one sentence: what was found, what was expected, what to do."""

    def _render_traceback_(self):
        # IPython calls this method to show the exception, so a notebook shows only the sentence.
        return [f"{type(self).__name__}: {self}"]


def unknown_message(kind: str, name: str, names) -> str:
    """The message for a name that is not in `names`: it lists them and suggests the nearest."""
    nearest = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"unknown {kind} {name!r}; known: {', '.join(names)}{hint}"


def known(kind: str, name: str, names) -> str:
    """Return `name` if it is one of `names`. Otherwise raises InputError, which lists them."""
    if not isinstance(name, str) or name not in list(names):
        raise InputError(unknown_message(kind, name, names))
    return name
