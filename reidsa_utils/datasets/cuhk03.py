"""Makes the folders of CUHK03-NP from cuhk-03.mat and the two index files of the new protocol.

reidsa prepare-cuhk03 cuhk-03.mat FOLDER_OF_THE_INDEX_FILES data
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from .. import InputError
from ..data import LAYOUTS, SPLITS
from ..support.opencv import cv2

KINDS = ("labeled", "detected")  # boxes drawn by hand, boxes of a detector


def prepare_cuhk03(mat, index_folder, root, progress: bool = True) -> list[Path]:
    """Make CUHK03-NP, labeled and detected, from cuhk-03.mat, with the archive's file names.

    mat: MATLAB v7.3, cells by camera pair, person and image. index_folder: holds
    cuhk03_new_protocol_config_labeled.mat and ..._detected.mat (Zhong et al., CVPR 2017).

    Writes root/cuhk03-np/labeled and .../detected. A folder appears when it is complete. The index
    files and the shape of every image are checked before anything is written. If the call is
    interrupted, start it again: it continues. The content of an existing folder is not checked;
    delete the folder to make it again.

    Returns the two folders.
    Raises InputError for files that are missing, of another kind, cut short or do not belong
    together, and for a full disk.
    """
    mat = Path(mat)
    folders = {kind: Path(root) / LAYOUTS[f"cuhk03_np_{kind}"].folder for kind in KINDS}
    with _open_mat(mat) as cells:
        planned = []  # what _write_images takes; nothing is written before both kinds are planned
        for kind, folder in folders.items():
            if all((folder / directory).is_dir() for directory in SPLITS.values()):
                continue
            if os.path.lexists(folder):
                raise InputError(
                    f"{folder} is there, and not with the folders {', '.join(SPLITS.values())}; "
                    "delete or move it first"
                )
            planned.append(_plan(cells, kind, mat, Path(index_folder), folder))
        for folder, partial, jobs in planned:
            _write_images(cells, folder, partial, jobs, progress)
    return list(folders.values())


def _open_mat(mat: Path) -> h5py.File:
    """Open cuhk-03.mat. Raises InputError for a missing file or one of another format."""
    if not mat.is_file():
        raise InputError(
            f"no file {mat}; expected cuhk-03.mat from the authors' cuhk03_release archive"
        )
    with open(mat, "rb") as file:
        header = file.read(10)
    if header == b"MATLAB 5.0":
        raise InputError(
            f"{mat} is a MATLAB 5.0 file; expected version 7.3, as distributed: take the original, "
            "or save it with -v7.3"
        )
    try:
        return h5py.File(mat, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{mat} ({mat.stat().st_size:,} bytes) is cut short or not a MATLAB 7.3 file "
            f"({error}); download it again"
        ) from error


def _plan(cells: h5py.File, kind: str, mat: Path, index_folder: Path, folder: Path) -> tuple:
    """Plan one kind of boxes: (folder, its name while it is incomplete, jobs).

    A job is (reference of the image in the .mat, file below the folder).
    """
    pattern = LAYOUTS[f"cuhk03_np_{kind}"].pattern
    listed = _read_index(index_folder / f"cuhk03_new_protocol_config_{kind}.mat", pattern)
    images = _find_images(cells, kind, mat)
    in_one_only = sorted({source for source, _ in listed} ^ set(images))
    if in_one_only:
        raise InputError(
            f"{index_folder} lists {len(listed):,} {kind} images, and {mat} has {len(images):,}; "
            f"{len(in_one_only)} are in one only, first {in_one_only[0]}: are the two index files "
            "mixed up?"
        )
    # Other input gives another key, so that a folder never holds a mixture of two inputs.
    status = mat.stat()
    content = f"{listed} {status.st_size} {status.st_mtime_ns}"
    key = hashlib.sha256(content.encode()).hexdigest()[:8]
    partial = folder.with_name(f".{folder.name}.{key}.partial")
    return folder, partial, [(images[source], file) for source, file in listed]


def _read_index(path: Path, pattern: str) -> list[tuple[str, str]]:
    """Read an index file: (image's name in the .mat, file to write) for every image that it lists.

    pattern: of the benchmark's file names. Raises InputError for a file that is missing or unsound.
    """
    if not path.is_file():
        raise InputError(
            f"no index file {path}; it is in the repository of Zhong et al. (person-re-ranking), "
            "evaluation/data/CUHK03"
        )
    try:
        return _parse_index(path, pattern)
    except Exception as error:  # scipy raises a different one for each kind of damage
        raise InputError(
            f"{path} is not an index file of CUHK03-NP, or a broken one "
            f"({type(error).__name__}: {str(error)[:80]}); fetch it again"
        ) from error


def _parse_index(path: Path, pattern: str) -> list[tuple[str, str]]:
    """As _read_index. Raises ValueError, or whatever scipy raises, for a file that is unsound."""
    index = {}
    for key, value in loadmat(path).items():
        if not key.startswith("__"):
            index[key] = value.ravel()
    names = [str(name[0]) for name in index["filelist"]]
    people = index["labels"].astype(int)
    cameras = index["camId"].astype(int)

    listed, numbers, used_splits = [], [], set()
    for split, directory in SPLITS.items():
        for number in index[f"{split}_idx"]:
            i = int(number)  # counted from 1
            file = f"{directory}/{people[i - 1]:04d}_c{cameras[i - 1]}_{i}.png"
            listed.append((names[i - 1], file))
            numbers.append(i)
            used_splits.add(split)

    if sorted(numbers) != list(range(1, len(names) + 1)) or used_splits != set(SPLITS):
        raise ValueError("an image in no split or in two")
    same_length = len(names) == len(people) == len(cameras)
    if not same_length or [int(name.split("_")[2]) for name in names] != cameras.tolist():
        raise ValueError("labels or cameras do not fit the file names")
    for _, file in listed:
        if not re.fullmatch(pattern, Path(file).name):
            raise ValueError("labels out of range")
    return listed


def _find_images(cells: h5py.File, kind: str, mat: Path) -> dict[str, h5py.Reference]:
    """Find all images of one kind of boxes: {name as the index files write it: reference}.

    Such a name is pair_person_view_image.png. Raises InputError for a file of another structure.
    """
    images = {}
    try:
        camera_pairs = cells[kind][()].ravel()  # five
        for pair, pair_reference in enumerate(camera_pairs, 1):
            for number, row in enumerate(cells[pair_reference][()], 1):
                view = 1 if number <= 5 else 2  # images 1-5: first camera, 6-10: second
                for person, reference in enumerate(row, 1):
                    if cells[reference].ndim == 3:  # the others are empty
                        images[f"{pair}_{person:03d}_{view}_{number:02d}.png"] = reference
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{mat} is not cuhk-03.mat: no cells {kind!r} of camera pairs, people and images in it "
            f"({error}); it holds {', '.join(cells) or 'nothing'}"
        ) from error
    for name, reference in images.items():
        image = cells[reference]
        if image.dtype != np.uint8 or image.shape[0] != 3 or 0 in image.shape:
            raise InputError(
                f"{kind} image {name} in {mat} is {image.dtype} of shape {image.shape}; expected "
                "uint8 (3, W, H), as distributed: take the original file"
            )
    return images


def _write_images(
    cells: h5py.File, folder: Path, partial: Path, jobs: list[tuple], progress: bool
) -> None:
    """Write the images of one kind of boxes; what an earlier call has written is kept.

    Raises InputError for an image that cannot be read and for a full disk.
    """
    try:
        for directory in {(partial / name).parent for _, name in jobs}:
            directory.mkdir(parents=True, exist_ok=True)
        for reference, name in tqdm(jobs, desc=folder.name, unit=" images", disable=not progress):
            file = partial / name
            if not file.exists() or file.stat().st_size == 0:
                _write_image(cells, reference, file, name)
        partial.rename(folder)
        _remove_leftovers(folder)
    except OSError as error:
        if folder.is_dir():
            return  # meanwhile another call has finished the same folder
        done = sum(1 for _ in partial.rglob("*.png"))
        raise InputError(
            f"could not go on writing {folder} ({error.strerror or error}); {done:,} of "
            f"{len(jobs):,} images are kept: put that right and start the same command again"
        ) from error


def _write_image(cells: h5py.File, reference: h5py.Reference, file: Path, name: str) -> None:
    """Write one image, whole or not at all."""
    try:
        rgb = cells[reference][()].T  # the file stores Matlab's (H, W, 3) as (3, W, H)
    except OSError as error:
        raise InputError(
            f"the image for {name} in {cells.filename} cannot be read ({error}); download it again"
        ) from error
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    encoded = cv2.imencode(".png", bgr)[1].tobytes()
    # Two calls at the same time do not write into each other's file.
    writing = file.with_suffix(f".{os.getpid()}.writing")
    writing.write_bytes(encoded)
    writing.replace(file)


def _remove_leftovers(folder: Path) -> None:
    """Remove the files that interrupted calls have left."""
    for file in folder.rglob("*.writing"):
        file.unlink(missing_ok=True)
    for partial in folder.parent.glob(f".{folder.name}.*.partial"):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)
