"""The ears of the tests must not hear what is not there."""

from pathlib import Path

import numpy as np
import pytest

from tests.peers import tones

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("hz", [300, 440, 697, 1000, 1633, 3300])
def test_a_tone_is_heard_for_all_of_its_time_at_its_level(hz: int) -> None:
    found = tones.heard(tones.tone(hz, 1000, dbfs=-20), hz)
    assert found.fraction == 1.0
    assert 960 <= found.longest_ms <= 1000
    assert found.dbfs == pytest.approx(-20, abs=0.3)
    assert found.first_ms == 0


@pytest.mark.parametrize("wrong_hz", [390, 490, 880, 1320, 220])
def test_a_wrong_tone_is_not_heard(wrong_hz: int) -> None:
    assert tones.heard(tones.tone(wrong_hz, 1000), 440).longest_ms == 0


def test_noise_and_speech_are_not_tones() -> None:
    for seed in range(5):
        for sound in (tones.noise(3000, seed=seed), tones.speechlike(3000, seed=seed)):
            for hz in (440, 1000, 2000):
                assert tones.heard(sound, hz).longest_ms < 100
            assert not [
                span
                for span in tones.spans(sound)
                if span.kind == "tone" and span.end_ms - span.start_ms > 100
            ]


def test_silence_hears_nothing_and_an_empty_recording_is_not_silent() -> None:
    assert tones.heard(tones.silence(1000), 440).fraction == 0.0
    assert tones.heard(tones.silence(0), 440).fraction == 0.0
    assert tones.is_silent(tones.silence(1000))
    assert not tones.is_silent(tones.silence(0))
    assert not tones.is_silent(np.concatenate([tones.silence(500), tones.tone(440, 60, dbfs=-40)]))


def test_a_tone_under_noise_is_heard_and_noise_over_the_share_hides_it() -> None:
    quiet = (tones.tone(440, 1000, dbfs=-15) + tones.noise(1000, dbfs=-25)).astype(np.int16)
    assert tones.heard(quiet, 440).fraction > 0.95
    loud = (tones.tone(440, 1000, dbfs=-40) + tones.noise(1000, dbfs=-15)).astype(np.int16)
    assert tones.heard(loud, 440).longest_ms < 100


def test_two_tones_mixed_are_both_heard_and_a_third_is_not() -> None:
    both = (tones.tone(440, 1000) + tones.tone(620, 1000)).astype(np.int16)
    assert tones.heard(both, 440).fraction == tones.heard(both, 620).fraction == 1.0
    assert tones.heard(both, 530).fraction == 0.0


def test_parts_of_a_sequence_are_found_where_they_are() -> None:
    audio = tones.sequence([(0, 500), (440, 600), (0, 300), (620, 400)])
    found = tones.heard(audio, 620)
    assert found.first_ms == pytest.approx(1400, abs=40)
    assert found.longest_ms == pytest.approx(400, abs=40)
    assert [(s.kind, s.hz) for s in tones.spans(audio)] == [
        ("silence", 0), ("tone", 440), ("silence", 0), ("tone", 620),
    ]  # fmt: skip
    assert tones.first_audio_ms(audio) == pytest.approx(500, abs=20)
    assert tones.longest_silence_ms(audio) == pytest.approx(500, abs=20)
    assert tones.first_audio_ms(tones.silence(500)) is None


def test_dominant_frequency_is_exact_to_3_hz() -> None:
    for hz in (333, 440, 1004, 2711):
        found, level, share = tones.dominant(tones.tone(hz, 400, dbfs=-18))
        assert np.median(found) == pytest.approx(hz, abs=3)
        assert np.median(level) == pytest.approx(-18, abs=0.2)
        assert np.median(share) > 0.9


def test_ulaw_round_trip_keeps_tones_levels_and_quality() -> None:
    speech = tones.speechlike(4000)
    back = tones.from_ulaw(tones.to_ulaw(speech))
    error = back.astype(float) - speech
    assert 20 * np.log10(np.std(speech) / np.std(error)) > 33
    assert tones.level_difference_db(back, speech) == pytest.approx(0, abs=0.1)
    assert tones.heard(tones.from_ulaw(tones.to_ulaw(tones.tone(440, 500, dbfs=-30))), 440).fraction == 1.0


def test_ulaw_agrees_with_known_values() -> None:
    assert tones.to_ulaw(np.array([0, -1, 32767, -32768], dtype=np.int16)) == b"\xff\x7f\x80\x00"
    assert tones.from_ulaw(b"\xff\x7f\x80\x00").tolist() == [0, 0, 32124, -32124]
    every = bytes(range(256))
    again = tones.to_ulaw(tones.from_ulaw(every))
    assert [i for i in range(256) if again[i] != i] == [0x7F]  # the two zeros are one


