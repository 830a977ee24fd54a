"""Whether a proxy was checked: what makes two proxies the same, and where the check of one lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phinas.files.moved import named_before

COMMAND = "nas.proxy_check"


def fingerprint(space: Mapping[str, Any], evaluator: Mapping[str, Any]) -> str:
    """Sixteen hex digits of all settings by which a proxy ranks: those of the space, the evaluator and its data.

    Of the names that the first releases gave our modules, so that their checks are still found.
    """
    text = json.dumps(named_before([space, evaluator]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def epochs_setting(evaluator: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Where the settings of an evaluator say how many epochs it trains; None where they do not, as of a table."""
    recipe = evaluator.get("recipe")
    if isinstance(recipe, Mapping) and "epochs" in recipe:
        return ("recipe", "epochs")
    return ("epochs",) if "epochs" in evaluator else None


def find_check(runs: Path, wanted: str) -> tuple[Path, Mapping[str, Any]] | None:
    """Folder and summary of the finished check with this fingerprint, of the most networks; None without."""
    checks = []
    for path in sorted(runs.glob("*/summary.json")):
        try:
            summary = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):  # another command's, being written or damaged
            continue
        if not isinstance(summary, dict) or summary.get("command") != COMMAND or summary.get("fingerprint") != wanted:
            continue
        if summary.get("finished") is True and summary.get("tau") is not None and type(summary.get("networks")) is int:
            checks.append((path.parent, summary))
    return max(checks, key=lambda check: check[1]["networks"], default=None)


def checked_note(config: Mapping[str, Any], runs: Path) -> tuple[str, bool] | None:
    """What the report of a search says of its proxy, and whether a check in `runs` stands behind it.

    config  the resolved configuration of the search. None where its evaluator has no epochs: it is no proxy.
    """
    space, evaluator = config.get("space"), config.get("evaluator")
    if not isinstance(space, Mapping) or not isinstance(evaluator, Mapping) or epochs_setting(evaluator) is None:
        return None
    check = find_check(runs, fingerprint(space, evaluator))
    if check is None:
        return "How well this proxy ranks networks was never checked here.", False
    folder, summary = check
    return f"This proxy was checked ({folder}). {summary.get('verdict')}", True
