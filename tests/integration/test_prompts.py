"""Prompts rendered by the real engines: complete, at one level, in band, with their first syllable."""

import logging
import os
import shutil
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from ivr import audio, recipe, tones
from ivr.catalog import Catalog
from ivr.flow import Dialplans, PromptRef
from ivr.load import load_dialplans
from ivr.prompts import PromptLibrary, prepare, wanted
from ivr.render import Job, render
from ivr.speak import engine
from ivr.wording import spoken_text

pytestmark = pytest.mark.integration

SHIPPED = Path(__file__).parents[2] / "dialplans"
BENCH = Path(__file__).parents[1] / "data" / "dialplans"
EN_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def dialplans() -> Dialplans:
    return load_dialplans(SHIPPED)


@pytest.fixture(scope="module")
def library(dialplans: Dialplans, cache: Path) -> PromptLibrary:
    """The shipped prompts, rendered once."""
    return prepare(dialplans, cache)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the small dialplans, to be changed."""
    return Path(shutil.copytree(BENCH, tmp_path / "dialplans"))


def speech(dialplans: Dialplans, library: PromptLibrary) -> Iterator[tuple[PromptRef, audio.Samples]]:
    for prompt in wanted(dialplans):
        (path,) = library.paths(prompt)
        samples, rate_hz = audio.read_wav(path)
        assert rate_hz == recipe.RATE_HZ
        yield prompt, samples


def power_share(samples: audio.Samples, low_hz: float, high_hz: float) -> float:
    """Share of the power of a sound that lies between two frequencies."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / recipe.RATE_HZ)
    return float(spectrum[(hz >= low_hz) & (hz < high_hz)].sum() / spectrum.sum())


def write_recording(
    path: Path, samples: audio.Samples, rate_hz: int, *, width: int = 2, channels: int = 1
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.round(samples * (2 ** (8 * width - 1) - 1)).astype("<i4")
    raw = np.repeat(whole, channels).view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(raw)


def sine(hz: float, seconds: float, rate_hz: int) -> audio.Samples:
    return np.asarray(
        0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz), dtype=np.float64
    )


def test_every_prompt_of_every_language_is_there(dialplans: Dialplans, library: PromptLibrary) -> None:
    assert library.problems == ()
    prompts = wanted(dialplans)
    assert {prompt.language for prompt in prompts} == {"en", "es"}
    assert len({library.paths(prompt) for prompt in prompts}) == len(prompts)
    for line in dialplans.lines:
        for caller in ("en", "es"):
            for clinician in ("en", "es"):
                assert dialplans.offer(line, caller, clinician) in prompts
    for path in library.files:
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2), path
            assert file.getnframes() > 800, path


def test_levels_are_within_one_lu_and_nothing_clips(dialplans: Dialplans, library: PromptLibrary) -> None:
    for prompt, samples in speech(dialplans, library):
        assert audio.loudness(samples) == pytest.approx(audio.SPEECH_LUFS, abs=1.0), prompt
        assert np.max(np.abs(samples)) <= audio.PEAK + 0.001, prompt


def test_speech_stays_in_the_telephone_band(dialplans: Dialplans, library: PromptLibrary) -> None:
    for prompt, samples in speech(dialplans, library):
        assert power_share(samples, 0, 200) < 0.01, prompt
        assert power_share(samples, 3600, 4001) < 0.01, prompt
        assert power_share(samples, 300, 3400) > 0.9, prompt


def test_speech_begins_at_once_and_ends_soon(dialplans: Dialplans, library: PromptLibrary) -> None:
    for prompt, samples in speech(dialplans, library):
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.max(np.abs(samples)))
        assert loud[0] < 0.2 * recipe.RATE_HZ, prompt  # a first s is soft in this band
        assert len(samples) - loud[-1] < 0.3 * recipe.RATE_HZ, prompt


