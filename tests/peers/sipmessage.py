"""SIP messages as values: strict parser, builder, digest and SDP bodies for the raw peer. No I/O.

Strict means: what RFC 3261 forbids raises SipSyntaxError with a full sentence, so that a test sees a
malformed message of ours at once. Building is not strict: a test may put anything on the wire.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOKEN = r"[A-Za-z0-9\-.!%*_+`'~]+"
MANDATORY = ("via", "from", "to", "call-id", "cseq")  # RFC 3261 8.1.1; Max-Forwards is often left out
COMPACT = {
    "i": "call-id", "m": "contact", "e": "content-encoding", "l": "content-length", "c": "content-type",
    "f": "from", "s": "subject", "k": "supported", "t": "to", "v": "via", "r": "refer-to", "b": "referred-by",
    "x": "session-expires", "o": "event", "u": "allow-events",
}  # fmt: skip
REASONS = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 202: "Accepted", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 407: "Proxy Authentication Required",
    408: "Request Timeout", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist",
    486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 500: "Server Internal Error",
    503: "Service Unavailable", 603: "Decline",
}  # fmt: skip


class SipSyntaxError(ValueError):
    """A message breaks RFC 3261; the sentence says where."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One request or response."""

    method: str  # of the request, or of the CSeq of a response
    uri: str = ""  # Request-URI; "" in a response
    status: int = 0  # 0 in a request
    reason: str = ""  # phrase of a response
    headers: tuple[tuple[str, str], ...]  # lower-case full names in the order of the wire
    body: bytes = b""  # as long as Content-Length says

    def get(self, name: str) -> str:
        """First value of a header field, "" without one."""
        return next((value for key, value in self.headers if key == name.lower()), "")

    def all(self, name: str) -> list[str]:
        """Every value of a header field, one for each line."""
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def is_request(self) -> bool:
        """A request, not a response."""
        return self.status == 0

    @property
    def call_id(self) -> str:
        """Call-ID."""
        return self.get("call-id")

    @property
    def cseq(self) -> int:
        """Number of the CSeq."""
        return int(self.get("cseq").split()[0])

    @property
    def branch(self) -> str:
        """Branch of the topmost Via."""
        return parameter(self.get("via"), "branch")

    @property
    def from_tag(self) -> str:
        """Tag of From."""
        return parameter(self.get("from"), "tag")

    @property
    def to_tag(self) -> str:
        """Tag of To, "" before the dialog exists."""
        return parameter(self.get("to"), "tag")

    @property
    def contact(self) -> str:
        """URI of the first Contact, "" without one."""
        return uri_of(self.get("contact"))

    @property
    def sdp(self) -> str:
        """The body as text."""
        return self.body.decode()


def parameter(value: str, name: str) -> str:
    """A ;name=value parameter behind the URI of a header field, "" without it."""
    rest = value.partition(">")[2] if "<" in value else value
    found = re.search(rf";\s*{re.escape(name)}\s*=\s*\"?([^;,\"\s]+)", rest, re.IGNORECASE)
    return found[1] if found else ""


def uri_of(value: str) -> str:
    """The URI of a name-addr or addr-spec (RFC 3261 20.10)."""
    found = re.search(r"<([^>]*)>", value)
    return found[1] if found else value.partition(";")[0].strip()


