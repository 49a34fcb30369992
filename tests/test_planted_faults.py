"""Planted faults: one changed line in the helper module, and the tests' and notebooks' own assertions must notice.

Every fault is applied in this process to a fresh copy of the modules; then the named test functions run against
it, and the cells of the named notebooks up to the one that must notice, named by its id. Only a failed assertion counts as noticed: a crash would say nothing about them.
"""

import importlib
import inspect
import sys
import types
from contextlib import contextmanager

import matplotlib
import nbformat
import pytest
import torch
from conftest import ROOT
from torch.autograd.gradcheck import GradcheckError

# in the order in which they import each other; the last three only take the copies of the others to the tests
MODULES = (
    "attention",
    "weights",
    "model",
    "data",
    "datasets.own",
    "batches",
    "config",
    "experiments.statistics",
    "experiments.records",
    "experiments.pairing",
    "cam",
    "experiments.map_measures",
    "experiments.explorer.lists",
    "experiments.explorer.maps",
    "evaluation",
    "training",
    "experiments.run",
)
NOTICED = (
    AssertionError,
    GradcheckError,
)  # torch.autograd.gradcheck asserts by an error of its own
FORM = {"form": "softmax", "layout": torch.contiguous_format}
PARTS, LOSS, JACOBIAN = (
    "test_parts_are_horizontal_stripes",
    "test_loss_of_section_3_1",
    "test_jacobian_is_eq_12",
)
IMAGES = torch.randn(3, 3, 96, 32, generator=torch.Generator().manual_seed(1))
CAM = {"variant": "b_p_ds_sa12", "form": "l1", "recipe": "paper", "backbone": "thin"}

