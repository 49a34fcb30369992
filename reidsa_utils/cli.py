"""The command `reidsa`, also `python -m reidsa_utils`: one subcommand for everything that is done outside a notebook."""

import sys
from importlib import import_module

from .support.malloc import with_malloc

# subcommand -> (module whose main() does it, words before the user's own, what it does)
COMMANDS = {
    "train": ("experiments.queue", [], "one run, or a queue of them"),
    "plan": ("experiments.grid", ["plan"], "what a batch would run, and for how long"),
    "status": ("experiments.grid", ["status"], "how far a batch is"),
    "queue": (
        "experiments.grid",
        ["queue"],
        "the runs of a list of evidence.toml, for train --queue",
    ),
    "publish": ("experiments.grid", ["publish"], "copy the records of finished runs into results/"),
    "readme": ("experiments.grid", ["readme"], "write the README's tables anew from results/"),
    "examine": (
        "experiments.examine",
        [],
        "finished runs beyond their records: filters, maps, other populations",
    ),
    "reproduce": (
        "experiments.reproduce",
        [],
        "the main job: render, train three models, evaluate, draw",
    ),
    "check": (
        "datasets.check",
        ["check"],
        "a copy of a benchmark: counts, names, images, protocol",
    ),
    "prepare-cuhk03": (
        "datasets.check",
        ["prepare-cuhk03"],
        "CUHK03-NP from the original cuhk-03.mat",
    ),
    "render": ("datasets.rendered", [], "an embedded benchmark"),
    "weights": (
        "experiments.pretrained",
        [],
        "ImageNet weights from a package, renamed and checked",
    ),
    "speed": ("experiments.speed", [], "times against plain baselines"),
}


def main(argv=None) -> int:
    """Exit code of a command line; without one, or with --help, the list of subcommands."""
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        print("usage: reidsa COMMAND ...    (reidsa COMMAND --help says more)\n")
        for name, (_, _, what) in COMMANDS.items():
            print(f"  {name:16}{what}")
        return 0
    if words[0] not in COMMANDS:
        print(f"error: unknown command {words[0]!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if words[0] == "train" and argv is None:
        with_malloc()  # this program once more, before torch is loaded
    module, before, _ = COMMANDS[words[0]]
    return import_module(f"reidsa_utils.{module}").main([*before, *words[1:]]) or 0
