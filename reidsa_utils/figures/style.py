"""How all figures look, where they are shown, and where they are saved."""

import io
import os
from pathlib import Path
from typing import NamedTuple

from ..support.files import ROOT, write_atomic


class Look(NamedTuple):
    """How a form of attention is drawn, in every figure."""

    name: str
    color: str  # of seaborn's palette "colorblind"
    marker: str  # symbols and lines differ in grey
    line: str | tuple


LOOKS = {
    "none": Look("no SA", "#949494", "o", "-"),
    "softmax": Look("softmax", "#0173b2", "s", "--"),
    "l1": Look("l1", "#de8f05", "D", ":"),
    "softmax_mean": Look("softmax_mean", "#029e73", "^", "-."),
    "sigmoid": Look("sigmoid", "#d55e00", "v", (0, (5, 1, 1, 1, 1, 1))),
}
# Frames of gallery images: of the query's person, left out by the protocol, of another person.
FRAMES = {"match": "#029e73", "left out": "#767676", "error": "#d55e00"}


def show_inline(kind: str = "png") -> None:
    """Show the figures of a notebook below its cells, whatever MPLBACKEND says.

    On clusters and in containers it is often Agg; then figures are not shown, without any message.
    kind: "png" or "jpeg". Outside a notebook this does nothing.
    """
    from IPython import get_ipython
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    shell = get_ipython()
    if shell is None:
        return
    shell.enable_matplotlib("inline")
    set_matplotlib_formats(kind)


def save_figure(figure, name: str, shows=None) -> None:
    """Write a figure under its fixed name into the folder of the run that it shows.

    shows: the folder of that run, or of the records; relative to the clone. For None and for the
    committed results/, the figure goes to figures/, or to the folder in REIDSA_FIGURES. So a run
    with other settings never overwrites a picture of the README or of another run.
    """
    committed = ROOT / "results"
    folder = (ROOT / (shows or committed)).resolve()
    if folder == committed or committed in folder.parents:
        folder = Path(os.environ.get("REIDSA_FIGURES", ROOT / "figures"))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    write_atomic(folder / name, picture.getvalue())
