"""What the files of prompts and tones are made by, for their names. Loads neither numpy nor a speech engine.

A server whose files are all there knows them from this alone; only `ivr.render`'s children load the rest.
"""

import contextlib
from importlib import metadata

from ivr.catalog import Voice

RATE_HZ = 8000
POSTPROCESSING = "1"  # of `ivr.audio`; part of every cache key: another number renders everything again
TONES_VERSION = "1"  # of `ivr.tones`; part of every tone's cache key
TONES = ("silence", "beep", "connected", "hold_music")
RINGBACK = "ringback_"  # and the code of a country


def version(voice: Voice) -> str:
    """Version of the engine of a voice, for cache keys; "missing" when it is not installed. Loads nothing."""
    package = {"piper": "piper-tts", "pico": "ttspico"}[voice.engine]
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "missing"
