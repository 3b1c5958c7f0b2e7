"""Runs the tools of the build one stage after another and shows how far they are."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from build_rules import BuildError, advice

HEARTBEAT_S = 15.0


class Progress:
    """Stages with their elapsed time on stderr; on a terminal the current one moves."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out, self._started, self._tty = out, time.monotonic(), out.isatty()
        self._said = -10

    @property
    def elapsed_s(self) -> float:
        """Seconds since the build started."""
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """One finished line."""
        self._out.write(("\r\x1b[K" if self._tty else "") + f"  pjsua2 [{self.elapsed_s:4.0f} s] {text}\n")
        self._out.flush()

    def percent(self, stage: str, done: int, of: int) -> None:
        """How far a stage is: rewritten in place on a terminal, a line each tenth elsewhere."""
        share = min(99, 100 * done // of) if of else 0
        if self._tty:
            self._out.write(f"\r\x1b[K  pjsua2 [{self.elapsed_s:4.0f} s] {stage}: {share} %")
            self._out.flush()
        elif share >= self._said + 10:
            self._said = share - share % 10
            self.say(f"{stage}: {self._said} %")


class Runner:
    """Runs the tools of one stage after another, each into a log of its own."""

    def __init__(self, logs: Path, progress: Progress, env: Mapping[str, str]) -> None:
        self._logs, self._progress, self.env = logs, progress, dict(env)

    def run(
        self,
        stage: str,
        argv: Sequence[str | Path],
        cwd: Path,
        *,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        limit_s: float = 1800,
    ) -> None:
        """Run one command. Raises BuildError with its last lines, and the missing package where one shows."""
        log = self._logs / f"{re.sub(r'[^a-z0-9]+', '-', stage.lower())}.log"
        beat = deadline = time.monotonic()
        deadline += limit_s
        with log.open("a", encoding="utf-8") as out:
            try:
                child = subprocess.Popen(
                    [str(part) for part in argv],
                    cwd=cwd,
                    env=self.env | dict(env or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            except FileNotFoundError as error:
                out.write(f"{error.filename}: not found\n")
                out.flush()
                self._fail(stage, log, "the program is missing")
            with log.open(encoding="utf-8", errors="replace") as shown, child:
                shown.seek(out.tell())
                while True:
                    ended = child.poll() is not None
                    for line in shown:
                        if on_line:
                            on_line(line)
                    if ended:
                        break
                    if time.monotonic() > deadline:
                        child.kill()
                        self._fail(stage, log, f"no end after {limit_s:.0f} s")
                    if not on_line and time.monotonic() > beat + HEARTBEAT_S:
                        beat = time.monotonic()
                        self._progress.say(f"{stage}: still at it")
                    time.sleep(0.1)
        if child.returncode != 0:
            self._fail(stage, log, f"exit {child.returncode}")

    def _fail(self, stage: str, log: Path, why: str) -> NoReturn:
        text = log.read_text(encoding="utf-8", errors="replace")
        hint = f"{told}\n" if (told := advice(text)) else ""
        tail = "\n".join(f"    {line}" for line in text.splitlines()[-20:])
        raise BuildError(f"The stage '{stage}' failed ({why}). {hint}Last lines of {log}:\n{tail}")
