"""The map holds: who may import whom, what is pure, what importing does."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "tinsley"
FILES = sorted(SRC.rglob("*.py"))
LAYERS = (
    "status", "errors", "units", "rng", "parameters", "cosmology", "sps", "observe", "density",
    "infer", "population", "io", "catalog", "plot", "posterior", "cli",
)  # fmt: skip
VOCABULARY = LAYERS[:6]
PURE = (*LAYERS[:11], "plot")
IMPURE_MODULES = {"os", "io", "pathlib", "logging", "h5py", "shutil", "pyarrow", "rich", "typer"}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval"}
WRITERS = {"read_text", "write_text", "read_bytes", "write_bytes", "unlink"}


def name_of(file: Path) -> str:
    return str(file.relative_to(SRC))


def layer(file: Path) -> str:
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> list[str]:
    names = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names.append(node.module or "")
            if node.module == "tinsley":
                names += [f"tinsley.{alias.name}" for alias in node.names]
    return names


inside = pytest.mark.parametrize("file", [f for f in FILES if f.parent != SRC or
                                          f.name != "__init__.py"], ids=name_of)  # fmt: skip


@inside
def test_imports_point_up_the_map(file):
    here = layer(file)
    assert here in LAYERS, f"{here} is not on the map"
    for name in imported(tree(file)):
        top, *rest = name.split(".")
        if top == "tinsley" and rest and rest[0] in LAYERS:
            both_words = here in VOCABULARY and rest[0] in VOCABULARY
            assert both_words or LAYERS.index(rest[0]) <= LAYERS.index(here), name


@inside
def test_what_is_above_io_is_pure(file):
    if layer(file) not in PURE:
        return
    module = tree(file)
    for name in imported(module):
        assert name.split(".")[0] not in IMPURE_MODULES, name
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in IMPURE_CALLS, called.id
            if isinstance(called, ast.Attribute):
                assert called.attr not in WRITERS, called.attr


@inside
def test_modules_are_short_and_say_what_they_are(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500
    assert ast.get_docstring(tree(file))


@inside
def test_public_names_are_documented(file):
    """A method may leave it to the abstract class that it carries out."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree(file).body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def classes() -> dict[str, list[str]]:
    found = {}
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ClassDef):
                bases = [b.attr if isinstance(b, ast.Attribute) else getattr(b, "id", "")
                         for b in node.bases]  # fmt: skip
                found[node.name] = bases
    return found


def test_classes_are_abstract_or_final():
    found = classes()
    for name, bases in found.items():
        for base in bases:
            if base in found:
                assert base.startswith("Abstract"), f"{name} is made from {base}"
    called = {
        node.func.id
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not [name for name in called & found.keys() if name.startswith("Abstract")]


def test_import_is_quick_quiet_and_changes_nothing():
    program = (
        "import sys, warnings; before = list(warnings.filters); import tinsley; "
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules; "
        "assert warnings.filters == before"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
        assert (done.stdout, done.stderr) == (b"", b"")
    assert min(seconds) < 0.5


def test_no_module_touches_jax_config_or_pickle():
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert "jax.config" not in text, file
        assert not {"pickle", "joblib"} & {n.split(".")[0] for n in imported(tree(file))}, file