# name: (file, the line, the faulty line, tests that notice, {notebook: id of the cell that notices})
FAULTS = {
    "a sign in eq. 12": (
        "attention",
        "dp = p.diag() - p[:, None] * p[None, :]",
        "dp = p.diag() + p[:, None] * p[None, :]",
        [("test_attention", JACOBIAN, {})],
        {"02_gradient_check": "jacobian-three-ways"},
    ),
    "case 1 of eq. 12 without its + p": (
        "attention",
        "[:, None, :, None] * p.diag()[None, :, None, :]",
        "[:, None, :, None] * 0",
        [("test_attention", JACOBIAN, {})],
        {"02_gradient_check": "jacobian-three-ways"},
    ),
    "softmax over the images instead of the positions": (
        "attention",
        "return A.softmax(dim=1)",
        "return A.softmax(dim=0)",
        [("test_attention", "test_by_hand", {})],
        {"01_gap_vs_sa": "weights-of-each-form"},
    ),
    "mean over channels for the sum in eq. 1": (
        "attention",
        "A = f.sum(dim=1, dtype=wide)",
        "A = f.mean(dim=1, dtype=wide)",
        [("test_attention", "test_by_hand", {})],
        {"01_gap_vs_sa": "weights-of-each-form"},
    ),
    "p dropped from the pooling of eq. 6": (
        "attention",
        'return torch.einsum("bchw,bhw->bc", f, p_map)',
        "return f.mean((2, 3))",
        [
            ("test_attention", "test_by_hand", {}),
            ("test_attention", "test_pool_equals_layer_then_sum", FORM),
        ],
        {"01_gap_vs_sa": "pooled-without-the-map"},
    ),
    "the competition term forgotten on the way back": (
        "attention",
        "df += _on_map(dA.to(f.dtype), f)[:, None]",
        "pass",
        [("test_attention", "test_pool_equals_layer_then_sum", FORM)],
        {"02_gradient_check": "contracted-gradient"},
    ),
    "a sigmoid that is not divided by its sum": (
        "attention",
        "return nn.functional.logsigmoid(A).softmax(dim=1)",
        "return A.sigmoid()",
        [("test_attention", "test_by_hand", {})],
        {},
    ),
    "entropy with the wrong sign": (
        "attention",
        "torch.exp(torch.special.entr(p).sum(dim=1))",
        "torch.exp(-torch.special.entr(p).sum(dim=1))",
        [("test_cam", "test_effective_cells_by_hand", {})],
        {},
    ),
    "a wrong loss weight": (
        "model",
        "weights[name] = 1 - lam\n        else:\n            weights[name] = lam\n",
        "weights[name] = lam\n        else:\n            weights[name] = 1 - lam\n",
        [("test_model", LOSS, {})],
        {"04_model": "loss-by-hand"},
    ),
    "the main head weighted like a part": (
        "model",
        'main = "part" if has_parts',
        'main = ("part", "final") if has_parts',
        [("test_model", LOSS, {})],
        {},
    ),
    "parts taken along the width": (
        "model",
        "stripes = attended.reshape(B, C, self.parts, H // self.parts * W)",
        "stripes = attended.transpose(2, 3).reshape(B, C, self.parts, H // self.parts * W)",
        [("test_model", PARTS, {})],
        {"04_model": "parts-by-hand"},
    ),
    "a sum over the part for its mean": (
        "model",
        "return stripes.mean(3, keepdim=True)",
        "return stripes.sum(3, keepdim=True)",
        [("test_model", PARTS, {})],
        {},
    ),
    "SA1 on another scale than GAP": (
        "model",
        "return attended * (H * W)",
        "return attended",
        [("test_model", "test_weighted_means_keep_the_scale", {})],
        {},
    ),
    "the code's second mean forgotten": (
        "model",
        "return 1 / positions if self.recipe.mean_after_sa else 1",
        "return 1",
        [("test_model", "test_weighted_means_keep_the_scale", {})],
        {},
    ),
    "SA1 on the pooled parts on another scale": (
        "model",
        "(p * self.parts).repeat_interleave",
        "p.repeat_interleave",
        [("test_model", "test_sa1_on_the_pooled_parts_by_hand", {})],
        {},
    ),
    "a total weight that is not reached": (
        "model",
        "return {name: weight * scale for name, weight in weights.items()}",
        "return weights",
        [("test_model", LOSS, {})],
        {},
    ),
    "SA forgotten in the branches": (
        "model",
        'self.sa2_form = form if "sa2" in blocks else "none"',
        'self.sa2_form = "none"',
        [
            (
                "test_model",
                "test_sa_adds_no_parameter_and_starts_equal",
                {
                    "backbone": "thin",
                    "recipe": "paper",
                    "without": "b_ds",
                    "with_sa": "b_ds_sa2",
                    "images": torch.ones(2, 3, 96, 32).cumsum(2) / 96,
                },
            )
        ],
        {},
    ),
    "a temperature that multiplies": (
        "attention",
        "return A / float(temperature)",
        "return A * float(temperature)",
        [
            (
                "test_model",
                "test_temperature_and_standardised_scores_by_hand",
                {"recipe": "temperature_10", "T": 10, "images": None},
            )
        ],
        {},
    ),
    "scores standardised over the batch": (
        "attention",
        "centred = A - A.mean(dim=1, keepdim=True)",
        "centred = A - A.mean()",
        [
            (
                "test_model",
                "test_temperature_and_standardised_scores_by_hand",
                {"recipe": "temperature_10", "T": 10, "images": None},
            )
        ],
        {},
    ),
    "a stage of MobileNetV2 at the output of a block": (
        "model",
        "[*blocks[1:4], blocks[4].conv[0]],\n        [*blocks[4].conv[1:],",
        "[*blocks[1:4]],\n        [*blocks[4].conv,",
        [("test_model", "test_the_stages_of_mobilenet_lie_behind_a_relu", {"images": IMAGES})],
        {},
    ),
    "branches that are not detached": (
        "model",
        "            return f.detach()\n",
        "            return f\n",
        [
            (
                "test_model",
                "test_detached_branches_learn_and_the_backbone_does_not_hear_them",
                {"images": IMAGES},
            )
        ],
        {},
    ),
    "a gradient scaled the wrong way": (
        "model",
        "return g * factor.to(g.dtype), None",
        "return g / factor.to(g.dtype), None",
        [("test_model", "test_gradients_scaled_to_those_without_sa", {"images": IMAGES})],
        {},
    ),
    "a vector with another norm than average pooling's": (
        "model",
        "return scale * gap / norm.clamp",
        "return scale * norm / gap.clamp",
        [("test_model", "test_vectors_scaled_to_the_norm_without_sa", {"images": IMAGES})],
        {},
    ),
    "another start of the 1x1 convolution": (
        "model",
        'mode="fan_out")',
        'mode="fan_in")',
        [
            (
                "test_model",
                "test_two_steps_compute_what_they_did",
                {"backbone": "thin", "form": "l1"},
            )
        ],
        {},
    ),
    "weights known by their file": (
        "weights",
        'return f"state_dict {content(tensors)}"',
        'return f"state_dict {path}"',
        [("test_weights", "test_content_counts_and_not_the_file", {})],
        {},
    ),
    "weights known by their wrapping": (
        "weights",
        'bare = _WRAPPING.sub("", name).replace("_orig_mod.", "")',
        "bare = name",
        [("test_weights", "test_hashes_of_weights_stay_as_they_are", {})],
        {},
    ),
    "a hole taken for a picture": (
        "data",
        "flaw = flaw_of(data)",
        'flaw = ""',
        [("test_data", "test_a_hole_is_no_picture", {})],
        {},
    ),
    "a new setting in every identity": (
        "config",
        "if name in ALWAYS or value != usual[name]:",
        "if True:",
        [("test_config", "test_a_later_setting_changes_no_old_identity", {})],
        {},
    ),
    "a difference with the wrong sign": (
        "experiments.statistics",
        "deltas = 100 * (with_ - without)",
        "deltas = 100 * (without - with_)",
        [("experiments/test_pairing", "test_effects_by_hand", {})],
        {},
    ),
    "the paper's difference the other way round": (
        "experiments.pairing",
        "return levels[variant][place] - levels[BASE[variant]][place]",
        "return levels[BASE[variant]][place] - levels[variant][place]",
        [("experiments/test_pairing", "test_effects_by_hand", {})],
        {},
    ),
    "a record named after the wrong table": (
        "experiments.records",
        '"erasing" if config["erasing"] else "plain"',
        '"plain" if config["erasing"] else "erasing"',
        [("test_config", "test_committed_records_keep_identity_name_and_folder", {})],
        {},
    ),
    "held-out people in the training set": (
        "data",
        'chosen = {"train": ~is_out,',
        'chosen = {"train": ~is_out | is_first,',
        [("test_data", "test_held_out_people_are_not_trained_on", {"n": 5})],
        {},
    ),
    "the query's own camera left out without the camera rule": (
        "data",
        "return query.ids, gallery.ids, None, None",
        "return query.ids, gallery.ids, query.cameras, gallery.cameras",
        [("datasets/test_own", "test_one_camera_one_query_a_person", {})],
        {},
    ),
    "a match of the query's own camera taken for one": (
        "data",
        "left_out = {camera} if self.camera_rule else set()",
        "left_out = set()",
        [("datasets/test_own", "test_one_camera_one_query_a_person", {})],
        {},
    ),
    "own data split whatever the seed": (
        "datasets.own",
        'f"{seed}/{text}"',
        'f"{text}"',
        [
            ("datasets/test_own", "test_the_split_is_that_of_its_rule", {"n": 4}),
            ("datasets/test_own", "test_the_split_depends_on_the_seed_alone", {}),
        ],
        {},
    ),
    "half of the people, rounded down": (
        "datasets.own",
        "(len(people) + 1) // 2",
        "len(people) // 2",
        [("datasets/test_own", "test_the_split_is_that_of_its_rule", {"n": 4})],
        {},
    ),
    "p dropped from the CAM of eq. 7": (
        "cam",
        "maps = (weights[:, :, None, None] * f * p).sum(dim=1)",
        "maps = (weights[:, :, None, None] * f).sum(dim=1)",
        [("test_cam", "test_a_map_sums_to_its_logit", CAM)],
        {},
    ),
    "the recipe's scale left out of a CAM": (
        "cam",
        "return maps * scale",
        "return maps",
        [
            (
                "test_cam",
                "test_a_map_sums_to_its_logit",
                CAM | {"variant": "b_p_ds_sa2", "form": "softmax", "recipe": "norm_as_gap"},
            )
        ],
        {},
    ),
    "the CAM of another part": (
        "cam",
        "weights = weights.repeat_interleave(h // model.parts, dim=2)",
        "weights = weights.flip(2).repeat_interleave(h // model.parts, dim=2)",
        [("test_cam", "test_a_map_sums_to_its_logit", CAM)],
        {},
    ),
    "the main head's map for a part's": (
        "cam",
        "logits[head]",
        'logits["final"]',
        [("test_cam", "test_a_map_sums_to_its_logit", CAM)],
        {},
    ),
    "what speaks against the class counted as energy": (
        "experiments.map_measures",
        "p = _as_maps(maps).double().clamp(min=0)",
        "p = _as_maps(maps).double().abs()",
        [("test_cam", "test_measures_by_hand", {}), ("test_cam", "test_overlap", {})],
        {},
    ),
    "the least important cells deleted first": (
        "experiments.map_measures",
        "argsort(dim=1, descending=True, stable=True)",
        "argsort(dim=1, descending=False, stable=True)",
        [("test_cam", "test_deletion_and_insertion_against_a_loop", {})],
        {},
    ),
    "effective cells of the whole map for those on the person": (
        "experiments.map_measures",
        "effective_cells(p * person)",
        "effective_cells(p)",
        [("test_cam", "test_measures_by_hand", {})],
        {},
    ),
    "the rectangles of a batch on a GPU at the left edge": (
        "batches",
        "(columns >= x) & (columns < x + w)",
        "columns < w",
        [("test_batches", "test_the_first_rectangle_is_the_same_both_ways", {})],
        {},
    ),
    "junk counted in a list of the explorer": (
        "experiments.explorer.lists",
        "if self.gallery.ids[g] == -1:",
        "if self.gallery.ids[g] == -2:",
        [("experiments/test_explorer", "test_what_counts_in_a_list", {})],
        {},
    ),
    "people in other clothes counted as look-alikes": (
        "experiments.explorer.lists",
        "(found - 1) // group == (identity - 1) // group",
        "found // group == identity // group",
        [("experiments/test_explorer", "test_whom_the_queries_find_first", {})],
        {},
    ),
    "the queries that differ least for those that differ most": (
        "experiments.explorer.lists",
        "np.argsort(-spread[usable]",
        "np.argsort(spread[usable]",
        [("experiments/test_explorer", "test_the_queries_that_are_chosen", {})],
        {},
    ),
    "a similarity map without the length of the vector": (
        "experiments.explorer.maps",
        "shares / length[:, :, None] / stripes",
        "shares / stripes",
        [
            (
                "experiments/test_explorer",
                "test_a_similarity_map_sums_to_the_similarity",
                {"variant": "b_p_ds_sa12", "kind": "parts"},
            )
        ],
        {},
    ),
    "maps packed without the square root that the page takes back": (
        "experiments.explorer.maps",
        "255 * np.sqrt(share)",
        "255 * share",
        [("experiments/test_explorer", "test_maps_and_scores_survive_packing", {})],
        {},
    ),
    "every image of a batch on a GPU flipped": (
        "batches",
        "images = torch.where(flipped, images.flip(2), images)",
        "images = torch.where(torch.tensor(True), images.flip(2), images)",
        [("test_batches", "test_both_ways_to_augment_have_one_distribution", {})],
        {},
    ),
}


