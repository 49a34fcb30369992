"""The command `reidsa`, also `python -m reidsa_utils`: everything that is done outside a notebook.

Each function below is a subcommand. Its typed arguments are the options, its docstring is the help.
A subcommand imports its modules when it is called, so that the help does not import torch.
"""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from . import InputError, __version__, cores
from .support.printing import printing_ends_nothing

app = App(name="reidsa", version=__version__, help="One command for all that no notebook does.")
# Its options are the fields of config.Config.
app.command(
    "reidsa_utils.experiments.run:train_command",
    name="train",
    help="Train and evaluate one run; it can be resumed, and can stop in time.",
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
    """Update what comes from records: numbers in texts, tables of docs/results.md, model cards.

    Parameters
    ----------
    check
        only print what differs from the records; exit code 1 if anything does
    """
    from .experiments.readme import write_readme

    return write_readme(check)


@app.command
def export(records: Path | None = None, *, out: Path) -> int:
    """Write the tables of the paper from records, as CSV and as LaTeX (booktabs).

    These are Tables 1, 2 and 3, the controls, the learning rates and the pooled effects. Each row
    has mean, standard deviation and number of seeds, the difference and its 95 % interval.

    Parameters
    ----------
    records
        a folder with run records; otherwise results/
    out
        the folder that the tables are written into
    """
    from .experiments.export import export as export_records
    from .support.files import ROOT

    for path in export_records(records or ROOT / "results", out):
        print(f"wrote {path}")
    return 0


@app.command
def check(
    name: str,
    root: Path,
    *,
    camera_pattern: str = "",
    split_seed: int = 0,
    camera_rule: bool = True,
) -> int:
    """Check a copy of a benchmark, or data of your own: counts, names, images, protocol.

    The exit code is 1 if something is wrong.

    Parameters
    ----------
    name
        market1501, dukemtmc_reid, cuhk03_np_labeled or cuhk03_np_detected, or a name of your own
    root
        the benchmark's folder, or its parent; own data: a folder or a CSV
    camera_pattern
        own data: finds the camera in a path, as cam(\\d+)
    split_seed
        own data without splits: who trains, who is tested
    camera_rule
        without it, matches of the query's own camera count, too
    """
    from .datasets.check import check as check_data

    return check_data(
        name,
        root,
        camera_pattern=camera_pattern,
        split_seed=split_seed,
        camera_rule=camera_rule,
    )


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


@app.command
def render(
    name: str,
    root: Path,
    *,
    scale: float | None = None,
    seed: int | None = None,
    height: int | None = None,
    width: int | None = None,
    occlusion: float | None = None,
    view_overlap: float | None = None,
    camera_shift: float | None = None,
    look_alikes: int | None = None,
    box_jitter: float | None = None,
    workers: int | None = None,
) -> int:
    """Render an embedded benchmark. The defaults are those of the tables.

    Parameters
    ----------
    name
        market1501, dukemtmc_reid, cuhk03_np_labeled or cuhk03_np_detected
    root
        the folder that the benchmark's own folder is made in
    scale
        share of the published sizes
    seed
        of the people, the cameras and the images
    height
        of an image, pixels
    width
        of an image, pixels
    occlusion
        share of images with an occluder
    view_overlap
        0: a camera sees everyone from one side; 1: from anywhere
    camera_shift
        strength of a camera's colour gain, gamma, blur and noise
    look_alikes
        identities that wear the same clothes
    box_jitter
        standard deviation of a box's shift, in box heights
    workers
        processes; otherwise all cores
    """
    from .datasets.rendered import render_benchmark

    knobs = {
        "scale": scale,
        "seed": seed,
        "height": height,
        "width": width,
        "occlusion": occlusion,
        "view_overlap": view_overlap,
        "camera_shift": camera_shift,
        "look_alikes": look_alikes,
        "box_jitter": box_jitter,
    }
    given = {knob: value for knob, value in knobs.items() if value is not None}
    folder = render_benchmark(name, root, workers=workers or cores(), **given)
    print(f"rendered {folder}")
    return 0


@app.command
def examine(
    *runs: Path,
    maps: Flag = False,
    populations: str = "",
    nearest: Flag = False,
    saturation: str = "",
    backbone: str = "mobilenet_v2",
    size: str = "384x128",
    into: Path | None = None,
    data: str = "",
) -> int:
    """Measure what the records of finished runs do not hold: filters, maps, other people.

    Parameters
    ----------
    runs
        folders of finished runs, with their checkpoints
    maps
        class activation maps and missing parts, for notebook 07
    populations
        SEED,SEED: data seeds of other rendered people that the networks are tested on
    nearest
        the first images of every query's ranked list, for notebook 07; a run may be the name of
        a network in results/weights
    saturation
        instead of runs, examine a network before any training; its weights: none, imagenet
        or a file
    backbone
        with --saturation
    size
        HEIGHTxWIDTH, with --saturation
    into
        a folder; otherwise results/examined, results/maps, results/populations,
        results/nearest or results/saturation
    data
        what the runs were trained on: embedded (as usual), real, or a folder
    """
    from .experiments.examine import examine_runs, examine_untrained

    if saturation:
        examine_untrained(saturation, backbone, size, into, data)
    elif nearest:
        from .experiments.nearest import write_nearest

        write_nearest(runs, into, data)
    else:
        examine_runs(runs, maps, populations, into, data)
    return 0


@app.command
def explore(
    *runs: str,
    out: Path,
    queries: int = 60,
    data: str = "embedded",
    features: Annotated[list[Path], Parameter(consume_multiple=True, negative=())] = [],  # noqa: B006
    gallery: Path | None = None,
    query: Annotated[list[Path], Parameter(consume_multiple=True, negative=())] = [],  # noqa: B006
) -> int:
    """Write a page on which a browser shows ranked lists and maps, from disk.

    Parameters
    ----------
    runs
        up to three: folders of finished runs, or names of networks in results/weights
    out
        the folder that the page is written into
    queries
        how many queries of the test set the page shows
    data
        what the runs were trained on: embedded (as usual), real, or a folder
    features
        instead of runs, up to three FILE.npz of vectors made elsewhere; docs/explorer.md
        names their keys
    gallery
        with --query, a folder of your own images instead of the test set
    query
        with --gallery, images to look for
    """
    if features:
        if runs or gallery or query:
            raise InputError("--features stands alone, without runs, --gallery and --query")
        from .experiments.explorer.features import explore_features

        explore_features(features, out, queries)
        return 0
    if query and not gallery:
        raise InputError("--query is given without --gallery; name the folder to look in")
    from .experiments.explorer.runs import explore_runs

    explore_runs(runs, out, queries, data, gallery, query)
    return 0


@app.command
def weights(
    source: Path, target: Path, *, backbone: str = "mobilenet_v2", images: Path | None = None
) -> int:
    """Name the tensors of ImageNet weights that come from a package, and check them.

    Parameters
    ----------
    source
        a file that holds the tensors in the network's own order
    target
        the file to write
    backbone
        whose weights they are
    images
        a folder of photographs, to compare the stored statistics with
    """
    from .experiments.pretrained import convert_weights

    convert_weights(source, target, backbone, images)
    return 0


@app.command
def speed(*groups: str, here: Flag = False) -> int:
    """Measure our code against plain baselines; write the ratios to results/speed.

    Parameters
    ----------
    groups
        loading, step, attention, evaluation and others; otherwise all
    here
        in this process, as JSON; otherwise each group in a process of its own
    """
    from .experiments import speed as measurements

    if here:
        measurements.measure_here(groups)
        return 0
    return measurements.measure(groups)


def main(argv=None) -> int:
    """The exit code of a command line: 0, 1 after a sentence about bad input, 2 for bad usage."""
    words = sys.argv[1:] if argv is None else list(argv)
    with printing_ends_nothing():
        return _run(words)


def _run(words: list[str]) -> int:
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
    """Print the error in one sentence. For a setting of a run, a notebook shows the same one."""
    from pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):
        from .config import sentence

        print(f"error: {sentence(error.__cause__)}", file=sys.stderr)
        return 1
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
