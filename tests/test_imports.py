"""Imports point one way: between packages, between folders, and between modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

from tests.commands import ROOT

ORDER = ("generative", "worldmodels", "envs", "agents", "scripts")
FILES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imported(node: ast.AST) -> Iterator[str]:
    """Names that a module imports when it or its functions run, from the longest on.

    What a config's `build` imports is left out: a recipe names what it makes, which knows its
    recipe. So are imports for types alone.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and child.name == "build":
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are written out in full"
            for alias in child.names:
                whole = f"{child.module}.{alias.name}"
                yield whole if whole in MODULES else str(child.module)
        else:
            yield from imported(child)


def graph() -> networkx.DiGraph:
    found = networkx.DiGraph()
    found.add_nodes_from(MODULES)
    for name, path in MODULES.items():
        targets = set(imported(ast.parse(path.read_text(encoding="utf-8")))) & set(MODULES)
        found.add_edges_from((name, target) for target in targets - {name})
    return found


IMPORTS = graph()


def folder_of(module: str) -> str:
    """A folder inside a package counts as one, a module of the package's own stands for itself."""
    parts = module.split(".")
    return ".".join(parts[:2])


def circles(found: networkx.DiGraph) -> list[list[str]]:
    groups = networkx.strongly_connected_components(found)
    return [sorted(group) for group in groups if len(group) > 1]


def test_the_graph_knows_imports_of_every_kind():
    for one, other in (
        ("agents.evaluation", "worldmodels.dreaming.step"),
        ("generative.gan.model", "generative.training.pretrained"),
        ("worldmodels.memory.mdnrnn", "worldmodels.dreaming.backends.fused"),  # in a function
        ("scripts.certified.flows", "scripts.train_ffjord"),  # `from scripts import ...`
    ):
        assert networkx.has_path(IMPORTS, one, other), (one, other)
    assert circles(networkx.DiGraph([("a", "b"), ("b", "a"), ("b", "c")])) == [["a", "b"]]


def test_modules_do_not_import_each_other_in_a_circle():
    assert circles(IMPORTS) == []


def test_folders_do_not_import_each_other_in_a_circle():
    folders = networkx.DiGraph()
    for one, other in IMPORTS.edges:
        if folder_of(one) != folder_of(other):
            folders.add_edge(folder_of(one), folder_of(other))
    assert circles(folders) == []


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_those_below_them_only(package):
    above = ORDER[ORDER.index(package) + 1 :]
    wrong = [
        (one, other)
        for one, other in IMPORTS.edges
        if one.split(".")[0] == package and other.split(".")[0] in above
    ]
    assert wrong == []
