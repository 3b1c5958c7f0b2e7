"""A bare RTP end (RFC 3550) for the raw SIP peer: sends PCMU, keys or garbage, keeps what arrives."""

import asyncio
import random
import struct
import time
from dataclasses import dataclass
from typing import Self

from tests.peers import tones
from tests.peers.waiting import Missed, own_address

PACKET_MS = 20
KEYS = "0123456789*#ABCD"  # RFC 4733 3.2, by event number


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One received RTP packet."""

    t: float  # monotonic seconds of its arrival
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    source: tuple[str, int]


class Rtp(asyncio.DatagramProtocol):
    """One UDP port. Use `async with Rtp.start() as rtp`."""

    def __init__(self, bind: str) -> None:
        self.bind, self.port = bind, 0
        self.packets: list[Packet] = []
        self.malformed = 0  # datagrams that are no RTP version 2
        self._transport: asyncio.DatagramTransport | None = None
        self._sequence, self._timestamp, self._ssrc = 1000, 8000, random.getrandbits(32)

    @classmethod
    def start(cls, bind: str = "") -> "Rtp":
        """An end on a free port of that address; it opens on `async with`."""
        return cls(bind or own_address())

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self.bind, 0))
        self.port = int(self._transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Keeps a packet."""
        if len(data) < 12 or data[0] >> 6 != 2:
            self.malformed += 1
            return
        first, second, sequence, timestamp, ssrc = struct.unpack("!BBHII", data[:12])
        self.packets.append(
            Packet(
                t=time.monotonic(), payload_type=second & 0x7F, marker=bool(second & 0x80), sequence=sequence,
                timestamp=timestamp, ssrc=ssrc, payload=data[12 + 4 * (first & 0x0F) :], source=addr,
            )
        )  # fmt: skip

    def send_raw(self, datagram: bytes, to: tuple[str, int]) -> None:
        """Any bytes."""
        assert self._transport is not None
        self._transport.sendto(datagram, to)

    def send_packet(
        self,
        payload: bytes,
        to: tuple[str, int],
        *,
        payload_type: int = 0,
        marker: bool = False,
        step: int = 160,
    ) -> None:
        """The next packet of the stream; `step` moves the timestamp on afterwards."""
        second = payload_type | (0x80 if marker else 0)
        header = struct.pack("!BBHII", 0x80, second, self._sequence, self._timestamp, self._ssrc)
        self.send_raw(header + payload, to)
        self._sequence = (self._sequence + 1) % 65536
        self._timestamp = (self._timestamp + step) % 2**32

    async def send_audio(self, audio: tones.Audio, to: tuple[str, int], *, lose_every: int = 0) -> int:
        """PCMU in real time, 20 ms a packet; every `lose_every`-th packet is left out. Packets sent."""
        raw, sent = tones.to_ulaw(audio), 0
        due = asyncio.get_running_loop().time()
        for number, at in enumerate(range(0, len(raw) - 159, 160), start=1):
            if lose_every and number % lose_every == 0:
                self._sequence, self._timestamp = (
                    (self._sequence + 1) % 65536,
                    (self._timestamp + 160) % 2**32,
                )
            else:
                self.send_packet(raw[at : at + 160], to)
                sent += 1
            due += PACKET_MS / 1000
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        return sent

    async def send_key(
        self, key: str, to: tuple[str, int], *, payload_type: int = 101, repeat_end: int = 3
    ) -> None:
        """One RFC 4733 event of 100 ms; its end is sent `repeat_end` times (2.5.1.4), 0 loses the end."""
        event = KEYS.index(key)
        for number in range(1, 6):
            body = struct.pack("!BBH", event, 10, 160 * number)
            self.send_packet(body, to, payload_type=payload_type, marker=number == 1, step=0)
            await asyncio.sleep(PACKET_MS / 1000)
        for _ in range(repeat_end):
            self.send_packet(
                struct.pack("!BBH", event, 0x80 | 10, 800), to, payload_type=payload_type, step=0
            )
        self._timestamp += 800

    async def garbage(self, to: tuple[str, int], *, packets: int, per_s: int = 500, seed: int = 1) -> None:
        """Random datagrams, half of them with a valid RTP first byte, some longer than an Ethernet frame."""
        chance = random.Random(seed)
        for number in range(packets):
            body = bytearray(chance.randbytes(chance.choice((0, 1, 11, 12, 13, 60, 172, 1400, 4000))))
            if body and number % 2:
                body[0] = chance.choice((0x80, 0x8F, 0x90, 0xA0, 0xBF))
            self.send_raw(bytes(body), to)
            if number % 10 == 9:
                await asyncio.sleep(10 / per_s)

    def audio(self) -> tones.Audio:
        """The received PCMU packets one after the other, gaps closed."""
        return tones.from_ulaw(b"".join(p.payload for p in self.packets if p.payload_type == 0))

    async def hears(self, hz: float, within_s: float, *, for_ms: int = 200) -> tones.Heard:
        """A run of the tone in what arrives from now on. Raises Missed."""
        loop = asyncio.get_running_loop()
        deadline, start = loop.time() + within_s, len(self.audio())
        while True:
            found = tones.heard(self.audio()[start:], hz)
            if found.longest_ms >= for_ms:
                return found
            if loop.time() > deadline:
                spans = [(span.kind, span.hz) for span in tones.spans(self.audio()[start:])]
                got = f"{len(self.packets)} packets, {spans}"
                raise Missed(f"{self.bind}:{self.port} did not hear {hz:g} Hz within {within_s} s: {got}")
            await asyncio.sleep(0.05)
