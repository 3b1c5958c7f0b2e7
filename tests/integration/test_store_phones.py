"""Phone accounts: what is stored, what is not, and what Kamailio's role may see."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from pbx.store import phones
from pbx.store.db import Database
from tests.integration.pgrig import RunningPostgres

pytestmark = pytest.mark.integration

NOW = datetime(2031, 3, 4, 5, 6, 7, tzinfo=UTC)


async def test_an_account_from_making_to_removal(database: Database) -> None:
    made = await phones.add(database, "1001", display="Desk", realm="clinic", at=NOW)
    other = await phones.add(database, "1002", realm="clinic", at=NOW)
    assert len(made.password) == 16
    assert made.password != other.password
    assert made.account == phones.PhoneAccount(
        username="1001", display="Desk", realm="clinic", enabled=True, made_at=NOW
    )
    assert await phones.accounts(database) == [made.account, other.account]
    stored = dict(await database.fetchrow("SELECT * FROM phone_account WHERE username = '1001'"))
    assert made.password not in str(stored)
    assert stored["ha1_md5"] == phones.ha1("1001", "clinic", made.password, "md5")
    assert stored["ha1_sha256"] == phones.ha1("1001", "clinic", made.password, "sha-256")

    again = await phones.renew_password(database, "1001", realm="clinic")
    assert again.password != made.password
    await phones.set_enabled(database, "1001", False)
    assert await database.fetch("SELECT username FROM edge.sip_auth WHERE username = '1001'") == []
    await phones.set_enabled(database, "1001", True)
    await phones.remove(database, "1001")
    assert await phones.find(database, "1001") is None
    for change in (
        phones.set_enabled(database, "1001", True),
        phones.remove(database, "1001"),
        phones.renew_password(database, "1001", realm="clinic"),
    ):
        with pytest.raises(phones.PhoneError, match="no phone account"):
            await change


async def test_names_and_passwords_that_are_refused(database: Database) -> None:
    await phones.add(database, "1001", realm="clinic", at=NOW)
    with pytest.raises(phones.PhoneError, match="already"):
        await phones.add(database, "1001", realm="clinic", at=NOW)
    for name in ("", "+15550100", "a b", "x" * 33, "a@b", "a:b", "-a"):
        with pytest.raises(phones.PhoneError, match="user name of a phone"):
            await phones.add(database, name, realm="clinic", at=NOW)
    with pytest.raises(phones.PhoneError, match="at least 8"):
        await phones.add(database, "1002", realm="clinic", at=NOW, password="short")
    with pytest.raises(ValueError, match="not a digest algorithm"):
        phones.ha1("a", "b", "c", "sha1")


async def test_digest_values_of_the_standards() -> None:
    """RFC 2617 3.5 and RFC 8760's algorithm over the same text."""
    assert (
        phones.ha1("Mufasa", "testrealm@host.com", "Circle Of Life", "md5")
        == "939e7578ed9e3c518a452acee763bce9"
    )
    assert phones.ha1("Mufasa", "http-auth@example.org", "Circle of Life", "sha-256") == (
        "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232"
    )


async def test_contacts(database: Database) -> None:
    soon, gone = NOW + timedelta(seconds=60), NOW - timedelta(seconds=1)
    for number, (contact, received, socket, expires) in enumerate(
        (
            ("sip:1001@10.0.0.5:5062", "sip:192.0.2.9:1024", "udp:198.51.100.1:5060", soon),
            (
                "sip:x@y.invalid;transport=ws",
                "sip:192.0.2.9:1025;transport=ws",
                "tls:198.51.100.1:5443",
                soon,
            ),
            ("sip:1001@10.0.0.6", None, "udp:198.51.100.1:5060", soon),
            ("sip:1001@10.0.0.7", None, "udp:198.51.100.1:5060", gone),
        )
    ):
        await database.execute(
            "INSERT INTO edge.location (ruid, username, contact, received, socket, expires) "
            "VALUES ($1, '1001', $2, $3, $4, $5)",
            str(number), contact, received, socket, int(expires.timestamp()),
        )  # fmt: skip
    found = await phones.contacts(database, NOW, "1001")
    assert sorted((c.transport, c.source) for c in found) == [
        ("udp", "10.0.0.6:5060"),
        ("udp", "192.0.2.9:1024"),
        ("wss", "192.0.2.9:1025"),
    ]
    assert {c.expires_at for c in found} == {soon}
    assert await phones.contacts(database, NOW, "1002") == []


async def test_kamailios_role_sees_the_edge_alone(database: Database, postgres: RunningPostgres) -> None:
    await phones.add(database, "1001", realm="clinic", at=NOW)
    name = await database.fetchval("SELECT current_database()")
    connection = await asyncpg.connect(postgres.server.url("kamailio", name))
    try:
        assert await connection.fetchval("SELECT username FROM edge.sip_auth") == "1001"
        for statement in (
            "SELECT * FROM public.phone_account",
            "SELECT * FROM public.call",
            "UPDATE edge.sip_auth SET username = 'x'",
            "CREATE TABLE edge.mine (x int)",
        ):
            with pytest.raises(
                (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)
            ):
                await connection.execute(statement)
    finally:
        await connection.close()
