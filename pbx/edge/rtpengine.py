"""rtpengine as a supervised child: the media anchor of every leg from outside the workers' network.

It runs in userspace (no kernel module) and keeps its calls in memory alone. When it dies, calls under way
lose their media and keep their signalling: a re-INVITE of the worker's anchors them anew, because an offer
for an unknown call makes a new one.
"""

import ipaddress
from pathlib import Path

from pbx.config import Config
from pbx.edge import ng
from pbx.edge.child import ChildCannotStart, ChildSpec
from pbx.edge.files import account, private_folder, program

PROGRAM = Path("/usr/bin/rtpengine")
_LEVELS = {"debug": "7", "info": "5", "warning": "4", "error": "3"}
NO_MEDIA_S = 60  # both sides silent: a crashed pair must not hold ports
MUTED_S = 3600  # both sides on hold
UNANSWERED_S = 240  # an offer nobody answered; longer than any phone rings
LONGEST_S = 14400


def child(config: Config, run_dir: Path) -> ChildSpec:
    """rtpengine for `config`. Raises ChildCannotStart when addresses or ports cannot be used."""
    user = account(config.run_as)
    edge = config.edge
    if edge.rtp_last - edge.rtp_first < 100:
        raise ChildCannotStart(
            "edge.rtp_first and edge.rtp_last leave fewer than 100 media ports; a call takes four."
        )
    argv = [
        program(PROGRAM, "rtpengine-daemon"),
        "--config-file=none",
        "--foreground",
        "--log-stderr",
        "--no-log-timestamps",
        f"--log-level={_LEVELS[config.log_level]}",
        "--table=-1",
        f"--listen-ng=127.0.0.1:{edge.ng_port}",
        f"--port-min={edge.rtp_first}",
        f"--port-max={edge.rtp_last}",
        f"--timeout={NO_MEDIA_S}",
        f"--silent-timeout={MUTED_S}",
        f"--offer-timeout={UNANSWERED_S}",
        f"--final-timeout={LONGEST_S}",
        "--delete-delay=0",
        "--num-threads=2",
        # Behind NAT the address in SDP is wrong: take at once the one packets come from.
        "--endpoint-learning=heuristic",
        "--dtls-cert-cipher=prime256v1",
        "--software-id=careline",
    ]
    argv += [f"--interface={interface}" for interface in interfaces(config)]
    return ChildSpec(
        name="rtpengine",
        argv=tuple(argv),
        run_as=user.pw_name if user else None,
        cwd=run_dir,
        before=lambda: _before(config, run_dir),
        ready=lambda: is_alive(config),
        alive=lambda: is_alive(config),
        alive_every_s=5.0,
        stop_within_s=5.0,
    )


async def _before(config: Config, run_dir: Path) -> None:
    private_folder(run_dir, account(config.run_as))


async def is_alive(config: Config) -> bool:
    """Whether rtpengine answers a ping on its control port within a second."""
    try:
        return await ng.ping(("127.0.0.1", config.edge.ng_port), within_s=1.0)
    except ng.NgError:
        return False


def interfaces(config: Config) -> list[str]:
    """rtpengine's --interface values: one, or "internal" and "external" when the workers' network is another.

    Raises ChildCannotStart when an address is not one that media can be sent from.
    """
    edge = config.edge
    for key, value in (("edge.address", edge.address), ("edge.internal_address", edge.internal_address)):
        if not value and key == "edge.internal_address":
            continue
        try:
            usable = not ipaddress.ip_address(value).is_unspecified
        except ValueError:
            usable = False
        if not usable:
            raise ChildCannotStart(f'{key} is "{value}"; set the numeric address of one network interface.')
    outside = edge.address + (f"!{edge.public_address}" if edge.public_address else "")
    if edge.internal_address and edge.internal_address != edge.address:
        return [f"external/{outside}", f"internal/{edge.internal_address}"]
    return [outside]
