"""The command line: `careline COMMAND`. Says what is wrong in plain sentences, never with a traceback."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pbx.config import Config, ConfigError, load

DEFAULT_CONFIG = "careline.toml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 well, 1 it says what is wrong, 2 wrong arguments."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="careline", description="A telephone server for medical hotlines.")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("CARELINE_CONFIG", DEFAULT_CONFIG)),
        help=f"configuration file (default: $CARELINE_CONFIG or {DEFAULT_CONFIG})",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        return command

    add("up", _up, "start everything on this machine and keep it running")
    worker = add("worker", _worker, "run one call-handling process (careline up does this)")
    worker.add_argument("--number", type=int, default=1, help="which worker of this machine (from 1)")
    add("courier", _courier, "deliver notes to the EMR (careline up does this)")
    add("status", _status, "show what runs and what the workers do")
    add("migrate", _migrate, "bring the database to this version's schema (careline up does this)")
    add("retry-records", _retry, "store call records that the database had refused, once the cause is mended")
    user = add("user", _user, "phone accounts: add, list, renew a password, switch off or on, remove")
    user.add_argument("action", choices=["add", "list", "password", "disable", "enable", "remove"])
    user.add_argument("name", nargs="?", default="", help="user name, such as 1001")
    user.add_argument("--display", default="", help="name shown to staff")
    check = add("check", _check, "check configuration, dialplans and rosters; every fault at once")
    check.add_argument(
        "folder", nargs="?", type=Path, help="folder of dialplans instead of the configured one"
    )
    simulate = add("simulate", _simulate, "walk a flow in text: what a caller hears and where they end")
    simulate.add_argument("flow", help="name of a flow or of a line")
    simulate.add_argument("--keys", default="", help='keys in order, such as "1,2"; "-" is silence')
    simulate.add_argument("--lang", default=None, help="language instead of the line's")
    prompts = add("prompts", _prompts, "render every prompt ahead, with progress")
    prompts.add_argument("--dialplans", type=Path, help="folder of dialplans instead of the configured one")
    prompts.add_argument("--cache", type=Path, help="folder for the audio instead of the configured one")
    demo = add("demo", _demo, "start a whole hotline with simulated phones and place one call")
    demo.add_argument("--once", action="store_true", help="one call, then stop")
    demo.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    demo.add_argument("--keep", type=Path, help="folder to work in and keep (default: a temporary one)")
    return parser


def _config(arguments: argparse.Namespace) -> Config:
    return load(arguments.config)


def _up(arguments: argparse.Namespace) -> int:
    from pbx.app import up

    return up.main(_config(arguments), arguments.config)


def _worker(arguments: argparse.Namespace) -> int:
    from pbx.app import worker

    return worker.main(_config(arguments), arguments.number)


def _courier(arguments: argparse.Namespace) -> int:
    from pbx.app import courier

    return courier.main(_config(arguments))


def _status(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    return asyncio.run(commands.status(_config(arguments)))


def _migrate(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    return asyncio.run(commands.migrate(_config(arguments)))


def _retry(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    return asyncio.run(commands.retry_records(_config(arguments)))


def _user(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    return asyncio.run(commands.user(_config(arguments), arguments.action, arguments.name, arguments.display))


def _check(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    config = None if arguments.folder is not None else _config(arguments)
    folder = arguments.folder if config is None else config.dialplans
    return commands.check(folder)


def _simulate(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    folder = _config(arguments).dialplans if arguments.config.exists() else Path("dialplans")
    return commands.simulate(folder, arguments.flow, arguments.keys, arguments.lang)


def _prompts(arguments: argparse.Namespace) -> int:
    from pbx.app import commands

    folder, cache = arguments.dialplans, arguments.cache
    if folder is None or cache is None:
        config = _config(arguments)
        folder, cache = folder or config.dialplans, cache or config.prompts_cache
    return commands.prompts(folder, cache)


def _demo(arguments: argparse.Namespace) -> int:
    from pbx import demo

    return demo.main(once=arguments.once, as_json=arguments.json, keep=arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
