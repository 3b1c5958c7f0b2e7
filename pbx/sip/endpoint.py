"""The library as a whole: opened, configured, polled and destroyed. Only the pj thread calls this.

Chosen for telephony: 8 kHz clock, 20 ms frames, no echo canceller, no silence suppression, no video, no text;
everything pjsua would rewrite for NAT is off, because the edge does that.
"""

import logging
from pathlib import Path

import pjsua2 as pj

from pbx.sip.settings import EngineSettings

log = logging.getLogger("careline.engine")
POLL_MS = 5


class Endpoint:
    """pjsua's singleton; `open` and `close` once each."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._endpoint = pj.Endpoint()

    def open(self) -> None:
        """Create the library, its UDP transport and its codecs. Raises pj.Error."""
        s = self._settings
        self._endpoint.libCreate()
        config = pj.EpConfig()
        config.logConfig.level = s.library_log_level
        config.logConfig.consoleLevel = s.library_log_level
        ua = config.uaConfig
        ua.threadCnt = 0  # no SIP thread of its own …
        ua.mainThreadOnly = True  # … and callbacks only inside poll()
        ua.maxCalls = s.call_slots
        ua.userAgent = s.user_agent
        ua.mwiUnsolicitedEnabled = False
        ua.nameserver.append(
            s.name_server or _name_server()
        )  # its resolver is asynchronous; without it a name would block us
        media = config.medConfig
        media.clockRate = media.sndClockRate = 8000
        media.audioFramePtime = media.ptime = 20
        media.noVad = True
        media.ecTailLen = 0
        media.quality = 3
        media.maxMediaPorts = 8192
        self._endpoint.libInit(config)
        transport = pj.TransportConfig()
        transport.port = s.sip_port
        transport.boundAddress = transport.publicAddress = s.address
        self._endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
        self._endpoint.libStart()
        self._endpoint.audDevManager().setNullDev()  # a clock, no sound card
        self._choose_codecs(s.codecs)

    def account_config(self, priority: int, ports: range, route: str = "") -> pj.AccountConfig:
        """An account without registration; `route` is the next hop of its calls.

        Its legs walk through `ports` in turn from a random one on, RTP on the even ones: a port that became
        free comes again last, when whoever still sends to it has most likely given up.
        """
        s = self._settings
        config = pj.AccountConfig()
        config.priority = priority
        config.idUri = f"sip:careline@{s.address}:{s.sip_port}"
        if route:
            config.sipConfig.proxies.append(f"<sip:{route};lr>")
        rtp = config.mediaConfig.transportConfig
        rtp.port, rtp.portRange = ports.start, len(ports) - 2  # the library counts to the last even port
        rtp.randomizePort = True  # a new engine, too, stays away from the ports of the last one's legs
        rtp.boundAddress = rtp.publicAddress = s.address
        # With IPv6 allowed every outgoing call asks the name server for our own host name, and waits for it.
        config.mediaConfig.ipv6Use = config.sipConfig.ipv6Use = pj.PJSUA_IPV6_DISABLED
        config.mediaConfig.lockCodecEnabled = False  # no re-INVITE only to choose among codecs
        call = config.callConfig
        call.prackUse = pj.PJSUA_100REL_OPTIONAL
        if s.session_timer_s:
            call.timerUse = pj.PJSUA_SIP_TIMER_ALWAYS
            call.timerMinSESec = 90  # RFC 4028 section 4
            call.timerSessExpiresSec = s.session_timer_s
        else:
            call.timerUse = pj.PJSUA_SIP_TIMER_INACTIVE
        nat = config.natConfig
        nat.contactRewriteUse = nat.viaRewriteUse = nat.sdpNatRewriteUse = nat.sipOutboundUse = 0
        nat.udpKaIntervalSec = 0
        return config

    def poll(self) -> None:
        """Let the library work for at most POLL_MS milliseconds; callbacks happen inside."""
        self._endpoint.libHandleEvents(POLL_MS)

    def close(self, quietly: bool) -> None:
        """Destroy the library; `quietly` sends and awaits nothing. All Call objects must be gone."""
        flags = pj.PJSUA_DESTROY_NO_RX_MSG | (pj.PJSUA_DESTROY_NO_TX_MSG if quietly else 0)
        try:
            self._endpoint.libDestroy(flags)
        except pj.Error as error:
            log.error("The library did not close", extra={"action": "library-close", "reason": error.reason})

    def _choose_codecs(self, wanted: tuple[str, ...]) -> None:
        for codec in self._endpoint.codecEnum2():
            name = codec.codecId.partition("/")[0]
            rank = wanted.index(name) if name in wanted else None
            self._endpoint.codecSetPriority(codec.codecId, 0 if rank is None else 200 - rank)


def _name_server(resolv_conf: Path = Path("/etc/resolv.conf")) -> str:
    """The system's first IPv4 name server, or loopback, which at least refuses at once."""
    try:
        lines = resolv_conf.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1]:
            return words[1]
    return "127.0.0.1"
