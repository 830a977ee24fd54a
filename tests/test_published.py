"""Evaluators on published results: they read what is published, predict held-out networks, and name what is wrong.

With the real files in ../shared/data, `cost` is held to what their projects recorded of networks we did not write.
"""

from __future__ import annotations

import gzip
import itertools
import json
import pickle
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.evaluators import accel_nasbench, boosted_trees
from nas.evaluators.accel_nasbench import DEVICES, AccelNASBench, AccelNASBenchDevice, Archive, read_archive
from nas.evaluators.nasbench_macro import NasBenchMacroTable
from nas.search import main
from phinas.files.errors import InputError, one_line
from phinas.networks.arch import Arch
from phinas.networks.cost import cost
from phinas.networks.reference import EFFICIENTNET_B0
from search_spaces.efficientnet import EfficientNet
from search_spaces.nasbench_macro import NasBenchMacro
from search_spaces.space import decode, sample
from tests.conftest import ROOT

ARCHIVE = ROOT.parent / "shared" / "data" / "accel_nasbench.tar.gz"
TABLE = ROOT.parent / "shared" / "data" / "nas-bench-macro_cifar10.json"
needs_archive = pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive of Accel-NASBench is not here")
needs_table = pytest.mark.skipif(not TABLE.exists(), reason="the table of NAS-Bench-Macro is not here")


@pytest.fixture(scope="session")
def archive() -> Archive:
    return read_archive(ARCHIVE)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccelNASBench]:
    """The evaluator on the real archive: fitting takes a while, so that it is done once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield AccelNASBench(ARCHIVE)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and few trees."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(boosted_trees, "SETTINGS", {**boosted_trees.SETTINGS, "max_iter": 30})
    return tmp_path / "cache" / "phinas"


def result(picks: Sequence[int]) -> dict[str, Any]:
    """A made-up result in the archive's layout: larger choices are more accurate and slower."""
    architecture = {}
    for decision, pick in zip(EfficientNet().decisions, picks, strict=True):
        block, _, kind = decision.name.partition(".")
        value = bool(pick) if kind == "se" else decision.choices[pick]
        architecture[f"{block}_{'se' if kind == 'se' else kind[0]}"] = value
    total = sum(picks)
    speeds = {
        field: {f"{quantity}_mean": 1000.0 / (9 + total) if quantity == "throughput" else 9.0 + total}
        for fields in DEVICES.values()
        for quantity, field in fields.items()
    }
    return {
        "architecture": architecture,
        "metrics": {"val_top1": 40.0 + total},
        "model_info": {"macs": 1.5, "params": 0.5},
        "platform_perf": speeds,
    }


