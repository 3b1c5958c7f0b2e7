"""Client of rtpengine's NG control protocol: one bencoded dictionary a UDP datagram, with a cookie before it.

Source: rtpengine's documentation, "The NG Control Protocol". Used to see that it lives and what it holds;
the calls themselves are set up by Kamailio.
"""

import asyncio
import secrets
from collections.abc import Mapping

Value = int | str | list["Value"] | dict[str, "Value"]
Address = tuple[str, int]


class NgError(Exception):
    """rtpengine did not answer in time, or refused the command; the message says which."""


def encode(value: object) -> bytes:
    """Bencode (BEP 3): integers, text, lists and dictionaries with text keys. Raises TypeError for others."""
    match value:
        case bool() | int():
            return b"i%de" % int(value)
        case str():
            raw = value.encode()
            return b"%d:%s" % (len(raw), raw)
        case Mapping():
            return b"d" + b"".join(encode(k) + encode(v) for k, v in sorted(value.items())) + b"e"
        case list() | tuple():
            return b"l" + b"".join(map(encode, value)) + b"e"
    raise TypeError(f"{type(value).__name__} cannot be bencoded.")


def decode(raw: bytes) -> Value:
    """The value of a whole bencoded text. Raises ValueError when it is malformed or followed by more."""
    try:
        value, end = _decode(raw, 0)
    except (IndexError, RecursionError) as error:
        raise ValueError("The bencoded text ends too early.") from error
    if end != len(raw):
        raise ValueError(f"The bencoded text has {len(raw) - end} bytes too many.")
    return value


def _decode(raw: bytes, at: int) -> tuple[Value, int]:
    kind = raw[at : at + 1]
    if kind == b"i":
        end = raw.index(b"e", at)
        return int(raw[at + 1 : end]), end + 1
    if kind == b"l":
        items: list[Value] = []
        at += 1
        while raw[at] != ord("e"):
            item, at = _decode(raw, at)
            items.append(item)
        return items, at + 1
    if kind == b"d":
        entries: dict[str, Value] = {}
        at += 1
        while raw[at] != ord("e"):
            key, at = _decode(raw, at)
            if not isinstance(key, str):
                raise ValueError("A bencoded dictionary has a key that is not text.")
            entries[key], at = _decode(raw, at)
        return entries, at + 1
    colon = raw.index(b":", at)
    length = int(raw[at:colon])
    end = colon + 1 + length
    if length < 0 or end > len(raw):
        raise ValueError("A bencoded text is longer than the message.")
    return raw[colon + 1 : end].decode(errors="replace"), end


class _Answer(asyncio.DatagramProtocol):
    def __init__(self, cookie: bytes) -> None:
        self._cookie = cookie
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        cookie, _, body = data.partition(b" ")
        if cookie == self._cookie and not self.answer.done():
            self.answer.set_result(body)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def command(address: Address, name: str, within_s: float = 2.0, **keys: object) -> dict[str, Value]:
    """Send one command (`call_id="x"` becomes "call-id") and return the answer's dictionary.

    Sent again every 0.5 s with the same cookie, which rtpengine answers from its memory. Raises NgError.
    """
    cookie = secrets.token_hex(8).encode()
    body = encode({"command": name, **{key.replace("_", "-"): value for key, value in keys.items()}})
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: _Answer(cookie), remote_addr=address)
    try:
        async with asyncio.timeout(within_s):
            while True:
                transport.sendto(cookie + b" " + body)
                done, _ = await asyncio.wait({protocol.answer}, timeout=0.5)
                if done:
                    break
        answer = decode(protocol.answer.result())
    except TimeoutError as error:
        raise NgError(f"rtpengine did not answer {name} within {within_s} s; is it running?") from error
    except (OSError, ValueError) as error:
        raise NgError(f"rtpengine cannot be asked {name}: {error}; is it running on that port?") from error
    finally:
        transport.close()
    if not isinstance(answer, dict):
        raise NgError(f"rtpengine's answer to {name} is not a dictionary; is another program on that port?")
    if answer.get("result") == "error":
        raise NgError(f"rtpengine refused {name}: {answer.get('error-reason', 'no reason given')}.")
    return answer


async def ping(address: Address, within_s: float = 2.0) -> bool:
    """Whether rtpengine answers with pong. Raises NgError when it does not answer at all."""
    return (await command(address, "ping", within_s)).get("result") == "pong"


async def calls(address: Address, within_s: float = 2.0) -> list[str]:
    """Call-IDs rtpengine holds now, at most 10,000. Raises NgError."""
    held = (await command(address, "list", within_s, limit=10_000)).get("calls", [])
    return [str(call) for call in held] if isinstance(held, list) else []


async def statistics(address: Address, within_s: float = 2.0) -> dict[str, Value]:
    """rtpengine's own counters: "currentstatistics", "totalstatistics", … Raises NgError."""
    found = (await command(address, "statistics", within_s)).get("statistics", {})
    return found if isinstance(found, dict) else {}
