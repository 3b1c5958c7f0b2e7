"""The raw peer against real stacks: what it sends is understood, and what it breaks is broken on purpose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.peers import tones
from tests.peers.baresip import Baresip
from tests.peers.phones import Missed, Phone
from tests.peers.rawrtp import Rtp
from tests.peers.rawsip import RawSip
from tests.peers.sipmessage import (
    audio_target,
    build_response,
    digest_is_right,
    event_payload_type,
    parse_challenge,
    sdp,
    uri_of,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def phone(tmp_path: Path) -> AsyncIterator[Phone]:
    async with Phone.start(folder=tmp_path, name="phone") as made:
        yield made


@pytest.fixture
async def raw() -> AsyncIterator[RawSip]:
    async with RawSip.start() as made:
        yield made


def place(phone: Phone) -> tuple[str, int]:
    return phone.bind, phone.ports["udp"]


async def test_a_whole_call_with_audio_and_keys_both_ways(phone: Phone, raw: RawSip) -> None:
    await phone.answer_calls(tone_hz=620)
    async with Rtp.start(raw.bind) as rtp:
        dialog = raw.dialog(place(phone), phone.uri, display="Raw R")
        dialog.invite(sdp(raw.bind, rtp.port), headers=[("X-Test", "1")])
        ok = await dialog.final(5)
        dialog.ack()
        call = await phone.incoming(5)
        await call.answered(5)
        assert (call.display, call.headers["x-test"]) == ("Raw R", "1")
        to, events = audio_target(ok.sdp), event_payload_type(ok.sdp)
        assert events is not None
        sending = asyncio.create_task(rtp.send_audio(tones.tone(440, 1500), to))
        await asyncio.gather(rtp.hears(620, 4), call.hears(440, 4))
        await sending
        await rtp.send_key("5", to, payload_type=events)
        dialog.info_key("6")
        assert (await dialog.final(5, method="INFO")).status == 200
        await call.received_digits("56", 5)
        await call.press("9")
        await asyncio.sleep(0.6)
        assert {p.payload[0] for p in rtp.packets if p.payload_type == events} == {9}
        dialog.bye()
        assert (await dialog.final(5, method="BYE")).status == 200
        assert (await call.ended(5)).by_peer
    assert raw.refused == []


async def test_garbage_and_lost_packets_do_not_hurt_the_far_end(phone: Phone, raw: RawSip) -> None:
    await phone.answer_calls()
    async with Rtp.start(raw.bind) as rtp, Rtp.start(raw.bind) as stranger:
        dialog = raw.dialog(place(phone), phone.uri)
        dialog.invite(sdp(raw.bind, rtp.port))
        to = audio_target((await dialog.final(5)).sdp)
        dialog.ack()
        call = await phone.incoming(5)
        await call.answered(5)
        await stranger.garbage(to, packets=300)
        await asyncio.gather(rtp.send_audio(tones.tone(440, 2000), to, lose_every=10), call.hears(440, 4))
        dialog.bye()
        await call.ended(5)


async def test_late_offer(phone: Phone, raw: RawSip) -> None:
    await phone.answer_calls(tone_hz=620)
    async with Rtp.start(raw.bind) as rtp:
        dialog = raw.dialog(place(phone), phone.uri)
        dialog.invite()
        assert "m=audio" in (await dialog.final(5)).sdp
        dialog.ack(sdp(raw.bind, rtp.port))
        await rtp.hears(620, 5)
        dialog.bye()


async def test_cancel_and_its_race_with_the_answer(phone: Phone, raw: RawSip) -> None:
    await phone.ring_only()
    dialog = raw.dialog(place(phone), phone.uri)
    dialog.invite(sdp(raw.bind, 55900))
    await dialog.provisional(5, 180)
    dialog.cancel()
    assert (await dialog.final(5, method="CANCEL")).status == 200
    assert (await dialog.final(5)).status == 487
    dialog.ack()
    assert not (await (await phone.incoming(5)).ended(5)).was_answered
    await phone.answer_calls()
    race = raw.dialog(place(phone), phone.uri)
    race.invite(sdp(raw.bind, 55900))
    race.cancel()
    assert (await race.final(5)).status in (200, 487)  # RFC 3261 9.2: either is right, nothing else
    race.ack()
    if race.responses()[-1].status == 200:
        race.bye()
    call = await phone.incoming(5)
    await call.ended(5)


async def test_no_ack_brings_retransmissions_and_bye_before_ack_is_taken(phone: Phone, raw: RawSip) -> None:
    await phone.answer_calls()
    dialog = raw.dialog(place(phone), phone.uri)
    dialog.invite(sdp(raw.bind, 55900))
    dialog.again()
    await dialog.final(5)
    await asyncio.sleep(1.8)  # T1 = 0.5 s, then doubling (RFC 3261 13.3.1.4)
    finals = [m for m in dialog.responses() if m.status == 200]
    assert len(finals) >= 3
    assert (
        len([e for e in phone.events if e.kind == "incoming"]) == 1
    )  # the repeated INVITE is no second call
    dialog.bye()
    assert (await dialog.final(5, method="BYE")).status == 200
    await (await phone.incoming(5)).ended(5)


@pytest.mark.parametrize("variant", ["no_audio", "unknown_codec", "no_media", "refused", "garbage"])
async def test_unusable_offers_are_refused_and_the_phone_lives(
    phone: Phone, raw: RawSip, variant: str
) -> None:
    await phone.answer_calls()
    dialog = raw.dialog(place(phone), phone.uri)
    dialog.invite(sdp(raw.bind, 55900, variant=variant))
    response = await dialog.final(5)
    dialog.ack()
    if response.status == 200:
        dialog.bye()
    else:
        assert 400 <= response.status < 600
    assert (await raw.options(place(phone), phone.uri)).status == 200


async def test_datagrams_that_are_no_sip_are_kept_apart(phone: Phone, raw: RawSip) -> None:
    raw.send(b"\r\n\r\n", (raw.bind, raw.port))
    raw.send(b"OPTIONS sip:x SIP/2.0\r\n\r\n", (raw.bind, raw.port))
    raw.send(b"nonsense", place(phone))
    assert (await raw.options(place(phone), phone.uri)).status == 200
    assert [reason for _, reason in raw.refused] == [
        "The mandatory header field via is missing (RFC 3261 8.1.1)."
    ]
    with pytest.raises(
        Missed, match=r"a BYE: not within 0\.1 s; sip:raw@127.*saw \['200 OPTIONS'\], refused 1"
    ):
        await raw.request("BYE", 0.1)


async def test_a_burst_is_counted(raw: RawSip, tmp_path: Path) -> None:
    async with Phone.start(folder=tmp_path, name="many", max_calls=100) as phone:
        await phone.answer_calls(ring=False)
        outcome = await raw.burst(place(phone), phone.uri, per_s=40, for_s=1, body=sdp(raw.bind, 55900))
        assert (outcome.sent, outcome.unanswered) == (40, 0)
        assert outcome.finals == {200: 40}
        assert outcome.byes_answered == 40
        assert max(outcome.answer_ms) < 3000
    silent = RawSip.start(answers={})
    async with silent:
        outcome = await raw.burst((silent.bind, silent.port), silent.uri, per_s=20, for_s=0.5, linger_s=0.5)
        assert (outcome.sent, outcome.unanswered) == (10, 10)


async def test_the_phone_calls_the_raw_peer(phone: Phone, raw: RawSip) -> None:
    async with Rtp.start(raw.bind) as rtp:
        call = await phone.dial(raw.uri, tone_hz=500)
        dialog = await raw.incoming(5)
        dialog.respond(100)
        dialog.respond(180)
        await call.ringing(5)
        dialog.respond(200, sdp(raw.bind, rtp.port))
        await dialog.request_in("ACK", 5)
        await call.answered(5)
        await rtp.hears(500, 5)
        dialog.bye()
        assert (await call.ended(5)).by_peer
        assert (await dialog.final(5, method="BYE")).status == 200
    call = await phone.dial(raw.uri)
    (await raw.incoming(5)).respond(503, headers=[("Retry-After", "7")])
    ended = await call.ended(5)
    assert (ended.code, ended.headers["retry-after"]) == (503, "7")


async def serve_registrar(raw: RawSip, passwords: Mapping[str, str], contacts: dict[str, str]) -> None:
    """Challenges each REGISTER once and stores the contact of whoever proves the password."""
    while True:
        arrival = await raw.request("REGISTER", 60)
        request = arrival.message
        user = uri_of(request.get("to")).removeprefix("sip:").partition("@")[0]
        proof = request.get("authorization")
        if not proof:
            challenge = ("WWW-Authenticate", 'Digest realm="test", nonce="n1", qop="auth", algorithm=MD5')
            raw.send(build_response(request, 401, to_tag="r", headers=[challenge]), arrival.source)
        elif parse_challenge(proof)["username"] == user and digest_is_right(
            proof, method="REGISTER", password=passwords.get(user, "")
        ):
            contacts[user] = request.contact
            kept = (
                [("Contact", f"<{request.contact}>;expires=60")]
                if "expires=0" not in request.get("contact")
                else []
            )
            raw.send(build_response(request, 200, to_tag="r", headers=kept), arrival.source)
        else:
            raw.send(build_response(request, 403, to_tag="r"), arrival.source)


async def test_all_three_peers_register_with_a_password(phone: Phone, tmp_path: Path) -> None:
    contacts: dict[str, str] = {}
    async with (
        RawSip.start(name="registrar") as registrar,
        Baresip.start(folder=tmp_path) as desk,
        RawSip.start() as raw,
    ):
        serving = asyncio.create_task(
            serve_registrar(registrar, {"ann": "a1", "bea": "b2", "cat": "c3"}, contacts)
        )
        server = f"{registrar.bind}:{registrar.port}"
        await phone.register("ann", "a1", server)
        await desk.register("bea", "b2", server)
        response = await raw.register((registrar.bind, registrar.port), "cat", "c3", domain=server)
        assert response.status == 200
        assert set(contacts) == {"ann", "bea", "cat"}
        assert f"@{phone.bind}:" in contacts["ann"]
        with pytest.raises(Missed, match="could not register: 403"):
            await phone.register("ann", "wrong", server)
        assert (await desk.try_register("bea", "wrong", server)).kind == "register_failed"
        refused = await raw.register((registrar.bind, registrar.port), "cat", "wrong", domain=server)
        assert refused.status == 403
        await phone.register("ann", "a1", server)
        await phone.dial("100")  # a bare user goes to the registered domain, through the server
        assert (await registrar.incoming(5)).offered is not None
        await phone.unregister()
        assert registrar.refused == []
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
