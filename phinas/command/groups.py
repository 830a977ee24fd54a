"""The configuration files: `conf/NAME.yaml` of each command, and a folder of choices for each group."""

from __future__ import annotations

from pathlib import Path


def _folder() -> Path:
    """`conf/` as it is installed inside the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


CONFIG_FOLDER = _folder()
SETTINGS = ("experiment",)  # groups whose YAML sets options anywhere, and constructs nothing
GROUPS = sorted(folder.name for folder in CONFIG_FOLDER.iterdir() if any(folder.glob("*.yaml")))


def options(group: str) -> list[str]:
    """The choices of a group."""
    return sorted(file.stem for file in (CONFIG_FOLDER / group).glob("*.yaml"))