def test_a_prompt_is_found_after_attenuation_and_mu_law() -> None:
    prompt = tones.speechlike(2000, seed=3)
    line = np.concatenate([tones.silence(730), prompt // 4, tones.silence(400)])
    match = tones.correlate(tones.from_ulaw(tones.to_ulaw(line)), prompt)
    assert match.offset_ms == pytest.approx(730, abs=1)
    assert match.correlation > 0.98
    assert match.level_db == pytest.approx(-12.04, abs=0.3)


def test_another_prompt_does_not_match() -> None:
    line = np.concatenate([tones.silence(500), tones.speechlike(3000, seed=8), tones.silence(500)])
    assert tones.correlate(line, tones.speechlike(2000, seed=9)).correlation < 0.3


def test_skips_of_a_jitter_buffer_are_forgiven_only_on_request() -> None:
    prompt = tones.speechlike(3000, seed=4)
    skipped = np.concatenate(
        [
            tones.silence(700),
            prompt[:8000],
            prompt[8320:17600],
            tones.silence(40),
            prompt[17600:],
            tones.silence(300),
        ]
    )
    assert tones.correlate(skipped, prompt).correlation < 0.7
    forgiven = tones.correlate(skipped, prompt, drift_ms=60)
    assert forgiven.correlation > 0.95
    other = tones.correlate(skipped, tones.speechlike(3000, seed=5), drift_ms=60)
    assert other.correlation < 0.4


def test_correlation_refuses_what_it_cannot_do() -> None:
    with pytest.raises(
        ValueError, match=r"the recording \(80 samples\) is shorter than the reference \(160 samples\)"
    ):
        tones.correlate(tones.silence(10), tones.silence(20))
    with pytest.raises(ValueError, match="the reference is silent"):
        tones.correlate(tones.silence(20), tones.silence(20))


def test_dtmf_in_band_is_read_back_through_mu_law() -> None:
    assert tones.dtmf_digits(tones.from_ulaw(tones.to_ulaw(tones.dtmf("159*0#D")))) == "159*0#D"
    assert tones.dtmf_digits(tones.speechlike(5000)) == ""
    assert tones.dtmf_digits(tones.tone(697, 500)) == ""
    with pytest.raises(ValueError, match="'x' is not a DTMF key"):
        tones.dtmf("1x")


def test_tones_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match="would clip"):
        tones.tone((440, 480), 100, dbfs=-1)
    with pytest.raises(ValueError, match=r"4000\.0 Hz cannot be made"):
        tones.tone(4000, 100)


def test_wav_round_trip_and_a_file_still_being_written(tmp_path: Path) -> None:
    audio = tones.tone(440, 200)
    path = tones.write_wav(tmp_path / "a.wav", audio)
    again, rate_hz = tones.read_wav(path)
    assert rate_hz == 8000
    assert (again == audio).all()
    raw = bytearray(path.read_bytes())
    raw[40:44] = b"\0\0\0\0"  # recorders write the length when they close
    path.write_bytes(bytes(raw[:-101]))
    assert len(tones.read_wav(path)[0]) == len(audio) - 51
    path.write_bytes(b"RIFF")
    assert len(tones.read_wav(path)[0]) == 0
    path.write_bytes(b"x" * 60)
    with pytest.raises(ValueError, match="not a WAV file"):
        tones.read_wav(path)


def test_pesq_falls_with_damage_and_not_with_level() -> None:
    prompt = tones.speechlike(4000, seed=5)
    padded = np.concatenate([tones.silence(333), prompt, tones.silence(200)])
    clean = tones.pesq_nb(tones.from_ulaw(tones.to_ulaw(padded // 2)), prompt)
    torn = padded.copy()
    for at in range(4000, len(torn) - 800, 1600):  # one 20 ms packet in ten is lost
        torn[at : at + 160] = 0
    assert clean > 4.0
    assert tones.pesq_nb(torn, prompt) < clean - 0.5
    assert tones.level_difference_db(padded // 2, prompt) == pytest.approx(-6, abs=0.2)


def test_loudness_follows_level() -> None:
    loud, soft = tones.speechlike(3000, dbfs=-20), tones.speechlike(3000, dbfs=-30)
    assert tones.lufs(loud) - tones.lufs(soft) == pytest.approx(10, abs=0.3)
    with pytest.raises(ValueError, match=r"loudness needs 0\.4 s"):
        tones.lufs(tones.silence(100))
