"""Dialplans, prompts and rosters as one set: read, checked and replaced together, or not at all."""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ivr.flow import Dialplans
from ivr.load import DialplanError, load_dialplans
from ivr.problems import Problem
from ivr.prompts import PromptLibrary, prepare
from ivr.render import Progress
from pbx.app.duty import Duty
from pbx.config import Config
from pbx.rosters import RosterError, gap_problems, load_rosters

log = logging.getLogger("careline.plans")


class PlansError(Exception):
    """The folder of dialplans cannot be used; `problems` holds one sentence each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Plans:
    """What a worker needs to talk to callers and to find clinicians."""

    dialplans: Dialplans
    prompts: PromptLibrary
    duty: Duty


def read(config: Config, *, progress: Progress | None = None) -> Plans:
    """Read everything and render what prompts are missing. Blocking. Raises PlansError with all faults."""
    problems: list[Problem] = []
    rosters = None
    try:
        rosters = load_rosters(config.dialplans / "roster.toml")
    except RosterError as error:
        problems += error.problems
    try:
        dialplans = load_dialplans(config.dialplans)
    except DialplanError as error:
        raise PlansError((*problems, *(p for p in error.problems if p not in problems))) from error
    if rosters is None:
        raise PlansError(tuple(problems))
    prompts = _prompts(dialplans, config.prompts_cache, progress)
    return Plans(dialplans=dialplans, prompts=prompts, duty=Duty(rosters))


def render(folder: Path, cache: Path, *, progress: Progress | None = None) -> None:
    """Render every prompt of a folder that the cache lacks. Blocking. Raises PlansError."""
    try:
        dialplans = load_dialplans(folder)
    except DialplanError as error:
        raise PlansError(error.problems) from error
    _prompts(dialplans, cache, progress)


def _prompts(dialplans: Dialplans, cache: Path, progress: Progress | None) -> PromptLibrary:
    try:
        prompts = prepare(dialplans, cache, progress=progress)
    except OSError as error:
        sentence = f"The prompt cache cannot be written: {error.strerror}; set prompts_cache elsewhere."
        raise PlansError((Problem(file=str(cache), path="", sentence=sentence),)) from error
    faults = tuple(p for p in prompts.problems if not p.warning)
    if faults:
        raise PlansError(faults)
    return prompts


class LivePlans:
    """The plans in use. A reload that fails keeps what was live and says so."""

    def __init__(self, config: Config, plans: Plans) -> None:
        self._config = config
        self.plans = plans

    def reload(self) -> tuple[Problem, ...]:
        """Read again; returns the faults that kept the old plans live, or nothing. Blocking."""
        try:
            self.plans = read(self._config)
        except PlansError as error:
            for problem in error.problems:
                log.error("reload refused", extra={"action": "reload", "problem": str(problem)})
            return error.problems
        log.info("dialplans reloaded", extra={"action": "reload"})
        return ()


def check(folder: Path, now: datetime) -> tuple[Problem, ...]:
    """Every fault and warning of a dialplans folder at `now`, without rendering a prompt."""
    problems: set[Problem] = set()
    try:
        problems |= set(load_dialplans(folder).warnings)
    except DialplanError as error:
        problems |= set(error.problems)
    try:
        problems |= set(gap_problems(load_rosters(folder / "roster.toml"), now))
    except RosterError as error:
        problems |= set(error.problems)
    return tuple(sorted(problems))