def parse(raw: bytes) -> Message:
    """One datagram as a message. Raises SipSyntaxError."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator:
        raise SipSyntaxError("The message has no empty line after its header fields (RFC 3261 7).")
    if b"\n" in head.replace(b"\r\n", b""):
        raise SipSyntaxError("A header line ends with LF alone; SIP lines end with CRLF (RFC 3261 7).")
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise SipSyntaxError(
            f"The header fields are not UTF-8 at byte {error.start} (RFC 3261 25.1)."
        ) from error
    headers = _parse_headers(lines[1:])
    names = [name for name, _ in headers]
    for name in MANDATORY:
        if name not in names:
            raise SipSyntaxError(f"The mandatory header field {name} is missing (RFC 3261 8.1.1).")
        if name != "via" and names.count(name) > 1:
            raise SipSyntaxError(
                f"The header field {name} appears {names.count(name)} times (RFC 3261 7.3.1)."
            )
    made = dict(headers)
    cseq = re.fullmatch(rf"(\d+)\s+({TOKEN})", made["cseq"])
    if not cseq or int(cseq[1]) >= 2**31:
        raise SipSyntaxError(
            f"CSeq {made['cseq']!r} is not a number below 2**31 and a method (RFC 3261 8.1.1.5)."
        )
    request = re.fullmatch(rf"({TOKEN}) (\S+) SIP/2\.0", lines[0])
    response = re.fullmatch(r"SIP/2\.0 ([1-6]\d\d) (.*)", lines[0])
    if not request and not response:
        raise SipSyntaxError(
            f"{lines[0][:80]!r} is neither a request line nor a status line (RFC 3261 7.1, 7.2)."
        )
    if request and request[1] != cseq[2]:
        raise SipSyntaxError(f"The request is {request[1]} but its CSeq says {cseq[2]} (RFC 3261 8.1.1.5).")
    if not parameter(made["from"], "tag"):
        raise SipSyntaxError("From has no tag (RFC 3261 8.1.1.3).")
    return Message(
        method=cseq[2],
        uri=request[2] if request else "",
        status=int(response[1]) if response else 0,
        reason=response[2] if response else "",
        headers=headers,
        body=_cut_body(body, made.get("content-length")),
    )


def _parse_headers(lines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    out: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=2):
        if line[:1] in (" ", "\t"):  # folded (RFC 3261 7.3.1)
            if not out:
                raise SipSyntaxError("The first header line is a continuation (RFC 3261 7.3.1).")
            out[-1] = (out[-1][0], f"{out[-1][1]} {line.strip()}".strip())
            continue
        found = re.fullmatch(rf"({TOKEN})[ \t]*:(.*)", line)
        if not found:
            raise SipSyntaxError(f"Line {number} is not a header field: {line[:80]!r} (RFC 3261 7.3.1).")
        name = found[1].lower()
        out.append((COMPACT.get(name, name), found[2].strip()))
    return tuple(out)


def _cut_body(body: bytes, length: str | None) -> bytes:
    if length is None:
        return body
    if not length.isdigit():
        raise SipSyntaxError(f"Content-Length {length!r} is not a number (RFC 3261 20.14).")
    if int(length) > len(body):
        raise SipSyntaxError(
            f"Content-Length says {length} bytes, the datagram has {len(body)} (RFC 3261 18.3)."
        )
    return body[: int(length)]


def build(start_line: str, headers: Sequence[tuple[str, str]], body: bytes | str = b"") -> bytes:
    """Bytes of a message; Content-Length is added when `headers` has none."""
    raw = body.encode() if isinstance(body, str) else body
    lines = [start_line, *(f"{name}: {value}" for name, value in headers)]
    if not any(name.lower() in ("content-length", "l") for name, _ in headers):
        lines.append(f"Content-Length: {len(raw)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def build_response(
    request: Message,
    status: int,
    *,
    reason: str = "",
    to_tag: str = "",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes | str = b"",
) -> bytes:
    """A response to a request, with its Vias, From, To, Call-ID and CSeq (RFC 3261 8.2.6.2)."""
    made = [("Via", via) for via in request.all("via")]
    made += [("Record-Route", route) for route in request.all("record-route")]
    to = request.get("to")
    if to_tag and not request.to_tag:
        to += f";tag={to_tag}"
    made += [
        ("From", request.get("from")),
        ("To", to),
        ("Call-ID", request.call_id),
        ("CSeq", request.get("cseq")),
    ]
    return build(f"SIP/2.0 {status} {reason or REASONS.get(status, 'Unknown')}", [*made, *headers], body)


def new_branch() -> str:
    """A branch that marks RFC 3261 transactions (8.1.1.7)."""
    return "z9hG4bK" + secrets.token_hex(8)


# -- digest (RFC 3261 22, RFC 7616)


def parse_challenge(value: str) -> dict[str, str]:
    """Parameters of a WWW-Authenticate, Proxy-Authenticate or Authorization value. Raises SipSyntaxError."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != "digest":
        raise SipSyntaxError(f"The authentication scheme {scheme!r} is not Digest (RFC 3261 22.4).")
    return {
        key.lower(): quoted or plain
        for key, quoted, plain in re.findall(r'(\w+)\s*=\s*(?:"([^"]*)"|([^,\s]+))', rest)
    }


