"""Phone accounts and where they are registered. A password is shown once, when made; only its HA1 is kept."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pbx.store.db import Database
from pbx.store.sql import queries

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no l, i, o, 0, 1: it is typed on desk phones
_LENGTH = 16  # 31^16: 79 bits


class PhoneError(Exception):
    """An account cannot be made, changed or found; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class PhoneAccount:
    """One account of the registrar, without its secret."""

    username: str  # user part of its SIP address
    display: str  # name shown to staff; may be empty
    realm: str  # the HA1 holds for this realm alone
    enabled: bool
    made_at: datetime  # UTC


@dataclass(frozen=True, kw_only=True)
class NewPhone:
    """A made account and its password, which is kept nowhere."""

    account: PhoneAccount
    password: str


@dataclass(frozen=True, kw_only=True)
class PhoneContact:
    """One phone registered for an account."""

    username: str
    transport: str  # "udp", "tcp", "tls", "ws", "wss"
    source: str  # "address:port" it registered from
    user_agent: str  # what the phone calls itself
    expires_at: datetime  # UTC


def ha1(username: str, realm: str, password: str, algorithm: str) -> str:
    """Digest's H(username:realm:password) in hexadecimal: RFC 2617 3.2.2.2 (md5) and RFC 8760 (sha-256)."""
    text = f"{username}:{realm}:{password}".encode()
    if algorithm == "md5":
        return hashlib.md5(text, usedforsecurity=False).hexdigest()  # the protocol's choice, not ours
    if algorithm == "sha-256":
        return hashlib.sha256(text).hexdigest()
    raise ValueError(f'"{algorithm}" is not a digest algorithm; use "md5" or "sha-256".')


def new_password() -> str:
    """A random password that can be typed on a phone's keypad display: 16 of 31 letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


async def add(
    database: Database,
    username: str,
    *,
    display: str = "",
    realm: str,
    at: datetime,
    password: str | None = None,
) -> NewPhone:
    """Make an account. `at` is aware UTC; without `password` one is made. Raises PhoneError."""
    if not _NAME.fullmatch(username):
        raise PhoneError(
            "The user name of a phone has 1 to 32 letters, digits, dots, dashes and underscores, and starts "
            "with a letter or digit."
        )
    chosen = new_password() if password is None else password
    if len(chosen) < 8:
        raise PhoneError("The password of a phone needs at least 8 characters; leave it out to get one made.")
    row = await database.fetchrow(
        queries("phones")["add"],
        username,
        display,
        ha1(username, realm, chosen, "md5"),
        ha1(username, realm, chosen, "sha-256"),
        realm,
        at,
    )
    if row is None:
        raise PhoneError("There is a phone account with this user name already; choose another or remove it.")
    return NewPhone(account=_account(row), password=chosen)


async def renew_password(database: Database, username: str, *, realm: str) -> NewPhone:
    """Give an account a new password. Raises PhoneError when there is none of that name."""
    chosen = new_password()
    row = await database.fetchrow(
        queries("phones")["set_password"],
        username,
        ha1(username, realm, chosen, "md5"),
        ha1(username, realm, chosen, "sha-256"),
        realm,
    )
    if row is None:
        raise _unknown()
    return NewPhone(account=_account(row), password=chosen)


async def set_enabled(database: Database, username: str, enabled: bool) -> None:
    """Switch an account off (no more REGISTER or calls) or on. Raises PhoneError when there is none.

    Contacts it has registered stay until they expire; `pbx.edge.rpc.forget_account` drops them at once.
    """
    if await database.fetchval(queries("phones")["set_enabled"], username, enabled) is None:
        raise _unknown()


async def remove(database: Database, username: str) -> None:
    """Delete an account. Raises PhoneError when there is none of that name. Contacts: see `set_enabled`."""
    if await database.fetchval(queries("phones")["remove"], username) is None:
        raise _unknown()


async def accounts(database: Database) -> list[PhoneAccount]:
    """All accounts, by name."""
    return [_account(row) for row in await database.fetch(queries("phones")["all_accounts"])]


async def find(database: Database, username: str) -> PhoneAccount | None:
    """The account of that name, or None."""
    row = await database.fetchrow(queries("phones")["one_account"], username)
    return None if row is None else _account(row)


async def contacts(database: Database, at: datetime, username: str | None = None) -> list[PhoneContact]:
    """Phones registered at `at` (aware UTC), of one account or of all."""
    rows = await database.fetch(queries("phones")["contacts"], int(at.timestamp()), username)
    return [_contact(row) for row in rows]


async def set_edge_password(database: Database, password: str) -> None:
    """Let Kamailio's role log in with `password`, on a server that is not our own child."""
    statement = await database.fetchval(queries("phones")["set_edge_password"], password)
    await database.execute(str(statement))


def _unknown() -> PhoneError:
    return PhoneError("There is no phone account with this user name; `careline user list` shows them.")


def _account(row: Mapping[str, Any]) -> PhoneAccount:
    return PhoneAccount(
        username=row["username"],
        display=row["display"],
        realm=row["realm"],
        enabled=row["enabled"],
        made_at=row["made_at"],
    )


def _contact(row: Mapping[str, Any]) -> PhoneContact:
    where = str(row["received"] or row["contact"])
    found = re.match(r"sips?:(?:[^@]*@)?(\[[^\]]+\]|[^:;]+)(?::(\d+))?", where)
    named = re.search(r";transport=(\w+)", where)
    transport = named[1].lower() if named else str(row["socket"] or "udp").split(":", 1)[0]
    # Kamailio says "ws" for both; the listener's protocol tells whether TLS is under it.
    if transport == "ws" and str(row["socket"]).startswith("tls:"):
        transport = "wss"
    return PhoneContact(
        username=row["username"],
        transport=transport,
        source=f"{found[1]}:{found[2] or 5060}" if found else "",
        user_agent=row["user_agent"],
        expires_at=datetime.fromtimestamp(row["expires"], UTC),
    )
