"""Makes the audio files of prompts ahead of time, in child processes that end with the work.

The children are spawned, not forked: a speech engine's threads do not survive a fork. What they load (numpy,
scipy, a speech engine: 100 MB) is loaded there only.
"""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ONE_PROMPT_S = 120.0  # loading a voice and speaking one prompt; beyond it the child hangs or died

Progress = Callable[[int, int], None]
"""Called with how many prompts are done and how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One file to make: a tone, or from words, or from a recording when there is one."""

    target: Path  # the WAV to write
    text: str = ""  # words
    engine: str = ""  # who says them: "piper" or "pico"
    voice: str = ""
    recording: Path | None = None  # outranks the words
    tone: str = ""  # outranks both; a name of `ivr.tones`


def render(
    jobs: Sequence[Job],
    *,
    processes: int = 2,
    progress: Progress | None = None,
    within_s: float = ONE_PROMPT_S,
) -> Mapping[Path, str]:
    """Make the files. Returns why a target could not be made, one sentence each; empty when all were.

    When no prompt is done for `within_s`, the children are killed and the rest is given up. Blocks for as
    long as it takes (a prompt takes about a tenth of a second, the first of a voice a second): run it in a
    thread where an event loop must not wait.
    """
    if not jobs:
        return {}
    failed: dict[Path, str] = {}
    waiting = {job.target for job in jobs}
    # One voice after the other, so that a child loads few of them.
    ordered = sorted(jobs, key=lambda job: (job.engine, job.voice, job.target))
    context = multiprocessing.get_context("spawn")
    pool = context.Pool(min(processes, len(jobs)))
    try:
        results = pool.imap_unordered(make, ordered)
        for done in range(1, len(ordered) + 1):
            target, problem = results.next(timeout=within_s)
            waiting.discard(target)
            if problem:
                failed[target] = problem
            if progress is not None:
                progress(done, len(ordered))
    except multiprocessing.TimeoutError:
        failed |= {target: "The speech engine gave no answer in time, or it crashed." for target in waiting}
    finally:
        pool.terminate()
        pool.join()
    return failed


def make(job: Job) -> tuple[Path, str]:
    """Make one file; returns its target and, when that failed, the reason as a sentence. Runs in a child."""
    from ivr.audio import for_telephone, read_wav, write_wav
    from ivr.speak import SpeakError, engine
    from ivr.tones import tone

    try:
        if job.tone:
            write_wav(job.target, tone(job.tone))
            return job.target, ""
        if job.recording is not None:
            samples, rate_hz = read_wav(job.recording)
        else:
            samples, rate_hz = engine(job.engine, job.voice).speak(job.text)
        write_wav(job.target, for_telephone(samples, rate_hz))
    except SpeakError as error:
        return job.target, str(error)
    except ValueError as error:
        return job.target, f"This prompt cannot be made: {error}."
    except OSError as error:
        return job.target, f"This prompt cannot be written or read: {error.strerror}."
    return job.target, ""
