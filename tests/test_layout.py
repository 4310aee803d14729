"""Imports run one way, as helpers/README.md says, and the formatter's rules cover every file."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

# Each layer may import what stands above it, and itself.
LAYERS = [
    {"common", "rules", "stats", "taking_turns"},
    {"store", "methods", "registration", "headline"},
    {"models", "tasks", "plots", "stopping", "drift", "kept"},
    {"decoding", "learned"},
    {"experiments"},
    {"probes"},
    {"conversations", "tables", "ledger", "forks"},
    {"views", "vllm", "make"},
]
FILES = sorted((ROOT / "helpers").rglob("*.py"))
# Neither of these may know the other: grading knows no model, and figures know no task.
STRANGERS = [("tasks", "models"), ("tasks", "decoding"), ("plots", "tasks"), ("models", "tasks")]

# The process that has vLLM says in a sentence that it is missing before it imports torch.
LATE = [ROOT / "helpers" / "vllm" / "worker.py"]


def layer(name):
    """The number of a module's layer."""
    return next(number for number, names in enumerate(LAYERS) if name in names)


def part_of(file):
    """The first name under helpers/: a module or a package."""
    return file.relative_to(ROOT / "helpers").parts[0].removesuffix(".py")


def imports(tree):
    """(module or package under helpers, whether inside a function) of every import of our own."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("helpers"):
            continue
        parts = node.module.split(".")
        names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        for name in names:
            yield name, id(node) in inside


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file):
    own = part_of(file)
    if own == "__init__":
        return
    for name, inside in imports(ast.parse(file.read_text(encoding="utf-8"))):
        beside = name == own or {own, name} <= LAYERS[-1]
        assert beside or layer(name) < layer(own), f"{own} may not import {name}"
        assert (own, name) not in STRANGERS
        assert not inside or file in LATE, f"an import of {name} inside a function"


def test_modules_import_alone():
    """Every module can be the first one that is imported: there is no circle."""
    names = []
    for file in FILES:
        parts = file.relative_to(ROOT).with_suffix("").parts
        if file.name not in ("__init__.py", "sandbox_inside.py"):
            names.append(".".join(parts))
    # One process: what is imported first would hide a circle, so modules are forgotten in between.
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    for known in [m for m in sys.modules if m.startswith('helpers')]:\n"
        "        del sys.modules[known]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
