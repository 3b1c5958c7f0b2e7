"""The raw peer's parser refuses what RFC 3261 forbids, with a sentence, and reads the rest."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peers import sipmessage as sip

pytestmark = pytest.mark.unit

INVITE = (
    b"INVITE sip:100@127.0.0.1 SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.2:5060;branch=z9hG4bKabc;rport\r\n"
    b"v: SIP/2.0/UDP 127.0.0.3\r\n"
    b'From: "A; tag=no" <sip:a@127.0.0.2;user=phone>;tag=f1\r\n'
    b"t: <sip:100@127.0.0.1>\r\n"
    b"Call-ID: 1@here\r\n"
    b"CSeq: 7 INVITE\r\n"
    b"Contact: <sip:a@127.0.0.2:5060;transport=udp>;expires=60\r\n"
    b"Subject: one\r\n two\r\n"
    b"Content-Length: 3\r\n\r\nabcde"
)


def test_a_request_is_read() -> None:
    message = sip.parse(INVITE)
    assert message.is_request
    assert (message.method, message.uri, message.cseq) == ("INVITE", "sip:100@127.0.0.1", 7)
    assert (message.branch, message.from_tag, message.to_tag) == ("z9hG4bKabc", "f1", "")
    assert message.all("via")[1] == "SIP/2.0/UDP 127.0.0.3"
    assert message.contact == "sip:a@127.0.0.2:5060;transport=udp"
    assert message.get("Subject") == "one two"
    assert message.body == b"abc"


def test_a_response_built_from_a_request_is_read_back() -> None:
    request = sip.parse(INVITE)
    raw = sip.build_response(request, 486, to_tag="t9", headers=[("Retry-After", "5")])
    response = sip.parse(raw)
    assert (response.status, response.reason, response.method) == (486, "Busy Here", "INVITE")
    assert response.to_tag == "t9"
    assert response.all("via") == request.all("via")
    assert response.get("retry-after") == "5"
    assert response.get("content-length") == "0"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b"CSeq: 7 INVITE\r\n", b"", "The mandatory header field cseq is missing"),
        (b"Call-ID: 1@here\r\n", b"", "The mandatory header field call-id is missing"),
        (b"CSeq: 7 INVITE", b"CSeq: 7 BYE", "The request is INVITE but its CSeq says BYE"),
        (b"CSeq: 7 INVITE", b"CSeq: x INVITE", "CSeq 'x INVITE' is not a number"),
        (b"CSeq: 7 INVITE", b"CSeq: 2147483648 INVITE", "is not a number below 2"),
        (b"Call-ID: 1@here\r\n", b"Call-ID: 1\r\ni: 2\r\n", "The header field call-id appears 2 times"),
        (b";tag=f1", b"", "From has no tag"),
        (b"SIP/2.0\r\nVia", b"SIP/3.0\r\nVia", "is neither a request line nor a status line"),
        (b"Content-Length: 3", b"Content-Length: 9", "Content-Length says 9 bytes, the datagram has 5"),
        (b"Content-Length: 3", b"Content-Length: -1", "Content-Length '-1' is not a number"),
        (b"Subject: one", b"Subject one", "Line 9 is not a header field: 'Subject one'"),
        (b"Subject: one\r\n two", b"Subject: one\n two", "A header line ends with LF alone"),
        (b"Subject: one", b"Subject: \xff", "The header fields are not UTF-8 at byte"),
        (b"\r\n\r\n", b"\r\n", "The message has no empty line after its header fields"),
    ],
)
def test_broken_messages_are_refused_with_a_sentence(old: bytes, new: bytes, sentence: str) -> None:
    assert old in INVITE
    with pytest.raises(sip.SipSyntaxError, match=sentence):
        sip.parse(INVITE.replace(old, new, 1))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for datagram in (raw, INVITE[:90] + raw, raw + INVITE):
        with contextlib.suppress(sip.SipSyntaxError):  # any other exception fails
            assert sip.parse(datagram).call_id is not None


def test_digest_of_the_example_in_rfc_2617() -> None:
    challenge = sip.parse_challenge(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    answer = sip.digest_answer(
        challenge,
        method="GET",
        uri="/dir/index.html",
        user="Mufasa",
        password="Circle Of Life",
        cnonce="0a4f113b",
    )
    assert 'response="6629fae49393a05397450978507c4ef1"' in answer
    assert sip.digest_is_right(answer, method="GET", password="Circle Of Life")
    assert not sip.digest_is_right(answer, method="GET", password="circle of life")
    assert not sip.digest_is_right(answer, method="POST", password="Circle Of Life")


def test_digest_without_qop_with_sha256_and_with_the_unknown() -> None:
    for extra in ("", ", algorithm=SHA-256", ', qop="auth"'):
        challenge = sip.parse_challenge(f'Digest realm="r", nonce="n"{extra}')
        answer = sip.digest_answer(challenge, method="REGISTER", uri="sip:r", user="u", password="p")
        assert sip.digest_is_right(answer, method="REGISTER", password="p")
        assert ("qop=auth" in answer) == ("qop" in extra)
    with pytest.raises(sip.SipSyntaxError, match="'MD4' is neither MD5 nor SHA-256"):
        sip.digest_answer({"algorithm": "MD4"}, method="X", uri="u", user="u", password="p")
    with pytest.raises(sip.SipSyntaxError, match="'Basic' is not Digest"):
        sip.parse_challenge("Basic abc")


def test_session_descriptions() -> None:
    plain = sip.sdp("127.0.0.9", 4000)
    assert sip.audio_target(plain) == ("127.0.0.9", 4000)
    assert sip.event_payload_type(plain) == 101
    assert sip.sdp("127.0.0.9", 4000, variant="empty") == ""
    assert sip.event_payload_type(sip.sdp("127.0.0.9", 4000, variant="unknown_codec")) is None
    for variant in ("no_audio", "no_media", "empty", "garbage"):
        with pytest.raises(sip.SipSyntaxError, match="no audio stream"):
            sip.audio_target(sip.sdp("127.0.0.9", 4000, variant=variant))
    with pytest.raises(ValueError, match="SDP variant 'x' is not one of plain, no_audio"):
        sip.sdp("127.0.0.9", 4000, variant="x")
