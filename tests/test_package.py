"""What is installed: four packages, nothing beside them, `conf/` inside, and commands that run from it anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from phinas import __version__
from tests.conftest import ROOT, contents

ANYBODYS = ("conf.py", "conf/__init__.py", "training/__init__.py", "engines.py", "pages.py", "convnets.py")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages as an installer leaves them."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(folder)
    return folder


def test_the_wheel_holds_four_packages_and_the_yaml_of_conf(built: Path, installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {
        "nas", "scaling_search", "search_spaces", "phinas", f"phinas-{__version__}.dist-info",
    }  # fmt: skip
    ours = {name: content for name, content in contents(ROOT / "conf").items() if name.endswith(".yaml")}
    assert contents(installed / "phinas" / "conf") == ours
    for package in ("nas", "scaling_search", "search_spaces", "phinas"):
        files = {name for name in contents(ROOT / package) if "__pycache__" not in name}
        assert files <= set(contents(installed / package)), "templates, tables and py.typed too"


def test_the_source_distribution_holds_its_tests_whole(built: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "tests", "conf"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git here, which knows what belongs to the project")
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked.stdout.split() if (ROOT / name).exists()} <= held


@pytest.mark.slow
@pytest.mark.parametrize("files", [(), ANYBODYS], ids=["empty folder", "anybody's names"])
def test_commands_run_from_the_installed_packages(installed: Path, tmp_path: Path, files: tuple[str, ...]) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('this is mine')\n")
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def typed(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import nas, phinas, sys; sys.exit(not all('site' in module.__file__ for module in (nas, phinas)))"
    subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, check=True)
    assert typed("phinas", "--version").split() == ["phinas", __version__]
    typed("nas.search", "space=efficientnet", "evaluator=synthetic", "engine=inline", "budget=3", "name=found")
    typed("phinas.generate", "baseline=runs/found/best.yaml", "scaling=paper", "phi=0", "name=made")
    assert (tmp_path / "runs/found/report.html").exists() and (tmp_path / "runs/made/family.csv").exists()
