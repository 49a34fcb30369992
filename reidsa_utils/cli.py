"""The command `reidsa`, also `python -m reidsa_utils`: all that is done outside a notebook.

A function below is a subcommand. Its typed arguments are the options, its docstring is the help.
What it needs is imported when it is called, so that a first look costs no import of torch.
"""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from . import InputError, __version__

app = App(name="reidsa", version=__version__, help="One command for all that no notebook does.")
# Its options are the fields of config.Config.
app.command(
    "reidsa_utils.experiments.run:train_command",
    name="train",
    help="Train and evaluate one run; resumable, against the clock if need be.",
)
Flag = Annotated[bool, Parameter(negative=())]


@app.command
def publish(*folders: Path, into: Path | None = None, weights: Flag = False) -> int:
    """Copy the records of finished runs into results/, all or none.

    Parameters
    ----------
    folders
        folders of runs, or of folders of runs
    into
        the folder that they go to; otherwise results/
    weights
        the trained networks too, 9 MB each, into INTO/weights
    """
    from .experiments.records import publish as publish_records
    from .support.files import ROOT

    for path in publish_records(folders, into or ROOT / "results", weights):
        print(f"published {path}")
    return 0


@app.command
def readme(*, check: Flag = False) -> int:
    """Write the numbers and tables of the README anew from results/.

    Parameters
    ----------
    check
        only say which of them are not what the records say; exit code 1 if any
    """
    from .experiments.readme import write_readme

    return write_readme(check)


@app.command
def check(name: str, root: Path) -> int:
    """Look at a copy of a benchmark: counts, names, images, protocol.

    The exit code is 1 if something is wrong.

    Parameters
    ----------
    name
        market1501, dukemtmc_reid, cuhk03_np_labeled or cuhk03_np_detected
    root
        the benchmark's folder, or its parent
    """
    from .datasets.check import check as check_benchmark

    return check_benchmark(name, root)


@app.command(name="prepare-cuhk03")
def prepare_cuhk03(mat: Path, index_folder: Path, root: Path) -> int:
    """Make CUHK03-NP, labeled and detected, from the original cuhk-03.mat; then check it.

    Parameters
    ----------
    mat
        cuhk-03.mat
    index_folder
        folder of the two cuhk03_new_protocol_config_*.mat
    root
        folder that cuhk03-np is made in
    """
    from .datasets.check import check as check_benchmark
    from .datasets.cuhk03 import prepare_cuhk03 as prepare

    folders = prepare(mat, index_folder, root)
    return max(check_benchmark(f"cuhk03_np_{folder.name}", folder) for folder in folders)


def main(argv=None) -> int:
    """The exit code of a command line: 0, 1 after a sentence about bad input, 2 for bad usage."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        return app(words, exit_on_error=False, print_error=False, result_action="return_value") or 0
    except CycloptsError as error:
        return _refuse(error)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:  # a file or folder that may not be read or written
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
    return 1


def _refuse(error: CycloptsError) -> int:
    """One sentence; for a value of a run's setting the one that a notebook gives, too."""
    from pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):
        from .config import sentence

        print(f"error: {sentence(error.__cause__)}", file=sys.stderr)
        return 1
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
