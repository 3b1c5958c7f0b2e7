"""Bencode of rtpengine's control protocol, and TURN credentials."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbx.config import Config
from pbx.edge import coturn, ng

pytestmark = pytest.mark.unit

VALUES = st.recursive(
    st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_known_texts() -> None:
    assert ng.encode({"command": "ping"}) == b"d7:command4:pinge"
    assert ng.encode({"b": [1, "ä"], "a": -2}) == b"d1:ai-2e1:bli1e2:\xc3\xa4ee"
    assert ng.decode(b"d6:result4:ponge") == {"result": "pong"}
    with pytest.raises(TypeError, match="float cannot be bencoded"):
        ng.encode(1.5)


@given(VALUES)
def test_there_and_back(value: object) -> None:
    assert ng.decode(ng.encode(value)) == value


@given(st.binary(max_size=40))
def test_garbage_is_a_value_error_or_a_value(raw: bytes) -> None:
    try:
        ng.decode(raw)
    except ValueError:
        return


@pytest.mark.parametrize("raw", [b"", b"d", b"5:abc", b"i1", b"i1e2", b"-1:a", b"di1ei2ee", b"l" * 5000])
def test_broken_texts(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - int() words some of them
        ng.decode(raw)


def test_turn_credentials_hold_for_their_time() -> None:
    config = Config.model_validate({"edge": {"address": "192.0.2.1", "turn_port": 3478}})
    at = datetime(2031, 1, 1, tzinfo=UTC)
    made = coturn.credentials(config, "secret", lasts=timedelta(hours=1), at=at)
    assert made.username == str(int(at.timestamp()) + 3600)
    assert made.urls == ("turn:192.0.2.1:3478?transport=udp", "turn:192.0.2.1:3478?transport=tcp")
    assert made != coturn.credentials(config, "other", lasts=timedelta(hours=1), at=at)
