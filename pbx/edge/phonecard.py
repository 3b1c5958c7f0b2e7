"""What to type into a phone, printed once by `careline user add`. Pure."""

from collections.abc import Sequence

from pbx.config import Config


def card(config: Config, username: str, password: str) -> str:
    """The settings of one account as lines of text: server, transports with ports, user, password, audio.

    TLS comes first: with it, calls are encrypted and the password's digest cannot be listened to.
    """
    edge = config.edge
    server = edge.public_address or edge.address
    ways: list[tuple[str, str]] = []
    if edge.tls_port:
        ways.append((f"TLS, port {edge.tls_port} (best)", "SRTP: mandatory, SDES, AES_CM_128_HMAC_SHA1_80"))
    ways.append((f"UDP or TCP, port {edge.udp_port} (only in your own network)", "SRTP: off"))
    if edge.wss_port:
        ways.append((f"WebSocket wss://{server}:{edge.wss_port}/", "in a browser; DTLS-SRTP is automatic"))
    rows = [
        ("Server, registrar", server),
        ("Domain, realm", config.site.realm),
        ("User name, auth. name", username),
        ("Password", password),
        *_ways(ways),
        ("Codecs", "PCMU (G.711 u-law), PCMA; others are converted"),
        ("DTMF", "RFC 4733 (RFC 2833, telephone-event)"),
        ("Register every", "300 seconds"),
    ]
    if edge.digest == "sha-256":
        rows.append(("Digest", "SHA-256 (RFC 8760); a phone with MD5 alone cannot register"))
    if edge.tls_port and edge.tls_certificate is None:
        rows.append(("Certificate", "self-signed: switch the phone's certificate check off, or import"))
        rows.append(("", str(config.state_dir / "certificates" / "self-signed.pem")))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join(["Type this into the phone; the password is not shown again:", "", *lines, ""])


def _ways(ways: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    rows = []
    for number, (transport, media) in enumerate(ways):
        rows.append(("Transport" if number == 0 else "  or", transport))
        rows.append(("", media))
    return rows
