"""Helper code of the notebooks: the spatial attention layer, the model, the protocol, the embedded benchmark."""

import os
import sys

try:
    import cv2  # noqa: F401  here, so that a missing system library is told before anything is done
except ImportError as error:
    raise ImportError(f"opencv-python cannot be loaded ({error}); install the requirements, and on a bare Debian or Ubuntu also "
                      "`apt-get install libgl1 libglib2.0-0 libxcb1`") from None

__version__ = "0.1.0"


def cores() -> int:
    """Cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InputError(ValueError):
    """Bad input, told in one sentence: what was found, what was expected, what to do."""

    def _render_traceback_(self):
        # IPython asks an exception for its own picture: a notebook shows the sentence, not the stack.
        return [f"{type(self).__name__}: {self}"]


def known(kind: str, name: str, names) -> str:
    """`name` if it is one of `names`, else an InputError that lists them."""
    if name not in names:
        raise InputError(f"unknown {kind} {name!r}; known: {', '.join(names)}")
    return name


def run_command(work) -> int:
    """Exit code of a command line: what `work()` returns (None: 0), or 1 after one sentence about what went wrong."""
    try:
        return work() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:  # a file or folder that may not be read or written
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    return 1
