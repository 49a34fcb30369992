"""Change one thing at a time in the package: do the tests notice? `python tests/mutants.py --help`.

A mutant is one changed operator, comparison, constant, argument, condition or statement. Each is tested in a fork of
this process, which has imported the libraries and nothing of the package. Texts and annotations are left alone.
"""

import argparse
import ast
import copy
import importlib
import json
import os
import random
import resource
import signal
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "cv2 matplotlib.pyplot pandas pydantic pytorch_grad_cam.metrics.cam_mult_image scipy.sparse scipy.stats "
    "seaborn sklearn.metrics torch._dynamo torchvision"
)
ARRAYS = "tests/support/test_arrays.py"
# The tests that are about a module.
TESTS = {
    "attention": ["tests/test_attention.py", "tests/test_cam.py", ARRAYS],
    "metrics": ["tests/test_metrics.py", ARRAYS],
    "reranking": ["tests/test_reranking.py", ARRAYS],
    "cam": ["tests/test_cam.py", ARRAYS],
    "experiments.statistics": ["tests/experiments/test_statistics.py", ARRAYS],
}
SURVIVORS = Path(__file__).with_name("survivors.md")  # mutants that change nothing, and why
PAIRS = [
    *[(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)],
    *[(ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div)],
    *[("min", "max"), ("any", "all"), ("amin", "amax"), ("fmin", "fmax"), ("minimum", "maximum")],
    *[("zeros", "ones"), ("zeros_like", "ones_like"), ("left", "right"), ("argmin", "argmax")],
    (ast.BitAnd, ast.BitOr),
]
SWAP = {b: a for a, b in PAIRS} | dict(PAIRS)
SWAP |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Div, ast.Pow: ast.Mult}


def changed(node, field, value):
    other = copy.copy(node)
    setattr(other, field, value)
    return other


def without_one(node, field):
    """Copies of a node that lack one item of a list: an operand, an argument, a decorator."""
    items = getattr(node, field)
    return [changed(node, field, items[:k] + items[k + 1 :]) for k in range(len(items))]


def replacements(node) -> list:
    """The nodes that may stand where `node` stands."""
    match node:
        case ast.Constant(value=bool(value)):
            return [ast.Constant(not value)]
        case ast.Constant(value=int(value) | float(value)):
            return [ast.Constant(value + 1)]
        case ast.Constant(value=str(value)) if value in SWAP:
            return [ast.Constant(SWAP[value])]
        case ast.operator() | ast.boolop() | ast.cmpop() if type(node) in SWAP:
            return [SWAP[type(node)]()]
        case ast.Name(id=name) if name in SWAP:
            return [changed(node, "id", SWAP[name])]
        case ast.Attribute(attr=name) if name in SWAP:
            return [changed(node, "attr", SWAP[name])]
        case ast.UnaryOp():
            return [node.operand]
        case ast.BoolOp():
            return without_one(node, "values")
        case ast.Call():
            return without_one(node, "args") + without_one(node, "keywords")
        case ast.Slice():
            bounds = [bound for bound in ("lower", "upper", "step") if getattr(node, bound)]
            return [changed(node, bound, None) for bound in bounds]
        case ast.FunctionDef() | ast.ClassDef():
            return without_one(node, "decorator_list")
        case ast.If() | ast.IfExp() if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            return [changed(node, "test", ast.UnaryOp(ast.Not(), node.test))]
        case ast.Return(value=ast.expr()):
            return [ast.Return(None)]
        case ast.Raise() | ast.AugAssign() | ast.Expr(value=ast.Call()):
            return [ast.Pass()]
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            return [ast.Pass()]
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            if any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value)):
                return [ast.Pass()]  # x = f(x)
    return []


