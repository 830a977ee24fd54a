"""Gradient-boosted trees over the decisions of a space: fitted by scikit-learn, read off as tables, kept on disk.

scikit-learn walks a few thousand trees one by one, 9 ms for a single network. All trees are walked at once here: each
choice of each decision rules out some leaves of each tree, so the leaves that a network reaches are what is left by
the AND of one row of bits per decision (QuickScorer: Lucchese et al., SIGIR 2015).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phinas.files.atomic_file import write_atomically

# Chosen on the accuracies of Accel-NASBench, by five folds: many small trees, each split seeing half of the decisions.
SETTINGS: dict[str, Any] = {
    "max_iter": 3000,
    "learning_rate": 0.05,
    "max_leaf_nodes": 6,
    "min_samples_leaf": 10,
    "max_features": 0.5,
    "l2_regularization": 3.0,
    "early_stopping": False,
    "random_state": 0,
}
FOLDS = 5
LEAVES = 8  # a byte of bits per tree
_CHUNK = 32  # networks that are predicted at once: the bits of their trees fit the cache of a processor
_LEAF_OF_BIT = np.array([max(byte.bit_length() - 1, 0) for byte in range(256)], dtype=np.intp)

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """How well held-out networks are predicted: every network by trees that were fitted without it, or its twin.

    networks  how many; r2 is the coefficient of determination, tau Kendall's rank correlation (tau-b), error the mean
    absolute one, in the unit of the targets.
    """

    networks: int
    r2: float
    tau: float
    error: float


@dataclass(frozen=True)
class BoostedTrees:
    """A sum of trees.

    bits    [decisions, choices, trees] bytes: the leaves (bit = leaf) that a choice leaves open.
    leaves  [trees, LEAVES] values, of which each tree adds one to `base`.
    """

    base: float
    bits: npt.NDArray[np.uint8]
    leaves: Floats
    quality: Quality

    def predict(self, picks: Integers) -> Floats:
        """Predictions [networks] for picks [networks, decisions], the same for a network alone and among others."""
        picks = np.asarray(picks)
        if picks.ndim != 2 or picks.shape[1] != len(self.bits):
            raise ValueError(f"picks must have shape [networks, {len(self.bits)}], got {picks.shape}")
        predicted = np.empty(len(picks))
        first_leaf = np.arange(len(self.leaves)) * LEAVES
        for start in range(0, len(picks), _CHUNK):
            chunk = picks[start : start + _CHUNK]
            open_leaves = self.bits[0][chunk[:, 0]]
            for decision in range(1, len(self.bits)):
                open_leaves &= self.bits[decision][chunk[:, decision]]
            reached = self.leaves.ravel()[first_leaf + _LEAF_OF_BIT[open_leaves]]
            predicted[start : start + _CHUNK] = self.base + reached.sum(axis=1)
        return predicted


def fit(picks: Integers, targets: Floats, choices: int) -> BoostedTrees:
    """Trees fitted to all networks, and how well such trees predict held-out ones (FOLDS folds).

    choices  the most that a decision of the space has; `picks` may lack some of them.
    """
    fold = _folds(picks)
    held_out = np.empty(len(targets))
    for number in range(FOLDS):
        held_out[fold == number] = _fit(picks[fold != number], targets[fold != number]).predict(picks[fold == number])
    trees, quality = _fit(picks, targets), _quality(targets, held_out)
    base, bits, leaves = _tables(trees, picks.shape[1], choices)
    fitted = BoostedTrees(base, bits, leaves, quality)
    # scikit-learn does not promise the shape of its trees; that it did not change is checked wherever it is used.
    if not np.allclose(fitted.predict(picks), trees.predict(picks), rtol=1e-9, atol=1e-9):
        raise RuntimeError(f"scikit-learn {version('scikit-learn')} keeps its trees in another way")
    return fitted


def load_or_fit(
    name: str, data: str, choices: int, read: Callable[[], tuple[Integers, Floats]]
) -> tuple[BoostedTrees, bool]:  # fmt: skip
    """What `fit` came to earlier, kept on disk, or now; True where it was fitted now.

    name, data  what the targets are, and a hash of where they come from. Together with the choices, the settings and
                scikit-learn's version they are the name of the file, in $XDG_CACHE_HOME/phinas or ~/.cache/phinas.
    choices     as of `fit`.
    read        gives picks and targets, and is called only where there is something to fit.
    A damaged file is written anew; where the folder cannot be written, nothing is kept.
    """
    file = _cache_file(name, data, choices)
    cached = _load(file)
    if cached is not None:
        return cached, False
    trees = fit(*read(), choices)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, _content(trees))
    except OSError:  # a read-only home is no reason to stop
        pass
    return trees, True


# --- fitting ---------------------------------------------------------------------------------------------------------


def _fit(picks: Integers, targets: Floats) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor  # type: ignore[import-untyped]  # a second to import
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # One thread: five thousand rows are too few to share, and two threads beside a busy process take ten times as long.
    with threadpool_limits(1):
        return HistGradientBoostingRegressor(**SETTINGS).fit(picks.astype(np.float64), targets)


def _folds(picks: Integers) -> Integers:
    """The fold of each network; equal networks share one, or they would be predicted from their own twins."""
    _, same = np.unique(picks, axis=0, return_inverse=True)
    same = same.reshape(-1)  # numpy 2.0 gave it two axes
    folds: Integers = (np.random.default_rng(0).permutation(same.max() + 1) % FOLDS)[same]
    return folds


def _quality(targets: Floats, predicted: Floats) -> Quality:
    from scipy.stats import kendalltau

    residual, spread = targets - predicted, targets - targets.mean()
    return Quality(
        networks=len(targets),
        r2=float(1 - (residual**2).sum() / (spread**2).sum()),
        tau=float(kendalltau(targets, predicted).statistic),
        error=float(np.abs(residual).mean()),
    )


def _tables(trees: Any, decisions: int, most_choices: int) -> tuple[float, npt.NDArray[np.uint8], Floats]:
    """`base`, `bits` and `leaves` of fitted trees."""
    nodes = [predictor.nodes for (predictor,) in trees._predictors]
    choices = np.arange(most_choices)
    bits = np.full((decisions, most_choices, len(nodes)), (1 << LEAVES) - 1, dtype=np.uint8)
    leaves = np.zeros((len(nodes), LEAVES))
    for tree, table in enumerate(nodes):
        next_leaf = 0

        def leaves_below(place: int, tree: int = tree, table: Any = table) -> int:
            """The leaves below a node as bits; a node rules out those of its other side for each choice."""
            nonlocal next_leaf
            node = table[place]
            if node["is_leaf"]:
                leaves[tree, next_leaf] = node["value"]
                next_leaf += 1
                return 1 << (next_leaf - 1)
            left, right = leaves_below(int(node["left"])), leaves_below(int(node["right"]))
            goes_left = choices <= node["num_threshold"]
            bits[node["feature_idx"], :, tree] &= np.where(goes_left, 255 - right, 255 - left).astype(np.uint8)
            return left | right

        bits[0, :, tree] &= np.uint8(leaves_below(0))  # no leaf that the tree does not have
    return float(np.ravel(trees._baseline_prediction)[0]), bits, leaves


# --- the cache -------------------------------------------------------------------------------------------------------


def _cache_file(name: str, data: str, choices: int) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    identity = json.dumps([data, choices, SETTINGS, FOLDS, version("scikit-learn")], sort_keys=True)
    return Path(home) / "phinas" / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npz"


def _content(trees: BoostedTrees) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(
        file, base=trees.base, bits=trees.bits, leaves=trees.leaves, quality=json.dumps(asdict(trees.quality))
    )
    return file.getvalue()


def _load(file: Path) -> BoostedTrees | None:
    """What `_content` wrote; None where there is no such file, or a damaged one."""
    try:
        with np.load(file) as arrays:
            quality = Quality(**json.loads(str(arrays["quality"])))
            return BoostedTrees(float(arrays["base"]), arrays["bits"], arrays["leaves"], quality)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
