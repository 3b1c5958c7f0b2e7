"""What the engine has to be told: one frozen value, made by the composition root from the configuration."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Addresses, capacity and bounds of one engine. Every wait of the engine is one of these numbers."""

    address: str  # IP address SIP and RTP are bound to; loopback or a private network
    sip_port: int  # UDP port of SIP
    rtp_first: int  # first media port
    rtp_ports: int  # media ports from there on; a leg takes two
    hold_music: Path  # WAV, 8 kHz mono 16-bit PCM, played in a loop to legs on hold or with music on
    max_calls: int = 250  # incoming legs admitted at once; beyond it 503 with Retry-After
    user_agent: str = "careline"  # User-Agent and Server header
    lead_in_ms: int = 200  # silence before the first play after the answer, so that no syllable is lost
    codecs: tuple[str, ...] = ("PCMU", "PCMA")  # best first; "G722" is the only other one that makes sense
    session_timer_s: int = 1800  # RFC 4028 session interval; 0 switches session timers off
    ack_within_s: float = 8.0  # from our 200 to its ACK; then the leg ends with Cause.TIMEOUT
    answer_within_s: float = 30.0  # from an INVITE to our final answer; then 480 and Cause.TIMEOUT
    dial_within_s: float = 180.0  # from our INVITE to their final answer; then CANCEL and Cause.NO_ANSWER
    media_loss_s: float = 30.0  # no packet on an answered leg that is not on hold; then Cause.MEDIA_LOST
    reanchor_after_s: float = 4.0  # no packet on such a leg; then a re-INVITE, at most every 6, 12, 24 … s
    edge: str = ""  # "address:port" of the edge: next hop of calls made for a REFER whatever host it names
    name_server: str = ""  # IPv4 address of the DNS server for names in SIP; empty: the system's first one
    retry_after_s: int = 5  # Retry-After of a 503
    call_slots: int = (
        1024  # dialogs the library keeps, ending ones included (a BYE that nobody answers: 10 s)
    )
    library_log_level: int = (
        0  # pjsip's own log on stderr, 0 to 6; shows numbers and names: for debugging only
    )
