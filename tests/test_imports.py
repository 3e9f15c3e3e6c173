"""The shape of the house: packages import only what lies to their left, no module imports itself in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# What each package may import of the others.
MAY_IMPORT = {
    "ingest": set(),
    "loaders": {"ingest"},
    "trainers": {"ingest", "loaders"},
    "service": {"ingest", "loaders"},
    "clipmill": {"ingest", "loaders", "trainers", "service"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, ast.Module]:
    """Every module of ours, parsed, by its dotted name."""
    paths = [REPOSITORY / "clipmill.py"]
    for package in MAY_IMPORT:
        paths += sorted((REPOSITORY / package).rglob("*.py"))
    return {module_name(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in paths}


MODULES = sources()


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no bodies of functions, nothing for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from at_import(child)


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Modules of ours that the given nodes import; `from package import module` counts as the module."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                found.add(module if module in MODULES else str(node.module))
    return {name for name in found if name.partition(".")[0] in MAY_IMPORT}


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in order; empty when there is none."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if circle := visit(other, [*way, module]):
                return circle
        done.add(module)
        return []

    for module in graph:
        if circle := visit(module, []):
            return circle
    return []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_packages_to_its_left(package: str):
    wrong = [
        f"{module} imports {other}"
        for module, tree in MODULES.items()
        if module.partition(".")[0] == package
        for other in sorted(imported(ast.walk(tree)))
        if other.partition(".")[0] not in MAY_IMPORT[package] | {package}
    ]
    assert wrong == []


def test_no_module_imports_itself_in_a_circle():
    assert find_circle({module: imported(at_import(tree)) for module, tree in MODULES.items()}) == []


def test_the_search_for_circles_finds_one():
    assert find_circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"b"}}) == ["b", "d", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_module_is_in_the_tree():
    assert {"clipmill", "ingest", "ingest.stores.frames_db", "loaders.engine", "trainers.cli", "service.cli"} <= {
        *MODULES
    }


@pytest.mark.parametrize("module", ["clipmill", "ingest.convert", "ingest.demo"])
def test_light_modules_load_no_torch(module: str):
    code = f"import sys, {module}; print([name for name in ('torch', 'lightning_fabric', 'fastapi') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["ingest", "convert", "--help"]])
def test_help_loads_no_torch(arguments: list[str]):
    command = [sys.executable, "-X", "importtime", "-m", "clipmill", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded and not loaded & {"torch", "lightning_fabric", "fastapi", "av", "cv2"}
