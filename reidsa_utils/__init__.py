"""Helper code of the notebooks: the spatial attention layer, the model, the protocol, the embedded benchmark."""

import sys

__version__ = "0.1.0"


class InputError(ValueError):
    """Bad input, told in one sentence: what was found, what was expected, what to do."""

    def _render_traceback_(self):
        # IPython asks an exception for its own picture: a notebook shows the sentence, not the stack.
        return [f"{type(self).__name__}: {self}"]


def run_command(work) -> int:
    """Exit code of a command line: what `work()` returns (None: 0), or 1 after the one sentence of an InputError."""
    try:
        return work() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
