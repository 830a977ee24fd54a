"""Parsers of files that people were sent: they give the value that was written, or say in one line what is wrong.

No other exception, and never another value in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas.journal import Entry, Journal, _line, read_journal
from phinas.files.errors import InputError
from phinas.files.origin import read_origin
from phinas.networks.arch import ACTIVATIONS, BLOCKS, SKIPS, Arch, Stage, Stem
from phinas.networks.arch_file import read_arch, write_arch

quick = settings(derandomize=True, deadline=None, database=None, max_examples=100)

# Any text, with what has a meaning in YAML, and all kinds of line ends.
TEXTS = st.text(
    st.characters(codec="utf-8") | st.sampled_from("\n\r\t\v\f\x1c\x85\u2028\u2029\ufeff#:-'\"{}[]&*!|>%@` "),
    max_size=12,
)
COUNTS = st.integers(1, 2**31 - 1)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew for each example."""
    return tmp_path_factory.mktemp("parsed") / "file"


def refusal(error: InputError, file: Path) -> str:
    """The one line of an error, which names the file."""
    text = str(error)
    assert text.startswith(str(file)) and len(text.splitlines()) == 1
    return text


# ------------------------------------------------------------------------------------------------- networks, in YAML


ODD = st.integers(0, 2**30 - 1).map(lambda half: 2 * half + 1)
FRACTIONS = st.floats(0, 1, exclude_max=True)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    block = draw(st.sampled_from(BLOCKS))
    expand = draw(st.floats(0, exclude_min=True, allow_infinity=False)) if block in ("mbconv", "bottleneck") else 1
    se_ratio = 0 if block == "bottleneck" else draw(st.floats(0, 1))
    sizes = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    return Stage(block, draw(ODD), *sizes, expand, se_ratio, draw(st.sampled_from(SKIPS)))


ARCHS = st.builds(
    Arch,
    stem=st.builds(Stem, channels=COUNTS, kernel=ODD, stride=COUNTS, pool=st.booleans()),
    stages=st.lists(stages(), min_size=1, max_size=3),
    head_channels=st.integers(0),
    activation=st.sampled_from(ACTIVATIONS),
    **dict.fromkeys(("resolution", "classes", "in_channels"), COUNTS),
    **dict.fromkeys(("dropout", "drop_connect", "bn_momentum", "bn_eps"), FRACTIONS),
)  # fmt: skip
PLAIN = Arch(Stem(), (Stage("mbconv", 3, 1, 16, 1, 6.0, 0.25), Stage("conv", 3, 2, 32, 2)))


