"""Searches in processes of their own, started as a person starts them, which can be killed without mercy."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nas.selftest import ledger
from nas.selftest.outcome import Finding
from nas.selftest.settings import Settings

LIMIT = 300.0  # seconds for one run of a search, before it counts as hung
GRACE = 60.0  # seconds for the processes of a killed search to end
SEED = 0  # of every search
EPOCHS = 3  # measurements of one evaluation, so that halving has something to stop
ROOT = Path(__file__).parent.parent.parent

# A controller whose proposals hang on all that it was told, and on nothing that takes long.
OPTIONS = (
    "name=search", f"seed={SEED}", "space=efficientnet",
    "controller=evolution", "controller.population=8", "controller.sample=8", "controller.start=4",
)  # fmt: skip
INLINE = ("engine=inline",)


def instant(seconds: float = 0.0) -> tuple[str, ...]:
    """Options: made-up accuracies, each step of an evaluation taking so many seconds, under a witness's eyes."""
    return (
        "evaluator._target_=nas.selftest.witnessed.Witnessed",
        "evaluator.of._target_=nas.evaluators.synthetic.Synthetic",
        f"evaluator.of.epochs={EPOCHS}",
        f"evaluator.of.seconds={seconds}",
    )


@dataclass(frozen=True)
class Ended:
    """A search that came to its end: exit code, and what it said on either stream."""

    code: int
    output: str
    errors: str

    def unless(self, code: int, *said: str) -> list[Finding]:
        """What is wrong if it should have ended with `code`, having said each of `said`; one line if not 0."""
        findings, last = list[str](), " ".join((self.errors or self.output).strip().splitlines()[-1:])[:300]
        if self.code != code:
            findings.append(f"a search ended with exit code {self.code}, not {code}: {last}")
        if "Traceback" in self.errors + self.output:
            findings.append(f"a search ended with a traceback: {last}")
        elif code and self.errors.count("\n") != 1:
            findings.append(f"a search ended with {self.errors.count(chr(10))} lines of error, not one: {last}")
        findings += [f"a search did not say {part!r}" for part in said if part not in self.errors + self.output]
        return [Finding("wrong", text) for text in findings]


@dataclass(frozen=True)
class Subject:
    """A search that is going to suffer: always the same one, however often it is started."""

    folder: Path
    options: Sequence[str]
    budget: int
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def run_folder(self) -> Path:
        return self.folder / "runs" / "search"

    @property
    def path(self) -> Path:
        """Of the journal."""
        return self.run_folder / "journal.jsonl"

    @property
    def journal(self) -> bytes:
        """What is on disk now."""
        return ledger.content(self.path)

    @property
    def typed(self) -> list[str]:
        """The command line."""
        return [*self.command, *OPTIONS, f"budget={self.budget}", *self.options]

    @contextmanager
    def running(self) -> Iterator[Running]:
        """The search, started; whatever is left of it at the end of the context is killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        start = len(list(self.folder.glob("output-*.txt"))) + 1
        said, complained = (self.folder / f"{name}-{start}.txt" for name in ("output", "errors"))
        with open(said, "wb") as output, open(complained, "wb") as errors:
            # A session of its own: Ctrl-C on the terminal is for us, and we end it.
            process = subprocess.Popen(
                self.typed, cwd=self.folder, env=_environment(self.environment), stdin=subprocess.DEVNULL,
                stdout=output, stderr=errors, start_new_session=True,
            )  # fmt: skip
        try:
            yield Running(process, said, complained)
        finally:
            if process.poll() is None:
                kill(process, grace=0)

    def run(self) -> Ended:
        """The search from start to end. One that hangs is killed, and says so."""
        with self.running() as running:
            return running.ended()


@dataclass(frozen=True)
class Running:
    """A search that was started, and the files in which what it says arrives."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether `condition()` came true before the search ended or hung."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            if not self.alive or time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def ended(self) -> Ended:
        """Wait for the end."""
        try:
            code = self.process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            kill(self.process, grace=0)
            return Ended(-9, "", f"it hung: not finished after {LIMIT:.0f} seconds\n")
        return Ended(code, self.output.read_text(errors="replace"), self.errors.read_text(errors="replace"))


def subject(settings: Settings, name: str, options: Sequence[str], budget: int, witness: str | None = None) -> Subject:
    """A search in the folder `name`, under the eyes of the witness at that address."""
    known = {} if witness is None else {"PHINAS_WITNESS": witness}
    return Subject(settings.folder / name, tuple(options), budget, tuple(settings.command), known)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """For a search that runs in a folder of its own, and finds this package wherever that lies."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # One thread, as a worker of Ray has: two are slower than one beside a busy process.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return {**os.environ, "PYTHONPATH": path, **threads, **more}


def kill(process: subprocess.Popen[bytes], grace: float = GRACE) -> int:
    """kill -9, and `grace` seconds for the processes that it had started; returns how many had to be ended by force."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    process.wait()
    alive = family
    try:
        alive = psutil.wait_procs(family, timeout=grace)[1]
    finally:  # Ctrl-C while waiting
        for member in alive:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
    return len(alive)
