"""Rendered prompts: every prompt that a dialplan can say is a file before the first call is taken.

Files are named by what they were made from (words, engine, voice, version, post-processing), so a cache is
never stale and can be shared by processes. On the call path `PromptLibrary.paths` is a look-up that never
fails.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from jinja2 import TemplateError

from ivr.check_prompts import prompts_of
from ivr.flow import RUNNER_PROMPTS, WALK_PROMPTS, Dialplans, PromptRef
from ivr.problems import Problem
from ivr.recipe import POSTPROCESSING, RATE_HZ, RINGBACK, TONES, TONES_VERSION, version
from ivr.render import Job, Progress, render
from ivr.wording import spoken_text

LONG_PROMPT_S = 20.0  # nobody remembers the beginning of a longer one

log = logging.getLogger("careline.prompts")


class PromptLibrary:
    """The files of all prompts and tones of a dialplan."""

    def __init__(
        self,
        files: Mapping[PromptRef, Path],
        tones: Mapping[str, Path],
        default_language: str,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        self.problems = problems  # prompts without a file, and warnings about long ones
        self._files = {prompt: (path,) for prompt, path in files.items()}
        self._tones = {name: (path,) for name, path in tones.items()}
        self._default_language = default_language

    def __len__(self) -> int:
        return len(self._files) + len(self._tones)

    def paths(self, prompt: PromptRef) -> tuple[Path, ...]:
        """Files to play for a prompt, in order; never empty.

        A prompt without a file is said in the default language, or is a short silence, and is logged: what is
        missing was reported when the library was prepared, and a call goes on.
        """
        found = self._files.get(prompt) or self._tones.get(prompt.id)
        if found is not None:
            return found
        log.error(
            "prompt missing", extra={"action": "prompt", "prompt": prompt.id, "language": prompt.language}
        )
        other = PromptRef(id=prompt.id, language=self._default_language, values=prompt.values)
        return self._files.get(other) or self._tones["silence"]

    def tone(self, name: str) -> Path:
        """File of a tone of `ivr.tones`: silence, beep, connected, hold_music, ringback_<country>.

        Raises KeyError for an unknown tone.
        """
        return self._tones[name][0]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file, for engines that read them ahead."""
        return tuple(
            sorted({path for paths in (*self._files.values(), *self._tones.values()) for path in paths})
        )


def prepare(
    dialplans: Dialplans, cache: Path, *, processes: int = 2, progress: Progress | None = None
) -> PromptLibrary:
    """The library of a dialplan; prompts that the cache lacks are rendered first. Blocks: see `ivr.render`.

    Raises OSError when the cache cannot be written. What could not be rendered is in the library's
    `problems`.
    """
    jobs, problems = _jobs(dialplans, cache)
    tones = {job.tone: job for job in _tones(dialplans, cache)}
    missing = {job.target: job for job in (*tones.values(), *jobs.values()) if not job.target.exists()}
    failed = render(tuple(missing.values()), processes=processes, progress=progress)
    for tone in tones.values():
        if tone.target in failed:
            raise OSError(f"The tone {tone.tone} is not in the cache {cache}: {failed[tone.target]}")
    for prompt, job in jobs.items():
        if job.target in failed:
            problems.append(_problem(dialplans, prompt, failed[job.target]))
    files = {prompt: job.target for prompt, job in jobs.items() if job.target.exists()}
    return PromptLibrary(
        files,
        {name: job.target for name, job in tones.items()},
        dialplans.default_language,
        tuple(sorted({*problems, *_long(dialplans, files)})),
    )


def wanted(dialplans: Dialplans) -> tuple[PromptRef, ...]:
    """Every spoken prompt that calls can ask for, in every language, with every value known ahead."""
    found: dict[PromptRef, None] = {}
    for language, catalog in dialplans.catalogs.items():
        for digit in range(10):
            found[PromptRef(id=f"digit_{digit}", language=language)] = None
        for line, entry in dialplans.lines.items():
            names = (*prompts_of(dialplans.flows[entry.flow]), *WALK_PROMPTS, *RUNNER_PROMPTS)
            for name in names:
                if name in catalog.prompts and name != "screen":
                    found[dialplans.prompt(line, language, name)] = None
            for caller_language in dialplans.catalogs:
                found[dialplans.offer(line, caller_language, language)] = None
    return tuple(found)


def _jobs(dialplans: Dialplans, cache: Path) -> tuple[dict[PromptRef, Job], list[Problem]]:
    jobs: dict[PromptRef, Job] = {}
    problems: list[Problem] = []
    for prompt in wanted(dialplans):
        try:
            jobs[prompt] = _job(dialplans, cache, prompt)
        except TemplateError as error:
            sentence = f"The text cannot be filled in: {str(error).rstrip('.')}."
            problems.append(_problem(dialplans, prompt, sentence))
    return jobs, problems


def _job(dialplans: Dialplans, cache: Path, prompt: PromptRef) -> Job:
    catalog = dialplans.catalogs[prompt.language]
    recording = dialplans.folder / "prompts" / "recorded" / prompt.language / f"{prompt.id}.wav"
    if recording.is_file():
        made_from: tuple[str, ...] = ("recording", hashlib.sha256(recording.read_bytes()).hexdigest())
        return Job(target=_target(cache, prompt.language, prompt.id, made_from), recording=recording)
    voice = catalog.voice
    text = spoken_text(catalog, catalog.prompts[prompt.id], dict(prompt.values))
    made_from = (text, voice.engine, voice.voice, version(voice))
    target = _target(cache, prompt.language, prompt.id, made_from)
    return Job(target=target, text=text, engine=voice.engine, voice=voice.voice)


def _target(cache: Path, folder: str, name: str, made_from: tuple[str, ...]) -> Path:
    key = hashlib.sha256("\0".join((*made_from, POSTPROCESSING)).encode()).hexdigest()[:20]
    return cache / folder / f"{name}-{key}.wav"


def _tones(dialplans: Dialplans, cache: Path) -> Iterator[Job]:
    for name in (*TONES, *(f"{RINGBACK}{country}" for country in dialplans.countries)):
        yield Job(target=_target(cache, "tones", name, (TONES_VERSION,)), tone=name)


def _long(dialplans: Dialplans, files: Mapping[PromptRef, Path]) -> Iterator[Problem]:
    for prompt, path in files.items():
        seconds = (path.stat().st_size - 44) / (2 * RATE_HZ)
        if seconds > LONG_PROMPT_S:
            sentence = (
                f"This prompt takes {seconds:.0f} s to say; {LONG_PROMPT_S:.0f} s or less can be followed."
            )
            yield _problem(dialplans, prompt, sentence, warning=True)


def _problem(dialplans: Dialplans, prompt: PromptRef, sentence: str, *, warning: bool = False) -> Problem:
    digit = prompt.id.removeprefix("digit_") if prompt.id.startswith("digit_") else ""
    path = f"digits.{digit}" if digit and prompt.id not in dialplans.catalogs[prompt.language].prompt else ""
    file = f"prompts/{prompt.language}.toml"
    return Problem(file=file, path=path or f"prompt.{prompt.id}", sentence=sentence, warning=warning)