def network_or_refusal(file: Path, content: str | bytes) -> Arch | str:
    """The network in a file; it is one that can be written and read again."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        arch = read_arch(file)
    except InputError as error:
        return refusal(error, file)
    write_arch(arch, file)
    assert read_arch(file) == arch
    return arch


@quick
@given(arch=ARCHS, origin=st.dictionaries(TEXTS, VALUES, max_size=3))
@example(arch=PLAIN, origin={"file": "a\x85stages: []"})
def test_a_network_is_read_as_it_was_written_whatever_it_is_said_to_be_made_from(
    file: Path, arch: Arch, origin: Mapping[str, Any]
) -> None:
    write_arch(arch, file, origin)
    again = read_arch(file)
    assert again == arch and again.key() == arch.key()
    assert repr(read_origin(file)) == repr(origin)  # as text, in which nan is nan


@quick
@given(content=st.binary(max_size=60) | TEXTS.map(lambda text: text.encode(errors="replace")))
def test_a_file_of_anything_is_no_network(file: Path, content: bytes) -> None:
    assert isinstance(network_or_refusal(file, content), str)


@quick
@given(data=st.data(), value=VALUES)
def test_a_wrong_value_anywhere_is_refused_or_makes_a_network_of_that_value(
    file: Path, data: st.DataObject, value: Any
) -> None:
    description = PLAIN.to_dict()
    where = data.draw(st.sampled_from([description, description["stem"], *description["stages"]]))
    name = data.draw(st.sampled_from(sorted(where)) | TEXTS)
    if data.draw(st.booleans()):
        where[name] = value
    else:
        where.pop(name, None)
    found = network_or_refusal(file, yaml.safe_dump(description))
    if isinstance(found, Arch) and name in where:
        stem = {**Arch(Stem(), PLAIN.stages).to_dict()["stem"], **description["stem"]}  # what is left out has a default
        assert {**PLAIN.to_dict(), **description, "stem": stem} == found.to_dict()


@quick
@given(data=st.data(), inserted=st.binary(max_size=4))
def test_a_network_file_with_bytes_exchanged_is_refused_or_a_network_of_its_own(
    file: Path, data: st.DataObject, inserted: bytes
) -> None:
    content = yaml.safe_dump(PLAIN.to_dict()).encode()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 40, len(content))))
    network_or_refusal(file, content[:start] + inserted + content[end:])


@quick
@given(data=st.data())
def test_a_field_that_is_there_twice_is_refused(file: Path, data: st.DataObject) -> None:
    lines = yaml.safe_dump(PLAIN.to_dict()).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    found = network_or_refusal(file, "\n".join([*lines[: place + 1], *lines[place:]]))
    assert isinstance(found, str)


# ----------------------------------------------------------------------------------------------------------- journals


ENTRIES = st.lists(
    st.builds(
        Entry,
        number=st.integers(0),
        picks=st.lists(st.integers()).map(tuple),
        key=TEXTS,
        costs=st.dictionaries(TEXTS, NUMBERS, max_size=3),
        curve=st.lists(NUMBERS, max_size=3).map(tuple),
        reward=st.none() | NUMBERS,
        stopped=st.booleans(),
        error=st.none() | TEXTS,
        retries=st.integers(0),
    ),
    max_size=3,
    unique_by=lambda entry: entry.number,
)
SETTINGS = st.dictionaries(TEXTS, VALUES.filter(lambda value: "nan" not in repr(value)), max_size=3)
FIXTURES = sorted((Path(__file__).parent / "journals").glob("version-*.jsonl"))


def journal_or_refusal(file: Path, content: bytes) -> tuple[dict[str, Any], list[Entry]] | str:
    file.write_bytes(content)
    try:
        found, entries, sound = read_journal(file)
    except InputError as error:
        said = refusal(error, file)
        assert ", line " in said and file.read_bytes() == content
        return said
    assert b"\n" not in content[sound:]
    return found, entries


@quick
@given(found=SETTINGS, entries=ENTRIES)
def test_a_journal_is_read_as_it_was_written(file: Path, found: dict[str, Any], entries: Sequence[Entry]) -> None:
    file.unlink(missing_ok=True)
    journal = Journal(file, found)
    for entry in entries:
        journal.append(entry)
    journal.close()
    assert read_journal(file) == (found, entries, file.stat().st_size)
    again = Journal(file, found)
    again.close()
    assert again.entries == entries and not again.repaired and not again.upgraded


@quick
@given(content=st.binary(max_size=60) | TEXTS.map(lambda text: text.encode(errors="replace")))
@example(content=b"")
@example(content=b'{"jour')
def test_a_file_of_anything_is_no_journal(file: Path, content: bytes) -> None:
    found = journal_or_refusal(file, content)
    assert isinstance(found, str) or (found == ({}, []) and b'{"journal":'.startswith(content[:11]))


@quick
@given(data=st.data(), inserted=st.binary(max_size=4))
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_journal_with_bytes_exchanged_is_refused_or_a_shorter_one(
    file: Path, fixture: Path, data: st.DataObject, inserted: bytes
) -> None:
    whole, (found, entries, _) = fixture.read_bytes(), read_journal(fixture)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(start + 600, len(whole))))
    result = journal_or_refusal(file, whole[:start] + inserted + whole[end:])
    if not isinstance(result, str):
        assert result[0] in (found, {}) and result[1] == entries[: len(result[1])]


@quick
@given(data=st.data(), value=VALUES)
def test_a_line_that_somebody_forged_is_refused_or_an_entry(file: Path, data: st.DataObject, value: Any) -> None:
    """Its checksum is right, its fields may be anything."""
    record = vars(Entry(0, (1, 2), "k", {"macs": 1}, (0.5,), 0.5))
    name = data.draw(st.sampled_from([field.name for field in fields(Entry)]) | TEXTS)
    if data.draw(st.booleans()):
        record = {**record, name: value}
    else:
        record = {key: known for key, known in record.items() if key != name}
    header, checksum = _line({"journal": 2, "settings": {}}, 2, 0)
    result = journal_or_refusal(file, header + _line(record, 2, checksum)[0])
    if not isinstance(result, str):
        (entry,) = result[1]
        expected = {**record, "picks": tuple(record["picks"]), "curve": tuple(record["curve"])}
        assert repr(vars(entry)) == repr(vars(Entry(**expected)))
        hash((entry.number, entry.picks, entry.key, entry.curve, entry.reward, entry.stopped, entry.error))