@pytest.fixture
def made_up(made_up_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive of `made_up_once`, taken for a whole one."""
    monkeypatch.setattr(accel_nasbench, "RESULTS", 1200)
    return made_up_once


@pytest.fixture(scope="session")
def made_up_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 1,200 made-up results, the first of them there twice."""
    folder = tmp_path_factory.mktemp("archive")
    drawn = [sample(EfficientNet().decisions, np.random.default_rng(number)) for number in range(1199)]
    with tarfile.open(folder / "results.tar.gz", "w:gz") as packed:
        for number, picks in enumerate([drawn[0], *drawn]):
            file = folder / "jsons" / f"result_{number}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(result(picks)))
        packed.add(folder / "jsons", "./jsons")
    return folder


# --- what was recorded -----------------------------------------------------------------------------------------------


def archive_macs(arch: Arch) -> int:
    """MACs as Accel-NASBench counts: 4 more per element from a batch norm, height * width + 1 per pooled channel."""
    channels, side, pooled = arch.stem.channels, -(-arch.resolution // arch.stem.stride), 0
    for stage in arch.stages:
        side = -(-side // stage.stride)
        for _ in range(stage.repeats):
            if stage.se_ratio:
                pooled += stage.middle_channels(channels) * (side * side + 1)
            channels = stage.channels
    pooled += arch.head_channels * (side * side + 1)
    counted = cost(arch)
    return counted.macs + 4 * counted.activations + pooled


@needs_archive
def test_every_cost_that_accel_nasbench_recorded_is_reproduced(archive: Archive) -> None:
    space = EfficientNet()
    networks = [decode(space, tuple(map(int, picks))) for picks in archive.picks]
    assert len(networks) == 5138
    assert [archive_macs(network) for network in networks] == [round(1e6 * macs) for macs in archive.macs]
    assert [cost(network).params for network in networks] == [round(1e6 * params) for params in archive.params]
    assert np.abs(1e6 * archive.macs - np.round(1e6 * archive.macs)).max() < 1e-3  # whole numbers were recorded


@needs_table
def test_every_cost_that_nasbench_macro_recorded_is_reproduced_and_copies_are_one_network() -> None:
    space, table = NasBenchMacro(), json.loads(TABLE.read_text())
    results = defaultdict(set)
    for picks in itertools.product(range(3), repeat=8):
        network, recorded = decode(space, picks), table["".join(map(str, picks))]
        counted = cost(network)
        assert (counted.macs, counted.params) == (recorded["flops"], recorded["params"])
        assert decode(space, space.encode(network)) == network
        results[network.key()].add(json.dumps(recorded))
    assert len(table) == 6561 and len(results) == 3969
    assert {len(names) for names in results.values()} == {1}


# --- the predictor ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_archive
def test_held_out_networks_are_predicted(fitted: AccelNASBench, archive: Archive) -> None:
    assert fitted.quality.networks == 5138
    assert fitted.quality.tau >= 0.915 and fitted.quality.r2 >= 0.98 and fitted.quality.error < 0.33
    known = fitted.accuracies(archive.picks)
    assert np.corrcoef(known, archive.top1)[0, 1] > 0.99 and 0.2 < known.min() < known.max() < 0.75
    [measurement] = fitted(EFFICIENTNET_B0, seed=5)
    assert measurement.final and measurement.accuracy == pytest.approx(0.66, abs=0.01)


@pytest.mark.slow
def test_a_network_alone_is_predicted_as_among_others(made_up: Path, cache: Path) -> None:
    evaluator, space = AccelNASBench(made_up / "results.tar.gz"), EfficientNet()
    picks = [sample(space.decisions, np.random.default_rng((7, number))) for number in range(100)]
    together = evaluator.accuracies(picks)
    assert [next(evaluator(decode(space, one), seed=0)).accuracy for one in picks] == list(together)
    assert list(pickle.loads(pickle.dumps(evaluator)).accuracies(picks)) == list(together)
    with pytest.raises(ValueError, match=r"\[networks, 28\], got \(100, 27\)"):
        evaluator.accuracies([one[:-1] for one in picks])


def test_a_choice_that_no_trained_network_has_is_predicted(cache: Path) -> None:
    picks = np.random.default_rng(0).integers(2, size=(200, 4))
    trees = boosted_trees.fit(picks, picks.sum(axis=1).astype(float), choices=3)
    assert trees.predict(np.array([[2, 2, 2, 2]])) == trees.predict(np.array([[1, 1, 1, 1]]))


def test_no_network_is_held_out_from_its_twin() -> None:
    picks = np.random.default_rng(0).integers(2, size=(500, 4))  # 16 networks
    folds = boosted_trees._folds(picks)
    assert len({(*one, fold) for one, fold in zip(picks.tolist(), folds.tolist(), strict=True)}) == 16
    assert set(folds) == set(range(boosted_trees.FOLDS))


def test_the_archive_and_its_folder_are_read_alike(made_up: Path) -> None:
    packed, folder = read_archive(made_up / "results.tar.gz"), read_archive(made_up)
    for name in ("picks", "top1", "macs", "params"):
        assert np.array_equal(getattr(packed, name), getattr(folder, name))
    assert packed.picks.shape == (1200, 28) and np.array_equal(packed.top1, 40 + packed.picks.sum(axis=1))
    assert packed.speed["latency_zcu102"][0] == 9 + packed.picks[0].sum()


@pytest.mark.slow
def test_it_is_fitted_once_and_a_damaged_file_again(
    made_up: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def accuracies() -> tuple[list[float], str]:
        found = AccelNASBench(made_up / "results.tar.gz").accuracies(picks)
        return list(found), capsys.readouterr().out

    picks = [sample(EfficientNet().decisions, np.random.default_rng(number)) for number in range(9)]
    first, said = accuracies()
    assert said.startswith("fitted ImageNet top-1 to 1,200 networks") and "Kendall tau 0." in said
    [file] = cache.iterdir()
    whole = file.read_bytes()
    assert accuracies() == (first, "")
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole[:-100], whole.replace(b"quality", b"qualify")):
        file.write_bytes(damaged)
        again, said = accuracies()
        assert again == first and said.startswith("fitted")
        assert [entry.name for entry in cache.iterdir()] == [file.name]
    monkeypatch.setitem(boosted_trees.SETTINGS, "max_iter", 31)
    assert accuracies()[0] != first and len(list(cache.iterdir())) == 2
    blocked = made_up / "a_file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))  # nothing can be kept there
    assert accuracies()[1].startswith("fitted")


def test_devices_are_predicted_each_when_asked_for(
    made_up: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = AccelNASBenchDevice(made_up / "results.tar.gz")
    assert "fitted throughput on a100 to 1,200 networks" in capsys.readouterr().out and len(list(cache.iterdir())) == 1
    fpga = AccelNASBenchDevice(made_up / "results.tar.gz", "zcu102")
    costs = fpga.costs(EFFICIENTNET_B0)
    assert set(gpu.costs(EFFICIENTNET_B0)) == {"throughput"} and set(costs) == {"throughput", "latency"}
    picks = np.array([(0,) * 28, (1,) * 28])
    slow = fpga.all_costs(picks)
    assert slow["throughput"][0] > slow["throughput"][1] and slow["latency"][0] < slow["latency"][1]
    assert 9e-3 < costs["latency"] < 60e-3 and 1000 / 60 < costs["throughput"] < 1000 / 9  # seconds, images per second
    with pytest.raises(InputError, match="device.device=abacus: it must be one of a100, rtx3090, tpuv2, tpuv3"):
        AccelNASBenchDevice(made_up / "results.tar.gz", "abacus")
    with pytest.raises(InputError, match="device=accel_nasbench knows the networks of space=efficientnet only"):
        gpu.costs(decode(NasBenchMacro(), (0,) * 8))


@needs_archive
@pytest.mark.parametrize("device", ["a100", "zcu102"])
def test_devices_of_the_real_archive(device: str, cache: Path) -> None:
    model = AccelNASBenchDevice(ARCHIVE, device)
    assert all(quality.tau > 0.6 and quality.networks > 5100 for quality in model.quality.values())  # few trees here
    assert model.costs(EFFICIENTNET_B0)["throughput"] > 100


# --- the table and the noise -----------------------------------------------------------------------------------------


@needs_table
def test_the_table_is_looked_up() -> None:
    evaluator, space = NasBenchMacroTable(TABLE), NasBenchMacro()
    picks = (1, 0, 1, 0, 1, 1, 0, 1)
    [measurement] = evaluator(decode(space, picks), seed=0)
    recorded = json.loads(TABLE.read_text())["10101101"]["mean_acc"]
    assert measurement.accuracy == pytest.approx(recorded / 100) == evaluator.accuracies([picks, picks])[1]
    assert pickle.loads(pickle.dumps(evaluator)).accuracies([picks]) == evaluator.accuracies([picks])
    best = evaluator.accuracies(list(itertools.product(range(3), repeat=8))).max()
    assert best == pytest.approx(0.931267, abs=1e-6)
    for other in (EFFICIENTNET_B0, decode(NasBenchMacro(resolution=64), picks)):
        with pytest.raises(InputError, match="evaluator=nasbench_macro knows the networks of space=nasbench_macro"):
            evaluator.check(other)


def noisy_evaluators(made_up: Path) -> list[tuple[Callable[[float], Any], Any]]:
    found: list[tuple[Callable[[float], Any], Any]] = [
        (lambda noise: AccelNASBench(made_up / "results.tar.gz", noise), EfficientNet())
    ]
    if TABLE.exists():
        found.append((lambda noise: NasBenchMacroTable(TABLE, noise), NasBenchMacro()))
    return found


@pytest.mark.slow
def test_noise_comes_from_the_seed_alone(made_up: Path, cache: Path) -> None:
    for make, space in noisy_evaluators(made_up):
        one, other = (decode(space, (pick,) * len(space.decisions)) for pick in (0, 1))

        def accuracy(network: Arch, seed: int, noise: float, make: Callable[[float], Any] = make) -> float:
            return float(next(make(noise)(network, seed)).accuracy)

        truth = accuracy(one, 1, 0.0)
        assert truth == accuracy(one, 2, 0.0)
        assert accuracy(one, 1, 0.3) == accuracy(one, 1, 0.3) != accuracy(one, 2, 0.3)
        assert accuracy(one, 1, 0.3) - truth == pytest.approx(accuracy(other, 1, 0.3) - accuracy(other, 1, 0.0))
        evaluator = make(0.3)
        errors = [next(evaluator(one, seed)).accuracy - truth for seed in range(400)]
        assert np.std(errors) == pytest.approx(0.003, rel=0.15) and abs(np.mean(errors)) < 0.0006  # 4 standard errors
        assert {next(make(1e6)(one, seed)).accuracy for seed in range(20)} == {0.0, 1.0}  # within [0, 1] at any noise


# --- the command -----------------------------------------------------------------------------------------------------


@needs_table
def test_a_search_on_the_table_finds_each_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["space=nasbench_macro", "evaluator=nasbench_macro", f"evaluator.path={TABLE}", "target_flops=55.4e6"]
    assert main([*options, "engine=inline", "budget=30", "name=macro", "evaluator.noise=0.3"]) == 0
    summary = json.loads((tmp_path / "runs" / "macro" / "summary.json").read_text())
    assert summary["unique"] == summary["evaluations"] == 30 and summary["best"]["reward"] > 0.9


def test_a_search_on_predictions(made_up: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["space=efficientnet", "evaluator=accel_nasbench", f"evaluator.path={made_up}", "engine=inline"]
    assert main([*options, "budget=10", "name=imagenet"]) == 0
    assert json.loads((tmp_path / "runs" / "imagenet" / "summary.json").read_text())["evaluations"] == 10


IMAGENET = ("space=efficientnet", "evaluator=accel_nasbench", "engine=inline")
MACRO = ("space=nasbench_macro", "evaluator=nasbench_macro", "engine=inline")
BAD_INPUT = [
    (IMAGENET, "evaluator.path is missing; the archive of Accel-NASBench is published at https://github.com/afzalxo"),
    ((*IMAGENET, "evaluator.path="), "evaluator.path is missing; the archive of Accel-NASBench is published at"),
    ((*IMAGENET, "evaluator.path=nowhere.tar.gz"), "evaluator.path=nowhere.tar.gz: no such file; the archive of Accel"),
    ((*IMAGENET, "evaluator.path=truncated.tar.gz"), "truncated.tar.gz: not a whole .tar.gz archive"),
    ((*IMAGENET, "evaluator.path=checksum.tar.gz"), "checksum.tar.gz: not a whole .tar.gz archive"),
    ((*IMAGENET, "evaluator.path=cut.tar"), "cut.tar: 600 files result_*.json in it, not the 1,200 of https"),
    ((*IMAGENET, "evaluator.path=note.txt"), "note.txt: not a whole .tar.gz archive"),
    ((*IMAGENET, "evaluator.path=nothing"), "nothing: not a whole .tar.gz archive"),
    ((*IMAGENET, "evaluator.path=other.tar.gz"), "other.tar.gz: 0 files result_*.json in it, not the 1,200 of https"),
    ((*IMAGENET, "evaluator.path=empty"), "empty: 0 files result_*.json"),
    ((*IMAGENET, "evaluator.path=torn"), "torn: result_7.json: "),
    ((*IMAGENET, "evaluator.path=fields"), "fields: result_7.json has no 'platform_perf'"),
    ((*IMAGENET, "evaluator.path=choices"), "choices: result_7.json: block5_l=5 is not in space=efficientnet"),
    ((*IMAGENET, "evaluator.path=accuracy"), "accuracy: result_7.json: val_top1=140"),
    ((*IMAGENET, "evaluator.noise=-1"), "evaluator.noise=-1: it must be a number 0 or more"),
    ((*IMAGENET, "evaluator.noise=loud"), "evaluator.noise=loud: it must be a number 0 or more"),
    (MACRO, "evaluator.path is missing; the table of NAS-Bench-Macro is published at https://github.com/xiusu/"),
    ((*MACRO, "evaluator.path="), "evaluator.path is missing; the table of NAS-Bench-Macro is published at"),
    ((*MACRO, "evaluator.path=nowhere.json"), "evaluator.path=nowhere.json: no such file; the table of NAS-Bench"),
    ((*MACRO, "evaluator.path=note.txt"), "note.txt: "),
    ((*MACRO, "evaluator.path=nothing"), "nothing: "),
    ((*MACRO, "evaluator.path=empty"), "empty: Is a directory"),
    ((*MACRO, "evaluator.path=other.json"), "other.json: no '00000000' in it; it must be the table of https"),
    ((*MACRO, "evaluator.path=list.json"), "list.json: "),
    ((*MACRO, "evaluator.path=accuracy.json"), "accuracy.json: mean_acc=nan is no accuracy"),
    ((*MACRO, "evaluator.noise=-1"), "evaluator.noise=-1: it must be a number 0 or more"),
]  # fmt: skip


@pytest.fixture
def broken_files(made_up: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What people may point to by mistake, in the current folder."""
    work = tmp_path / "work"
    (work / "empty").mkdir(parents=True)
    monkeypatch.chdir(work)
    packed = (made_up / "results.tar.gz").read_bytes()
    (work / "truncated.tar.gz").write_bytes(packed[: len(packed) // 2])
    (work / "checksum.tar.gz").write_bytes(packed[:-8] + bytes(8))
    with tarfile.open(made_up / "results.tar.gz") as whole:  # cut between two members
        ends = [member for member in whole if member.isfile()][600].offset
    (work / "cut.tar").write_bytes(gzip.decompress(packed)[:ends])
    (work / "note.txt").write_text("\u00fc is not an archive")
    (work / "nothing").touch()
    with tarfile.open(work / "other.tar.gz", "w:gz") as other:
        other.add(work / "note.txt", "note.txt")
    good = result((0,) * 28)
    layers = {**good["architecture"], "block5_l": 5}
    for name, text in {
        "torn": json.dumps(good)[:-9],
        "fields": json.dumps({key: value for key, value in good.items() if key != "platform_perf"}),
        "choices": json.dumps({**good, "architecture": layers}),
        "accuracy": json.dumps({**good, "metrics": {"val_top1": 140}}),
    }.items():
        (work / name).mkdir()
        for number in range(1200):
            (work / name / f"result_{number}.json").write_text(text if number == 7 else json.dumps(good))
    (work / "other.json").write_text('{"a": 1}')
    (work / "list.json").write_text("[1, 2]")
    (work / "accuracy.json").write_text('{"00000000": {"mean_acc": NaN}}')
    return work


@pytest.mark.slow
def test_bad_input_is_one_line_and_nothing_is_written(broken_files: Path) -> None:
    before = sorted(broken_files.rglob("*"))
    for arguments, says in BAD_INPUT:
        with pytest.raises(InputError) as caught:
            main([*arguments, "budget=3"])
        assert says in str(caught.value), arguments
        assert len(one_line(caught.value)) < 400, arguments
        assert sorted(broken_files.rglob("*")) == before, arguments


def test_another_space_is_refused_before_anything_is_written(
    made_up: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"evaluator.path={made_up / 'results.tar.gz'}"
    for space in ("space=mnasnet", "space=nasbench_macro", "space.resolution=64"):
        chosen = [space] if space.startswith("space=") else ["space=efficientnet", space]
        with pytest.raises(InputError, match="evaluator=accel_nasbench knows the networks of space=efficientnet only"):
            main([*chosen, "evaluator=accel_nasbench", path, "engine=inline"])
    assert not (tmp_path / "runs").exists()
