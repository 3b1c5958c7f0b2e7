"""Who hears whom: plays, hold music and bridges on the conference port of each leg. Only on the pj thread.

What is wanted is kept on the leg (play, music, peers); `attach` makes it so whenever the audio of a leg
appears or was made anew by a re-INVITE. The end of a play is known from the length of its files and the
clock: a callback at the end of a file would come on a thread of the library and could meet a player that is
being freed. Silence after the last file keeps the library from reaching that end: there it drops up to
250 ms of audio that it has read already (pjmedia 2.17, wav_playlist.c).
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pjsua2 as pj

from pbx.core.legs import PlayEnded, PlayId
from pbx.sip import wav
from pbx.sip.settings import EngineSettings

if TYPE_CHECKING:
    from pbx.sip.leg import Leg
    from pbx.sip.owner import Owner

MOST_FILES = 63  # of one play; the library takes 64 names, and the silence at the end is one
PADDING_MS = 1000
TAIL_S = 0.06  # frames still in the conference and its clock when the last sample was due


@dataclass(slots=True)
class Play:
    """A play that was asked for."""

    play_id: PlayId
    files: tuple[str, ...]
    length_ms: int
    loop: bool
    player: pj.AudioMediaPlayer | None = None  # None until there is audio


class Patch:
    """Connections of all legs of one engine."""

    def __init__(self, owner: "Owner", settings: EngineSettings, folder: Path) -> None:
        """`folder`: a directory of our own for the silence.

        Raises WavError when the hold music is unusable.
        """
        self._owner = owner
        self._lengths = wav.Lengths()
        self._lead_in_s = settings.lead_in_ms / 1000
        self._padding = folder / "silence.wav"
        wav.write_silence(self._padding, PADDING_MS)
        self._lengths.of(settings.hold_music)
        self._music = pj.AudioMediaPlayer()
        self._music.createPlayer(str(settings.hold_music), 0)

    # --- plays -------------------------------------------------------------------------------

    def play(self, leg: "Leg", play_id: PlayId, files: tuple[str, ...], loop: bool) -> None:
        """Replace what the leg plays; starts now or when its audio comes."""
        self.end_play(leg, completed=False)
        try:
            if len(files) > MOST_FILES:
                raise wav.WavError(
                    f"A play has {len(files)} files; {MOST_FILES} are the most. Join some of them."
                )
            length_ms = sum(self._lengths.of(file) for file in files)
        except wav.WavError as error:
            self._owner.emit(PlayEnded(leg=leg.leg_id, play=play_id, completed=False, error=str(error)))
            return
        if not files:
            self._owner.emit(PlayEnded(leg=leg.leg_id, play=play_id, completed=True))
            return
        leg.play = Play(play_id, files, length_ms, loop)
        if leg.audio is not None:
            self._start_play(leg, leg.play)

    def end_play(self, leg: "Leg", *, completed: bool, play_id: PlayId | None = None) -> None:
        """End the play of a leg and say so; with `play_id` only when that one is still running."""
        play = leg.play
        if play is None or (play_id is not None and play.play_id != play_id):
            return
        leg.play = None
        play.player = None  # freed here: its port leaves the conference
        self._owner.emit(PlayEnded(leg=leg.leg_id, play=play.play_id, completed=completed))

    def _start_play(self, leg: "Leg", play: Play) -> None:
        """Start now, or after the lead-in when it is the first play since the answer."""
        if leg.lead_in_due and self._lead_in_s:
            leg.lead_in_due = False
            self._owner.later(self._lead_in_s, leg.leg_id, self._start_player, (play,))
        else:
            leg.lead_in_due = False
            self._start_player(leg, play)

    def _start_player(self, leg: "Leg", play: Play) -> None:
        if leg.play is not play or leg.audio is None or play.player is not None:
            return  # replaced, interrupted or without audio meanwhile
        player = pj.AudioMediaPlayer()
        try:
            if play.loop and len(play.files) == 1:
                player.createPlayer(play.files[0], 0)
            else:
                names = pj.StringVector()
                for file in play.files:
                    names.append(file)
                if not play.loop:
                    names.append(str(self._padding))
                player.createPlaylist(names, "play", 0 if play.loop else pj.PJMEDIA_FILE_NO_LOOP)
            player.startTransmit(leg.audio)
        except pj.Error as error:
            leg.play = None
            sentence = f"A play could not start: {error.reason}."
            self._owner.emit(PlayEnded(leg=leg.leg_id, play=play.play_id, completed=False, error=sentence))
            return
        play.player = player
        if not play.loop:
            self._owner.play_ends(time.monotonic() + play.length_ms / 1000 + TAIL_S, leg.leg_id, play.play_id)

    # --- music and bridges -------------------------------------------------------------------

    def set_music(self, leg: "Leg", on: bool) -> None:
        """Hold music to the leg because the application wants it."""
        leg.music = on
        if leg.audio is not None:
            self._set_music_port(leg, leg.audio)

    def _set_music_port(self, leg: "Leg", audio: pj.AudioMedia) -> None:
        if leg.music or leg.near_hold:
            self._music.startTransmit(audio)
        else:
            self._music.stopTransmit(audio)

    def bridge(self, a: "Leg", b: "Leg") -> None:
        """Let two legs hear each other from now on, as soon as both have audio."""
        a.peers.add(b.leg_id)
        b.peers.add(a.leg_id)
        self._connect(a, b)

    def unbridge(self, a: "Leg", b: "Leg") -> None:
        """Take back a bridge."""
        a.peers.discard(b.leg_id)
        b.peers.discard(a.leg_id)
        self._disconnect(a, b)

    def _connect(self, a: "Leg", b: "Leg") -> None:
        if a.audio is not None and b.audio is not None and not a.near_hold and not b.near_hold:
            a.audio.startTransmit(b.audio)
            b.audio.startTransmit(a.audio)

    def _disconnect(self, a: "Leg", b: "Leg") -> None:
        if a.audio is not None and b.audio is not None:
            a.audio.stopTransmit(b.audio)
            b.audio.stopTransmit(a.audio)

    # --- life of a leg -----------------------------------------------------------------------

    def attach(self, leg: "Leg") -> None:
        """Make what is wanted true after the audio of a leg appeared, changed or went."""
        audio = leg.audio
        if audio is None:
            return
        if leg.music or leg.near_hold or leg.had_hold:
            self._set_music_port(leg, audio)
        leg.had_hold = leg.near_hold
        if leg.play is not None:
            if leg.play.player is None:
                self._start_play(leg, leg.play)
            else:
                leg.play.player.startTransmit(audio)
        for peer_id in leg.peers:
            peer = self._owner.legs.get(peer_id)
            if peer is None:
                continue
            if leg.near_hold:
                self._disconnect(leg, peer)
            else:
                self._connect(leg, peer)
        self._owner.recordings.attach(leg)

    def detach(self, leg: "Leg") -> None:
        """Forget a leg that is over; its ports are gone already."""
        self.end_play(leg, completed=False)
        for peer_id in leg.peers:
            peer = self._owner.legs.get(peer_id)
            if peer is not None:
                peer.peers.discard(leg.leg_id)
        leg.peers.clear()

    def close(self) -> None:
        """Free the music player."""
        del self._music
