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
    marker: str  # symbols and lines stay apart in grey
    line: str | tuple


LOOKS = {
    "none": Look("no SA", "#949494", "o", "-"),
    "softmax": Look("softmax", "#0173b2", "s", "--"),
    "l1": Look("l1", "#de8f05", "D", ":"),
    "softmax_mean": Look("softmax_mean", "#029e73", "^", "-."),
    "sigmoid": Look("sigmoid", "#d55e00", "v", (0, (5, 1, 1, 1, 1, 1))),
}
# Frames of gallery images: of the person asked for, left out by the protocol, of somebody else.
FRAMES = {"match": "#029e73", "left out": "#767676", "error": "#d55e00"}


def show_inline(kind: str = "png") -> None:
    """Show the figures of a notebook below its cells, whatever MPLBACKEND says.

    On clusters and in containers it often says Agg, and the figures then stay away without a word.
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

    shows: the folder of that run, or of the records; relative to the clone. None and the committed
    results/ stand for figures/, or the folder named in REIDSA_FIGURES. So a run of other settings
    never draws over a picture of the README, nor over that of a run beside it.
    """
    committed = ROOT / "results"
    folder = (ROOT / (shows or committed)).resolve()
    if folder == committed or committed in folder.parents:
        folder = Path(os.environ.get("REIDSA_FIGURES", ROOT / "figures"))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    write_atomic(folder / name, picture.getvalue())
