"""The house holds: imports point one way, dependencies keep to their rooms, every YAML names something real."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from tests.conftest import ROOT

PACKAGES = ("convnets", "search_spaces", "engines", "training", "nas", "scaling_search", "conf", "pages")
MAY_IMPORT = {
    "convnets": set[str](),
    "search_spaces": {"convnets"},
    "engines": {"convnets"},
    "training": {"convnets", "engines"},
    "nas": {"convnets", "search_spaces", "engines", "training"},
    "scaling_search": {"convnets", "search_spaces", "engines", "training", "nas"},
    "conf": {"convnets"},
    "pages": {"convnets"},
}
# What writes for people: the commands, which may always, and these.
WRITERS = (
    "convnets/family_figure.py",
    "convnets/family_report.py",
    "convnets/measure_report.py",
    "nas/check_report.py",
    "nas/results.py",
    "nas/report.py",
    "nas/experiment.py",
    "nas/figures/",
    "training/cam_figure.py",
    "training/train_report.py",
    "training/transfer_report.py",
    "scaling_search/results.py",
    "scaling_search/session.py",
    "scaling_search/report.py",
    "scaling_search/compare_report.py",
    "scaling_search/figures/",
)
# Where a dependency may be imported, by path prefix. `conf` reads configurations for the command modules.
ROOMS = {
    "ray": ("engines/", "training/workers.py"),
    "optuna": ("scaling_search/study.py", "nas/controllers/"),
    "hydra": ("conf/",),
    "omegaconf": ("conf/", "nas/search.py", "nas/report.py", "nas/experiment.py"),
    "torch": (
        "convnets/blocks.py", "convnets/build.py", "convnets/network.py", "convnets/out_of_memory.py",
        "convnets/threads.py",
        "convnets/timing.py", "convnets/measure.py", "convnets/inference.py", "convnets/backends.py",
        "convnets/onnx_file.py", "convnets/export.py", "convnets/checkpoints.py",
        "search_spaces/testing.py", "training/", "nas/controllers/rl.py", "nas/evaluators/proxy.py",
    ),
}  # fmt: skip


def _files() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""


def _is_command(file: Path) -> bool:
    return '__name__ == "__main__"' in file.read_text()


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way_and_stay_in_their_rooms(file: Path) -> None:
    path = file.relative_to(ROOT).as_posix()
    package = path.split("/")[0]
    allowed = MAY_IMPORT[package] | {package}
    if _is_command(file) or path.startswith(WRITERS):
        allowed |= {"conf", "pages"}
    for module in _imports(file):
        top = module.split(".")[0]
        if top in PACKAGES:
            assert top in allowed, f"{path} imports {module}"
        assert path.startswith(ROOMS.get(top, ("",))), f"{path} imports {module}"


def test_arch_needs_the_standard_library_only() -> None:
    import sys

    assert {module.split(".")[0] for module in _imports(ROOT / "convnets/arch.py")} <= set(sys.stdlib_module_names)


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
