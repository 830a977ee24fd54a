"""The house holds: imports point one way, dependencies keep to their rooms, every YAML names something real."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from tests.conftest import ROOT

# Each room may import itself and those before it in this order: what is lower knows nothing of what is higher.
ORDER = (
    "phinas.files",
    "phinas.pages",
    "phinas.command",
    "phinas.networks",
    "phinas.weights",
    "search_spaces",
    "phinas.engines",
    "phinas.measure",
    "phinas.generate",
    "phinas.training",
    "phinas.train",
    "phinas.transfer",
    "phinas.cam",
    "nas",
    "scaling_search",
    "phinas.api",
    "phinas",
)
# Where a dependency may be imported, by path prefix.
ROOMS = {
    "ray": ("phinas/engines/", "phinas/training/workers/", "nas/tune.py"),
    "optuna": ("scaling_search/study.py", "nas/controllers/"),
    "hydra": ("phinas/command/",),
    "omegaconf": ("phinas/command/",),
    "torch": (
        "phinas/networks/blocks.py",
        "phinas/networks/build.py",
        "phinas/networks/network.py",
        "phinas/weights/",
        "phinas/engines/",
        "phinas/measure/",
        "phinas/training/",
        "phinas/train/",
        "phinas/transfer/",
        "phinas/cam/",
        "phinas/api/",
        "search_spaces/testing.py",
        "nas/controllers/rl.py",
        "nas/evaluators/proxy.py",
    ),
}
PACKAGES = ("nas", "scaling_search", "search_spaces", "phinas")


def _files() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def _imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(module: str) -> str | None:
    """The room in which a module lives; None of what is not ours."""
    return next((room for room in reversed(sorted(ORDER, key=len)) if f"{module}.".startswith(f"{room}.")), None)


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way_and_stay_in_their_rooms(file: Path) -> None:
    path = file.relative_to(ROOT).as_posix()
    own = _room(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    assert own is not None, f"{path} lives in no room of ORDER"
    for module in _imports(file):
        room = _room(module)
        if room is not None:
            assert own != "phinas.networks" or room in ("phinas.networks", "phinas.files"), f"{path} imports {module}"
            assert ORDER.index(room) <= ORDER.index(own), f"{path} imports {module}, which stands above it"
        assert path.startswith(ROOMS.get(module.split(".")[0], ("",))), f"{path} imports {module}"


def test_arch_needs_the_standard_library_and_the_kinds_of_blocks_only() -> None:
    import sys

    for name in ("arch", "kinds"):
        modules = {
            module.split(".")[0]
            for module in _imports(ROOT / f"phinas/networks/{name}.py")
            if not module.startswith("phinas.networks.kinds")
        }
        assert modules <= set(sys.stdlib_module_names)


def test_configurations_are_yaml_alone() -> None:
    assert {file.suffix for file in (ROOT / "conf").rglob("*") if file.is_file()} == {".yaml"}


GROUPS = [file for file in sorted((ROOT / "conf").glob("*/*.yaml")) if file.parent.name != "experiment"]


@pytest.mark.parametrize("file", GROUPS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_every_yaml_of_a_group_names_a_target_and_settings_it_takes(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    for other in content.pop("defaults", ()):  # what it is made from
        if other != "_self_":
            content = yaml.safe_load((file.parent / f"{other}.yaml").read_text()) | content
    if content["_target_"] == "???":
        assert file.stem == "custom"
        return
    parameters = inspect.signature(get_object(content["_target_"])).parameters
    settings = {name for name in content if name not in ("_target_", "_partial_", "_convert_")}
    assert settings <= set(parameters)


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


PRIVATE = re.compile(r"\bray\.(?:\w+\.)*_\w|\b_internal\b|\b_system_config\b|\b_node_ip_address\b")


def test_ray_is_entered_by_its_public_doors() -> None:
    """No name of Ray's begins with an underscore, and none is given another value."""
    files = [file for file in _files() if any(module.split(".")[0] == "ray" for module in _imports(file))]
    assert len(files) >= 4
    for file in files:
        text = file.read_text()
        assert not PRIVATE.findall(text), file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                assert ast.unparse(node).split(".")[0] not in ("ray", "tune"), f"{file}:{node.lineno}"