@contextmanager
def modules(changed=None, old="", new=""):
    """Fresh copies of the helper modules, one of them with a line changed; what was imported comes back afterwards."""
    before = {}
    for name in MODULES:
        importlib.import_module(f"reidsa_utils.{name}")
    for name in MODULES:
        before[name] = sys.modules.pop(f"reidsa_utils.{name}")
    try:
        for name in MODULES:
            path = ROOT / "reidsa_utils" / f"{name.replace('.', '/')}.py"
            source = path.read_text()
            if name == changed:
                assert source.count(old) == 1, (
                    f"{path.name} has {source.count(old)} lines with {old!r}, expected one"
                )
                source = source.replace(old, new)
            module = types.ModuleType(f"reidsa_utils.{name}")
            module.__package__, module.__file__ = module.__name__.rpartition(".")[0], str(path)
            put(name, module)
            exec(compile(source, str(path), "exec"), module.__dict__)
        yield
    finally:
        for name, module in before.items():
            put(name, module)


def put(name, module):
    """A module where imports find it."""
    full = f"reidsa_utils.{name}"
    sys.modules[full] = module
    package, _, last = full.rpartition(".")
    setattr(sys.modules[package], last, module)


def run_test(request, file, function, arguments):
    """A test function by name; what it takes and `arguments` do not give are fixtures that all tests share."""
    path = ROOT / "tests" / f"{file}.py"
    namespace = {"__name__": file, "__file__": str(path)}
    exec(compile(path.read_text(), path.name, "exec"), namespace)
    fixtures = {
        name: request.getfixturevalue(name)
        for name in inspect.signature(namespace[function]).parameters
        if name not in arguments
    }
    if "tmp_path" in fixtures:  # a folder for each test, not one for each fault
        fixtures["tmp_path"] = request.getfixturevalue("tmp_path_factory").mktemp(function)
    namespace[function](**fixtures, **arguments)