def mutants(node, holder=None, key=None, function="", statement=None):
    """Every mutant of a tree: (function, statement, holder, key, new); holder[key] becomes `new`."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = node.name
    if isinstance(node, ast.stmt):
        statement = node
    if holder is not None:
        for new in replacements(node):
            yield function, statement, holder, key, new
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        if isinstance(value, list):
            children = [(value, k, child) for k, child in enumerate(value)]
        else:
            children = [(vars(node), field, value)]
        for within, k, child in children:
            if isinstance(child, ast.AST):
                yield from mutants(child, within, k, function, statement)


def in_words(statement) -> str:
    """A statement as one line; of a block its first."""
    if hasattr(statement, "body"):
        statement = changed(statement, "body", [ast.Pass()])
        for field in ("orelse", "finalbody", "handlers"):
            if hasattr(statement, field):
                setattr(statement, field, [])
    return " ".join(ast.unparse(statement).removesuffix("pass").split())


class Plugin:
    """Of pytest: the tests to run, in their order, and every result into a pipe.

    rank: {test: number}, the smallest first. None: all tests; then the functions of `path` that each test enters are
    told, too.
    """

    def __init__(self, rank: dict | None, path: str, pipe: int):
        self.rank = rank
        self.path = path
        self.pipe = pipe
        self.entered = set()

    def pytest_collection_modifyitems(self, items):
        if self.rank is not None:
            items[:] = [item for item in items if item.nodeid in self.rank]
            items.sort(key=lambda item: self.rank[item.nodeid])

    def pytest_runtest_setup(self):
        if self.rank is None:
            sys.settrace(self.enter)

    def enter(self, frame, event, argument):
        if frame.f_code.co_filename == self.path:
            self.entered.add(frame.f_code.co_name)

    def pytest_runtest_logreport(self, report):
        if report.when != "teardown":
            line = json.dumps([report.nodeid, report.duration, report.failed, [*self.entered]])
            os.write(self.pipe, f"{line}\n".encode())
        else:
            sys.settrace(None)
            self.entered.clear()


def run(module: str, tree, rank: dict | None, seconds: int) -> tuple:
    """The tests of a module on a changed tree, in a fork: (exit code, seconds of the processor, results)."""
    source = str(ROOT / "reidsa_utils" / f"{module.replace('.', '/')}.py")
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        signal.alarm(20 * seconds)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        name = f"reidsa_utils.{module}"

        class Finder:
            def find_spec(self, wanted, path, target=None):
                if wanted != name:
                    return None
                spec = PathFinder.find_spec(wanted, path)
                spec.loader.get_code = lambda _: compile(tree, source, "exec")
                return spec

        sys.meta_path.insert(0, Finder())
        options = ["-x", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
        os._exit(pytest.main([*options, *TESTS[module]], [Plugin(rank, source, writing)]))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        results = [json.loads(line) for line in pipe if line.endswith("]\n")]
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, results


def survivors(module: str, sample: int | None, seed: int, wanted: str) -> tuple:
    """Tests the mutants of a module: (how many, the survivors as lines)."""
    path = ROOT / "reidsa_utils" / f"{module.replace('.', '/')}.py"
    tree = ast.fix_missing_locations(ast.parse(path.read_text(encoding="utf-8")))
    code, seconds, results = run(module, tree, None, 10000)
    if code:
        sys.exit(f"{module}: its tests fail on the module as it is")
    rank = {}
    entered = {}
    for test, duration, _, functions in results:
        rank[test] = rank.get(test, 0) + duration
        entered.setdefault(test, set()).update(functions)
    limit = int(20 + 2 * seconds)
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found = list(mutants(tree))
    random.Random(seed).shuffle(found)
    found = found[:sample]
    tested = 0
    alive = []
    for function, statement, holder, key, new in found:
        old = holder[key]
        before = in_words(statement)
        holder[key] = ast.copy_location(new, old) if hasattr(old, "lineno") else new
        ast.fix_missing_locations(tree)
        after = in_words(new if old is statement else statement)
        name = f"{module}.{function}: `{before}` -> `{after}`"
        if wanted in name:
            tested += 1
            tests = {
                t: rank[t] for t in rank if function in entered[t] or function not in functions
            }
            code, _, results = run(module, tree, tests, limit)
            if code in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
                alive.append(name)
                print(f"line {statement.lineno} {name}", flush=True)
            for test, _, failed, _ in results:
                if failed:  # it may notice the next ones, too
                    rank[test] -= 1
        holder[key] = old
    return tested, alive


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "modules", nargs="*", default=[*TESTS], metavar="module", help=f"of {', '.join(TESTS)}"
    )
    parser.add_argument(
        "--sample", type=int, default=10**6, help="so many mutants of each module, drawn at random"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--only", default="", help="only mutants whose line holds this text")
    options = parser.parse_args()
    os.chdir(ROOT)
    for variable in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):
        os.environ[variable] = "1"  # a process with threads cannot be forked
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take longer than most tests
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    for library in LIBRARIES.split():
        importlib.import_module(library)
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutants")

    explained = SURVIVORS.read_text(encoding="utf-8") if SURVIVORS.exists() else ""
    holes = 0
    for module in options.modules:
        n, alive = survivors(module, options.sample, options.seed, options.only)
        unexplained = [name for name in alive if name not in explained]
        holes += len(unexplained)
        noticed = n - len(alive)
        n_explained = len(alive) - len(unexplained)
        share = 100 * noticed / max(n - n_explained, 1)
        print(
            f"{module}: {noticed} of {n} mutants noticed, {n_explained} survivors change nothing "
            f"({share:.1f} % of the others noticed), {len(unexplained)} unexplained",
            flush=True,
        )
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
