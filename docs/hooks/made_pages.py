"""Pages of the site that are made when it is built: the reference of all options, and those that live elsewhere.

MkDocs calls the functions whose names begin with `on_`. What is said of an option is the comment beside it in `conf/`,
read by the code that prints `--help`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import relpath
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from phinas.__main__ import command_module
from phinas.command.groups import CONFIG_FOLDER, GROUPS, SETTINGS, options
from phinas.command.help import Documented, Option, defaults_of, documented, documented_choice
from phinas.command.verbs import VERBS

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
COMMANDS, GROUP_PAGES = "reference/commands", "reference/groups"
ABOUT_GROUPS = {
    "space": "What may be searched.",
    "controller": "Who proposes the next network.",
    "evaluator": "How the accuracy of a network is found out.",
    "data": "The images.",
    "reward": "How accuracy and cost become one number.",
    "device": "Where latency and throughput come from.",
    "engine": "Where evaluations run.",
    "recipe": "How one network is trained to the end.",
    "experiment": "Several settings under one name.",
}
_FILE = re.compile(r"`?\bdocs/(?P<path>[\w/]+\.md)\b`?")  # how comments and pages name a page of ours
_LINK = re.compile(r"(?P<open>\]\(|src=\")(?P<path>[\w./-]+)")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_SETTING = re.compile(r"^(?P<before>\(?)(?P<text>[\w.+-]+=\S*?|\S*\w_\w\S*?|_target_)(?P<after>[,;:)]*\.?[,;:)]*)$")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that are made, and all decisions, where `nav` names their folder."""
    made = {
        f"{COMMANDS}/": [f"{COMMANDS}/index.md", *({verb: f"{COMMANDS}/{verb}.md"} for verb in VERBS)],
        f"{GROUP_PAGES}/": [{group: f"{GROUP_PAGES}/{group}.md"} for group in _groups()],
        "adr/": ["adr/index.md", *(f"adr/{page.name}" for page in _decisions())],
    }
    config.nav = _filled(config.nav, made)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {name: (ROOT / source).read_text() for name, source in ELSEWHERE.items()}
    pages[f"{COMMANDS}/index.md"] = _commands_page()
    pages |= {f"{COMMANDS}/{verb}.md": _command_page(verb) for verb in VERBS}
    pages |= {f"{GROUP_PAGES}/{group}.md": _group_page(group) for group in _groups()}
    pages["adr/index.md"] = _decisions_page()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are right in the repository lead to the site's pages; a page that is named is linked."""
    name = page.file.src_uri
    here = name.rpartition("/")[0] or "."
    at_root = name in ELSEWHERE
    moved = {source: target for target, source in ELSEWHERE.items()}

    def link(found: re.Match[str]) -> str:
        path = found["path"]
        if at_root:
            path = moved.get(path, path.removeprefix("docs/"))
        return found["open"] + path

    def named(found: re.Match[str]) -> str:
        before = found.string[: found.start()]
        if before.endswith(("](", "[", '"')):  # a link already
            return found[0]
        return f"[{found[0]}]({relpath(found['path'], here)})"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(link, _FILE.sub(named, part)) for part in parts)


def _filled(nav: Any, made: dict[str, list[Any]]) -> Any:
    if isinstance(nav, list):
        return [_filled(each, made) for each in nav]
    if isinstance(nav, dict):
        return {title: _filled(each, made) for title, each in nav.items()}
    return made.get(nav, nav)


def _commands_page() -> str:
    lines = [
        "# Commands",
        "",
        "Each is `phinas VERB`, or `python -m MODULE`; the two are the same. `--help` behind it prints its options.",
        "",
        "| verb | module | what it is for |",
        "|---|---|---|",
        *(f"| [`{name}`]({name}.md) | `{verb.module}` | {_text(verb.about)} |" for name, verb in VERBS.items()),
        "",
        "Options are `key=value`. A group such as `controller` has choices (`controller=rl`), and each choice has",
        "options of its own (`controller.batch=10`). `--config-dir FOLDER` adds YAML files of yours, one subfolder",
        "a group.",
        "",
        "| exit code | |",
        "|---|---|",
        "| 0 | it is done |",
        "| 1 | it failed; what was reached is kept |",
        "| 2 | an option or a file is wrong; one line says which, and nothing was written |",
        "| 130 | stopped by Ctrl-C; the command that goes on was printed |",
    ]
    return "\n".join(lines) + "\n"


