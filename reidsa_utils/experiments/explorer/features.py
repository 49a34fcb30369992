"""The explorer's page from vectors alone, made by any program (torchreid, fast-reid, OML).

A file of features is an .npz with the keys of KEYS. Rows of query_* belong together, and so do rows
of gallery_*. Without both keys of cameras, all images of a query's identity are matches.
"""

import zipfile
from pathlib import Path

import numpy as np

from ... import InputError
from ...data import Split
from .lists import Network, People
from .page import check_count, check_free, check_queries, new_folder, say_done, write_page

CAMERAS = ("query_cameras", "gallery_cameras")
KEYS = {
    "query_features": "(Q, D) numbers, compared by Euclidean distance: normalise them for cosine",
    "query_paths": "(Q,) text, paths of the images, absolute or relative to the file",
    "query_ids": "(Q,) whole numbers, identities",
    "query_cameras": "(Q,) whole numbers",
    "gallery_features": "(G, D)",
    "gallery_paths": "(G,)",
    "gallery_ids": "(G,); -1 is junk and counts in no list, 0 is a distractor",
    "gallery_cameras": "(G,)",
}


def explore_features(files: list[Path], out: Path, queries: int) -> None:
    """Write the page of up to three files of features: `reidsa explore --features`.

    Raises InputError as read_features() does, and for a folder in use.
    """
    check_free(out)
    check_queries(queries)
    people, networks = read_features(files)
    with new_folder(out) as folder:
        write_page(folder, people, networks, queries)
    say_done(out, people)


def read_features(files: list[Path]) -> tuple[People, list[Network]]:
    """The images and the networks of some files of features.

    Raises InputError for a file that is not an .npz of plain arrays, other keys, rows that do not
    fit, images that are missing, and files of different images.
    """
    check_count([str(path) for path in files], "files of features")
    first, people = None, None
    networks = []
    for path in files:
        arrays = read_archive(Path(path))
        if first is None:
            first = arrays
            people = people_of_archive(Path(path), arrays)
        _check_same_images(files[0], path, first, arrays)
        order = _junk_last(arrays)
        heading = Path(path).stem
        if heading in [network.heading for network in networks]:
            heading = str(path)
        networks.append(
            Network(heading, arrays["query_features"], arrays["gallery_features"][order])
        )
    return people, networks


def read_archive(path: Path) -> dict:
    """The arrays of one file, checked. Raises InputError."""
    listed = ", ".join(KEYS)
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {name: archive[name] for name in names if name in KEYS}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not an .npz file of plain arrays (numpy.savez), as needed here: "
            f"{' '.join(str(error).split())[:100]}; expected the keys {listed}"
        ) from error
    other = sorted(set(names) - set(KEYS))
    missing = [name for name in KEYS if name not in names]
    if missing == list(CAMERAS):
        missing = []
    if other or missing:
        found = f"unknown: {', '.join(other)}" if other else f"missing: {', '.join(missing)}"
        raise InputError(f"{path} has not the keys of features ({found}); expected {listed}")
    for split in ("query", "gallery"):
        _check_rows(path, split, arrays)
    return arrays


def _check_rows(path: Path, split: str, arrays: dict) -> None:
    """Check the arrays of a split and convert them, in place. Raises InputError."""
    features = arrays[f"{split}_features"]
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {split}_features is {features.dtype} of shape {features.shape}; expected "
            "numbers, a row for each image"
        )
    if not np.isfinite(features).all():
        raise InputError(f"{path}: {split}_features holds NaN or infinity")
    present = [name for name in ("paths", "ids", "cameras") if f"{split}_{name}" in arrays]
    for name in present:
        shape = arrays[f"{split}_{name}"].shape
        if shape != (len(features),):
            raise InputError(
                f"{path}: {split}_{name} has shape {shape}, and {split}_features "
                f"{len(features)} rows; expected one for each image"
            )
    arrays[f"{split}_features"] = np.ascontiguousarray(features, dtype=np.float32)
    for name in present[1:]:
        key = f"{split}_{name}"
        if arrays[key].dtype.kind not in "iu":
            raise InputError(
                f"{path}: {key} is {arrays[key].dtype}; expected whole numbers: number the names "
                "first, np.unique(names, return_inverse=True)[1]"
            )
        arrays[key] = arrays[key].astype(np.int64)


def people_of_archive(path: Path, arrays: dict) -> People:
    """The images of a file of features. Raises InputError for images that are not there."""
    splits = {}
    for split in ("query", "gallery"):
        names = [str(name) for name in arrays[f"{split}_paths"]]
        paths = [_found(path.parent, name) for name in names]
        lost = [name for name, place in zip(names, paths, strict=True) if not place]
        if lost:
            raise InputError(
                f"{path}: {len(lost)} of {len(paths)} images of {split}_paths are missing, first "
                f"{lost[0]}; paths are absolute, or relative to the file or to this folder"
            )
        ids = arrays[f"{split}_ids"]
        splits[split] = Split(paths, ids, arrays.get(f"{split}_cameras", np.zeros_like(ids)))
    order = _junk_last(arrays)
    gallery = splits["gallery"]
    gallery = Split([gallery.paths[k] for k in order], gallery.ids[order], gallery.cameras[order])
    return People(
        f"Features of {path.stem}",
        "own",
        splits["query"],
        gallery,
        junk=int((gallery.ids == -1).sum()),
        camera_rule=CAMERAS[0] in arrays,
    )


def _found(folder: Path, name: str) -> str:
    """Where an image of that name is; "" if nowhere."""
    for place in (folder / name, Path(name)):
        if place.is_file():
            return str(place)
    return ""


def _junk_last(arrays: dict) -> np.ndarray:
    """An order of the gallery that puts junk at its end and leaves the rest as it is."""
    return np.argsort(arrays["gallery_ids"] == -1, kind="stable")


def _check_same_images(first_path: Path, path: Path, first: dict, arrays: dict) -> None:
    """Raises InputError for two files of different images, identities or cameras."""
    for key in KEYS:
        if key.endswith("_features"):
            continue
        if (key in first) != (key in arrays) or not np.array_equal(first.get(key), arrays.get(key)):
            raise InputError(
                f"{first_path} and {path} differ in {key}; the page compares networks on the same "
                "images, in the same order"
            )
    for split in ("query", "gallery"):
        if not len(arrays[f"{split}_features"]):
            raise InputError(f"{path} has no {split} image")
    if arrays["query_features"].shape[1] != arrays["gallery_features"].shape[1]:
        raise InputError(
            f"{path}: query_features has {arrays['query_features'].shape[1]} columns and "
            f"gallery_features {arrays['gallery_features'].shape[1]}; expected as many"
        )
