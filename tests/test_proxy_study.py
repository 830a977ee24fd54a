"""The record of benchmarks.proxy_study: read again after an interruption, and never mistaken for other settings."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.proxy_study import CANDIDATES, finished, identity, longer


def test_records_are_found_again_by_all_their_settings(tmp_path: Path) -> None:
    candidate = longer(CANDIDATES["sgd-16"], 15)
    record = {"proxy": "sgd-16", "key": "abc", "epochs": 15, "settings": asdict(candidate), "curve": [0.5]}
    old = {"proxy": "sgd-16", "key": "old", "epochs": 15, "curve": [0.25]}
    out = tmp_path / "study.jsonl"
    out.write_text(json.dumps(record) + "\n" + json.dumps(old) + "\n" + json.dumps(record)[:40])
    done = finished(out)
    assert len(done) == 2
    assert done[identity("abc", asdict(candidate))]["curve"] == [0.5]
    assert done[identity("old", asdict(candidate))]["curve"] == [0.25]  # of before the settings were recorded
    assert identity("abc", asdict(replace(candidate, resolution=17))) not in done
    with out.open("a") as file:  # what is written behind the torn line is read, too
        file.write(json.dumps({**record, "key": "next"}) + "\n")
    assert len(finished(out)) == 3
    assert finished(tmp_path / "nothing.jsonl") == {}
