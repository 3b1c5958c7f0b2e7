"""The benchmark's judge of audio (tests/bench/rtpload.c) tells good from bad, or its figures mean nothing."""

import asyncio
import math
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.bench.rtpload import Group, LegReport, RtpLoad, build
from tests.bench.speech import from_ulaw, judge, to_ulaw

pytestmark = pytest.mark.integration

HOME = "127.0.0.1"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("rtpload"))


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Stands where the server under test stands."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((HOME, 0))
        one.settimeout(5)
        yield one


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOME, 0))
        return int(probe.getsockname()[1])


def caller(tone: int, *, digit_after_ms: int = -1) -> Group:
    return Group(
        name=f"caller{tone}", first_port=free_port(), count=1, first_tone=tone, digit_after_ms=digit_after_ms
    )


def phone(tone: int) -> Group:
    return Group(name="phone", first_port=free_port(), count=1, first_tone=tone, latch=False)


def tones(*pairs: int) -> bytes:
    """One frame of G.711 with the sum of the tones of these legs."""
    n = np.arange(160)
    total = np.zeros(160)
    for pair in pairs:
        for hz in (400 + 50 * (pair % 30), 1900 + 50 * (pair // 30)):
            total += 3000 * np.sin(2 * math.pi * hz * n / 8000)
    return to_ulaw(total.astype(np.int16))


async def send_frames(server: socket.socket, to: int, frames: Sequence[bytes | None]) -> None:
    """One frame each 20 ms; None is a packet the network lost."""
    for number, frame in enumerate(frames):
        if frame is not None:
            server.sendto(struct.pack("!BBHII", 0x80, 0, number, number * 160, 7) + frame, (HOME, to))
        await asyncio.sleep(0.02)


async def judged(load: RtpLoad, port: int) -> LegReport:
    legs, _ = await load.report()
    return next(leg for leg in legs if leg.port == port)


async def test_two_pairs_of_legs_hear_their_partners_only(program: Path) -> None:
    groups = [caller(0), phone(450), caller(1), phone(451)]
    async with RtpLoad(program, groups, longest_s=30) as load:
        for one, other in ((groups[0], groups[1]), (groups[2], groups[3])):
            load.tell(f"peer {other.port(0)} {HOME} {one.port(0)} 101")
        await asyncio.sleep(1)
        load.tell("window begin")
        await asyncio.sleep(1)
        legs, _ = await load.report()
        load.tell("window end")
        load.tell("marks on")
        await asyncio.sleep(2.5)
        marked, _ = await load.report()
    partner = {leg.port: leg.pair_port for leg in legs}
    assert partner == {groups[a].port(0): groups[b].port(0) for a, b in ((0, 1), (1, 0), (2, 3), (3, 2))}
    for leg in legs:
        assert (leg.foreign, leg.win_lost, leg.dirty) == (0, 0, 0)
        assert leg.win_own >= 8
    for leg in marked:
        assert len(leg.delay_ms) >= 1
        assert max(leg.delay_ms) < 20  # nothing lies between them but this machine's load


@pytest.mark.parametrize("other", [451, 481, 480])  # with one tone in common or none
async def test_a_second_calls_tone_is_noticed(program: Path, server: socket.socket, other: int) -> None:
    groups = [caller(0), phone(450), phone(other)]
    async with RtpLoad(program, groups, longest_s=30) as load:
        await send_frames(server, groups[0].port(0), [tones(450)] * 40)
        clean = await judged(load, groups[0].port(0))
        await send_frames(server, groups[0].port(0), [tones(450, other)] * 40)
        mixed = await judged(load, groups[0].port(0))
    assert (clean.pair_port, clean.foreign) == (groups[1].port(0), 0)
    assert mixed.foreign >= 3
    assert mixed.foreign_pair == other


async def test_another_partners_tone_is_noticed(program: Path, server: socket.socket) -> None:
    groups = [caller(0), phone(450), phone(480)]
    async with RtpLoad(program, groups, longest_s=30) as load:
        await send_frames(server, groups[0].port(0), [tones(450)] * 30 + [tones(480)] * 30)
        leg = await judged(load, groups[0].port(0))
    assert leg.pair_port == groups[1].port(0)
    assert leg.foreign >= 3
    assert leg.foreign_pair == 480


@pytest.mark.parametrize("cut", [7, 23, 40, 66, 110, 133])  # samples a jitter buffer left out of the middle
async def test_a_splice_is_no_second_call(program: Path, server: socket.socket, cut: int) -> None:
    groups = [caller(0), phone(612)]
    whole = tones(612) * 2
    spliced = whole[:80] + whole[80 + cut : 160 + cut]
    async with RtpLoad(program, groups, longest_s=30) as load:
        await send_frames(server, groups[0].port(0), [tones(612)] * 25 + [spliced] * 25)
        leg = await judged(load, groups[0].port(0))
    assert leg.pair_port == groups[1].port(0)
    assert leg.foreign == 0


async def test_lost_packets_and_silence_are_counted(program: Path, server: socket.socket) -> None:
    groups = [caller(0), phone(450)]
    lost: list[bytes | None] = [None] * 3
    silence: list[bytes | None] = [b"\xff" * 160] * 25
    async with RtpLoad(program, groups, longest_s=30) as load:
        frames = [tones(450)] * 25
        await send_frames(server, groups[0].port(0), [*frames, *lost, *frames, *silence])
        leg = await judged(load, groups[0].port(0))
    assert leg.lost == 3
    assert leg.silent >= 4
    assert leg.own >= 4


async def test_the_key_is_pressed_as_rfc_4733_wants_it(program: Path, server: socket.socket) -> None:
    group = caller(0, digit_after_ms=60)
    async with RtpLoad(program, [group], longest_s=30):
        sending = asyncio.create_task(send_frames(server, group.port(0), [tones(450)] * 30))
        events: list[tuple[int, int, int, int]] = []
        while len(events) < 8:
            packet = await asyncio.to_thread(server.recv, 2048)
            if packet[1] & 0x7F == 101:
                stamp = struct.unpack("!I", packet[4:8])[0]
                key, flags, duration = struct.unpack("!BBH", packet[12:16])
                events.append((stamp, key, flags >> 7, duration))
        await sending
    assert len({stamp for stamp, *_ in events}) == 1
    assert [key for _, key, _, _ in events] == [1] * 8
    assert [end for _, _, end, _ in events] == [0] * 5 + [1] * 3
    assert [duration for *_, duration in events] == [160, 320, 480, 640, 800, 800, 800, 800]


def test_mu_law_comes_back() -> None:
    codes = bytes(range(256))
    assert np.array_equal(from_ulaw(to_ulaw(from_ulaw(codes))), from_ulaw(codes))


def test_silence_instead_of_speech_scores_nothing_and_half_the_level_is_seen() -> None:
    random = np.random.default_rng(1)
    loud = np.arange(40000) // 4000 % 2
    sent = (random.normal(0, 2000, 40000) * loud).astype(np.int16)
    nothing = judge(sent, np.zeros(48000, np.int16))
    assert (nothing.pesq, nothing.level_db) == (1.0, -math.inf)
    half = judge(sent, np.concatenate([np.zeros(800, np.int16), sent // 2]))
    assert half.level_db == pytest.approx(-6, abs=0.1)
    assert half.delay_ms == 100
