"""The rendered configuration: accepted by Kamailio for every shape of settings, private, injection-proof."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pbx.config import Config
from pbx.edge import certs, kamailio, rtpengine
from pbx.edge.child import ChildCannotStart
from pbx.edge.files import kept_secret, private_folder
from pbx.edge.phonecard import card

pytestmark = pytest.mark.integration

DATABASE = "postgresql://kamailio:se-cr_et@127.0.0.1:5433/careline"


def config(folder: Path, **tables: Any) -> Config:
    """A configuration with a state folder of its own."""
    return Config.model_validate({"state_dir": folder, **tables})


def secret_file(folder: Path, text: str = "pass", mode: int = 0o600) -> Path:
    """A password file."""
    path = folder / "trunk-password"
    path.write_text(text)
    path.chmod(mode)
    return path


SHAPES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "udp only": {"edge": {"tls_port": 0, "wss_port": 0, "ws_port": 0}},
    "everything": {
        "edge": {
            "public_address": "192.0.2.7",
            "internal_address": "127.0.0.2",
            "ws_port": 8080,
            "digest": "sha-256",
            "direct_networks": ["10.0.0.0/8", "127.0.0.0/8"],
            "never_banned": ["192.0.2.0/24"],
            "processes": 1,
        },
        "workers": {"count": 16, "rtp_ports_each": 1000},
        "site": {"realm": "clinic.example"},
        "log_level": "debug",
    },
    "trunks": {
        "trunk": [
            {
                "name": "a",
                "host": "127.0.0.3",
                "addresses": ["127.0.0.3/32", "198.51.100.0/24"],
                "priority": 2,
            },
            {"name": "b-2.x", "host": "trunk.example", "transport": "tcp", "source_port": 5060},
            {"name": "c", "host": "127.0.0.4", "transport": "tls", "username": "u", "password_file": "@"},
            {"name": "d", "host": "127.0.0.5", "username": 'u"$x', "password_file": "@", "register": True},
        ]
    },
    "tls trunk, unchecked": {
        "trunk": [{"name": "c", "host": "127.0.0.4", "transport": "tls"}],
        "edge": {"wss_port": 0, "verify_trunk_certificates": False},
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_kamailio_accepts_it(tmp_path: Path, shape: str) -> None:
    tables = dict(SHAPES[shape])
    tables["trunk"] = [
        {k: (secret_file(tmp_path, 'p"a$s\\s;#:') if v == "@" else v) for k, v in trunk.items()}
        for trunk in tables.get("trunk", [])
    ]
    settings = config(tmp_path, **tables)
    kamailio.child(settings, tmp_path / "run", DATABASE)
    kamailio.write_files(settings, tmp_path / "run", DATABASE)
    checked = subprocess.run(
        ["/usr/sbin/kamailio", "-c", "-E", "-f", tmp_path / "run" / "kamailio.cfg"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr[-2000:]
    for path in (tmp_path / "run").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
    text = (tmp_path / "run" / "kamailio.cfg").read_text()
    assert "{{" not in text
    assert 'p"a$s' not in text, "a password is never plain in the configuration"
    assert len(rtpengine.child(settings, tmp_path / "rtp").argv) > 10


def test_lists_of_destinations_and_addresses(tmp_path: Path) -> None:
    trunks = [
        {"name": "a", "host": "127.0.0.3", "addresses": ["127.0.0.3/32", "198.51.100.0/24"], "priority": 2},
        {"name": "b", "host": "b.example", "port": 5070, "transport": "tcp", "source_port": 5060},
    ]
    settings = config(tmp_path, trunk=trunks, workers={"count": 2}, edge={"direct_networks": ["10.1.0.0/16"]})
    kamailio.write_files(settings, tmp_path / "run", DATABASE)
    assert (tmp_path / "run" / "dispatcher.list").read_text().splitlines() == [
        "1 sip:127.0.0.1:5071 8 0",
        "1 sip:127.0.0.1:5072 8 0",
        "2 sip:127.0.0.3:5060 16 2",
        "2 sip:b.example:5070;transport=tcp 16 0",
    ]
    assert (tmp_path / "run" / "address.list").read_text().splitlines() == [
        "1 127.0.0.3 32 0 a",
        "1 198.51.100.0 24 0 a",
        "3 10.1.0.0 16",
    ]


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"edge": {"direct_networks": ["10.0.0"]}}, 'edge.direct_networks: "10.0.0" is not a network'),
        (
            {"trunk": [{"name": "a", "host": "h", "addresses": ["x"]}]},
            'trunk.a.addresses: "x" is not a network',
        ),
        ({"trunk": [{"name": "a", "host": "h", "username": "u"}]}, "username and password_file go together"),
        ({"trunk": [{"name": "a", "host": "h", "register": True}]}, "register needs username"),
        (
            {"trunk": [{"name": "a", "host": "h", "transport": "tls"}], "edge": {"tls_port": 0}},
            "set edge.tls_port",
        ),
    ],
)
def test_what_cannot_work_is_said_before_the_start(tmp_path: Path, tables: Any, sentence: str) -> None:
    with pytest.raises(ChildCannotStart, match=sentence.replace("(", r"\(")):
        kamailio.child(config(tmp_path, **tables), tmp_path / "run", DATABASE)


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"edge": {"address": "0.0.0.0"}}, "numeric address of one network interface"),
        ({"edge": {"address": "pbx.example"}}, "numeric address of one network interface"),
        ({"edge": {"rtp_first": 30000, "rtp_last": 30010}}, "fewer than 100 media ports"),
    ],
)
def test_what_rtpengine_cannot_use(tmp_path: Path, tables: Any, sentence: str) -> None:
    with pytest.raises(ChildCannotStart, match=sentence):
        rtpengine.child(config(tmp_path, **tables), tmp_path / "run")


def test_names_cannot_break_out_of_the_configuration(tmp_path: Path) -> None:
    for table in (
        {"site": {"realm": 'x"; exit; #'}},
        {"trunk": [{"name": 'a"', "host": "h"}]},
        {"trunk": [{"name": "a", "host": "h;lr>"}]},
    ):
        with pytest.raises(ValidationError):
            config(tmp_path, **table)
    with pytest.raises(ChildCannotStart, match="characters that Kamailio cannot read"):
        kamailio.write_files(
            config(tmp_path), tmp_path / "run", "postgresql://kamailio:a!b@127.0.0.1/careline"
        )


def test_a_password_file_must_be_private(tmp_path: Path) -> None:
    def trunk(path: Path) -> dict[str, Any]:
        return {"name": "a", "host": "127.0.0.3", "username": "u", "password_file": path}

    for path, sentence in (
        (secret_file(tmp_path, "x", 0o644), "can be read by others"),
        (tmp_path / "missing", "cannot be read"),
    ):
        with pytest.raises(ChildCannotStart, match=sentence):
            kamailio.write_files(config(tmp_path, trunk=[trunk(path)]), tmp_path / "run", DATABASE)
    empty = secret_file(tmp_path, "\n")
    with pytest.raises(ChildCannotStart, match="is empty"):
        kamailio.write_files(config(tmp_path, trunk=[trunk(empty)]), tmp_path / "run", DATABASE)


def test_certificate_is_made_once_and_renewed_for_another_address(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    first = certs.pair(None, None, folder, "127.0.0.1", None)
    assert first.self_signed
    assert first == certs.pair(None, None, folder, "127.0.0.1", None)
    assert first != certs.pair(None, None, folder, "pbx.example", None)
    assert (folder / "self-signed.key").stat().st_mode & 0o077 == 0


def test_a_clinics_own_certificate(tmp_path: Path) -> None:
    made = certs.pair(None, None, tmp_path / "one", "127.0.0.1", None)
    other = certs.pair(None, None, tmp_path / "two", "127.0.0.1", None)
    certificate, key, wrong = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "w.pem"
    certificate.write_bytes(made.certificate)
    key.write_bytes(made.key)
    wrong.write_bytes(other.key)
    assert not certs.pair(certificate, key, tmp_path / "x", "127.0.0.1", None).self_signed
    pairs: tuple[tuple[tuple[Path, Path | None], str], ...] = (
        ((certificate, wrong), "does not belong to"),
        ((certificate, None), "go together"),
        ((certificate, tmp_path / "missing"), "cannot be read"),
        ((key, key), "is not a certificate"),
    )
    for (one, two), sentence in pairs:
        with pytest.raises(ChildCannotStart, match=sentence):
            certs.pair(one, two, tmp_path / "x", "127.0.0.1", None)


def test_a_secret_is_kept(tmp_path: Path) -> None:
    private_folder(tmp_path / "private", None)
    path = tmp_path / "private" / "secret"
    assert kept_secret(path, None) == kept_secret(path, None)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_nobody_answers(tmp_path: Path) -> None:
    """The probes say no, within their bounds, when nothing runs."""
    settings = config(tmp_path, edge={"address": "127.0.49.200", "udp_port": 49998, "ng_port": 49997})
    async with asyncio.timeout(8):
        assert not await kamailio.is_alive(settings, tmp_path)
        assert not await kamailio.answers_options("127.0.49.200", 49998, within_s=1.0)
        assert not await rtpengine.is_alive(settings)


def test_the_card_says_all_a_phone_needs(tmp_path: Path) -> None:
    text = card(config(tmp_path, edge={"public_address": "pbx.example"}), "1001", "secret-word")
    for part in (
        "pbx.example",
        "1001",
        "secret-word",
        "5061",
        "SRTP: mandatory",
        "wss://pbx.example:5443/",
        "self-signed",
    ):
        assert part in text
