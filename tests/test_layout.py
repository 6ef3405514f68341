"""The arrows of the architecture, and the budgets that keep files readable."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = {
    "worldmodel": {
        "datamodules",
        "trainers",
        "pytorch_lightning",
        "lightning",
        "hydra",
        "omegaconf",
        "gymnasium",
        "dm_control",
        "wandb",
    },
    "datamodules": {"trainers", "hydra", "omegaconf", "wandb"},
}
HYDRA_HOME = {"trainers/command/configuration.py"}


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_point_down(package: str) -> None:
    for path in sources(package):
        wrong = {name.split(".")[0] for name in imports(path)} & FORBIDDEN[package]
        assert not wrong, (path, wrong)


def test_the_data_side_sees_only_the_records_of_the_model_side() -> None:
    allowed = {"worldmodel.errors", "worldmodel.interfaces", "worldmodel.spec"}
    for path in sources("datamodules"):
        seen = {name for name in imports(path) if name.startswith("worldmodel")}
        assert seen <= allowed, (path, seen)


def test_the_environment_side_never_imports_torch() -> None:
    for path in sources("datamodules/envs"):
        assert not {"torch", "worldmodel.interfaces"} & set(imports(path)), path


def test_hydra_has_one_home() -> None:
    for path in sources("trainers"):
        uses = {name.split(".")[0] for name in imports(path)} & {"hydra"}
        assert not uses or str(path.relative_to(ROOT)) in HYDRA_HOME, path


def test_no_import_cycles() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sources("worldmodel", "datamodules", "trainers")
    }
    edges = {name: {other for other in imports(path) if other in modules} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_files_and_functions_stay_small() -> None:
    for path in sources("worldmodel", "datamodules", "trainers"):
        text = path.read_text()
        assert len(text.splitlines()) <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, (path, node.name)


def test_no_grab_bags_and_no_hard_coded_devices() -> None:
    for path in sources("worldmodel", "datamodules", "trainers"):
        assert path.stem not in ("utils", "util", "common", "base", "helpers"), path
        assert "cuda:0" not in path.read_text(), path


def test_every_folder_has_its_place_in_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    mapped = set(re.findall(r"(?m)^\| `([a-z_/]+)` \|", text))
    assert mapped == {str(path.parent.relative_to(ROOT)) for path in sources("worldmodel", "datamodules", "trainers")}


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    left_out = pytestconfig.getini("norecursedirs")
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert ROOT / "tests" / "trainers" / "build" in folders
    assert not [
        folder
        for folder in folders
        if any(fnmatch(part, x) for part in folder.relative_to(ROOT).parts for x in left_out)
    ]