def _command_page(name: str) -> str:
    verb = VERBS[name]
    title = verb.about[0].upper() + verb.about[1:]
    title += "" if title.endswith("?") else "."
    lines = [f"# phinas {name}", "", f"{_text(title)} The same as `python -m {verb.module}`.", ""]
    file = CONFIG_FOLDER / f"{name}.yaml"
    if not file.exists():
        module = command_module(verb.module)
        usage = getattr(module, "USAGE", None) or str(module.__doc__)
        return "\n".join([*lines, "```text", usage.strip(), "```", ""])
    own = documented(file.read_text())
    lines += [f"{_text(own.about)}", ""] if own.about else []
    lines += ["## Options", "", *_table(own), ""]
    if groups := defaults_of(name):
        lines += ["## Groups", "", "A choice in each, and its options: `GROUP.OPTION=VALUE`.", ""]
        lines += ["| group | default | choices |", "|---|---|---|"]
        for group, default in groups.items():
            page = f"../groups/{group}.md"
            choices = ", ".join(f"[`{choice}`]({page}#{_anchor(group, choice)})" for choice in options(group))
            lines.append(f"| [`{group}`]({page}) | `{default or 'null'}` | {choices} |")
        lines.append("")
    return "\n".join(lines)


def _group_page(group: str) -> str:
    used = {verb: defaults_of(verb)[group] for verb in _configured() if group in defaults_of(verb)}
    by = ", ".join(f"[{verb}](../commands/{verb}.md) (default `{default or 'null'}`)" for verb, default in used.items())
    lines = [f"# {group}", "", f"{ABOUT_GROUPS.get(group, '')} Commands with this group: {by}.", ""]
    for choice in options(group):
        text = (CONFIG_FOLDER / group / f"{choice}.yaml").read_text()
        lines += [f"## {group}={choice} {{ #{_anchor(group, choice)} }}", ""]
        if group in SETTINGS:
            lines += [_text(documented(text).about), "", "```yaml", text.strip(), "```", ""]
            continue
        said = documented_choice(group, choice)
        lines += [_text(said.about), ""] if said.about else []
        target = _target(group, choice)
        if target != "???":
            lines += [f"Made by `{target}`.", ""]
        lines += [*_table(said), ""]
    return "\n".join(lines)


def _target(group: str, choice: str) -> str:
    settings = yaml.safe_load((CONFIG_FOLDER / group / f"{choice}.yaml").read_text())
    if "_target_" in settings:
        return str(settings["_target_"])
    return next((_target(group, other) for other in settings.get("defaults", []) if other != "_self_"), "???")


def _decisions_page() -> str:
    titles = [(page.name, page.read_text().splitlines()[0].lstrip("# ")) for page in _decisions()]
    lines = ["# Decisions", "", "Why things are as they are, a page each.", ""]
    return "\n".join([*lines, *(f"- [{title}]({name})" for name, title in titles)]) + "\n"


def _decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


def _configured() -> list[str]:
    return [verb for verb in VERBS if (CONFIG_FOLDER / f"{verb}.yaml").exists()]


def _groups() -> list[str]:
    """In the order in which commands name them."""
    named = [group for verb in _configured() for group in defaults_of(verb)]
    return [*dict.fromkeys(named), *(group for group in GROUPS if group not in named)]


def _anchor(group: str, choice: str) -> str:
    return f"{group}-{choice}"


def _table(said: Documented) -> list[str]:
    shown = [option for option in said.options if option.default != "${data}" and not option.name.endswith("_convert_")]
    return ["| option | default | what it is |", "|---|---|---|", *map(_row, shown)] if shown else []


def _row(option: Option) -> str:
    default = "*required*" if option.required else f"`{option.default}`{{ .default }}" if option.default else ""
    return f"| `{option.name}` | {default} | {_text(option.about)} |"


def _text(comment: str) -> str:
    """A comment as Markdown: settings and names stand as code, nothing else is markup."""
    return " ".join(_words(comment.split()))


def _words(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        found = _SETTING.match(word)
        if "docs/" in word or "`" in word or "://" in word:
            yield word
        elif found:
            code = found["text"].replace("|", r"\|")
            yield f"{found['before']}`{code}`{found['after']}"
        else:
            yield re.sub(r"([\\*_{}\[\]|])", r"\\\1", word).replace("<", "&lt;")