@pytest.mark.parametrize(
    ("kind", "voice", "text"),
    [
        ("piper", "en_US-joe-medium", "If this is an emergency, hang up now."),
        ("piper", "en_US-joe-medium", "Hotline call for the nurse hotline."),
        ("pico", "es-ES", "Si es una emergencia, cuelgue ahora."),
        ("pico", "es-ES", "Pulse 1 para sí, o 2 para no."),
    ],
)
def test_the_first_syllable_is_not_cut(kind: str, voice: str, text: str) -> None:
    raw, rate_hz = engine(kind, voice).speak(text)
    made = audio.for_telephone(raw, rate_hz)
    whole = audio.for_telephone(
        np.concatenate([sine(1000, 0.2, rate_hz), raw]), rate_hz
    )  # nothing to trim before it
    # Find the prompt in the untrimmed speech: what lies before it there, after the marking tone, is silence.
    product = np.fft.rfft(whole, 2 * len(whole)) * np.conj(np.fft.rfft(made, 2 * len(whole)))
    lag = int(np.argmax(np.fft.irfft(product)))
    tone_ends = int(0.26 * recipe.RATE_HZ)
    before = whole[tone_ends:lag]
    loudest = np.max(np.abs(whole[lag : lag + len(made)]))
    assert np.max(np.abs(before), initial=0.0) < 0.02 * loudest
    part = whole[lag : lag + len(made)]
    match = np.dot(part, made[: len(part)]) / (np.linalg.norm(part) * np.linalg.norm(made[: len(part)]))
    assert match > 0.98


def test_the_second_time_nothing_is_rendered(
    dialplans: Dialplans, library: PromptLibrary, cache: Path
) -> None:
    calls: list[tuple[int, int]] = []
    began = time.monotonic()
    again = prepare(dialplans, cache, progress=lambda done, all_: calls.append((done, all_)))
    assert calls == []
    assert again.files == library.files
    assert time.monotonic() - began < 5.0


def renderers() -> list[int]:
    """Child processes that render; Python's own tracker of shared resources stays by design and is none."""
    found = psutil.Process().children(recursive=True)
    return [child.pid for child in found if any("spawn_main" in part for part in child.cmdline())]


