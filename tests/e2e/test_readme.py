"""README's chapter "Run it for a clinic", executed: its careline.toml, commands, reload and stop."""

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.systemrig import PROMPTS
from tests.integration.pgrig import free_port
from tests.peers.phones import Phone, own_address

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
CARELINE = Path(sys.executable).parent / "careline"


def chapter() -> str:
    """The text of the chapter."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("## Run it for a clinic", 1)[1].split("\n## ", 1)[0]


def blocks(kind: str) -> list[str]:
    """Its code blocks of one language."""
    return re.findall(rf"```{kind}\n(.*?)```", chapter(), re.DOTALL)


def commands() -> list[str]:
    """Its `careline` commands, without comments."""
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def clinic() -> Iterator[Path]:
    """A folder with README's careline.toml, its addresses and folders replaced by ones of this test."""
    folder = Path(tempfile.mkdtemp(prefix="cl-"))
    folder.chmod(0o755)
    shutil.copytree(ROOT / "dialplans", folder / "dialplans")
    (folder / "emr.token").write_text("a token", encoding="utf-8")
    (toml,) = blocks("toml")
    for old, new in (
        ('"/var/lib/careline"', f'"{folder}/state"'),
        ('"/var/cache/careline/prompts"', f'"{PROMPTS}"'),
        ('"192.0.2.10"         # address', f'"{own_address()}"\nng_port = {free_port()}  # address'),
        ('"sip.carrier.example"', f'"{own_address()}"'),
        ('"198.51.100.0/24"', '"127.88.0.0/16"'),
        ("https://emr.example/fhir/R4", "http://127.0.0.1:9/fhir/R4"),
        ("/etc/careline/emr.token", f"{folder}/emr.token"),
    ):
        assert old in toml, f"README's careline.toml has no {old}"
        toml = toml.replace(old, new)
    toml += f'\n[database]\nport = {free_port()}\n[workers]\naddress = "{own_address()}"\ndrain_s = 1\n'
    (folder / "careline.toml").write_text(toml, encoding="utf-8")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def run(clinic: Path, command: str) -> tuple[int, str]:
    """One command of README, in the clinic's folder."""
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/careline"
    process = await asyncio.create_subprocess_exec(
        CARELINE, *arguments, cwd=clinic, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


class Up:
    """`careline up` as a person starts it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def read(self) -> None:
        """Collect its log until it ends; every line must be JSON."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))

    async def says(self, within_s: float, **fields: object) -> dict[str, Any]:
        """A log line with these fields."""
        async with asyncio.timeout(within_s):
            while True:
                for line in self.lines:
                    if all(line.get(key) == value for key, value in fields.items()):
                        return line
                await asyncio.sleep(0.05)


@asynccontextmanager
async def up(clinic: Path) -> AsyncIterator[Up]:
    """Start it, and end it whatever happens."""
    process = await asyncio.create_subprocess_exec(
        CARELINE, "up", cwd=clinic, stderr=subprocess.PIPE, start_new_session=True, limit=1 << 22
    )
    running = Up(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        await reading


async def test_the_chapter(clinic: Path, tmp_path: Path) -> None:
    said = commands()
    assert said.pop(1) == ".venv/bin/careline up"
    assert len(said) == 6
    async with up(clinic) as running:
        await running.says(60, msg="the hotline is up")
        results = {command: await run(clinic, command) for command in said}
        assert {code for code, _ in results.values()} == {0}, results
        card = results['.venv/bin/careline user add 1001 --display "Dr. Reyes"'][1]
        password = re.search(r"Password +(\S+)", card)
        assert password, card
        assert "postgresql   up, 1 worker registered" in results[".venv/bin/careline status"][1]
        assert "nine, one, one" in results[".venv/bin/careline simulate hotline --keys 1,2"][1]
        async with AsyncExitStack() as stack:
            phone = await stack.enter_async_context(Phone.start(folder=tmp_path))
            edge = re.search(r"Server, registrar +(\S+)", card)
            assert edge
            await phone.register("1001", password[1], f"{edge[1]}:5060", realm="careline")
            assert "udp from" in (await run(clinic, ".venv/bin/careline user list"))[1]
            call = await phone.dial(f"sip:700@{edge[1]}")
            await call.answered(5)
            await call.hears_sound(5)
            await call.hangup()
            await tells_nobody_who_called(running, stack, tmp_path, f"{edge[1]}:5060")
        await refuses_a_broken_reload(clinic, running)
        await stops_cleanly(running)


async def tells_nobody_who_called(running: Up, stack: AsyncExitStack, folder: Path, edge: str) -> None:
    """A patient's number and keys are nowhere in the log of any part, at the level README runs it."""
    patient = await stack.enter_async_context(
        Phone.start(folder=folder, name="patient", bind="127.88.7.7", display="Pat Q Example")
    )
    call = await patient.dial(f"sip:+13125550100@{edge}", from_uri="sip:+12025550177@127.88.7.7")
    await call.answered(5)
    await asyncio.sleep(9)
    await call.press("16")
    await asyncio.sleep(1)
    await call.hangup()
    await asyncio.sleep(1)
    log = "\n".join(json.dumps(line) for line in running.lines)
    assert len(running.lines) > 20
    for secret in ("2025550177", "Pat Q Example", "127.88.7.7"):
        assert secret not in log, [line for line in running.lines if secret in json.dumps(line)]


async def refuses_a_broken_reload(clinic: Path, running: Up) -> None:
    """SIGHUP with a fault in a file: named in the log, and calls are taken as before."""
    flow = clinic / "dialplans" / "after_hours.toml"
    good = flow.read_text(encoding="utf-8")
    flow.write_text(good.replace('next = "welcome"', 'next = "welcom"'), encoding="utf-8")
    running.process.send_signal(signal.SIGHUP)
    refused = await running.says(20, msg="reload refused")
    assert (
        'after_hours.toml: node.emergency.next: There is no node "welcom" in this flow.' in refused["problem"]
    )
    flow.write_text(good, encoding="utf-8")
    running.process.send_signal(signal.SIGHUP)
    await running.says(20, msg="dialplans reloaded")


async def stops_cleanly(running: Up) -> None:
    """SIGTERM: exit code 0, and no process of it is left."""
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert len(children) > 5
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.process.wait(), 30) == 0
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive, alive
    assert len(gone) == len(children)


@pytest.mark.parametrize("command", ["up", "check", "user list"])
async def test_a_wrong_key_is_named_with_the_nearest_one(clinic: Path, command: str) -> None:
    toml = clinic / "careline.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace("time_zone", "time_zome"), encoding="utf-8")
    code, output = await run(clinic, f".venv/bin/careline {command}")
    assert code == 1
    assert output == 'careline.toml: site.time_zome: Unknown key "time_zome". Did you mean "time_zone"?\n'
