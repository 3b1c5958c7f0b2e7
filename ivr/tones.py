"""Sounds that are not speech: silence, beep, ringback of each country, hold music. Made here, so free of
rights. A change that is heard needs another `ivr.recipe.TONES_VERSION`.

Sources: ITU-T E.180 supplement 2 (ringback by country).
"""

from collections.abc import Callable, Mapping

import numpy as np

from ivr.audio import Samples, at_loudness
from ivr.recipe import RATE_HZ, RINGBACK

MUSIC_LUFS = -24.0

_NORTH_AMERICA = ((440.0, 480.0), (2.0, 4.0))
_EUROPE = ((425.0,), (1.0, 4.0))
CADENCES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "US": _NORTH_AMERICA,
    "CA": _NORTH_AMERICA,
    "MX": _EUROPE,
    "DE": _EUROPE,
    "IT": _EUROPE,
    "ES": ((425.0,), (1.5, 3.0)),
    "FR": ((440.0,), (1.5, 3.5)),
    "GB": ((400.0, 450.0), (0.4, 0.2, 0.4, 2.0)),
    "IE": ((400.0, 450.0), (0.4, 0.2, 0.4, 2.0)),
    "AU": ((400.0, 425.0, 450.0), (0.4, 0.2, 0.4, 2.0)),
    "IN": ((400.0, 425.0), (0.4, 0.2, 0.4, 2.0)),
}
"""Frequencies in Hz, then seconds of sound and pause in turn. Other countries ring like most of Europe."""


def silence(seconds: float = 0.2) -> Samples:
    """Nothing, for that long."""
    return np.zeros(int(seconds * RATE_HZ))


def beep(hz: float = 1000.0, seconds: float = 0.35) -> Samples:
    """The tone after which one speaks."""
    return np.concatenate([silence(0.1), _sine((hz,), seconds, 0.12), silence(0.05)])


def connected() -> Samples:
    """Two short rising tones: you are through."""
    return np.concatenate([_sine((660.0,), 0.12, 0.12), silence(0.04), _sine((880.0,), 0.16, 0.12)])


def ringback(country: str) -> Samples:
    """One cycle of the tone that callers of a country hear while it rings, to be played in a loop."""
    frequencies, cadence = CADENCES.get(country, _EUROPE)
    parts = [
        _sine(frequencies, seconds, 0.08) if n % 2 == 0 else silence(seconds)
        for n, seconds in enumerate(cadence)
    ]
    return np.concatenate(parts)


def _sine(frequencies: tuple[float, ...], seconds: float, level: float) -> Samples:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    wave = level * np.sum([np.sin(2 * np.pi * hz * t) for hz in frequencies], axis=0)
    fade = min(len(t) // 2, RATE_HZ // 200)
    ramp = np.linspace(0, 1, fade)
    wave[:fade] *= ramp
    wave[len(wave) - fade :] *= ramp[::-1]
    return np.asarray(wave, dtype=np.float64)


# Hold music: eight bars of soft broken chords, in the range a telephone carries.
_BEAT_S = 0.9375  # eight bars of four beats are 30 s
_CHORDS_HZ = (  # C, Am7, F, G, Em, Am, Dm7, G: root position, around middle C and above
    (523.25, 659.26, 783.99, 1046.50),
    (440.00, 523.25, 659.26, 783.99),
    (349.23, 440.00, 523.25, 698.46),
    (392.00, 493.88, 587.33, 783.99),
    (329.63, 493.88, 659.26, 783.99),
    (440.00, 523.25, 659.26, 880.00),
    (587.33, 698.46, 880.00, 1046.50),
    (392.00, 587.33, 783.99, 987.77),
)
_FIGURE = (0, 2, 1, 3, 2, 1, 3, 2)  # notes of the chord, two a beat


def hold_music() -> Samples:
    """30 s that can be looped without a seam: what rings on at the end is heard at the beginning."""
    total = int(len(_CHORDS_HZ) * 4 * _BEAT_S * RATE_HZ)
    piece = np.zeros(total)
    for bar, chord in enumerate(_CHORDS_HZ):
        _strike(piece, bar * 4 * _BEAT_S, chord[0], seconds=4.5, level=0.5)
        for n, tone in enumerate(_FIGURE):
            _strike(
                piece, (bar * 4 + n / 2) * _BEAT_S, chord[tone], seconds=2.2, level=1.0 if n % 4 == 0 else 0.7
            )
    return at_loudness(piece, MUSIC_LUFS)


def _strike(piece: Samples, at_s: float, hz: float, *, seconds: float, level: float) -> None:
    """Add a plucked note; what does not fit at the end is added at the beginning."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    harmonics = sum(np.sin(2 * np.pi * hz * k * t) / k**2.2 for k in (1, 2, 3) if hz * k < 3300)
    note = level * harmonics * np.exp(-2.4 * t / seconds * 2) * np.minimum(1, t / 0.012)
    note *= np.minimum(1, (t[-1] - t) / 0.2)
    places = (int(at_s * RATE_HZ) + np.arange(len(t))) % len(piece)
    np.add.at(piece, places, note)


FIXED: Mapping[str, Callable[[], Samples]] = {
    "silence": silence,
    "beep": beep,
    "connected": connected,
    "hold_music": hold_music,
}
"""Tones by the id that a PromptRef may name; ringback is `ringback_<country>`."""


def tone(name: str) -> Samples:
    """The tone of that id. Raises ValueError for an unknown one."""
    if name.startswith(RINGBACK):
        return ringback(name.removeprefix(RINGBACK))
    if name not in FIXED:
        raise ValueError(f'there is no tone "{name}"')
    return FIXED[name]()