def test_children_end_with_the_work(own: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    plan = load_dialplans(own)
    library = prepare(plan, tmp_path / "cache", progress=lambda done, all_: calls.append((done, all_)))
    assert library.problems == ()
    everything = len(library.files)  # words and tones
    assert calls == [(n, everything) for n in range(1, everything + 1)]
    assert renderers() == []


def test_a_recording_outranks_the_text_and_is_brought_to_level(own: Path, tmp_path: Path) -> None:
    recording = own / "prompts" / "recorded" / "en" / "short.wav"
    short = PromptRef(id="short", language="en")
    made = []
    for hz, rate_hz, width, channels in ((700.0, 44100, 3, 2), (1500.0, 48000, 2, 1), (900.0, 8000, 4, 1)):
        write_recording(recording, sine(hz, 1.0, rate_hz), rate_hz, width=width, channels=channels)
        library = prepare(load_dialplans(own), tmp_path / "cache")
        (path,) = library.paths(short)
        samples, _ = audio.read_wav(path)
        assert power_share(samples, hz - 20, hz + 20) > 0.95
        assert audio.loudness(samples) == pytest.approx(audio.SPEECH_LUFS, abs=1.0)
        made.append(path)
    assert len(set(made)) == 3  # another recording is another file: no cache is stale


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"MP3", "This prompt cannot be made: it is not a PCM WAV file."),
        (None, "This prompt cannot be made: there is nothing to hear."),
    ],
)
def test_a_bad_recording_is_a_problem_and_no_call_fails(
    own: Path, tmp_path: Path, content: bytes | None, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    recording = own / "prompts" / "recorded" / "en" / "short.wav"
    write_recording(recording, np.zeros(8000), 8000)
    if content is not None:
        recording.write_bytes(content)
    library = prepare(load_dialplans(own), tmp_path / "cache")
    assert [str(problem) for problem in library.problems] == [f"prompts/en.toml: prompt.short: {sentence}"]
    with caplog.at_level(logging.ERROR, logger="careline.prompts"):
        assert library.paths(PromptRef(id="short", language="en")) == (library.tone("silence"),)
    assert [record.getMessage() for record in caplog.records] == ["prompt missing"]


def test_a_voice_that_is_not_there_is_a_problem(own: Path, tmp_path: Path) -> None:
    catalog = own / "prompts" / "en.toml"
    good = catalog.read_text()
    catalog.write_text(good.replace("en_US-joe-medium", "en_US-nobody"))
    plan = load_dialplans(own)
    library = prepare(plan, tmp_path / "cache")
    assert len(library.problems) == len({(prompt.id) for prompt in wanted(plan)})
    assert str(library.problems[0]) == (
        'prompts/en.toml: digits.0: There is no Piper voice "en_US-nobody"; '
        "name a bundled one or the path of an .onnx file."
    )
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    job = Job(target=tmp_path / "x.wav", text="Hello.", engine="piper", voice=str(broken))
    assert render([job]) == {job.target: f'The Piper voice "{broken}" cannot be loaded; is it whole?'}
    assert not job.target.exists()


def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.wav")  # reading it waits for ever
    job = Job(target=tmp_path / "x.wav", recording=tmp_path / "never.wav")
    began = time.monotonic()
    assert render([job], within_s=2.0) == {
        job.target: "The speech engine gave no answer in time, or it crashed."
    }
    assert time.monotonic() - began < 10.0
    assert renderers() == []


def test_a_missing_prompt_is_said_in_the_default_language(
    dialplans: Dialplans, library: PromptLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    english = library.paths(dialplans.prompt("hotline", "en", "emergency"))
    with caplog.at_level(logging.ERROR, logger="careline.prompts"):
        assert (
            library.paths(PromptRef(id="emergency", language="fr", values=(("emergency", "911"),))) == english
        )
        assert library.paths(PromptRef(id="never_written", language="es")) == (library.tone("silence"),)
    assert len(caplog.records) == 2


def test_values_are_spoken_and_never_evaluated() -> None:
    catalog = Catalog.model_validate(
        {
            "voice": {"engine": "piper", "voice": "x"},
            "languages": {"en": "English"},
            "digits": EN_DIGITS,
            "prompt": {
                "p": {"text": "Call {{ who }}, {{ number }}.", "values": {"who": "text", "number": "digits"}}
            },
        }
    )
    said = spoken_text(
        catalog,
        catalog.prompts["p"],
        {"who": "{{ 7 * 7 }} {% raw %} <volume level='0'/> [[ k ]]", "number": "9-1 1x"},
    )
    assert "49" not in said
    assert not set("{}<>[]") & set(said)
    assert said.endswith("nine, one, one.")


def test_the_emergency_number_is_said_digit_by_digit(dialplans: Dialplans) -> None:
    for language, words in (("en", "nine, one, one"), ("es", "nueve, uno, uno")):
        catalog = dialplans.catalogs[language]
        prompt = dialplans.prompt("hotline", language, "emergency")
        assert words in spoken_text(catalog, catalog.prompts["emergency"], dict(prompt.values))


def test_hold_music_has_its_level_and_no_seam(library: PromptLibrary) -> None:
    music, _ = audio.read_wav(library.tone("hold_music"))
    assert len(music) == 30 * recipe.RATE_HZ
    assert audio.loudness(music) == pytest.approx(tones.MUSIC_LUFS, abs=0.5)
    assert np.max(np.abs(music)) <= audio.PEAK
    steps = np.abs(np.diff(music))
    assert abs(music[0] - music[-1]) <= np.percentile(steps, 99.9)
    seconds = music.reshape(30, recipe.RATE_HZ)
    assert np.min(np.sqrt((seconds**2).mean(axis=1))) > 0.01  # no hole


@pytest.mark.parametrize(
    ("country", "frequencies", "sound_s"), [("US", (440, 480), 2.0), ("ES", (425,), 1.5)]
)
def test_ringback_is_that_of_the_country(
    library: PromptLibrary, country: str, frequencies: tuple[int, ...], sound_s: float
) -> None:
    samples, _ = audio.read_wav(library.tone(f"ringback_{country}"))
    sound = samples[: int(sound_s * recipe.RATE_HZ)]
    assert sum(power_share(sound, hz - 5, hz + 5) for hz in frequencies) > 0.95
    assert not np.any(samples[len(sound) :])
