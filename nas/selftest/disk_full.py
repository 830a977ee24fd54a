"""A disk that is full: a small file system in memory where one may be mounted, else a limit on the size of files."""

from __future__ import annotations

import random
import resource
import subprocess
import time
from dataclasses import replace

from nas.selftest import ledger
from nas.selftest.outcome import Finding, Outcome, summed
from nas.selftest.searches import INLINE, Ended, Subject, instant, subject
from nas.selftest.settings import Settings

BUDGET = 24
PAGE = 4096  # bytes; what a file in memory takes at a time
DISK = 8 * 2**20  # bytes
LINE = 512  # bytes; the one line that a search is to say must fit into a file

# Room left on the disk, pages: too little for the journal's beginning, for all of its lines, for the results.
ROOM = ((1, 3), (4, 7), (8, 24))

# Mounts the disk, fills it but for the room, searches, makes room, and searches again. It can be seen from within
# alone, so the journal is copied out both times.
SCRIPT = """
disk=$1; size=$2; ballast=$3; shift 3
mount -t tmpfs -o size=$size none "$disk" || exit 3
head -c "$ballast" /dev/zero > "$disk/ballast" || exit 3
for run in full roomy; do
  (cd "$disk" && exec "$@") > $run.output 2> $run.errors
  echo $? > $run.code
  cp "$disk/runs/search/journal.jsonl" $run.jsonl 2> /dev/null
  rm -f "$disk/ballast"
done
exit 0
"""


def disk_full(settings: Settings) -> Outcome:
    """Search `count` times on a disk that becomes full, early or late, and again when there is room.

    The first ends with exit code 1 and one line that says so; the second with the whole budget and the undisturbed
    journal, in which all is that was finished before.
    """
    start, rng = time.monotonic(), random.Random(f"disk_full {settings.seed}")
    options = (*INLINE, *instant())
    undisturbed = subject(settings, "undisturbed", options, BUDGET)
    findings = undisturbed.run().unless(0)
    mounts = _may_mount(settings)
    for turn in range(1, settings.count + 1):
        search = subject(settings, f"search-{turn}", options, BUDGET)
        room = ROOM[turn % len(ROOM)]
        if mounts:
            findings += _on_small_disk(search, PAGE * rng.randint(*room), undisturbed.journal)
        else:
            findings += _with_limit(search, rng, undisturbed.journal)
        settings.show(turn)
    note = "a small file system in memory" if mounts else "a limit on the size of files, as mounting is not permitted"
    return summed("disk_full", settings.count, time.monotonic() - start, findings, note)


def _may_mount(settings: Settings) -> bool:
    """Whether this user may mount a file system that no other process sees."""
    folder = settings.folder / "mounted"
    folder.mkdir()
    try:
        tried = subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, timeout=60
        )
    except FileNotFoundError:  # not Linux, or a very small one
        return False
    return tried.returncode == 0


def _on_small_disk(search: Subject, room: int, undisturbed: bytes) -> list[Finding]:
    """What is wrong with a search on a disk that has `room` bytes left, and with the next one."""
    (search.folder / "disk").mkdir(parents=True)
    script = ("unshare", "-rm", "sh", "-c", SCRIPT, "sh", "disk", str(DISK), str(DISK - room))
    done = replace(search, command=(*script, *search.command)).run()
    if done.code:
        return done.unless(0)
    full, roomy = (_ended(search, run) for run in ("full", "roomy"))
    before, after = (ledger.content(search.folder / f"{run}.jsonl") for run in ("full", "roomy"))
    return (
        full.unless(1, "No space left on device") + roomy.unless(0) + ledger.judge(before, after, BUDGET, undisturbed)
    )


def _ended(search: Subject, run: str) -> Ended:
    code, output, errors = ((search.folder / f"{run}.{name}").read_text() for name in ("code", "output", "errors"))
    return Ended(int(code), output, errors)


def _with_limit(search: Subject, rng: random.Random, undisturbed: bytes) -> list[Finding]:
    """What is wrong with a search that may write no file longer than a part of its journal, and with the next one."""
    longest = rng.randrange(LINE, len(undisturbed))
    with search.running() as running:
        # It is importing still, and has written nothing.
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (longest, longest))
        ended = running.ended()
    before = search.journal
    findings = ended.unless(1, "File too large") + search.run().unless(0)
    return findings + ledger.judge(before, search.journal, BUDGET, undisturbed)
