"""A process answers questions about itself on a unix socket: one word in, one line of JSON out."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

WITHIN_S = 3.0  # one question and its answer
Answer = Callable[[], Awaitable[Mapping[str, Any]]]


async def serve(path: Path, answers: Mapping[str, Answer]) -> asyncio.Server:
    """Answer on `path`, which only its owner can reach. A left-over socket of a dead process is replaced."""
    _make_room(path)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                word = (await reader.readline()).decode("ascii", "replace").strip()
                answer = answers.get(word)
                found = await answer() if answer else {"error": f"ask one of {', '.join(sorted(answers))}"}
                writer.write(json.dumps(found).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # whoever asked has gone away
        finally:
            writer.close()

    return await asyncio.start_unix_server(one, path)


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)  # the socket itself may be open to all: nobody else can reach it
    path.unlink(missing_ok=True)


async def ask(path: Path, word: str, within_s: float = WITHIN_S) -> Mapping[str, Any]:
    """The answer of the process behind `path`. Raises OSError or TimeoutError when there is none in time."""
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(word.encode("ascii") + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
    if not line:
        raise ConnectionError(f"the process behind {path.name} closed without an answer")
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ConnectionError(f"the process behind {path.name} gave no JSON object")
    return answer


async def is_alive(path: Path) -> bool:
    """Whether the process behind `path` answers: its event loop turns."""
    try:
        await ask(path, "status")
    except (OSError, TimeoutError, ValueError):
        return False
    return True