def code_cells(notebook):
    """{id of a code cell: its source}, in the order of the notebook."""
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    return {c.id: c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"}


def run_cells(notebook, last):
    """The code cells up to the one with the id `last`. Returns the id of the one that noticed.

    They share a namespace of their own; PyTorch's defaults come back afterwards.
    """
    threads = torch.get_num_threads()
    try:
        namespace = {}
        for name, source in code_cells(notebook).items():
            try:
                exec(compile(source, notebook, "exec"), namespace)
            except NOTICED:
                return name
            if name == last:
                return None
        raise LookupError(f"{notebook} has no code cell with the id {last!r}")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        matplotlib.pyplot.close("all")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    matplotlib.use("Agg")
    monkeypatch.setenv("REIDSA_FIGURES", str(tmp_path))


@pytest.mark.parametrize("name", FAULTS)
def test_noticed(name, request):
    changed, old, new, tests, notebooks = FAULTS[name]
    with modules(changed, old, new):
        for test in tests:
            with pytest.raises(NOTICED):
                run_test(request, *test)
        for notebook, cell in notebooks.items():
            assert run_cells(notebook, cell) == cell


def test_nothing_is_noticed_without_a_fault(request):
    """The same tests and cells pass on the modules as they are: what noticed the faults was the faults."""
    tests, cells = {}, {}
    for *_, noticed, notebooks in FAULTS.values():
        tests |= {
            (file, function, str(arguments)): (file, function, arguments)
            for file, function, arguments in noticed
        }
        for notebook, cell in notebooks.items():
            cells.setdefault(notebook, []).append(cell)
    with modules():
        for test in tests.values():
            run_test(request, *test)
        for notebook, named in cells.items():
            last = max(named, key=list(code_cells(notebook)).index)
            assert run_cells(notebook, last) is None


def test_every_module_has_faults():
    assert len(FAULTS) >= 8 and {fault[0] for fault in FAULTS.values()} == set(MODULES[:-3])
