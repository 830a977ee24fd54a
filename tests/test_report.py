"""The report of a search: what its page holds, and the laws of its figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from nas.figures.network import network_figure, parts_of
from nas.figures.pareto import pareto_figure
from nas.figures.rewards import reward_figure
from nas.front import pareto_front
from nas.jobs import best_of
from nas.journal import Entry, Journal
from nas.objective import Objective
from nas.problem import SearchProblem
from nas.report import main, report
from nas.reward import RewardOf, absolute, mnas_hard, mnas_soft, on_macs, on_targets
from phinas.files.errors import InputError
from phinas.networks.cost import Cost, cost
from phinas.networks.reference import NAMES, reference
from phinas.pages.style import svg
from search_spaces.mnasnet import MnasNet
from search_spaces.space import Decision, sample

TARGET = 400e6
OBJECTIVE = Objective({"macs": TARGET}, {})
REWARD = on_macs(mnas_soft, TARGET)
PROBLEM = SearchProblem(MnasNet(), REWARD)


def made_up(count: int, seed: int = 0, reward: RewardOf = REWARD) -> list[Entry]:
    """A journal of random networks with made-up costs and accuracies: a tenth failed, a third stopped early.

    Its accuracies and MACs are coarse, so that ties occur.
    """
    rng = np.random.default_rng(seed)
    entries = []
    for number in range(count):
        picks, key = sample(PROBLEM.decisions, rng), f"{rng.integers(2**63):016x}"
        costs = {"macs": float(rng.integers(5, 80)) * 1e7, "params": 5e6, "activations": 7e6}
        kind = rng.random() if number else 1.0  # the first one runs to the end, so that there is a best
        if kind < 0.1:
            entries.append(Entry(number, picks, key, costs, error=f"diverged at step {number}"))
            continue
        accuracy = round(float(rng.beta(5, 2)), 2)
        entries.append(
            Entry(number, picks, key, costs, (accuracy,), reward(accuracy, costs), stopped=kind < 0.4)
        )  # fmt: skip
    return entries


def page_of(entries: list[Entry], problem: SearchProblem = PROBLEM, **changes: Any) -> str:
    values: dict[str, Any] = {
        "name": "a-run", "entries": entries, "objective": OBJECTIVE, "problem": problem,
        "config_text": "space: mnasnet\n", "seconds": 3725.0, "budget": len(entries),
    }  # fmt: skip
    return report(**(values | changes))


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


# --- the page --------------------------------------------------------------------------------------------------------


pytestmark = pytest.mark.figures


@pytest.fixture(scope="module")
def page() -> str:
    """The page of a search of 40 evaluations, interrupted on its way to 50."""
    return page_of(made_up(40), budget=50)


def test_the_page_tells_the_outcome_and_asks_for_no_other_file(page: str) -> None:
    best = best_of(made_up(40))
    assert best is not None and best.reward is not None
    text = text_of(page)
    assert f"{best.reward:.4f}" in text and best.key in text
    assert f"{best.costs['macs'] / 1e6:.0f}M MACs ({2 * best.costs['macs'] / 1e9:.2f} GFLOPs)" in text
    assert "Unfinished: 40 of 50 evaluations" in text and "1h02m" in text
    assert "diverged at step" in text and "The best 5" in text and "Which decisions went with the reward" in text
    assert "http:" not in page and "https:" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert not re.findall(r"<(?:script|iframe|object|embed)\b|@import|url\((?!#|data:)", page)


def test_ids_within_the_page_are_of_one_figure_each(page: str) -> None:
    for figure in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ids = set(re.findall(r' id="([^"]+)"', figure))
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', figure)) <= ids
        others = page.replace(figure, "")
        assert not ids & set(re.findall(r' id="([^"]+)"', others))


def test_whatever_people_write_is_escaped() -> None:
    entries = made_up(3)
    entries.append(replace(entries[0], number=3, curve=(), reward=None, error="<script>alert(1)</script>"))
    page = page_of(entries, name="<b>&", config_text="key: '</pre><script>'")
    assert "Unfinished" not in page
    assert "<script" not in page and "<b>&" not in page
    assert "&lt;script&gt;alert(1)" in page and "&lt;b&gt;&amp;" in page


@dataclass(frozen=True)
class Cell:
    """A network that is no `Arch`."""

    operation: str

    def key(self) -> str:
        return self.operation

    def build(self) -> Any:
        raise NotImplementedError

    def cost(self) -> Cost:
        return Cost(10, 2, 3)


class Cells:
    decisions = (Decision("operation", ("<add>", "multiply")),)

    def decode(self, choices: Any) -> Cell:
        return Cell(choices["operation"])


def test_a_network_without_stages_is_shown_as_its_choices() -> None:
    problem = SearchProblem(Cells(), REWARD)
    costs = problem.cost((0,))
    entries = [Entry(0, (0,), "<add>", costs, (0.5,), REWARD(0.5, costs))]
    text = text_of(page_of(entries, problem))
    assert "operation &lt;add&gt;" in text and "The only complete evaluation" in text


@pytest.mark.parametrize("count", [0, 1])
def test_a_page_of_no_evaluation_and_of_one(count: int) -> None:
    text = text_of(page_of(made_up(count), seconds=None, budget=3))
    assert f"{count} evaluation" in text and ("best reward" in text) == bool(count)


def test_failures_are_grouped_by_their_reason() -> None:
    costs = {"macs": 1e8, "params": 1e6, "activations": 1e6}
    picks = (0,) * len(PROBLEM.decisions)
    errors = ["out of memory: 12 GiB"] + [f"diverged at step {step}" for step in range(30)]
    entries = [Entry(number, picks, str(number), costs, error=error) for number, error in enumerate(errors)]
    text = text_of(page_of(entries))
    assert "30 diverged at step 0 1 " in text and "1 out of memory: 12 GiB 0 " in text


def test_a_decision_that_makes_the_reward_comes_first_and_chance_is_not_reported() -> None:
    rng = np.random.default_rng(1)
    entries = []
    for number in range(400):
        picks = sample(PROBLEM.decisions, rng)
        reward = 0.5 + 0.2 * picks[7] + 0.01 * float(rng.normal())
        entries.append(
            Entry(number, picks, str(number), {"macs": 4e8, "params": 1.0, "activations": 1.0}, (0.5,), reward)
        )  # fmt: skip
    text = text_of(page_of(entries))
    section = text[text.index("Which decisions went with") :]
    name = PROBLEM.decisions[7].name
    assert re.search(rf"\(evaluations\) {re.escape(name)} 9\d% ", section)
    assert len(re.findall(r"\d% ", section)) < 10


@pytest.mark.slow
def test_twenty_thousand_evaluations_stay_below_five_megabytes() -> None:
    page = page_of(made_up(20_000))
    assert len(page.encode()) < 5e6 and "drawn as an image" in " ".join(page.split())


# --- the figures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [mnas_soft, mnas_hard, absolute, lambda accuracy, cost, target: 1.0])
def test_accuracy_against_macs_is_drawn_for_every_reward(reward: Any) -> None:
    reward_of = on_macs(reward, TARGET)
    entries = made_up(60, reward=reward_of)
    drawn = svg(pareto_figure(entries, "macs", OBJECTIVE, reward_of, best_of(entries)), "label")
    ET.fromstring(drawn.replace("xlink:href", "href"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "no evaluation has run to the end yet"),
        ([entry for entry in made_up(60) if entry.stopped], "no evaluation has run to the end yet"),
        ([entry for entry in made_up(60) if entry.error], "every evaluation failed"),
        (made_up(1), None),
    ],
    ids=["none", "stopped only", "failed only", "one"],
)
def test_figures_of_little_say_so(entries: list[Entry], message: str | None) -> None:
    for figure in (reward_figure(entries), pareto_figure(entries, "macs", OBJECTIVE, REWARD, best_of(entries))):
        assert isinstance(figure, Figure)
        assert message in {text.get_text() for text in figure.axes[0].texts} or message is None
        assert "<svg" in svg(figure, "label")


@pytest.mark.parametrize("seed", range(5))
def test_no_member_of_the_front_is_dominated_and_every_other_entry_is(seed: int) -> None:
    entries = made_up(200, seed)
    complete = [entry for entry in entries if entry.accuracy is not None and not entry.stopped]
    front = pareto_front(entries, ["macs"])

    def dominates(one: Entry, other: Entry) -> bool:
        gain, saving = (one.accuracy or 0) - (other.accuracy or 0), other.costs["macs"] - one.costs["macs"]
        return gain >= 0 and saving >= 0 and gain + saving > 0

    for entry in complete:
        assert any(dominates(other, entry) for other in complete) == (entry not in front)
    assert set(map(id, front)) <= set(map(id, complete))
    assert [entry.costs["macs"] for entry in front] == sorted(entry.costs["macs"] for entry in front)


def test_ties_are_all_on_the_front_and_an_empty_journal_has_none() -> None:
    entry = next(entry for entry in made_up(10) if entry.reward is not None and not entry.stopped)
    assert len(pareto_front([entry, replace(entry, number=99)], ["macs"])) == 2
    assert pareto_front([], ["macs"]) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_network_add_up_to_its_cost(name: str) -> None:
    arch = reference(name)
    parts, whole = parts_of(arch), cost(arch)
    assert sum(part.macs for part in parts) == whole.macs
    assert sum(part.params for part in parts) == whole.params
    assert all(part.macs > 0 and part.params > 0 for part in parts)
    assert len(parts) == len(arch.stages) + 2


def test_the_known_shares_of_resnet_50() -> None:
    # By hand: 7*7*3*64 weights at 112*112 pixels; the classifier's 2048*1000.
    parts = parts_of(reference("resnet50"))
    assert parts[0].macs == 118_013_952 and parts[0].out_side == 56
    assert parts[-1].macs == 2_048_000 and parts[-1].params == 2_049_000


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v1", "resnet152"])
def test_a_network_is_drawn_with_every_stage(name: str) -> None:
    arch = reference(name)
    drawn = svg(network_figure(arch), "network")
    for stage in arch.stages:
        assert f">×{stage.repeats}<" in drawn and f">{stage.channels}<" in drawn


# --- the command -----------------------------------------------------------------------------------------------------


def run_of(folder: Path, entries: list[Entry]) -> Path:
    config = {
        "space": {"_target_": "search_spaces.mnasnet.MnasNet"},
        "reward": {"_target_": "nas.reward.mnas_soft", "_partial_": True, "exponent": -0.07},
        "target_flops": TARGET, "budget": 100,
    }  # fmt: skip
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    journal = Journal(folder / "journal.jsonl", {})
    for entry in entries:
        journal.append(entry)
    journal.close()
    return folder


def test_the_command_makes_the_page_and_the_picture_from_config_and_journal(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "a-run", made_up(8))
    with open(folder / "journal.jsonl", "a") as file:
        file.write('{"numb')  # the search is writing its next line
    before = (folder / "journal.jsonl").read_bytes()
    main([str(folder), f"png={tmp_path / 'picture.png'}"])
    text = text_of((folder / "report.html").read_text())
    assert "Unfinished: 8 of 100" in text and "a-run" in text
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width == 1600
    assert (folder / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ([], "runs/NAME"),
        (["one", "two"], "got 2"),
        (["nowhere"], "no config.yaml"),
        (["RUN", "jpg=x"], "'jpg'"),
        (["RUN", "png="], "png="),
        (["RUN", "png=nowhere/x.png"], "nowhere"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: list[str], culprit: str) -> None:
    folder = run_of(tmp_path / "run", [])
    with pytest.raises(InputError, match=re.escape(culprit)):
        main([argument.replace("RUN", str(folder)) for argument in arguments])
    assert not (folder / "report.html").exists()


def test_a_journal_of_another_space_and_a_strange_config_are_refused(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", [replace(made_up(1)[0], picks=(0, 1))])
    with pytest.raises(InputError, match="not of the space"):
        main([str(folder)])
    (folder / "config.yaml").write_text("space: {")
    with pytest.raises(InputError, match="not YAML"):
        main([str(folder)])
    (folder / "config.yaml").write_text("- a list")
    with pytest.raises(InputError, match="has no space"):
        main([str(folder)])


# --- costs besides MACs ----------------------------------------------------------------------------------------------


def with_costs(entries: list[Entry], reward: RewardOf) -> list[Entry]:
    """The entries with a latency and a throughput that go with their MACs."""
    rows = []
    for entry in entries:
        macs = entry.costs["macs"]
        costs = {**entry.costs, "latency": macs / 2e10, "throughput_a100": 2e12 / macs}
        rows.append(
            replace(entry, costs=costs, reward=None if entry.accuracy is None else reward(entry.accuracy, costs))
        )
    return rows


@pytest.mark.parametrize("reward", [mnas_soft, mnas_hard, absolute])
@pytest.mark.parametrize("cost", ["macs", "params", "latency", "throughput_a100"])
def test_accuracy_against_any_cost_is_drawn_with_what_it_is_for(cost: str, reward: Any) -> None:
    targets = {"macs": TARGET, "params": 4e6, "latency": 0.02, "throughput_a100": 5000.0}
    objective = Objective({cost: targets[cost]}, {"latency": 0.03}, ("throughput_a100", "macs"))
    reward_of = on_targets(reward, objective.targets)
    entries = with_costs(made_up(60), reward_of)
    drawn = svg(pareto_figure(entries, cost, objective, reward_of, best_of(entries)), "label")
    ET.fromstring(drawn.replace("xlink:href", "href"))
    said = {
        "macs": "target 400M",
        "params": "target 4M",
        "latency": "target 20 ms",
        "throughput_a100": "5,000 images/s",
    }
    assert said[cost] in drawn and ("limit 30 ms" in drawn) == (cost == "latency")
    assert ("better to the right" in drawn) == (cost == "throughput_a100") == ("a100" in drawn)
    assert ("front of both" in drawn) == (cost in objective.front)


def test_no_label_lies_below_the_star_of_the_best() -> None:
    reward_of = on_targets(absolute, {"macs": 4e8})
    entries = with_costs(made_up(60), reward_of)
    best = best_of(entries)
    assert best is not None and best.reward is not None
    figure = pareto_figure(entries, "macs", Objective({"macs": 4e8}, {}, ()), reward_of, best)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert any(re.fullmatch(r"-?\d\.\d+", word) for word in words) and f"{best.reward:.3f}" not in words


def test_the_page_of_a_front_has_a_panel_for_each_cost_and_the_front_as_a_table() -> None:
    objective = Objective({}, {"latency": 0.03}, ("throughput_a100", "params"))
    reward_of = on_targets(mnas_soft, {})
    entries = with_costs(made_up(60), reward_of)
    text = text_of(page_of(entries, SearchProblem(MnasNet(), reward_of), objective=objective))
    for title in ("throughput a100", "parameters", "latency"):
        assert f"Accuracy against {title} " in text
    front = pareto_front(entries, objective.front)
    assert f"The Pareto front {len(front)} network" in text and all(entry.key in text for entry in front)
    assert "equal reward" not in text and "best reward" in text