def digest_answer(
    challenge: Mapping[str, str],
    *,
    method: str,
    uri: str,
    user: str,
    password: str,
    nc: int = 1,
    cnonce: str = "",
) -> str:
    """The value of Authorization for a challenge, MD5 or SHA-256. Raises SipSyntaxError for others."""
    cnonce = cnonce or secrets.token_hex(8)
    qop = "auth" if "auth" in challenge.get("qop", "").replace(" ", "").split(",") else ""
    fields = {**challenge, "uri": uri, "username": user, "nc": f"{nc:08x}", "cnonce": cnonce, "qop": qop}
    answer = _digest(fields, method, password)
    out = [
        f'username="{user}"',
        f'realm="{challenge.get("realm", "")}"',
        f'nonce="{challenge.get("nonce", "")}"',
    ]
    out += [f'uri="{uri}"', f'response="{answer}"', f"algorithm={challenge.get('algorithm', 'MD5')}"]
    if qop:
        out += [f"qop={qop}", f"nc={nc:08x}", f'cnonce="{cnonce}"']
    if "opaque" in challenge:
        out.append(f'opaque="{challenge["opaque"]}"')
    return "Digest " + ", ".join(out)


def digest_is_right(authorization: str, *, method: str, password: str) -> bool:
    """An Authorization value proves that password; user, realm and nonce are for the caller to compare."""
    fields = parse_challenge(authorization)
    return secrets.compare_digest(fields.get("response", ""), _digest(fields, method, password))


def _digest(fields: Mapping[str, str], method: str, password: str) -> str:
    algorithm = fields.get("algorithm", "MD5").upper()
    if algorithm not in ("MD5", "SHA-256"):
        raise SipSyntaxError(f"The digest algorithm {algorithm!r} is neither MD5 nor SHA-256.")

    def h(text: str) -> str:
        made = hashlib.md5(text.encode()) if algorithm == "MD5" else hashlib.sha256(text.encode())
        return made.hexdigest()

    ha1 = h(f"{fields.get('username', '')}:{fields.get('realm', '')}:{password}")
    ha2 = h(f"{method}:{fields.get('uri', '')}")
    middle = fields.get("nonce", "")
    if fields.get("qop"):
        middle += f":{fields['nc']}:{fields['cnonce']}:{fields['qop']}"
    return h(f"{ha1}:{middle}:{ha2}")


# -- SDP (RFC 8866)


def sdp(
    address: str, port: int, *, variant: str = "plain", version: int = 1, direction: str = "sendrecv"
) -> str:
    """A session description; `variant` is one of

    plain (PCMU and telephone-event), no_audio (video only), unknown_codec, empty (no bytes),
    no_media (no m= line), refused (port 0), garbage (not SDP), text (audio plus real-time text).
    Raises ValueError for another one.
    """
    head = f"v=0\r\no=raw 1 {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
    events = "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n"
    audio = f"m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n{events}a=ptime:20\r\na={direction}\r\n"
    bodies = {
        "plain": head + audio,
        "no_audio": head + f"m=video {port} RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n",
        "unknown_codec": head + f"m=audio {port} RTP/AVP 111\r\na=rtpmap:111 NOSUCH/48000/2\r\n",
        "empty": "",
        "no_media": head,
        "refused": head + audio.replace(f"m=audio {port}", "m=audio 0"),
        "garbage": "this is = not\x01 a session description\r\n\r\nm=\r\n",
        "text": head + audio + f"m=text {port + 2} RTP/AVP 98\r\na=rtpmap:98 t140/1000\r\n",
    }
    if variant not in bodies:
        raise ValueError(f"SDP variant {variant!r} is not one of {', '.join(bodies)}")
    return bodies[variant]


def audio_target(body: str) -> tuple[str, int]:
    """Address and port of the audio stream. Raises SipSyntaxError when there is none."""
    session, *media = re.split(r"(?m)^(?=m=)", body)
    for part in media:
        found = re.match(r"m=audio (\d+) ", part)
        address = re.search(r"(?m)^c=IN IP[46] (\S+)", part) or re.search(r"(?m)^c=IN IP[46] (\S+)", session)
        if found and address:
            return address[1], int(found[1])
    raise SipSyntaxError("The session description has no audio stream with an address (RFC 8866 5.7, 5.14).")


def event_payload_type(body: str) -> int | None:
    """Payload type of telephone-event in a session description, None without it."""
    found = re.search(r"(?m)^a=rtpmap:(\d+) telephone-event/8000", body)
    return int(found[1]) if found else None
