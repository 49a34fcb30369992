"""cuhk-03.mat (MATLAB 7.3) and the two index files of the new protocol -> the folders of CUHK03-NP.

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


def prepare_cuhk03(mat, index_folder, root, progress: bool = True) -> list:
    """CUHK03-NP, labeled and detected, from the original cuhk-03.mat, in files named as in the cuhk03-np archive.

    mat: MATLAB v7.3, cells by camera pair, person and image. index_folder: holds cuhk03_new_protocol_config_labeled.mat and
    ..._detected.mat (Zhong et al., CVPR 2017). Writes root/cuhk03-np/labeled and .../detected; a folder appears when it is
    complete, and nothing is written before the index files and the shape of every image are found sound. Broken off and
    started again it goes on. A folder that is there is not looked into: delete it to make it again. Returns the two folders.
    Raises InputError for files that are missing, of another kind, cut short or do not belong together, and for a full disk.
    """
    layouts = {kind: LAYOUTS[f"cuhk03_np_{kind}"] for kind in ("labeled", "detected")}
    sets, splits = (
        {kind: (Path(root) / layout.folder, layout.pattern) for kind, layout in layouts.items()},
        SPLITS,
    )
    mat, todo = Path(mat), []
    if not mat.is_file():
        raise InputError(
            f"no file {mat}; expected cuhk-03.mat from the authors' cuhk03_release archive"
        )
    with open(mat, "rb") as start:
        if start.read(10) == b"MATLAB 5.0":
            raise InputError(
                f"{mat} is a MATLAB 5.0 file; expected version 7.3, as distributed: take the original, or save it with -v7.3"
            )
    try:
        cells = h5py.File(mat, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{mat} ({mat.stat().st_size:,} bytes) is cut short or no MATLAB 7.3 file ({error}); download it again"
        ) from error
    with cells:
        for kind, (folder, pattern) in sets.items():
            if all((folder / directory).is_dir() for directory in splits.values()):
                continue
            if os.path.lexists(folder):
                raise InputError(
                    f"{folder} is there, and not with the folders {', '.join(splits.values())}; delete or move it first"
                )
            jobs = _read_index(
                Path(index_folder) / f"cuhk03_new_protocol_config_{kind}.mat", pattern, splits
            )
            images = _find_images(cells, kind, mat)
            strange = sorted({source for source, _ in jobs} ^ set(images))
            if strange:
                raise InputError(
                    f"{index_folder} lists {len(jobs):,} {kind} images, and {mat} has {len(images):,}; {len(strange)} are "
                    f"in one only, first {strange[0]}: are the two index files mixed up?"
                )
            # Started again with other input, it starts anew: a folder never holds a mixture.
            key = hashlib.sha256(
                f"{jobs} {mat.stat().st_size} {mat.stat().st_mtime_ns}".encode()
            ).hexdigest()[:8]
            partial = folder.with_name(f".{folder.name}.{key}.partial")
            todo.append((folder, partial, [(images[source], file) for source, file in jobs]))
        for folder, partial, jobs in todo:
            _write_images(cells, folder, partial, jobs, progress)
    return [folder for folder, _ in sets.values()]


def _read_index(path: Path, pattern: str, splits: dict) -> list:
    """(image's name in the .mat, file to write) for every image that an index file lists; its numbers count from 1."""
    if not path.is_file():
        raise InputError(
            f"no index file {path}; it is in the repository of Zhong et al. (person-re-ranking), evaluation/data/CUHK03"
        )
    try:
        index = {
            key: value.ravel() for key, value in loadmat(path).items() if not key.startswith("__")
        }
        names, people, cameras = (
            [str(n[0]) for n in index["filelist"]],
            index["labels"].astype(int),
            index["camId"].astype(int),
        )
        jobs = [(split, int(i)) for split in splits for i in index[f"{split}_idx"]]
        out = [
            (names[i - 1], f"{splits[split]}/{people[i - 1]:04d}_c{cameras[i - 1]}_{i}.png")
            for split, i in jobs
        ]
        if sorted(i for _, i in jobs) != list(range(1, len(names) + 1)) or {
            split for split, _ in jobs
        } != set(splits):
            raise ValueError("an image in no split or in two")
        if (
            not len(names) == len(people) == len(cameras)
            or [int(n.split("_")[2]) for n in names] != cameras.tolist()
        ):
            raise ValueError("labels or cameras do not fit the file names")
        if not all(re.fullmatch(pattern, file.split("/")[1]) for _, file in out):
            raise ValueError("labels out of range")
        return out
    except Exception as error:  # scipy has one for each kind of damage
        raise InputError(
            f"{path} is no index file of CUHK03-NP, or a broken one ({type(error).__name__}: {str(error)[:80]}); fetch it "
            "again"
        ) from error


def _find_images(cells, kind: str, mat: Path) -> dict:
    """{name as the index files write it, pair_person_view_image.png: reference} of all images of one set."""
    images = {}
    try:
        for p, pair in enumerate(cells[kind][()].ravel(), 1):  # five pairs of cameras
            for j, people in enumerate(
                cells[pair][()], 1
            ):  # images 1-5: first camera, 6-10: second
                there = {
                    i: ref for i, ref in enumerate(people, 1) if cells[ref].ndim == 3
                }  # the others are empty
                images |= {
                    f"{p}_{i:03d}_{1 + (j > 5)}_{j:02d}.png": ref for i, ref in there.items()
                }
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{mat} is no cuhk-03.mat: no cells {kind!r} of camera pairs, people and images in it ({error}); it holds "
            f"{', '.join(cells) or 'nothing'}"
        ) from error
    for name, ref in images.items():
        if cells[ref].dtype != np.uint8 or cells[ref].shape[0] != 3 or 0 in cells[ref].shape:
            raise InputError(
                f"{kind} image {name} in {mat} is {cells[ref].dtype} of shape {cells[ref].shape}; expected uint8 (3, W, H), "
                "as distributed: take the original file"
            )
    return images


def _write_images(cells, folder: Path, partial: Path, jobs: list, progress: bool) -> None:
    try:
        for directory in {(partial / name).parent for _, name in jobs}:
            directory.mkdir(parents=True, exist_ok=True)
        for reference, name in tqdm(jobs, desc=folder.name, unit=" images", disable=not progress):
            file = partial / name
            if not file.exists() or not file.stat().st_size:  # each is written whole or not at all
                try:
                    rgb = cells[reference][()].T  # Matlab's (H, W, 3) lies as (3, W, H)
                except OSError as error:
                    raise InputError(
                        f"the image for {name} in {cells.filename} cannot be read ({error}); download it again"
                    ) from error
                own = file.with_suffix(f".{os.getpid()}.writing")
                own.write_bytes(
                    cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()
                )
                own.replace(file)
        partial.rename(folder)
        for rest in (
            *folder.rglob("*.writing"),
            *folder.parent.glob(f".{folder.name}.*.partial"),
        ):  # of calls that were broken off
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink(missing_ok=True)
    except OSError as error:
        if folder.is_dir():
            return  # another call finished the same meanwhile
        done = sum(1 for _ in partial.rglob("*.png"))
        raise InputError(
            f"could not go on writing {folder} ({error.strerror or error}); {done:,} of {len(jobs):,} images are kept: put "
            "that right and start the same command again"
        ) from error
