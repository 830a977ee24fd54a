"""What files were made from: hashes are of the bytes, and comments are read back as they were written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from phinas.files.errors import InputError
from phinas.files.origin import file_source, origin_comment, read_origin
from phinas.networks.arch_file import read_arch, write_arch
from phinas.networks.reference import MNASNET_A1


def test_a_source_is_known_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    file.write_bytes(b"a line\n")
    assert file_source(file) == {"file": str(file), "sha256": hashlib.sha256(b"a line\n").hexdigest()}
    with pytest.raises(InputError, match="gone.jsonl: No such file or directory"):
        file_source(tmp_path / "gone.jsonl")


def test_an_origin_stands_before_a_network_and_is_no_part_of_it(tmp_path: Path) -> None:
    origin = {"made_by": "nas.search", "key": "0123456789012345", "from": {"file": "a b: c.jsonl", "sha256": "1e10"}}
    write_arch(MNASNET_A1, tmp_path / "best.yaml", origin)
    assert read_origin(tmp_path / "best.yaml") == origin
    assert read_arch(tmp_path / "best.yaml") == MNASNET_A1


def test_no_origin_is_no_comment(tmp_path: Path) -> None:
    write_arch(MNASNET_A1, tmp_path / "plain.yaml")
    assert (tmp_path / "plain.yaml").read_text().startswith("stem:") and read_origin(tmp_path / "plain.yaml") == {}
    assert origin_comment({}) == ""


def test_words_of_somebody_are_no_origin(tmp_path: Path) -> None:
    for words in ("# my best network: it's mine: really\n", "# plain words\n"):
        (tmp_path / "mine.yaml").write_text(words + "stem: {}\n")
        assert read_origin(tmp_path / "mine.yaml") == {}
