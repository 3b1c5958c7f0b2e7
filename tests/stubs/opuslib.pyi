"""Types of opuslib 3.0: the encoder and decoder that recordings and listen-in use."""

class OpusError(Exception):
    code: int
    def __init__(self, code: int) -> None: ...

class Encoder:
    def __init__(self, fs: int, channels: int, application: int | str) -> None: ...
    def reset_state(self) -> None: ...
    def encode(self, pcm_data: bytes, frame_size: int) -> bytes: ...
    def encode_float(self, pcm_data: bytes, frame_size: int) -> bytes: ...
    bitrate: int
    complexity: int
    inband_fec: int
    packet_loss_perc: int
    vbr: int
    lookahead: int
    signal: int

class Decoder:
    def __init__(self, fs: int, channels: int) -> None: ...
    def reset_state(self) -> None: ...
    def decode(self, opus_data: bytes, frame_size: int, decode_fec: bool = ...) -> bytes: ...
    def decode_float(self, opus_data: bytes, frame_size: int, decode_fec: bool = ...) -> bytes: ...
    gain: int

APPLICATION_VOIP: int
APPLICATION_AUDIO: int
APPLICATION_RESTRICTED_LOWDELAY: int
SIGNAL_VOICE: int
SIGNAL_MUSIC: int
AUTO: int
