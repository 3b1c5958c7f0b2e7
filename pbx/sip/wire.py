"""Reading the text of one SIP message: the few fields the application needs. Pure.

The message has already passed pjsip's parser. What a field means is not checked here, and none of it is
trusted: From and display names are whatever the sender wrote.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

_FOLD = re.compile(
    r"\r?\n[ \t]+"
)  # RFC 3261 7.3.1: a line that starts with white space continues the last one
_COMPACT = {
    "f": "from",
    "t": "to",
    "i": "call-id",
    "v": "via",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
}
_URI_USER = re.compile(r"(?:sips?:([^@>\s]*)@|tel:([^;>\s]+))", re.IGNORECASE)
_NAME_ADDR = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^<"]*?))\s*<')
_Q850 = re.compile(r"\bQ\.850\s*;[^,]*?\bcause\s*=\s*(\d{1,3})", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_KEPT = ("p-asserted-identity", "diversion")
_KEPT_PREFIX = "x-hotline-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Invite:
    """Fields of an incoming INVITE."""

    to_user: str  # user part of the Request-URI, unescaped; empty when it has none
    from_user: str  # user part of From, or "anonymous"
    from_display: str  # display name of From, or empty
    call_id: str  # Call-ID header
    headers: Mapping[str, str]  # lower-case X-Hotline-*, P-Asserted-Identity, Diversion


def fields(message: str) -> list[tuple[str, str]]:
    """Header fields in order as (lower-case long name, value), folded lines joined; the body is not read."""
    head = message.split("\r\n\r\n", 1)[0]
    if "\n " in head or "\n\t" in head:
        head = _FOLD.sub(" ", head)
    found = []
    for line in head.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            name = name.strip().lower()
            found.append((_COMPACT.get(name, name), value.strip()))
    return found


def uri_user(text: str) -> str:
    """User part of the first sip, sips or tel URI in `text`, unescaped; empty when there is none."""
    match = _URI_USER.search(text)
    if match is None:
        return ""
    user = match[1] if match[1] is not None else match[2]
    return unquote(user.partition(":")[0].partition(";")[0])


def display_name(value: str) -> str:
    """Display name of a From, To or Contact value (RFC 3261 25.1 name-addr); empty when there is none."""
    match = _NAME_ADDR.match(value)
    if match is None:
        return ""
    if match[1] is not None:
        return re.sub(r"\\(.)", r"\1", match[1]).strip()
    return match[2].strip()


def read_invite(message: str) -> Invite:
    """The fields of an INVITE in its text as received."""
    sender, call_id = "", ""
    kept: dict[str, str] = {}
    for name, value in fields(message):
        if name == "from":
            sender = sender or value
        elif name == "call-id":
            call_id = call_id or value
        elif name in _KEPT or name.startswith(_KEPT_PREFIX):
            kept.setdefault(name, value)
    return Invite(
        to_user=uri_user(message[: message.find("\n")]),
        from_user=uri_user(sender) or "anonymous",
        from_display=display_name(sender),
        call_id=call_id,
        headers=kept,
    )


def q850_of(message: str) -> int | None:
    """Q.850 cause of the Reason header (RFC 3326 section 2), or None."""
    at = message.find("Q.850")
    if at < 0:
        return None
    for name, value in fields(message):
        if name == "reason" and (match := _Q850.search(value)):
            return int(match[1])
    return None


def has_sdp(message: str) -> bool:
    """Whether the message carries a session description."""
    return any(n == "content-type" and v.lower().startswith("application/sdp") for n, v in fields(message))


def bare_digit(message: str) -> str:
    """The key of an INFO with body `application/dtmf`, which is the key alone.

    Empty when it is no such INFO.
    """
    if not any(
        n == "content-type" and v.partition(";")[0].strip().lower() == "application/dtmf"
        for n, v in fields(message)
    ):
        return ""
    body = message.partition("\r\n\r\n")[2].strip()
    return body if len(body) == 1 else ""


def name_addr(user: str, display: str, host: str) -> str:
    """`"display" <sip:user@host>` with everything escaped that could end the field (RFC 3261 25.1)."""
    uri = f"<sip:{quote(user, safe='+-_.!~*()&=$,;?/')}@{host}>" if user else f"<sip:{host}>"
    shown = _CONTROL.sub(" ", display).replace("\\", "\\\\").replace('"', '\\"').strip()
    return f'"{shown}" {uri}' if shown else uri


def one_line(value: str) -> str:
    """A header value that cannot start another header: control characters become a space."""
    return _CONTROL.sub(" ", value).strip()


def uri_host(uri: str) -> str:
    """Host of a sip, sips or bare URI in `uri`, without port and parameters; empty when there is none."""
    match = re.search(r"sips?:(?:[^@>\s]*@)?(\[[^\]]+\]|[^:;>?\s]+)", uri, re.IGNORECASE)
    return match[1] if match else ""


def replaced_call_id(query: str) -> str:
    """Call-ID in the Replaces header (RFC 3891 section 6.1) of a URI's escaped header part.

    Empty when there is none.
    """
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name.strip().lower() == "replaces":
            return unquote(value.strip("<> ")).partition(";")[0].strip()
    return ""
