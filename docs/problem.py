"""Draw docs/problem.png, the picture of the problem in the README.

    python docs/problem.py [FILE]

A query, and a gallery of people in the same clothes: a group of look-alikes of the embedded
benchmark that `make reproduce` trains on, each seen by other cameras than the query's.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from reidsa_utils.config import PROFILES
from reidsa_utils.datasets.rendered import render_shot
from reidsa_utils.datasets.shots import Settings, plan

PICTURE = Path(__file__).with_name("problem.png")
QUERY = 83  # who is searched
# Who stands in the gallery, and which camera sees them.
GALLERY = [(81, 2), (83, 5), (82, 2), (84, 2), (83, 6), (81, 5), (82, 3), (84, 6)]
GREEN, ORANGE = "#007a5a", "#c04c00"


def main(file: Path = PICTURE) -> None:
    settings = Settings(scale=PROFILES["demo"]["scale"], height=192, width=96)
    shots = plan(settings)
    query = next(shot for shot in shots if shot.split == "query" and shot.pid == QUERY)
    fig, axes = plt.subplots(
        1,
        len(GALLERY) + 2,
        figsize=(9.6, 2.3),
        width_ratios=[1, 0.25] + [1] * len(GALLERY),
        layout="constrained",
    )
    show(axes[0], settings, query, "query", "black")
    axes[1].axis("off")
    for ax, (person, camera) in zip(axes[2:], GALLERY, strict=True):
        shot = next(
            shot
            for shot in shots
            if (shot.split, shot.pid, shot.camera) == ("gallery", person, camera)
        )
        same = person == QUERY
        show(ax, settings, shot, "same person" if same else "other", GREEN if same else ORANGE)
    fig.savefig(file, dpi=110, metadata={"Software": None})


def show(ax, settings: Settings, shot, title: str, color: str) -> None:
    """One image with its camera below, and whose it is above, in a frame of that colour."""
    image, _ = render_shot(settings, shot)
    ax.imshow(image)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, color=color, fontsize=10)
    ax.set_xlabel(f"camera {shot.camera}", fontsize=9)
    for side in ax.spines.values():
        side.set(color=color, linewidth=2.5)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
