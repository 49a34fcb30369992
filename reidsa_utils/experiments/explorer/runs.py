"""The page of finished runs: opens the networks and computes their vectors."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ... import InputError, cores
from ...config import Config, configure
from ...data import LAYOUTS, Benchmark, Split, load_images, read_split
from ...datasets.rendered import read_settings
from ...evaluation import extract
from ...model import ReIDNet
from ...support.files import ROOT
from ...support.memory import keep_freed_memory
from ..examine import open_run
from ..records import published_name
from ..run import load_weights, open_benchmark
from .lists import Network, People
from .page import check_count, check_free, check_queries, new_folder, say_done, write_page


def explore_runs(
    runs: list[str],
    out: Path,
    queries: int,
    data: str = "embedded",
    gallery: Path | None = None,
    crops: list[Path] = (),
) -> None:
    """Write the page of some networks: `reidsa explore RUN ...`.

    runs: folders of finished runs, or names of stored networks. out: the folder to write.
    queries: how many are shown. data: what the runs were trained on, as in Config.
    gallery, crops: a folder of images, and images to look for in it, instead of the test set.
    Raises InputError for runs that are not complete or differ in data, and for a folder in use.
    """
    check_free(out)
    check_count(runs, "runs")
    check_queries(queries)
    people = crops_as_people(gallery, crops) if gallery else None
    opened = [open_network(run, data) for run in runs]
    check_same_data(runs, [record for record, *_ in opened])
    keep_freed_memory()
    torch.set_num_threads(cores())
    if people is None:
        people = people_of(test_set(opened[0]))
    with new_folder(out) as folder:
        write_page(folder, people, vectors_of(opened, people), queries)
    say_done(out, people)


def open_network(run: str, data: str) -> tuple:
    """(record, model, Config, Benchmark) of a run's folder or of a stored network's name.

    The Benchmark is None for a stored network: test_set() opens it.
    Raises InputError for anything else, and for data that the network was not trained on.
    """
    for folder in (Path(run), ROOT / run):
        if folder.is_dir():
            return open_run(folder, data)
    stored = sorted(path.stem for path in (ROOT / "results" / "weights").glob("*.safetensors"))
    if run not in stored:
        raise InputError(
            f"{run} is neither the folder of a finished run nor a stored network; stored: "
            f"{', '.join(stored) or 'none'}"
        )
    model, record = load_weights(run)
    settings = record["identity"] | {"data": data, "weights": "none"}
    settings.pop("fingerprint")
    return record, model, configure(settings), None


def test_set(opened: tuple) -> Benchmark:
    """The benchmark of an opened network. Raises InputError if it was trained on other data."""
    record, _, config, benchmark = opened
    if benchmark is None:
        benchmark = open_benchmark(config)
        if benchmark.fingerprint() != record["identity"]["fingerprint"]:
            raise InputError(
                f"{published_name(record)} was not trained on the data at {benchmark.folder}; name "
                "its own data: --data FOLDER"
            )
    return benchmark


def check_same_data(runs: list[str], records: list[dict]) -> None:
    """Raises InputError for runs that were not tested on the same images."""
    first = records[0]["identity"]["fingerprint"]
    for run, record in zip(runs, records, strict=True):
        if record["identity"]["fingerprint"] != first:
            raise InputError(
                f"{runs[0]} and {run} are runs of different data; the page compares networks on "
                "the same images: name runs of one benchmark, scale and data seed"
            )


def people_of(benchmark: Benchmark) -> People:
    """The test set of a benchmark, with the junk that its evaluation leaves out."""
    gallery = benchmark.gallery
    junk = gallery.subset(np.zeros(len(gallery), bool))
    if benchmark.name in LAYOUTS:
        found, _ = read_split(benchmark.name, Path(gallery.paths[0]).parent)
        junk = found.subset(found.ids == -1)
    with_junk = Split(
        [*gallery.paths, *junk.paths],
        np.concatenate([gallery.ids, junk.ids]),
        np.concatenate([gallery.cameras, junk.cameras]),
    )
    settings = read_settings(benchmark.folder) if benchmark.source == "rendered" else None
    return People(
        f"{benchmark.title} ({benchmark.source})",
        benchmark.source,
        benchmark.query,
        with_junk,
        junk=len(junk),
        camera_rule=benchmark.camera_rule,
        settings=settings,
    )


def crops_as_people(gallery: Path, crops: list[Path]) -> People:
    """The user's own images, without identities.

    Raises InputError for a folder or a query that is not there.
    """
    if not Path(gallery).is_dir():
        raise InputError(f"--gallery {gallery} is not a folder; name one with images of people")
    kinds = (".jpg", ".jpeg", ".png")
    found = sorted(p for p in Path(gallery).rglob("*") if p.suffix.lower() in kinds)
    if not found:
        raise InputError(f"--gallery {gallery} holds no image; expected {', '.join(kinds)} files")
    if not crops:
        raise InputError("--gallery is given without --query; name the image to look for")
    for path in crops:
        if not Path(path).is_file():
            raise InputError(f"--query {path} is not a file; name an image of one person")

    def unlabelled(paths) -> Split:
        nobody = np.zeros(len(paths), int)
        return Split([str(path) for path in paths], nobody, nobody)

    title = f"{len(found):,} images in {Path(gallery).resolve().name}"
    return People(title, "own", unlabelled(crops), unlabelled(found), labelled=False)


def vectors_of(opened: list[tuple], people: People) -> list[Network]:
    """The networks with the vectors of all images: `parts` if all have them, otherwise `global`."""
    have_parts = all("parts" in model.vectors for _, model, *_ in opened)
    vector = "parts" if have_parts else "global"
    images = len(opened) * (len(people.query) + len(people.gallery))
    networks = []
    with tqdm(total=images, desc="vectors", unit=" images", mininterval=0.5) as bar:
        for record, model, config, benchmark in opened:
            query = _extract_files(model, config, people.query.paths, bar)
            # The same batches as in the run's own evaluation, which has no junk; junk comes last.
            gallery = _extract_files(model, config, people.gallery.paths[: people.counted], bar)
            junk = _extract_files(model, config, people.gallery.paths[people.counted :], bar)
            for kind in junk:
                gallery[kind] = np.concatenate([gallery[kind], junk[kind]])
            networks.append(
                Network(
                    heading=heading_of(record, [network.heading for network in networks]),
                    query=query[vector],
                    gallery=gallery[vector],
                    facts=facts_of(record, model) | {"stored": benchmark is None},
                    record=_published_numbers(record, vector) if people.labelled else {},
                    model=model,
                    config=config,
                    vector=vector,
                    pooled=gallery["global"],
                )
            )
    return networks


def _extract_files(model: ReIDNet, config: Config, paths: list, bar, block: int = 1024) -> dict:
    """Vectors of the images of some files: {kind: (N, D)}, {} for no file."""
    blocks = []
    for start in range(0, len(paths), block):
        images = load_images(paths[start : start + block], config.height, config.width)
        blocks.append(extract(model, images, tick=bar.update))
    if not blocks:
        return {}
    return {kind: np.concatenate([found[kind] for found in blocks]) for kind in blocks[0]}


def heading_of(record: dict, others: list[str]) -> str:
    """A heading for a network that differs from the given headings of the other networks."""
    c = record["config"]
    form = "no SA" if c["form"] == "none" else f"SA: {c['form']}"
    heading = f"{c['variant']}, {form}"
    if heading in others:
        heading = f"{heading}, {c['recipe']}, seed {c['seed']}"
    return f"{heading} ({len(others) + 1})" if heading in others else heading


def facts_of(record: dict, model: ReIDNet) -> dict:
    """What the page says of a network, and what its slider needs."""
    c = record["config"]
    loaded = record.get("loaded")
    if not loaded:
        began = "random weights"
    elif isinstance(loaded, dict) and "source" in loaded:
        began = loaded["source"].split(" (")[0]
    else:
        began = "the weights of another run"
    return {
        "run": published_name(record),
        "learned": (
            f"{record['title']}, {record['source']}: {record['classes']} people, "
            f"{c['epochs']} epochs from {began}"
        ),
        "learned_source": record["source"],
        "form": c["form"],
        "sa1": model.sa1.form != "none",
        "sa2": model.sa2_form != "none",
        "temperature": model.recipe.temperature,
        "standardise": model.recipe.standardise,
        "channels": list(model.channels),
        "classes": record["classes"],
    }


def _published_numbers(record: dict, vector: str) -> dict:
    """{"plain" and "reranked": rank-1 and mAP} of a record."""
    numbers = {}
    for name, key in (("plain", vector), ("reranked", f"{vector}+rerank")):
        if key in record["metrics"]:
            m = record["metrics"][key]
            numbers[name] = {"rank1": m["rank1"], "mean_ap": m["mean_ap"]}
    return numbers
