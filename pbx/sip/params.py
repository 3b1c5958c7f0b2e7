"""Parameters of calls, answers and hang-ups as pjsua2 wants them; common ones are made once and shared."""

from collections.abc import Mapping

import pjsua2 as pj

from pbx.core import causes
from pbx.core.causes import Cause
from pbx.sip import wire
from pbx.sip.settings import EngineSettings


class Params:
    """Made after the library was opened, freed before it is destroyed."""

    def __init__(self, settings: EngineSettings) -> None:
        self._host = f"{settings.address}:{settings.sip_port}"
        self._hangups: dict[Cause, pj.CallOpParam] = {}
        self.answers = {code: _answer(code) for code in (180, 183, 200)}
        self.reoffer = _audio_only()
        self.overload = self.hangup(Cause.OVERLOAD, 503, settings.retry_after_s)

    def call(self, caller_user: str, caller_display: str, headers: Mapping[str, str]) -> pj.CallOpParam:
        """An INVITE with our From and extra headers."""
        prm = _audio_only()
        prm.txOption.localUri = wire.name_addr(caller_user, caller_display, self._host)
        for name, value in headers.items():
            prm.txOption.headers.append(_header(name, value))
        return prm

    def hangup(self, cause: Cause, code: int, retry_after_s: int | None = None) -> pj.CallOpParam:
        """Status code (0: BYE or CANCEL), Reason (RFC 3326) and Retry-After of the end of a leg."""
        shared = code == 0 and retry_after_s is None
        if shared and cause in self._hangups:
            return self._hangups[cause]
        prm = pj.CallOpParam()
        prm.statusCode = code
        prm.txOption.headers.append(_header("Reason", causes.reason_header(cause)))
        if retry_after_s is not None:
            prm.txOption.headers.append(_header("Retry-After", str(retry_after_s)))
        if shared:
            self._hangups[cause] = prm
        return prm


def _audio_only() -> pj.CallOpParam:
    prm = pj.CallOpParam(True)
    prm.opt.audioCount = 1
    prm.opt.textCount = 0
    return prm


def _answer(code: int) -> pj.CallOpParam:
    prm = _audio_only()
    prm.statusCode = code
    return prm


def _header(name: str, value: str) -> pj.SipHeader:
    header = pj.SipHeader()
    header.hName = wire.one_line(name)
    header.hValue = wire.one_line(value)
    return header
