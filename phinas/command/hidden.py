"""Whether files of the user's hide packages of ours: Python takes whichever comes first on its path."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from phinas.files.errors import InputError

PACKAGES = ("nas", "scaling_search", "search_spaces")
_OURS = Path(__file__).resolve().parents[2]


def check_not_hidden() -> None:
    """InputError naming the file or folder that stands where one of our packages should be found.

    In the working folder too where it comes last on the path here: in the workers of Ray it comes first.
    """
    for package in PACKAGES:
        for place in (_place(PathFinder.find_spec(package, [str(Path.cwd())])), _place(_found(package))):
            if place is not None and place.resolve().parent != _OURS:
                raise InputError(
                    f"{place} hides our package {package}: rename it, or type the command in another folder "
                    "(PYTHONPATH may name it, too)"
                )


def refuse_where_hidden() -> None:
    """For the packages themselves, before they import one another: one line for `python -m`, ImportError for others."""
    try:
        check_not_hidden()
    except InputError as error:
        if sys.argv[:1] == ["-m"]:  # so it is called while Python looks for the module to run
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        raise ImportError(str(error)) from None


def _found(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None


def _place(spec: ModuleSpec | None) -> Path | None:
    """The folder or file of a package or module; None of a bare folder, which hides nothing that is found elsewhere."""
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin)
    return file.parent if file.name == "__init__.py" else file
