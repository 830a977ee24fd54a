"""`--help` and the reference of options: what a command accepts is what they show, as the YAML says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from phinas.__main__ import command_module, usage
from phinas.command.groups import CONFIG_FOLDER, SETTINGS, options
from phinas.command.help import defaults_of, documented, documented_choice, help_of
from phinas.command.verbs import VERBS
from phinas.files.errors import InputError
from phinas.files.settings import flatten

COMMANDS = sorted(file.stem for file in CONFIG_FOLDER.glob("*.yaml"))
CHOICES = [
    (folder.name, file.stem)
    for folder in sorted(CONFIG_FOLDER.iterdir())
    if folder.is_dir() and folder.name not in SETTINGS
    for file in sorted(folder.glob("*.yaml"))
]


def leaves(content: dict[str, object]) -> set[str]:
    names = flatten({key: value for key, value in content.items() if key != "defaults"})
    return {name for name in names if name.split(".")[-1] not in ("_target_", "_partial_")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_documented_with_its_default(name: str) -> None:
    text = (CONFIG_FOLDER / f"{name}.yaml").read_text()
    shown = {option.name: option.default for option in documented(text).options}
    content = yaml.safe_load(text)
    values = {option: value for option, value in flatten(content).items() if option in leaves(content)}
    assert {option for option, default in shown.items() if default not in ("", "{}")} == set(values)
    for option, value in values.items():
        assert yaml.safe_load(shown[option]) == value


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=lambda value: value)
def test_every_option_of_a_choice_is_documented(group: str, choice: str) -> None:
    content = yaml.safe_load((CONFIG_FOLDER / group / f"{choice}.yaml").read_text())
    about = documented_choice(group, choice)
    named = {option.name for option in about.options if option.default}
    assert about.about, "a choice says what it is"
    assert {f"{group}.{name}" for name in leaves(content)} <= named


def test_a_comment_before_behind_and_below_an_option_is_its_own() -> None:
    found = documented(
        "# about this\n# in two lines\ndefaults:\n  - space: mnasnet\na: 1  # one,\n          # and more\n"
        "# of b\nb:\n  c: [1, 2]\n  d: null   # none\n"
    )
    assert found.about == "about this in two lines"
    assert [(option.name, option.default, option.about) for option in found.options] == [
        ("a", "1", "one, and more"), ("b", "", "of b"), ("b.c", "[1, 2]", ""), ("b.d", "null", "none"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_groups_of_the_command_and_no_others(name: str) -> None:
    shown = help_of(f"phinas.{name}", name, [])
    for group, _ in CHOICES:
        assert (f"\n{group}=" in shown) == (group in defaults_of(name))


def test_help_follows_the_choices_that_are_typed() -> None:
    assert "controller.batch=5" in help_of("nas.search", "search", ["controller=rl"])
    bayesian = help_of("nas.search", "search", [])
    assert "controller.batch" not in bayesian and "one of: bayesian, custom, evolution" in bayesian
    assert "my_pkg" in help_of("nas.search", "search", ["space._target_=mine.Space"])


def test_help_refuses_a_choice_that_is_not_there() -> None:
    with pytest.raises(InputError, match="space=nowhere: there is no such space; allowed: custom"):
        help_of("nas.search", "search", ["space=nowhere"])


def test_help_knows_the_yaml_of_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("# A space of mine.\n_target_: my.Space\nwidth: 3  # of all\n")
    shown = help_of("nas.search", "search", ["space=mine"], tmp_path)
    assert "A space of mine." in shown and "space.width=3" in shown and "nasbench_macro, mine" in shown


def test_help_exits_with_0_and_a_line_for_each_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        command_module("nas.search").main(["controller=rl", "--help"])
    assert exit.value.code == 0 and capsys.readouterr().out.startswith("usage: python -m nas.search ")
    lines = usage().splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(VERBS)
    assert all(options(group) for group, _ in CHOICES)
