"""The short commands: they look or change one thing, print for people, and end."""

import sys
from pathlib import Path

from ivr.load import DialplanError, load_dialplans
from ivr.problems import nearest
from ivr.simulate import simulate as walk_line
from ivr.simulate import simulate_flow
from pbx.app import control, plans
from pbx.app.places import control_socket, database_url, run_dir, utc_now
from pbx.app.story import notes_of
from pbx.config import Config
from pbx.edge import rpc
from pbx.edge.phonecard import card
from pbx.store import dead, phones, workers
from pbx.store.db import Database, DatabaseAway
from pbx.store.migrate import MigrationError
from pbx.store.migrate import migrate as apply_migrations


def say(text: str = "") -> None:
    """One line for people."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> int:
    """One line about what is wrong; the exit code that goes with it."""
    sys.stderr.write(f"{text}\n")
    return 1


def check(folder: Path) -> int:
    """Print every fault and warning of a dialplans folder; 1 when there is a fault."""
    problems = plans.check(folder, utc_now())
    for problem in problems:
        say(str(problem))
    faults = sum(not problem.warning for problem in problems)
    if faults:
        return complain(
            f"{faults} fault{'s' if faults != 1 else ''}; the live dialplans would stay as they are."
        )
    say(f"{folder}: all well." if not problems else f"{folder}: usable.")
    return 0


def simulate(folder: Path, name: str, keys: str, language: str | None) -> int:
    """Print the transcript of a call that presses `keys` (comma-separated) in a flow or on a line."""
    try:
        dialplans = load_dialplans(folder)
    except DialplanError as error:
        return complain("\n".join(str(problem) for problem in error.problems))
    pressed = [key.strip() for key in keys.split(",") if key.strip()]
    if name in dialplans.lines:
        transcript = walk_line(dialplans, name, pressed, language)
    elif name in dialplans.flows:
        transcript = simulate_flow(dialplans, name, pressed, language)
    else:
        known = [*dialplans.lines, *dialplans.flows]
        return complain(f'There is no line or flow "{name}".{nearest(name, known)}')
    for line in transcript:
        say(line)
    return 0


def prompts(folder: Path, cache: Path) -> int:
    """Render what is missing, with a progress line; 1 when a prompt cannot be made."""

    def progress(done: int, of: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\rrendering prompts: {done} of {of}{chr(10) if done == of else ''}")
            sys.stderr.flush()
        elif done == of or done % max(1, of // 5) == 0:
            sys.stderr.write(f"rendering prompts: {done} of {of}\n")

    try:
        plans.render(folder, cache, progress=progress)
    except plans.PlansError as error:
        return complain(str(error))
    say(f"{cache}: every prompt is there.")
    return 0


async def migrate(config: Config) -> int:
    """Apply missing migrations to the database."""
    async with Database(database_url(config), max_size=1) as database:
        try:
            applied = await apply_migrations(database, utc_now())
        except MigrationError as error:
            return complain(str(error))
    say("\n".join(applied) if applied else "The database is at this version's schema.")
    return 0


async def user(config: Config, action: str, name: str, display: str) -> int:
    """One change or look at phone accounts."""
    if action != "list" and not name:
        return complain(f"Name the account: careline user {action} NAME")
    try:
        async with Database(database_url(config), max_size=1) as database:
            match action:
                case "add":
                    made = await phones.add(
                        database, name, display=display, realm=config.site.realm, at=utc_now()
                    )
                    _say_account(config, made)
                case "password":
                    _say_account(config, await phones.renew_password(database, name, realm=config.site.realm))
                case "list":
                    await _say_accounts(database)
                case "remove":
                    await phones.remove(database, name)
                    await _forget(config, name)
                    say(f"{name} is removed.")
                case _:
                    enabled = action == "enable"
                    await phones.set_enabled(database, name, enabled)
                    if not enabled:
                        await _forget(config, name)
                    say(f"{name} is switched {'on' if enabled else 'off'}.")
    except phones.PhoneError as error:
        return complain(str(error))
    except (DatabaseAway, OSError) as error:
        return complain(f"{error} Is careline running here?")
    return 0


async def _say_accounts(database: Database) -> None:
    contacts = await phones.contacts(database, utc_now())
    for account in await phones.accounts(database):
        online = [
            f"{c.transport} from {c.source} ({c.user_agent})"
            for c in contacts
            if c.username == account.username
        ]
        state = "" if account.enabled else "  (switched off)"
        say(f"{account.username:<12} {account.display:<24} {'; '.join(online) or 'not registered'}{state}")


async def _forget(config: Config, name: str) -> None:
    """Drop what the registrar knows of an account; when the edge is not up there is nothing to drop."""
    try:
        await rpc.forget_account(run_dir(config, "kamailio"), name)
    except rpc.RpcError:
        say("The edge is not running here; registrations of this account end within the hour.")


def _say_account(config: Config, made: phones.NewPhone) -> None:
    say(card(config, made.account.username, made.password))


async def status(config: Config) -> int:
    """What runs, as far as it answers; 1 when something does not."""
    well = True
    try:
        async with Database(database_url(config), max_size=1) as database:
            await database.wait(2.0)
            registered = await workers.everyone(database)
        say(f"postgresql   up, {len(registered)} worker{'s' if len(registered) != 1 else ''} registered")
    except (DatabaseAway, OSError) as error:
        say(f"postgresql   {error}")
        well = False
    try:
        for worker in await rpc.workers(run_dir(config, "kamailio")):
            say(f"edge         {worker.uri} is {worker.state}")
    except rpc.RpcError as error:
        say(f"edge         {error}")
        well = False
    for number in range(1, config.workers.count + 1):
        try:
            found = await control.ask(control_socket(config, number), "status")
        except (OSError, TimeoutError):
            say(f"worker {number}     does not answer")
            well = False
            continue
        waiting = found["journal"]["waiting"]
        draining = ", draining" if found["draining"] else ""
        say(f"worker {number}     {found['calls']} calls, {waiting} records waiting{draining}")
    aside = dead.count(config.state_dir / "spool")
    if aside:
        say(f"records      {aside} refused by the database; the log says why (action record_set_aside).")
        say("             Mend that, then run: careline retry-records")
        well = False
    return 0 if well else 1


async def retry_records(config: Config) -> int:
    """Give records that the database had refused another chance."""
    hook = notes_of([connector.name for connector in config.emr.connectors], utc_now)
    try:
        async with Database(database_url(config), max_size=1) as database:
            found = await dead.retry(database, config.state_dir / "spool", hook)
    except (DatabaseAway, OSError) as error:
        return complain(str(error))
    say(f"{found.stored} records stored, {found.still_refused} refused again.")
    return 1 if found.still_refused else 0
