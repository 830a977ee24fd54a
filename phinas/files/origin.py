"""What a file was made from: its source by name and hash, so that a family can be followed back to its search."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from phinas.files.errors import InputError
from phinas.files.yaml_file import safe_yaml


def file_source(path: str | os.PathLike[str]) -> dict[str, str]:
    """A file as others name it that were made from it: its path, and the SHA-256 of its bytes in hex.

    Raises InputError for a file that cannot be read.
    """
    try:
        return {"file": os.fspath(path), "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: {error.strerror}") from None


def origin_comment(origin: Mapping[str, Any]) -> str:
    """`origin` as YAML in comment lines, to stand before the content of a file; nothing for an empty one."""
    if not origin:
        return ""
    text = yaml.safe_dump(dict(origin), sort_keys=False, allow_unicode=True, width=10_000)
    if re.search("[\x85\u2028\u2029]", text):  # which end a line, and with it a comment, for YAML
        text = yaml.safe_dump(dict(origin), sort_keys=False, width=10_000)
    return "".join(f"# {line}\n" for line in text.splitlines())


def read_origin(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `origin_comment` wrote at the head of the file; empty where there is nothing of the kind."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line.removeprefix("# "))
    try:
        content = safe_yaml("\n".join(lines))
    except (yaml.YAMLError, RecursionError):  # somebody's own words
        return {}
    return content if isinstance(content, dict) else {}
