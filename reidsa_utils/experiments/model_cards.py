"""Model cards: what a stored network is, its data and results, what it must not be used for."""

from pathlib import Path

from ..support.files import read_text
from .records import read_record
from .tables import title

# The words for a form of attention in a sentence.
ATTENTION = {
    "none": "without spatial attention",
    "softmax": "with spatial attention as the paper writes it (eq. 1, a softmax)",
    "l1": "with spatial attention as the released code computes it (l1)",
    "softmax_mean": "with spatial attention as a softmax of the mean over channels",
    "sigmoid": "with spatial attention as a sigmoid",
}
# Where a network's training images come from.
SEEN = {
    "rendered": "**It has seen rendered people only.** They are drawn from simple shapes. On "
    "photographs its levels are far lower "
    "([direct transfer](../../docs/results.md#trained-on-market-1501-from-random-weights)).",
    "real": "It has seen the people and cameras of one benchmark only.",
}


def card_path(weights: Path) -> Path:
    """The model card of a file of weights: NAME.md beside NAME.safetensors."""
    return weights.with_suffix(".md")


def stale_cards(folder: Path) -> dict:
    """{path: text} of the model cards in folder/weights that are missing or out of date."""
    stale = {}
    for weights in sorted((folder / "weights").glob("*.safetensors")):
        text = model_card(weights.stem, read_record(folder / f"{weights.stem}.json"))
        path = card_path(weights)
        if not path.exists() or read_text(path) != text:
            stale[path] = text
    return stale


def model_card(name: str, record: dict) -> str:
    """The model card of a stored network, in Markdown. name: of its record, without .json."""
    config, counts = record["config"], record["counts"]
    train, query, gallery = counts["train"], counts["query"], counts["gallery"]
    source = record["source"]
    benchmark = title(config["benchmark"])
    began = "random weights"
    if config.get("weights", "none") != "none":
        began = f"loaded weights ({config['weights']})"
    erasing = "with random erasing" if config["erasing"] else "without random erasing"
    best = "parts" if "parts" in record["metrics"] else "global"
    rows = []
    for vector, m in sorted(record["metrics"].items()):
        levels = (m["rank1"], m["mean_ap"], m["mean_ap_trapezoid"])
        kind, _, reranked = vector.partition("+")
        cells = [kind, "yes" if reranked else "no", *(f"{100 * level:.1f}" for level in levels)]
        rows.append(f"| {' | '.join(cells)} |")
    lines = [
        f"# {name}",
        "",
        f"A person re-identification network {ATTENTION[config['form']]}. It turns the picture "
        "of a person into a vector. Pictures of the same person should have similar vectors.",
        "",
        "| | |",
        "|---|---|",
        f"| network | `{config['backbone']}`, variant `{config['variant']}`, form "
        f"`{config['form']}`, recipe `{config['recipe']}` |",
        f"| parameters | {record['parameters'] / 1e6:.1f} million, stored in half precision |",
        f"| input | {config['height']}x{config['width']} pixels (height x width), RGB |",
        f"| record | [{name}.json](../{name}.json) |",
        "",
        "## Data",
        "",
        f"{source.capitalize()} images in the format of {benchmark}: {train['images']:,} training "
        f"images of {train['ids']:,} people from {train['cameras']} cameras. The test set has "
        f"{query['images']:,} queries and {gallery['images']:,} gallery images of other people.",
        "",
        "## Training",
        "",
        f"{config['epochs']} epochs from {began}, {erasing}, batch {config['batch']}, learning "
        f"rate {config['lr']:g}, seed {config['seed']}.",
        "",
        "## Metrics",
        "",
        "In percent, on the test set. mAP is the step sum; the last column is the trapezoid of "
        "Market-1501's own program. This is one seed; another one can differ by several points.",
        "",
        "| vector | re-ranked | rank-1 | mAP | mAP, trapezoid |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "## Intended use",
        "",
        "Teaching and tests: the notebooks, the explorer, and experiments on this project's data. "
        "It is not made to find or follow real people, and it must not be used for that.",
        "",
        "## Limits",
        "",
        f"- {SEEN[source]}",
        "- It is small and was trained for a short time. Its levels say nothing about the paper's "
        "network.",
        "- People in the same clothes are often confused.",
        "",
        "## Licence",
        "",
        "MIT, as the whole repository ([LICENSE](../../LICENSE)).",
        "",
        "## How to load it",
        "",
        "```python",
        "from reidsa_utils.data import load_images",
        "from reidsa_utils.evaluation import extract",
        "from reidsa_utils.experiments.run import load_weights",
        "",
        f'model, record = load_weights("{name}")',
        f'images = load_images(["person.png"], {config["height"]}, {config["width"]})',
        f'vectors = extract(model, images)["{best}"]  # (1, D)',
        "```",
    ]
    return "\n".join(lines) + "\n"
