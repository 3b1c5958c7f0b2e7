"""Kamailio's control: JSON-RPC 2.0 over its datagram unix socket in the run directory.

Nothing here is reachable from a network. The commands are those an operator needs: which workers take calls,
drain one, put it back, forget the contacts of a removed account, lift a ban.
"""

import asyncio
import contextlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORKERS = 1  # dispatcher set


class RpcError(Exception):
    """Kamailio did not answer in time or refused the command; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One worker as the dispatcher sees it."""

    uri: str  # sip:address:port
    state: str  # "active", "inactive" (silent or draining by itself), "trying", "disabled" (drained by us)
    probed: bool  # OPTIONS are sent to it


async def call(run_dir: Path, method: str, *params: object, within_s: float = 2.0) -> Any:
    """One command and its result (decoded JSON). Raises RpcError.

    Kamailio sends the answer to a socket of ours, so it must be able to write to it: both are in its folder.
    """
    loop = asyncio.get_running_loop()
    own = run_dir / f"ask-{secrets.token_hex(4)}.sock"
    number = secrets.randbelow(1 << 30)
    request = {"jsonrpc": "2.0", "method": method, "params": list(params), "id": number}
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        asking.setblocking(False)
        asking.bind(str(own))
        os.chmod(own, 0o666)  # noqa: S103 - inside a folder of 0700
        asking.connect(str(run_dir / "rpc.sock"))
        async with asyncio.timeout(within_s):
            await loop.sock_sendall(asking, json.dumps(request).encode())
            while True:
                answer = json.loads(await loop.sock_recv(asking, 1 << 18))
                if answer.get("id") == number:
                    break
    except TimeoutError as error:
        raise RpcError(f"Kamailio did not answer {method} within {within_s} s; is it running?") from error
    except OSError as error:
        raise RpcError(f"Kamailio cannot be asked {method} ({error.strerror}); is it running?") from error
    except ValueError as error:
        raise RpcError(f"Kamailio's answer to {method} is not JSON.") from error
    finally:
        asking.close()
        with contextlib.suppress(FileNotFoundError):
            own.unlink()
    if "error" in answer:
        reason = (
            answer["error"].get("message", "no reason given") if isinstance(answer["error"], dict) else ""
        )
        raise RpcError(f"Kamailio refused {method}: {reason}.")
    return answer.get("result")


async def workers(run_dir: Path) -> list[Destination]:
    """The workers and whether they take new calls. Raises RpcError."""
    found = await call(run_dir, "dispatcher.list")
    states = {"A": "active", "I": "inactive", "T": "trying", "D": "disabled"}
    listed = []
    for entry in found.get("RECORDS", []):
        group: Mapping[str, Any] = entry["SET"]
        if group["ID"] != _WORKERS:
            continue
        for target in group["TARGETS"]:
            destination = target["DEST"]
            flags = str(destination["FLAGS"])
            listed.append(
                Destination(
                    uri=destination["URI"], state=states.get(flags[:1], flags), probed=flags[1:] == "P"
                )
            )
    return sorted(listed, key=lambda destination: destination.uri)


async def drain(run_dir: Path, uri: str) -> None:
    """No new calls for the worker at `uri`; those it has go on. Raises RpcError.

    Lost when Kamailio restarts: a worker that drains also answers OPTIONS and INVITE with 503, which is
    noticed within two seconds.
    """
    await call(run_dir, "htable.sets", "drained", uri, "1")
    await call(run_dir, "dispatcher.set_state", "dp", _WORKERS, uri)


async def undrain(run_dir: Path, uri: str) -> None:
    """The worker at `uri` takes new calls again. Raises RpcError."""
    await call(run_dir, "htable.delete", "drained", uri)
    await call(run_dir, "dispatcher.set_state", "ap", _WORKERS, uri)


async def reload(run_dir: Path) -> None:
    """Read destinations and trunk addresses again, after `kamailio.write_files`. Raises RpcError."""
    await call(run_dir, "dispatcher.reload")
    await call(run_dir, "permissions.addressReload")


async def forget_account(run_dir: Path, username: str) -> None:
    """Drop all contacts of an account, as when it was disabled or removed. Raises RpcError."""
    try:
        await call(run_dir, "ul.rm", "location", username)
    except RpcError as error:
        if "not found" not in str(error).lower():
            raise


async def banned(run_dir: Path) -> list[str]:
    """Addresses that are banned now. Raises RpcError."""
    found = await call(run_dir, "htable.dump", "banned")
    return sorted(slot["name"] for entry in found or [] for slot in entry.get("slot", []))


async def unban(run_dir: Path, address: str) -> None:
    """Lift the ban of one address. Raises RpcError."""
    await call(run_dir, "htable.delete", "banned", address)
