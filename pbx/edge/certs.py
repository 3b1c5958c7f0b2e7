"""The edge's certificate: the clinic's own, or a self-signed pair made once.

A self-signed pair encrypts but proves nothing: phones must be told to accept it, browsers refuse WSS with it
until the user trusts it. It is renewed when less than a month of its two years is left.
"""

import ipaddress
import subprocess
from dataclasses import dataclass
from pathlib import Path
from pwd import struct_passwd

from pbx.edge.child import ChildCannotStart
from pbx.edge.files import private_file, private_folder

_DAYS = 730
_RENEW_BEFORE_S = 30 * 86400


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate chain and its key, as PEM text."""

    certificate: bytes
    key: bytes
    self_signed: bool  # phones and browsers will not trust it by themselves


def pair(
    certificate: Path | None, key: Path | None, folder: Path, host: str, user: struct_passwd | None
) -> Pair:
    """The configured pair, or the self-signed one in `folder`, made for `host` (name or address) if missing.

    Raises ChildCannotStart when a file is missing or unreadable, or certificate and key are no pair.
    """
    if (certificate is None) != (key is None):
        raise ChildCannotStart("edge.tls_certificate and edge.tls_key go together; set both or neither.")
    if certificate is not None and key is not None:
        found = Pair(certificate=_read(certificate), key=_read(key), self_signed=False)
        _check(found, certificate, key)
        return found
    private_folder(folder, user)
    made, made_key = folder / "self-signed.pem", folder / "self-signed.key"
    if not (made.exists() and made_key.exists() and _good(made, host)):
        _make(made, made_key, host, user)
    return Pair(certificate=_read(made), key=_read(made_key), self_signed=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ChildCannotStart(f"{path} cannot be read ({error.strerror}); set the right file.") from error


def _openssl(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, bytes]:
    try:
        done = subprocess.run(
            ["openssl", *map(str, arguments)],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChildCannotStart("The program openssl cannot be run; install the package openssl.") from error
    return done.returncode, done.stdout


def _check(found: Pair, certificate: Path, key: Path) -> None:
    status, of_certificate = _openssl("x509", "-noout", "-pubkey", stdin=found.certificate)
    if status != 0:
        raise ChildCannotStart(f"{certificate} is not a certificate in PEM form; set the right file.")
    status, of_key = _openssl("pkey", "-pubout", stdin=found.key)
    if status != 0:
        raise ChildCannotStart(f"{key} is not a key in PEM form without a password; set the right file.")
    if of_certificate.strip() != of_key.strip():
        raise ChildCannotStart(f"The key {key} does not belong to the certificate {certificate}; set a pair.")


def _good(path: Path, host: str) -> bool:
    status, _ = _openssl("x509", "-noout", "-checkend", str(_RENEW_BEFORE_S), "-in", path)
    if status != 0:
        return False
    kind = "-checkip" if _is_address(host) else "-checkhost"
    _, said = _openssl("x509", "-noout", kind, host, "-in", path)
    return b"does match" in said


def _make(certificate: Path, key: Path, host: str, user: struct_passwd | None) -> None:
    status, made_key = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    if status != 0:
        raise ChildCannotStart("openssl could not make a key; is the package openssl whole?")
    private_file(key, made_key, user)
    name = f"IP:{host}" if _is_address(host) else f"DNS:{host}"
    arguments = ("req", "-x509", "-new", "-key", key, "-days", str(_DAYS), "-subj", "/CN=careline")
    status, made = _openssl(*arguments, "-addext", f"subjectAltName={name}")
    if status != 0:
        raise ChildCannotStart(f'openssl could not make a certificate for "{host}"; check edge.address.')
    private_file(certificate, made, user)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
