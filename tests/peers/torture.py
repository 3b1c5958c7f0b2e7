"""Difficult SIP messages after RFC 4475, written for a UDP peer at one address, with what is fair to expect.

Each is a value of `messages()`: the datagram and a reaction:
- "accept": well-formed, however odd it looks; it may be refused for what it asks, but not with 400;
- "refuse": malformed or impossible; a final answer of 400 or above, or none at all, and never success;
- "ignore": nothing may be answered (a response that belongs to nothing, or a request without a usable Via);
- "survive": the RFC lets the receiver choose; it only has to live.
Whoever gets them must still serve the next ordinary call.
"""

from dataclasses import dataclass
from typing import Literal

Reaction = Literal["accept", "refuse", "ignore", "survive"]


@dataclass(frozen=True, kw_only=True)
class Torture:
    """One datagram."""

    raw: bytes
    reaction: Reaction
    section: str  # of RFC 4475, or what it is about


SDP = (
    "v=0\r\no=mhandley 29739 7272939 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 49217 RTP/AVP 0 12\r\na=rtpmap:31 LPC\r\n"
)


def messages(*, target: str, sender: str, user: str = "line") -> dict[str, Torture]:
    """All messages by name; `target` and `sender` are "address:port" of the receiver and of our socket."""
    uri = f"sip:{user}@{target}"

    def head(name: str, method: str = "INVITE", **changed: str | None) -> list[str]:
        """The usual header lines; a keyword replaces one (underscore for hyphen), None leaves it out."""
        usual: dict[str, str | None] = {
            "Via": f"SIP/2.0/UDP {sender};branch=z9hG4bK-{name}",
            "Max-Forwards": "70",
            "From": f"<sip:torture@{sender}>;tag={name}",
            "To": f"<{uri}>",
            "Call-ID": f"{name}.torture@{sender}",
            "CSeq": f"1 {method}",
            "Contact": f"<sip:torture@{sender}>",
        }
        usual |= {key.replace("_", "-"): value for key, value in changed.items()}
        return [f"{key}: {value}" for key, value in usual.items() if value is not None]

    def invite(lines: list[str], start: str = "", body: str = SDP) -> bytes:
        """An INVITE with a body and its right length."""
        lines = [start or f"INVITE {uri} SIP/2.0", *lines, "Content-Type: application/sdp"]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()

    def plain(start: str, lines: list[str], tail: str = "Content-Length: 0\r\n\r\n") -> bytes:
        """A message without a body, or with a tail of its own."""
        return ("\r\n".join([start, *lines]) + "\r\n" + tail).encode()

    def odd(name: str, raw: bytes, reaction: Reaction, section: str) -> None:
        made[name] = Torture(raw=raw, reaction=reaction, section=section)

    made: dict[str, Torture] = {}
    # --- valid, 3.1.1 ------------------------------------------------------------------------------
    wsinv = (
        f"INVITE sip:{user}@{target};unknownparam SIP/2.0\r\n"
        f"TO :\r\n <{uri}>   \r\n"
        f'from : "J Rosenberg \\\\\\""       <sip:jdrosen@{sender}>\r\n  ;\r\n  tag = 98asjd8\r\n'
        "MaX-fOrWaRdS: 0068\r\n"
        f"Call-ID: wsinv.ndaksdj@{sender}\r\nContent-Length   : {len(SDP)}\r\n"
        "cseq: 0009\r\n  INVITE\r\n"
        f"Via  : SIP  /   2.0\r\n /UDP\r\n    {sender};branch=z9hG4bK-wsinv\r\n"
        "s :\r\nNewFangledHeader:   newfangled value\r\n continued newfangled value\r\n"
        "UnknownHeaderWithUnusualValue: ;;,,;;,;\r\nContent-Type: application/sdp\r\n"
        f'm:"Quoted string \\"\\"" <sip:jdrosen@{sender}> ; newparam =\r\n      newvalue ;\r\n'
        "  secondparam ; q = 0.33\r\n"
        f"\r\n{SDP}"
    )
    odd("wsinv", wsinv.encode(), "accept", "3.1.1.1")
    method = "!interesting-Method0123456789_*+`.%indeed'~"
    odd("intmeth", plain(f"{method} {uri} SIP/2.0", head("intmeth", method)), "accept", "3.1.1.2")
    esc = head(
        "esc01",
        To=f"sip:%75se%72@{target}",
        Contact=f"<sip:cal%6Cer@{sender};%6C%72;n%61me=v%61lue%25%34%31>",
    )
    odd("esc01", invite(esc, f"INVITE sip:sips%3Auser%40example.com@{target} SIP/2.0"), "accept", "3.1.1.3")
    escnull = head("escnull", "OPTIONS", From=f"sip:null-%00-null@{sender};tag=escnull")
    odd("escnull", plain(f"OPTIONS sip:null-%00-null@{target} SIP/2.0", escnull), "accept", "3.1.1.4")
    odd("esc02", plain(f"RE%47IST%45R {uri} SIP/2.0", head("esc02", "RE%47IST%45R")), "survive", "3.1.1.5")
    odd(
        "lwsdisp",
        plain(f"OPTIONS {uri} SIP/2.0", head("lwsdisp", "OPTIONS", From=f"caller<sip:c@{sender}>;tag=l")),
        "accept",
        "3.1.1.6",
    )
    longer = [f"X-Long-{n}: {'value' * 60}" for n in range(8)] + [f"Unknown{'longname' * 30}: {'v' * 200}"]
    odd(
        "longreq",
        invite(
            [*head("longreq", From=f'"{"long name " * 40}" <sip:{"l" * 200}@{sender}>;tag=longreq'), *longer]
        ),
        "accept",
        "3.1.1.7",
    )
    register = plain(f"OPTIONS {uri} SIP/2.0", head("dblreq", "OPTIONS"))
    odd("dblreq", register + invite(head("dblreq2")), "accept", "3.1.1.8")
    odd(
        "semiuri",
        plain(f"OPTIONS sip:user;par=u%40example.net@{target} SIP/2.0", head("semiuri", "OPTIONS")),
        "accept",
        "3.1.1.9",
    )
    more = [
        f"Via: SIP/2.0/{t} t{n}.example.com;branch=z9hG4bKkdjuw{n}"
        for n, t in enumerate(("SCTP", "TLS", "UNKNOWN", "TCP"))
    ]
    odd(
        "transports",
        plain(f"OPTIONS {uri} SIP/2.0", head("transports", "OPTIONS") + more),
        "accept",
        "3.1.1.10",
    )
    part = (
        "--b7\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
        "--b7\r\nContent-Type: application/octet-stream\r\n\r\n\x01\x02\x7f\r\n--b7--\r\n"
    )
    mpart = [
        *head("mpart01", "MESSAGE"),
        "Content-Type: multipart/mixed;boundary=b7",
        f"Content-Length: {len(part)}",
    ]
    odd("mpart01", plain(f"MESSAGE {uri} SIP/2.0", mpart, f"\r\n{part}"), "accept", "3.1.1.11")
    odd(
        "unreason",
        plain("SIP/2.0 200 = 2**3 * 5**2 но сто девяносто девять", head("unreason")),
        "ignore",
        "3.1.1.12",
    )
    odd("noreason", plain("SIP/2.0 100 ", head("noreason")), "ignore", "3.1.1.13")
    # --- invalid, 3.1.2 ----------------------------------------------------------------------------
    bad = head(
        "badinv01",
        To=f'"Mr. <{uri}>',
        Contact=f'"Joe" <sip:joe@{sender}>;;;;',
        Via=f"SIP/2.0/UDP {sender};branch=z9hG4bK-badinv01;;,;,,",
    )
    odd("badinv01", invite(bad), "refuse", "3.1.2.1")
    clerr = "\r\n".join(
        [
            f"INVITE {uri} SIP/2.0",
            *head("clerr"),
            "Content-Type: application/sdp",
            "Content-Length: 9999",
            "",
            SDP,
        ]
    )
    odd("clerr", clerr.encode(), "refuse", "3.1.2.2")
    odd(
        "ncl",
        plain(
            f"INVITE {uri} SIP/2.0",
            [*head("ncl"), "Content-Type: application/sdp"],
            f"Content-Length: -999\r\n\r\n{SDP}",
        ),
        "survive",
        "3.1.2.3",
    )
    scalar = head("scalar02", "OPTIONS", CSeq="36893488147419103232 OPTIONS", Max_Forwards="300")
    odd(
        "scalar02",
        plain(f"OPTIONS {uri} SIP/2.0", [*scalar, "Expires: 1000000000000000000000000"]),
        "survive",
        "3.1.2.4",
    )
    odd(
        "scalarlg",
        plain(
            "SIP/2.0 503 Service Unavailable",
            [
                *head("scalarlg", "OPTIONS", CSeq="9292394834772304023312 OPTIONS"),
                "Retry-After: 949302838503028349304023988",
            ],
        ),
        "ignore",
        "3.1.2.5",
    )
    odd("quotbal", invite(head("quotbal", To=f'"Mr. J. User <{uri}>')), "refuse", "3.1.2.6")
    odd("ltgtruri", invite(head("ltgtruri"), f"INVITE <{uri}> SIP/2.0"), "refuse", "3.1.2.7")
    odd("lwsruri", invite(head("lwsruri"), f"INVITE sip:{user}@{target}; lr SIP/2.0"), "refuse", "3.1.2.8")
    odd("lwsstart", invite(head("lwsstart"), f"INVITE  {uri}  SIP/2.0"), "survive", "3.1.2.9")
    odd("trws", plain(f"OPTIONS {uri} SIP/2.0  ", head("trws", "OPTIONS")), "survive", "3.1.2.10")
    odd(
        "escruri",
        invite(head("escruri"), f"INVITE sip:{user}@{target}?Route=%3Csip:example.com%3E SIP/2.0"),
        "survive",
        "3.1.2.11",
    )
    odd("baddate", invite([*head("baddate"), "Date: Fri, 01 Jan 2010 16:00:00 EST"]), "survive", "3.1.2.12")
    odd(
        "regbadct",
        plain(
            f"REGISTER sip:{target} SIP/2.0",
            head("regbadct", "REGISTER", Contact=f"sip:u@{sender}?Route=%3Csip:sip.example.com%3E"),
        ),
        "refuse",
        "3.1.2.13",
    )
    odd(
        "badaspec",
        plain(
            f"OPTIONS sip:user@{target} SIP/2.0",
            head("badaspec", "OPTIONS", To=f'"Watson, Come here" < {uri} >'),
        ),
        "survive",
        "3.1.2.14",
    )
    odd(
        "baddn",
        plain(
            f"OPTIONS {uri} SIP/2.0",
            head("baddn", "OPTIONS", From=f"Bell, Alexander <sip:a.g.bell@{sender}>;tag=43"),
        ),
        "survive",
        "3.1.2.15",
    )
    odd(
        "badvers",
        plain(
            f"OPTIONS {uri} SIP/7.0",
            head("badvers", "OPTIONS", Via=f"SIP/7.0/UDP {sender};branch=z9hG4bK-badvers"),
        ),
        "refuse",
        "3.1.2.16",
    )
    odd("mismatch01", plain(f"OPTIONS {uri} SIP/2.0", head("mismatch01", "INVITE")), "refuse", "3.1.2.17")
    odd("mismatch02", plain(f"NEWMETHOD {uri} SIP/2.0", head("mismatch02", "INVITE")), "refuse", "3.1.2.18")
    odd(
        "bigcode",
        plain("SIP/2.0 4294967301 better not break the receiver", head("bigcode")),
        "ignore",
        "3.1.2.19",
    )
    # --- transaction and application layer, 3.2 to 3.4 -----------------------------------------------
    odd(
        "badbranch",
        plain(
            f"OPTIONS {uri} SIP/2.0", head("badbranch", "OPTIONS", Via=f"SIP/2.0/UDP {sender};branch=z9hG4bK")
        ),
        "survive",
        "3.2.1",
    )
    odd(
        "insuf",
        plain(
            f"INVITE {uri} SIP/2.0",
            ["CSeq: 193942 INVITE", f"Via: SIP/2.0/UDP {sender};branch=z9hG4bK-insuf"],
        ),
        "refuse",
        "3.3.1",
    )
    odd(
        "unkscm",
        plain("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0", head("unkscm", "OPTIONS")),
        "refuse",
        "3.3.2",
    )
    odd(
        "novelsc",
        plain("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", head("novelsc", "OPTIONS")),
        "refuse",
        "3.3.3",
    )
    odd(
        "unksm2",
        plain(
            f"OPTIONS {uri} SIP/2.0",
            head("unksm2", "OPTIONS", To="isbn:2983792873", From="<http://www.example.com>;tag=3234233"),
        ),
        "survive",
        "3.3.4",
    )
    odd(
        "bext01",
        plain(
            f"OPTIONS {uri} SIP/2.0",
            [*head("bext01", "OPTIONS"), "Require: nothingSupportsThis, nothingSupportsThisEither"],
        ),
        "survive",
        "3.3.5",
    )
    unknown = '<audio>\r\n <pcmu port="443"/>\r\n</audio>\r\n'
    odd(
        "invut",
        plain(
            f"INVITE {uri} SIP/2.0",
            [*head("invut"), "Content-Type: application/unknownformat", f"Content-Length: {len(unknown)}"],
            f"\r\n{unknown}",
        ),
        "survive",
        "3.3.6",
    )
    odd(
        "multi01",
        invite(
            [
                *head("multi01"),
                "CSeq: 8 INVITE",
                f"To: <sip:other@{target}>",
                "Call-ID: second",
                "Max-Forwards: 5",
            ]
        ),
        "refuse",
        "3.3.8",
    )
    odd(
        "mcl01",
        plain(
            f"OPTIONS {uri} SIP/2.0",
            [*head("mcl01", "OPTIONS"), "Content-Length: 13"],
            "Content-Length: 5\r\n\r\nThere's no way",
        ),
        "survive",
        "3.3.9",
    )
    odd(
        "bcast",
        plain("SIP/2.0 200 OK", head("bcast", Via="SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923")),
        "ignore",
        "3.3.10",
    )
    odd(
        "zeromf",
        plain(f"OPTIONS {uri} SIP/2.0", head("zeromf", "OPTIONS", Max_Forwards="0")),
        "survive",
        "3.3.11",
    )
    odd(
        "cparam01",
        plain(
            f"REGISTER sip:{target} SIP/2.0",
            head("cparam01", "REGISTER", Contact=f"sip:+19725552222@{sender};unknownparam"),
        ),
        "survive",
        "3.3.12",
    )
    odd("sdp01", invite([*head("sdp01"), "Accept: text/nobodyKnowsThis"]), "survive", "3.3.15")
    odd(
        "inv2543", invite(head("inv2543", Via=f"SIP/2.0/UDP {sender}", Max_Forwards=None)), "survive", "3.4.1"
    )
    # --- beyond the RFC: what scanners and broken phones send ------------------------------------------
    odd("sdp-empty", invite(head("sdp-empty"), body="\r\n"), "survive", "a body that is no SDP")
    odd(
        "sdp-no-media",
        invite(head("sdp-no-media"), body="v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"),
        "survive",
        "SDP without m=",
    )
    odd(
        "sdp-no-address",
        invite(
            head("sdp-no-address"),
            body="v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",
        ),
        "survive",
        "SDP without c=",
    )
    odd(
        "sdp-codecs",
        invite(head("sdp-codecs"), body=SDP.replace("0 12", "97").replace("31 LPC", "97 NOSUCH/8000")),
        "refuse",
        "no codec in common",
    )
    odd(
        "sdp-port-zero",
        invite(head("sdp-port-zero"), body=SDP.replace("49217", "0")),
        "survive",
        "audio refused in the offer",
    )
    odd(
        "sdp-port-huge",
        invite(head("sdp-port-huge"), body=SDP.replace("49217", "4294967297")),
        "survive",
        "a port beyond 16 bits",
    )
    odd(
        "sdp-many",
        invite(head("sdp-many"), body=SDP + "m=audio 5000 RTP/AVP 0\r\n" * 60),
        "survive",
        "sixty media lines",
    )
    odd(
        "sdp-payloads",
        invite(head("sdp-payloads"), body=SDP.replace("0 12", " ".join(str(n) for n in range(128)))),
        "survive",
        "every payload type",
    )
    odd(
        "sdp-video-only",
        invite(head("sdp-video-only"), body=SDP.replace("m=audio", "m=video")),
        "survive",
        "video alone",
    )
    odd(
        "sdp-garbage",
        invite(head("sdp-garbage"), body="v=0\r\nm=\r\nc=\r\na=\r\n=\r\nxx\r\n"),
        "survive",
        "lines without values",
    )
    odd(
        "sdp-binary",
        invite(head("sdp-binary"), body="\x00\x01\x02v=0\r\n\x7f" * 20),
        "survive",
        "control characters",
    )
    odd("nulls", b"\x00" * 400, "ignore", "no SIP at all")
    odd("keepalive", b"\r\n\r\n", "ignore", "RFC 5626 3.5.1")
    odd("half", invite(head("half"))[:150], "survive", "cut in the middle of a header")
    odd("no-crlf", invite(head("no-crlf")).replace(b"\r\n", b"\n"), "survive", "bare line feeds")
    odd(
        "no-end",
        b"\r\n".join([f"INVITE {uri} SIP/2.0".encode(), b"Via: " + b"x" * 3000]),
        "ignore",
        "a header without an end",
    )
    odd(
        "tel-uri",
        plain("OPTIONS tel:+15550100 SIP/2.0", head("tel-uri", "OPTIONS")),
        "survive",
        "RFC 3966 in the Request-URI",
    )
    odd(
        "from-injection",
        invite(head("from-injection", From=f'"x\\"y" <sip:%0d%0aX-Evil@{sender}>;tag=inj')),
        "accept",
        "line end in an escape",
    )
    odd("ack-stray", plain(f"ACK {uri} SIP/2.0", head("ack-stray", "ACK")), "ignore", "an ACK of nothing")
    odd(
        "cancel-stray",
        plain(f"CANCEL {uri} SIP/2.0", head("cancel-stray", "CANCEL")),
        "refuse",
        "a CANCEL of nothing",
    )
    odd(
        "bye-stray",
        plain(f"BYE {uri} SIP/2.0", head("bye-stray", "BYE", To=f"<{uri}>;tag=none")),
        "refuse",
        "a BYE of nothing",
    )
    odd(
        "refer-stray",
        plain(f"REFER {uri} SIP/2.0", [*head("refer-stray", "REFER"), "Refer-To: <sip:a@b>"]),
        "survive",
        "REFER without a dialog",
    )
    odd(
        "replaces-garbage",
        invite([*head("replaces-garbage"), "Replaces: ;;;", "Require: replaces"]),
        "refuse",
        "RFC 3891",
    )
    odd(
        "timer-zero",
        invite([*head("timer-zero"), "Supported: timer", "Session-Expires: 0", "Min-SE: 0"]),
        "survive",
        "RFC 4028",
    )
    odd("contact-star", invite(head("contact-star", Contact="*")), "survive", "RFC 3261 20.10")
    odd("no-contact", invite(head("no-contact", Contact=None)), "survive", "RFC 3261 8.1.1.8")
    return made
