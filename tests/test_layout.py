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
# imports that close a circle of folders: each is to go, and none may come
CIRCLES = {
    ("datamodules.storage.stream", "datamodules.windows"),
    ("trainers.bundle.export", "trainers.deployment.surprise"),
    ("trainers.reporting.run_set", "trainers.sweeping.record"),
    ("trainers.run_folder.find", "trainers.command.configuration"),
    ("trainers.run_folder.loggers", "trainers.command.configuration"),
}


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
    allowed = {f"worldmodel.{name}" for name in ("errors", "interfaces", "limits", "spec")}
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


def modules_of(*packages: str) -> dict[str, Path]:
    """Files by dotted name, a folder's `__init__` by the folder's."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sources(*packages)}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def edges_of(modules: dict[str, Path]) -> set[tuple[str, str]]:
    """Who imports whom, in functions too; `from folder import module` is an import of the module."""
    edges = set()
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                edges |= {(name, alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                edges |= {(name, other) for other in inner or {node.module or ""}}
    return {(one, other) for one, other in edges if other in modules and other != one}


def circle(edges: set[tuple[str, str]]) -> str:
    """One that the edges close, empty where there is none."""
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> str:
        if name in trail:
            return " -> ".join((*trail[trail.index(name) :], name))
        if name in done:
            return ""
        done.add(name)
        return next((c for one, other in sorted(edges) if one == name and (c := visit(other, (*trail, name)))), "")

    return next((c for name in sorted({one for one, _ in edges}) if (c := visit(name, ()))), "")


def folder_of(module: str, modules: dict[str, Path]) -> str:
    """The folder of a module; what lies in the package itself is on its own."""
    is_folder = modules[module].name == "__init__.py"
    return module if is_folder or module.count(".") == 1 else module.rpartition(".")[0]


def folder_edges(modules: dict[str, Path], edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    pairs = {(folder_of(one, modules), folder_of(other, modules)) for one, other in edges}
    return {(one, other) for one, other in pairs if one != other}


def test_no_import_cycles() -> None:
    assert not circle(edges_of(modules_of("worldmodel", "datamodules", "trainers")))


@pytest.mark.parametrize("package", ["worldmodel", "datamodules", "trainers"])
def test_no_folder_imports_in_a_circle_with_another(package: str) -> None:
    modules = modules_of(package)
    edges = edges_of(modules)
    assert not circle(folder_edges(modules, edges - CIRCLES))
    for known in CIRCLES & edges:
        assert circle(folder_edges(modules, edges - CIRCLES | {known})), f"no circle any more: {known}"


def test_no_circle_is_excepted_that_is_not_there() -> None:
    assert edges_of(modules_of("worldmodel", "datamodules", "trainers")) >= CIRCLES


def test_a_circle_of_folders_is_found(tmp_path: Path) -> None:
    files = ("p.a", "p.b", "p.b.one", "p.a.two", "p.c")
    modules = {name: tmp_path / ("__init__.py" if name in ("p.a", "p.b") else "x.py") for name in files}
    edges = {("p.b.one", "p.a"), ("p.c", "p.b.one")}
    assert circle(edges) == circle(folder_edges(modules, edges)) == ""
    assert circle(folder_edges(modules, edges | {("p.a.two", "p.b")})) == "p.a -> p.b -> p.a"
    assert circle(folder_edges(modules, edges | {("p.a.two", "p.c")})) == "p.a -> p.c -> p.b -> p.a"
    assert circle(edges | {("p.a", "p.b.one")}) == "p.a -> p.b.one -> p.a"


def test_folders_define_nothing_beside_their_modules() -> None:
    for path in sources("worldmodel", "datamodules", "trainers"):
        if path.name == "__init__.py" and path.parent != ROOT / "trainers":  # `load_agent`, without torch until asked
            kept = [n for n in ast.parse(path.read_text()).body if not isinstance(n, ast.Import | ast.ImportFrom)]
            assert not [n for n in kept if not isinstance(n, ast.Expr | ast.Assign)], path


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
