"""Reading SIP text, pairing of keys, WAV lengths: the pure parts of the engine."""

import wave
from pathlib import Path

import pytest

from pbx.sip import wav, wire
from pbx.sip.digits import DigitPairing

pytestmark = pytest.mark.unit

INVITE = (
    "INVITE sip:%2B15550100@127.0.0.1:5071;user=phone SIP/2.0\r\n"
    "v: SIP/2.0/UDP 127.0.0.1\r\n"
    'f: "Ann \\"A\\" Lee"\r\n <sip:+15550111;npdi@example.com>;tag=1\r\n'
    "i: abc@host\r\nX-Hotline-Trunk: main\r\nX-Other: no\r\n"
    "P-Asserted-Identity: <sip:+15550199@example.com>\r\nDiversion: <sip:1@h>\r\nDIVERSION: <sip:2@h>\r\n"
    'Reason: SIP;cause=200, Q.850 ;cause = 17;text="busy"\r\n'
    "c: application/sdp\r\nContent-Length: 3\r\n\r\nFrom: body"
)


def test_invite_is_read_with_compact_names_folding_and_escapes() -> None:
    found = wire.read_invite(INVITE)
    assert found.to_user == "+15550100"
    assert found.from_user == "+15550111"
    assert found.from_display == 'Ann "A" Lee'
    assert found.call_id == "abc@host"
    assert found.headers == {
        "x-hotline-trunk": "main",
        "p-asserted-identity": "<sip:+15550199@example.com>",
        "diversion": "<sip:1@h>",
    }
    assert wire.q850_of(INVITE) == 17
    assert wire.has_sdp(INVITE)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("INVITE sip:host SIP/2.0", ""),
        ("<sips:a.b@h>", "a.b"),
        ("<sip:user:password@h>", "user"),
        ("tel:+1-555-0100;ext=2", "+1-555-0100"),
        ("nothing", ""),
    ],
)
def test_uri_user(text: str, user: str) -> None:
    assert wire.uri_user(text) == user


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("<sip:a@h>", ""),
        ("Ann <sip:a@h>", "Ann"),
        ('"" <sip:a@h>', ""),
        ("sip:a@h;tag=1", ""),
        ('"a<b" <sip:a@h>', "a<b"),
    ],
)
def test_display_name(value: str, name: str) -> None:
    assert wire.display_name(value) == name


def test_from_without_user_is_anonymous() -> None:
    assert wire.read_invite("INVITE sip:1@h SIP/2.0\r\nFrom: <sip:h>;tag=1\r\n\r\n").from_user == "anonymous"


def test_name_addr_cannot_be_left() -> None:
    made = wire.name_addr('a"> ;x', 'say "hi"\r\nX: 1\\', "h:1")
    assert made == '"say \\"hi\\" X: 1\\\\" <sip:a%22%3E%20;x@h:1>'
    assert wire.name_addr("", "", "h") == "<sip:h>"
    assert wire.one_line("a\r\nEvil: b") == "a Evil: b"


@pytest.mark.parametrize(
    ("body", "digit"), [("5", "5"), (" #\r\n", "#"), ("12", ""), ("", ""), ("Signal=5\r\nDuration=1", "")]
)
def test_bare_digit(body: str, digit: str) -> None:
    message = f"INFO sip:1@h SIP/2.0\r\nContent-Type: application/dtmf\r\n\r\n{body}"
    assert wire.bare_digit(message) == digit


def test_the_relay_form_is_the_librarys() -> None:
    message = "INFO sip:1@h SIP/2.0\r\nContent-Type: application/dtmf-relay\r\n\r\n5"
    assert wire.bare_digit(message) == ""


def test_hosts_and_replaces() -> None:
    assert wire.uri_host("sip:1001@127.0.0.1:5060;lr") == "127.0.0.1"
    assert wire.uri_host("<sip:[::1]:5060>") == "[::1]"
    assert wire.uri_host("garbage") == ""
    assert wire.replaced_call_id("Replaces=abc%40h%3Bto-tag%3D1%3Bfrom-tag%3D2&X=1>") == "abc@h"
    assert wire.replaced_call_id("X=1") == ""


def test_a_press_sent_both_ways_counts_once_and_two_presses_twice() -> None:
    pairing = DigitPairing(window_s=1.0)
    reports = [("1", "rfc4733", 0.0), ("1", "info", 0.15), ("1", "rfc4733", 0.4), ("1", "info", 0.55)]
    assert [pairing.is_new(*report) for report in reports] == [True, False, True, False]


def test_other_keys_and_late_reports_are_presses_of_their_own() -> None:
    pairing = DigitPairing(window_s=1.0)
    assert pairing.is_new("1", "rfc4733", 0.0)
    assert pairing.is_new("2", "info", 0.1)
    assert pairing.is_new("1", "info", 1.2)
    assert pairing.is_new("1", "info", 1.3)


def test_the_order_of_the_two_ways_does_not_matter() -> None:
    pairing = DigitPairing()
    assert pairing.is_new("5", "info", 0.0)
    assert not pairing.is_new("5", "rfc4733", 0.1)


def _write(path: Path, rate_hz: int = 8000, channels: int = 1, width: int = 2, frames: int = 800) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate_hz)
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.writeframes(bytes(frames * channels * width))
    return path


def test_wav_lengths_follow_the_file(tmp_path: Path) -> None:
    lengths = wav.Lengths()
    path = _write(tmp_path / "a.wav")
    assert lengths.of(path) == 100
    _write(path, frames=1600)
    assert lengths.of(path) == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate_hz": 16000}, "16000 Hz, 1 channels, 16 bits"),
        ({"channels": 2}, "8000 Hz, 2 channels"),
        ({"width": 1}, "8 bits"),
        ({"frames": 0}, "holds no audio"),
    ],
)
def test_other_formats_are_named(tmp_path: Path, changes: dict[str, int], words: str) -> None:
    with pytest.raises(wav.WavError, match=words):
        wav.Lengths().of(_write(tmp_path / "a.wav", **changes))


def test_a_recording_is_closed_when_its_header_says_so(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.wav")
    assert wav.is_closed(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:40] + bytes(4) + raw[44:])
    assert not wav.is_closed(path)
    assert not wav.is_closed(tmp_path / "none.wav")
    path.write_bytes(raw[:20])
    assert not wav.is_closed(path)
