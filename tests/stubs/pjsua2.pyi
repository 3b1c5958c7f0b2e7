"""Types of pjsua2 as our own build of pjproject 2.17 exposes it: what a telephony engine without video needs.

Compared with the built module by tests/integration/test_setup.py, so a name here exists there.
SWIG vectors are read by index or iteration while the object they came from is still referenced;
`getInfo().media` of a CallInfo nobody holds is freed memory.
"""

from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar, overload

_T = TypeVar("_T")

class _Vector(Generic[_T]):
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, other: Iterable[_T]) -> None: ...
    def __iter__(self) -> Iterator[_T]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __getitem__(self, index: int) -> _T: ...
    def __setitem__(self, index: int, value: _T) -> None: ...
    def append(self, value: _T) -> None: ...
    def push_back(self, value: _T) -> None: ...
    def size(self) -> int: ...
    def clear(self) -> None: ...

class StringVector(_Vector[str]): ...
class IntVector(_Vector[int]): ...
class ByteVector(_Vector[int]): ...
class SipHeaderVector(_Vector[SipHeader]): ...
class SipMultipartPartVector(_Vector[SipMultipartPart]): ...
class AuthCredInfoVector(_Vector[AuthCredInfo]): ...
class CallMediaInfoVector(_Vector[CallMediaInfo]): ...
class ToneDescVector(_Vector[ToneDesc]): ...
class ToneDigitVector(_Vector[ToneDigit]): ...
class SrtpCryptoVector(_Vector[SrtpCrypto]): ...
class CodecInfoVector2(_Vector[CodecInfo]): ...
class AudioMediaVector2(_Vector[AudioMedia]): ...

class ToneDesc:
    freq1: int
    freq2: int
    on_msec: int
    off_msec: int
    volume: int
    flags: int

class ToneDigit:
    digit: str
    on_msec: int
    off_msec: int
    volume: int

class SipMultipartPart:
    headers: SipHeaderVector
    contentType: SipMediaType
    body: str

class SrtpCrypto:
    key: str
    name: str
    flags: int

class Error(Exception):
    status: int
    title: str
    reason: str
    srcFile: str
    srcLine: int
    def info(self, multi_line: bool = ...) -> str: ...
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(
        self, prm_status: int, prm_title: str, prm_reason: str, prm_src_file: str, prm_src_line: int
    ) -> None: ...

class TimeVal:
    sec: int
    msec: int

class SipHeader:
    hName: str
    hValue: str

class SipMediaType:
    type: str
    subType: str

class SipTxOption:
    targetUri: str
    localUri: str
    contactUri: str
    headers: SipHeaderVector
    contentType: str
    msgBody: str
    multipartContentType: SipMediaType
    multipartParts: SipMultipartPartVector
    def isEmpty(self) -> bool: ...

class SipRxData:
    info: str
    wholeMsg: str
    srcAddress: str

class SipTxData:
    info: str
    wholeMsg: str
    dstAddress: str

class SipTransaction:
    role: int
    method: str
    statusCode: int
    statusText: str
    state: int
    lastTx: SipTxData

class TxMsgEvent:
    tdata: SipTxData

class RxMsgEvent:
    rdata: SipRxData

class TsxStateEventSrc:
    rdata: SipRxData
    tdata: SipTxData
    timer: object
    status: int
    data: object

class TsxStateEvent:
    src: TsxStateEventSrc
    tsx: SipTransaction
    prevState: int
    type: int

class SipEventBody:
    tsxState: TsxStateEvent
    txMsg: TxMsgEvent
    rxMsg: RxMsgEvent

class SipEvent:
    type: int
    body: SipEventBody

class LogEntry:
    level: int
    msg: str
    threadId: int
    threadName: str

class LogWriter:
    def write(self, entry: LogEntry) -> None: ...

class LogConfig:
    msgLogging: int
    level: int
    consoleLevel: int
    decor: int
    filename: str
    fileFlags: int
    writer: LogWriter

class UaConfig:
    maxCalls: int
    threadCnt: int
    mainThreadOnly: bool
    nameserver: StringVector
    outboundProxies: StringVector
    userAgent: str
    stunServer: StringVector
    stunTryIpv6: bool
    stunIgnoreFailure: bool
    mwiUnsolicitedEnabled: bool
    enableUpnp: bool
    upnpIfName: str
    noRefersub: bool

class MediaConfig:
    clockRate: int
    sndClockRate: int
    sndUseSwClock: bool
    channelCount: int
    audioFramePtime: int
    maxMediaPorts: int
    confThreads: int
    hasIoqueue: bool
    threadCnt: int
    quality: int
    ptime: int
    noVad: bool
    ilbcMode: int
    txDropPct: int
    rxDropPct: int
    ecOptions: int
    ecTailLen: int
    sndRecLatency: int
    sndPlayLatency: int
    jbInit: int
    jbMinPre: int
    jbMaxPre: int
    jbMax: int
    jbDiscardAlgo: int
    sndAutoCloseTime: int

class EpConfig:
    uaConfig: UaConfig
    logConfig: LogConfig
    medConfig: MediaConfig

class TlsConfig:
    CaListFile: str
    certFile: str
    privKeyFile: str
    password: str
    CaBuf: str
    certBuf: str
    privKeyBuf: str
    certLookupType: int
    certLookupKeyword: str
    method: int
    proto: int
    ciphers: IntVector
    verifyServer: bool
    verifyClient: bool
    requireClientCert: bool
    msecTimeout: int
    qosType: int
    qosIgnoreError: bool
    sockOptIgnoreError: bool
    enableRenegotiation: bool

class TransportConfig:
    port: int
    portRange: int
    randomizePort: bool
    publicAddress: str
    boundAddress: str
    tlsConfig: TlsConfig
    qosType: int

class TransportInfo:
    id: int
    type: int
    typeName: str
    info: str
    flags: int
    localAddress: str
    localName: str
    usageCount: int

class AuthCredInfo:
    scheme: str
    realm: str
    username: str
    dataType: int
    data: str
    algoType: int
    akaK: str
    akaOp: str
    akaAmf: str
    @overload
    def __init__(self) -> None: ...
    @overload
    def __init__(self, scheme: str, realm: str, user_name: str, data_type: int, data: str) -> None: ...

class AccountRegConfig:
    registrarUri: str
    registerOnAdd: bool
    disableRegOnModify: bool
    headers: SipHeaderVector
    contactParams: str
    contactUriParams: str
    timeoutSec: int
    retryIntervalSec: int
    firstRetryIntervalSec: int
    randomRetryIntervalSec: int
    delayBeforeRefreshSec: int
    dropCallsOnFail: bool
    unregWaitMsec: int
    proxyUse: int

class AccountSipConfig:
    authCreds: AuthCredInfoVector
    proxies: StringVector
    contactForced: str
    contactParams: str
    contactUriParams: str
    authInitialEmpty: bool
    authInitialAlgorithm: str
    transportId: int
    ipv6Use: int
    useSharedAuth: bool
    autoRespondSipMessage: bool

class AccountCallConfig:
    holdType: int
    prackUse: int
    timerUse: int
    siprecUse: int
    timerMinSESec: int
    timerSessExpiresSec: int

class AccountNatConfig:
    sipStunUse: int
    mediaStunUse: int
    sipUpnpUse: int
    mediaUpnpUse: int
    iceEnabled: bool
    iceTrickle: int
    iceMaxHostCands: int
    iceAggressiveNomination: bool
    iceNominatedCheckDelayMsec: int
    iceWaitNominationTimeoutMsec: int
    iceCheckSrcAddr: int
    iceNoRtcp: bool
    iceAlwaysUpdate: bool
    turnEnabled: bool
    turnServer: str
    turnConnType: int
    turnUserName: str
    turnPasswordType: int
    turnPassword: str
    contactRewriteUse: int
    contactRewriteMethod: int
    contactUseSrcPort: int
    viaRewriteUse: int
    sdpNatRewriteUse: int
    sipOutboundUse: int
    sipOutboundInstanceId: str
    sipOutboundRegId: str
    udpKaIntervalSec: int
    udpKaData: str

class AccountMediaConfig:
    transportConfig: TransportConfig
    lockCodecEnabled: bool
    streamKaEnabled: bool
    srtpUse: int
    srtpSecureSignaling: int
    srtpOpt: SrtpOpt
    ipv6Use: int
    rtcpMuxEnabled: bool
    rtcpXrEnabled: bool
    useLoopMedTp: bool
    enableLoopback: bool

class AccountVideoConfig:
    autoShowIncoming: bool
    autoTransmitOutgoing: bool
    windowFlags: int
    defaultCaptureDevice: int
    defaultRenderDevice: int
    rateControlMethod: int
    rateControlBandwidth: int
    startKeyframeCount: int
    startKeyframeInterval: int

class AccountTextConfig:
    redundancyLevel: int

class AccountConfig:
    priority: int
    idUri: str
    regConfig: AccountRegConfig
    sipConfig: AccountSipConfig
    callConfig: AccountCallConfig
    natConfig: AccountNatConfig
    mediaConfig: AccountMediaConfig
    textConfig: AccountTextConfig

class AccountInfo:
    id: int
    isDefault: bool
    uri: str
    regIsConfigured: bool
    regIsActive: bool
    regExpiresSec: int
    regStatus: int
    regStatusText: str
    regLastErr: int
    onlineStatus: bool
    onlineStatusText: str

class SrtpOpt:
    cryptos: SrtpCryptoVector
    keyings: IntVector

class Media:
    def getType(self) -> int: ...

class AudioMedia(Media):
    def getPortInfo(self) -> ConfPortInfo: ...
    def getPortId(self) -> int: ...
    @staticmethod
    def getPortInfoFromId(port_id: int) -> ConfPortInfo: ...
    def startTransmit(self, sink: AudioMedia) -> None: ...
    def startTransmit2(self, sink: AudioMedia, param: AudioMediaTransmitParam) -> None: ...
    def stopTransmit(self, sink: AudioMedia) -> None: ...
    def adjustRxLevel(self, level: float) -> None: ...
    def adjustTxLevel(self, level: float) -> None: ...
    def getRxLevel(self) -> int: ...
    def getTxLevel(self) -> int: ...
    @staticmethod
    def typecastFromMedia(media: Media) -> AudioMedia: ...

class AudioMediaTransmitParam:
    level: float

class AudioMediaPlayer(AudioMedia):
    def createPlayer(self, file_name: str, options: int = ...) -> None: ...
    def createPlaylist(self, file_names: StringVector, label: str = ..., options: int = ...) -> None: ...
    def getInfo(self) -> AudioMediaPlayerInfo: ...
    def getPos(self) -> int: ...
    def setPos(self, samples: int) -> None: ...
    @staticmethod
    def typecastFromAudioMedia(media: AudioMedia) -> AudioMediaPlayer: ...
    def onEof2(self) -> None: ...

class AudioMediaPlayerInfo:
    formatId: int
    payloadBitsPerSample: int
    sizeBytes: int
    sizeSamples: int

class AudioMediaRecorder(AudioMedia):
    def createRecorder(
        self, file_name: str, enc_type: int = ..., max_size: int = ..., options: int = ...
    ) -> None: ...
    @staticmethod
    def typecastFromAudioMedia(media: AudioMedia) -> AudioMediaRecorder: ...

class AudioMediaPort(AudioMedia):
    def createPort(self, name: str, fmt: MediaFormatAudio) -> None: ...
    def onFrameRequested(self, frame: MediaFrame) -> None: ...
    def onFrameReceived(self, frame: MediaFrame) -> None: ...

class MediaFrame:
    type: int
    buf: ByteVector
    size: int

class MediaFormat:
    id: int
    type: int

class MediaFormatAudio(MediaFormat):
    clockRate: int
    channelCount: int
    frameTimeUsec: int
    bitsPerSample: int
    avgBps: int
    maxBps: int
    def init(
        self,
        formatId: int,
        clockRate: int,
        channelCount: int,
        frameTimeUsec: int,
        bitsPerSample: int,
        avgBps: int = ...,
        maxBps: int = ...,
    ) -> None: ...

class ConfPortInfo:
    portId: int
    name: str
    format: MediaFormatAudio
    txLevelAdj: float
    rxLevelAdj: float
    listeners: IntVector

class ToneGenerator(AudioMedia):
    def createToneGenerator(self, clock_rate: int = ..., channel_count: int = ...) -> None: ...
    def isBusy(self) -> bool: ...
    def stop(self) -> None: ...
    def rewind(self) -> None: ...
    def play(self, tones: ToneDescVector, loop: bool = ...) -> None: ...
    def playDigits(self, digits: ToneDigitVector, loop: bool = ...) -> None: ...

class AudDevManager:
    def setNullDev(self) -> None: ...
    def setNoDev(self) -> object: ...
    def setEcOptions(self, tail_msec: int, options: int) -> None: ...
    def sndIsActive(self) -> bool: ...
    def getDevCount(self) -> int: ...

class CodecInfo:
    codecId: str
    priority: int
    desc: str

class CodecParam: ...

class MathStat:
    n: int
    max: int
    min: int
    last: int
    mean: int

class LossType:
    burst: int
    random: int

class RtcpStreamStat:
    update: TimeVal
    updateCount: int
    pkt: int
    bytes: int
    discard: int
    loss: int
    reorder: int
    dup: int
    lossPeriodUsec: MathStat
    lossType: LossType
    jitterUsec: MathStat

class RtcpStat:
    start: TimeVal
    txStat: RtcpStreamStat
    rxStat: RtcpStreamStat
    rttUsec: MathStat
    rtpTxLastTs: int
    rtpTxLastSeq: int
    rxIpdvUsec: MathStat
    rxRawJitterUsec: MathStat

class JbufState:
    frameSize: int
    minPrefetch: int
    maxPrefetch: int
    burst: int
    prefetch: int
    size: int
    avgDelayMsec: int
    minDelayMsec: int
    maxDelayMsec: int
    devDelayMsec: int
    avgBurst: int
    lost: int
    discard: int
    empty: int

class StreamStat:
    rtcp: RtcpStat
    jbuf: JbufState

class StreamInfo:
    type: int
    proto: int
    dir: int
    remoteRtpAddress: str
    remoteRtcpAddress: str
    txPt: int
    rxPt: int
    audTxEventPt: int
    audRxEventPt: int
    codecName: str
    codecClockRate: int
    audCodecParam: CodecParam
    jbInit: int
    jbMinPre: int
    jbMaxPre: int
    jbMax: int
    jbDiscardAlgo: int
    rtcpSdesByeDisabled: bool

class MediaTransportInfo:
    localRtpName: str
    localRtcpName: str
    srcRtpName: str
    srcRtcpName: str

class CallSetting:
    flag: int
    reqKeyframeMethod: int
    audioCount: int
    textCount: int
    mediaDir: object
    customCallId: str
    def __init__(self, useDefaultValues: bool = ...) -> None: ...
    def isEmpty(self) -> bool: ...

class CallMediaInfo:
    index: int
    type: int
    dir: int
    status: int
    audioConfSlot: int

class CallInfo:
    id: int
    role: int
    accId: int
    localUri: str
    localContact: str
    remoteUri: str
    remoteContact: str
    callIdString: str
    setting: CallSetting
    state: int
    stateText: str
    lastStatusCode: int
    lastReason: str
    media: CallMediaInfoVector
    provMedia: CallMediaInfoVector
    connectDuration: TimeVal
    totalDuration: TimeVal
    remOfferer: bool
    remAudioCount: int
    remVideoCount: int
    remTextCount: int

class CallOpParam:
    opt: CallSetting
    statusCode: int
    reason: str
    options: int
    txOption: SipTxOption
    sdp: SdpSession
    def __init__(self, useDefaultCallSetting: bool = ...) -> None: ...

class CallSendRequestParam:
    method: str
    txOption: SipTxOption

class CallSendDtmfParam:
    method: int
    duration: int
    digits: str

class CallSendTextParam:
    medIdx: int
    text: str

class OnCallStateParam:
    e: SipEvent

class OnCallMediaStateParam: ...

class OnCallSdpCreatedParam:
    sdp: SdpSession
    remSdp: SdpSession

class SdpSession:
    wholeSdp: str

class OnDtmfDigitParam:
    method: int
    digit: str
    duration: int

class OnDtmfEventParam:
    method: int
    timestamp: int
    digit: str
    duration: int
    flags: int

class OnCallTransferRequestParam:
    dstUri: str
    statusCode: int
    opt: CallSetting
    newCall: Call

class OnCallTransferStatusParam:
    statusCode: int
    reason: str
    finalNotify: bool
    cont: bool

class OnCallReplaceRequestParam:
    rdata: SipRxData
    statusCode: int
    reason: str
    opt: CallSetting
    newCall: Call

class OnCallReplacedParam:
    newCallId: int
    newCall: Call

class OnCallRxOfferParam:
    offer: SdpSession
    statusCode: int
    opt: CallSetting

class OnCallRxReinviteParam:
    offer: SdpSession
    rdata: SipRxData
    isAsync: bool
    statusCode: int
    opt: CallSetting

class OnCallTxOfferParam:
    opt: CallSetting

class OnCallTsxStateParam:
    e: SipEvent

class OnStreamCreatedParam:
    stream: object
    streamIdx: int
    destroyPort: bool
    pPort: object

class OnStreamPreCreateParam:
    streamIdx: int
    streamInfo: StreamInfo

class OnStreamDestroyedParam:
    stream: object
    streamIdx: int

class OnCallMediaTransportStateParam:
    medIdx: int
    state: int
    status: int
    sipErrorCode: int

class OnInstantMessageParam:
    fromUri: str
    toUri: str
    contactUri: str
    contentType: str
    msgBody: str
    rdata: SipRxData

class OnInstantMessageStatusParam:
    userData: object
    toUri: str
    msgBody: str
    code: int
    reason: str
    rdata: SipRxData

class OnIncomingCallParam:
    callId: int
    rdata: SipRxData

class OnRejectedIncomingCallParam:
    callId: int
    localInfo: str
    remoteInfo: str
    statusCode: int
    reason: str
    rdata: SipRxData

class OnRegStateParam:
    status: int
    code: int
    reason: str
    rdata: SipRxData
    expiration: int

class OnRegStartedParam:
    renew: bool

class OnIncomingSubscribeParam:
    srvPres: object
    fromUri: str
    rdata: SipRxData
    code: int
    reason: str
    txOption: SipTxOption

class OnTransportStateParam:
    hnd: object
    type: str
    state: int
    lastError: int

class OnTimerParam:
    userData: object
    msecDelay: int

class OnCallRxTextParam:
    seq: int
    ts: int
    text: str

class OnCreateMediaTransportParam:
    mediaIdx: int
    mediaTp: object
    flags: int

class Call:
    def __init__(self, acc: Account, call_id: int = ...) -> None: ...
    def getInfo(self) -> CallInfo: ...
    def isActive(self) -> bool: ...
    def getId(self) -> int: ...
    @staticmethod
    def lookup(call_id: int) -> Call: ...
    def hasMedia(self) -> bool: ...
    def getMedia(self, med_idx: int) -> Media: ...
    def getAudioMedia(self, med_idx: int) -> AudioMedia: ...
    def remoteHasCap(self, htype: int, hname: str, token: str) -> int: ...
    def setUserData(self, user_data: object) -> None: ...
    def getUserData(self) -> object: ...
    def getRemNatType(self) -> int: ...
    def makeCall(self, dst_uri: str, prm: CallOpParam) -> None: ...
    def answer(self, prm: CallOpParam) -> None: ...
    def hangup(self, prm: CallOpParam) -> None: ...
    def setHold(self, prm: CallOpParam) -> None: ...
    def reinvite(self, prm: CallOpParam) -> None: ...
    def update(self, prm: CallOpParam) -> None: ...
    def xfer(self, dest: str, prm: CallOpParam) -> None: ...
    def xferReplaces(self, dest_call: Call, prm: CallOpParam) -> None: ...
    def processRedirect(self, cmd: int) -> None: ...
    def dialDtmf(self, digits: str) -> None: ...
    def sendDtmf(self, param: CallSendDtmfParam) -> None: ...
    def sendText(self, param: CallSendTextParam) -> None: ...
    def sendInstantMessage(self, prm: SendInstantMessageParam) -> None: ...
    def sendRequest(self, prm: CallSendRequestParam) -> None: ...
    def dump(self, with_media: bool, indent: str) -> str: ...
    def audStreamModifyCodecParam(self, med_idx: int, param: CodecParam) -> None: ...
    def getStreamInfo(self, med_idx: int) -> StreamInfo: ...
    def getStreamStat(self, med_idx: int) -> StreamStat: ...
    def getMedTransportInfo(self, med_idx: int) -> MediaTransportInfo: ...
    def onCallState(self, prm: OnCallStateParam) -> None: ...
    def onCallTsxState(self, prm: OnCallTsxStateParam) -> None: ...
    def onCallMediaState(self, prm: OnCallMediaStateParam) -> None: ...
    def onCallSdpCreated(self, prm: OnCallSdpCreatedParam) -> None: ...
    def onStreamPreCreate(self, prm: OnStreamPreCreateParam) -> None: ...
    def onStreamCreated(self, prm: OnStreamCreatedParam) -> None: ...
    def onStreamDestroyed(self, prm: OnStreamDestroyedParam) -> None: ...
    def onDtmfDigit(self, prm: OnDtmfDigitParam) -> None: ...
    def onDtmfEvent(self, prm: OnDtmfEventParam) -> None: ...
    def onCallRxText(self, prm: OnCallRxTextParam) -> None: ...
    def onCallTransferRequest(self, prm: OnCallTransferRequestParam) -> None: ...
    def onCallTransferStatus(self, prm: OnCallTransferStatusParam) -> None: ...
    def onCallReplaceRequest(self, prm: OnCallReplaceRequestParam) -> None: ...
    def onCallReplaced(self, prm: OnCallReplacedParam) -> None: ...
    def onCallRxOffer(self, prm: OnCallRxOfferParam) -> None: ...
    def onCallRxReinvite(self, prm: OnCallRxReinviteParam) -> None: ...
    def onCallTxOffer(self, prm: OnCallTxOfferParam) -> None: ...
    def onInstantMessage(self, prm: OnInstantMessageParam) -> None: ...
    def onInstantMessageStatus(self, prm: OnInstantMessageStatusParam) -> None: ...
    def onCallMediaTransportState(self, prm: OnCallMediaTransportStateParam) -> None: ...
    def onCreateMediaTransport(self, prm: OnCreateMediaTransportParam) -> None: ...

class Account:
    def create(self, cfg: AccountConfig, make_default: bool = ...) -> None: ...
    def shutdown(self) -> None: ...
    def modify(self, cfg: AccountConfig) -> None: ...
    def isValid(self) -> bool: ...
    def setDefault(self) -> None: ...
    def isDefault(self) -> bool: ...
    def getId(self) -> int: ...
    @staticmethod
    def lookup(acc_id: int) -> Account: ...
    def getInfo(self) -> AccountInfo: ...
    def sendRequest(self, prm: object) -> None: ...
    def sendResponse(self, prm: object) -> None: ...
    def setRegistration(self, renew: bool) -> None: ...
    def setTransport(self, tp_id: int) -> None: ...
    def onIncomingCall(self, prm: OnIncomingCallParam) -> None: ...
    def onRegStarted(self, prm: OnRegStartedParam) -> None: ...
    def onRegState(self, prm: OnRegStateParam) -> None: ...
    def onIncomingSubscribe(self, prm: OnIncomingSubscribeParam) -> None: ...
    def onInstantMessage(self, prm: OnInstantMessageParam) -> None: ...
    def onInstantMessageStatus(self, prm: OnInstantMessageStatusParam) -> None: ...

class SendRequestParam:
    userData: object
    method: str
    txOption: SipTxOption

class SendInstantMessageParam:
    contentType: str
    content: str
    txOption: SipTxOption
    userData: object

class Version:
    major: int
    minor: int
    rev: int
    suffix: str
    full: str
    numeric: int

class Endpoint:
    @staticmethod
    def instance() -> Endpoint: ...
    def libVersion(self) -> Version: ...
    def libCreate(self) -> None: ...
    def libGetState(self) -> int: ...
    def libInit(self, prmEpConfig: EpConfig) -> None: ...
    def libStart(self) -> None: ...
    def libRegisterThread(self, name: str) -> None: ...
    def libIsThreadRegistered(self) -> bool: ...
    def libStopWorkerThreads(self) -> None: ...
    def libHandleEvents(self, msec_timeout: int) -> int: ...
    def libDestroy(self, prmFlags: int = ...) -> None: ...
    def libGetSipIoqueueHandle(self) -> int: ...
    def utilStrError(self, prmErr: int) -> str: ...
    @overload
    def utilLogWrite(self, prmLevel: int, prmSender: str, prmMsg: str) -> None: ...
    @overload
    def utilLogWrite(self, e: LogEntry) -> None: ...
    def utilVerifySipUri(self, prmUri: str) -> int: ...
    def utilVerifyUri(self, prmUri: str) -> int: ...
    def utilTimerSchedule(self, prmMsecDelay: int, prmUserData: object) -> object: ...
    def utilTimerCancel(self, prmToken: object) -> None: ...
    def utilSslGetAvailableCiphers(self) -> IntVector: ...
    def transportCreate(self, type: int, cfg: TransportConfig) -> int: ...
    def transportEnum(self) -> IntVector: ...
    def transportGetInfo(self, id: int) -> TransportInfo: ...
    def transportClose(self, id: int) -> None: ...
    def transportShutdown(self, tp: object) -> None: ...
    def hangupAllCalls(self) -> None: ...
    def mediaAdd(self, media: AudioMedia) -> None: ...
    def mediaRemove(self, media: AudioMedia) -> None: ...
    def mediaExists(self, media: AudioMedia) -> bool: ...
    def mediaMaxPorts(self) -> int: ...
    def mediaActivePorts(self) -> int: ...
    def mediaEnumPorts2(self) -> AudioMediaVector2: ...
    def audDevManager(self) -> AudDevManager: ...
    def codecEnum2(self) -> CodecInfoVector2: ...
    def codecSetPriority(self, codec_id: str, priority: int) -> None: ...
    def codecGetParam(self, codec_id: str) -> CodecParam: ...
    def codecSetParam(self, codec_id: str, param: CodecParam) -> None: ...
    def resetVideoCodecParam(self, codec_id: str) -> None: ...
    def srtpCryptoEnum(self) -> StringVector: ...
    def onTransportState(self, prm: OnTransportStateParam) -> None: ...
    def onTimer(self, prm: OnTimerParam) -> None: ...

PJMEDIA_DIR_CAPTURE: Final[int]
PJMEDIA_DIR_CAPTURE_PLAYBACK: Final[int]
PJMEDIA_DIR_CAPTURE_RENDER: Final[int]
PJMEDIA_DIR_DECODING: Final[int]
PJMEDIA_DIR_ENCODING: Final[int]
PJMEDIA_DIR_ENCODING_DECODING: Final[int]
PJMEDIA_DIR_NONE: Final[int]
PJMEDIA_DIR_PLAYBACK: Final[int]
PJMEDIA_DIR_RENDER: Final[int]
PJMEDIA_EVENT_AUD_DEV_ERROR: Final[int]
PJMEDIA_EVENT_CALLBACK: Final[int]
PJMEDIA_EVENT_FMT_CHANGED: Final[int]
PJMEDIA_EVENT_KEYFRAME_FOUND: Final[int]
PJMEDIA_EVENT_KEYFRAME_MISSING: Final[int]
PJMEDIA_EVENT_MEDIA_TP_ERR: Final[int]
PJMEDIA_EVENT_NONE: Final[int]
PJMEDIA_EVENT_ORIENT_CHANGED: Final[int]
PJMEDIA_EVENT_RX_RTCP_FB: Final[int]
PJMEDIA_EVENT_VID_DEV_ERROR: Final[int]
PJMEDIA_FILE_NO_LOCK: Final[int]
PJMEDIA_FILE_NO_LOOP: Final[int]
PJMEDIA_FILE_WRITE_ALAW: Final[int]
PJMEDIA_FILE_WRITE_PCM: Final[int]
PJMEDIA_FILE_WRITE_ULAW: Final[int]
PJMEDIA_FORMAT_ALAW: Final[int]
PJMEDIA_FORMAT_AMR: Final[int]
PJMEDIA_FORMAT_AYUV: Final[int]
PJMEDIA_FORMAT_DIB: Final[int]
PJMEDIA_FORMAT_G722: Final[int]
PJMEDIA_FORMAT_G729: Final[int]
PJMEDIA_FORMAT_GBRP: Final[int]
PJMEDIA_FORMAT_L16: Final[int]
PJMEDIA_FORMAT_NV12: Final[int]
PJMEDIA_FORMAT_NV21: Final[int]
PJMEDIA_FORMAT_PCM: Final[int]
PJMEDIA_FORMAT_PCMA: Final[int]
PJMEDIA_FORMAT_PCMU: Final[int]
PJMEDIA_FORMAT_ULAW: Final[int]
PJMEDIA_FORMAT_UYVY: Final[int]
PJMEDIA_FRAME_TYPE_AUDIO: Final[int]
PJMEDIA_FRAME_TYPE_EXTENDED: Final[int]
PJMEDIA_FRAME_TYPE_NONE: Final[int]
PJMEDIA_FRAME_TYPE_VIDEO: Final[int]
PJMEDIA_JB_DISCARD_NONE: Final[int]
PJMEDIA_JB_DISCARD_PROGRESSIVE: Final[int]
PJMEDIA_JB_DISCARD_STATIC: Final[int]
PJMEDIA_SRTP_DISABLED: Final[int]
PJMEDIA_SRTP_KEYINGS_COUNT: Final[int]
PJMEDIA_SRTP_KEYING_DTLS_SRTP: Final[int]
PJMEDIA_SRTP_KEYING_SDES: Final[int]
PJMEDIA_SRTP_MANDATORY: Final[int]
PJMEDIA_SRTP_NO_AUTHENTICATION: Final[int]
PJMEDIA_SRTP_NO_ENCRYPTION: Final[int]
PJMEDIA_SRTP_OPTIONAL: Final[int]
PJMEDIA_SRTP_UNKNOWN: Final[int]
PJMEDIA_TP_PROFILE_AVP: Final[int]
PJMEDIA_TP_PROFILE_RTCP_FB: Final[int]
PJMEDIA_TP_PROFILE_SRTP: Final[int]
PJMEDIA_TP_PROTO_DTLS: Final[int]
PJMEDIA_TP_PROTO_DTLS_SRTP: Final[int]
PJMEDIA_TP_PROTO_DTLS_SRTPF: Final[int]
PJMEDIA_TP_PROTO_NONE: Final[int]
PJMEDIA_TP_PROTO_RTP: Final[int]
PJMEDIA_TP_PROTO_RTP_AVP: Final[int]
PJMEDIA_TP_PROTO_RTP_AVPF: Final[int]
PJMEDIA_TP_PROTO_RTP_SAVP: Final[int]
PJMEDIA_TP_PROTO_RTP_SAVPF: Final[int]
PJMEDIA_TP_PROTO_UDP: Final[int]
PJMEDIA_TP_PROTO_UNKNOWN: Final[int]
PJMEDIA_TYPE_APPLICATION: Final[int]
PJMEDIA_TYPE_AUDIO: Final[int]
PJMEDIA_TYPE_NONE: Final[int]
PJMEDIA_TYPE_TEXT: Final[int]
PJMEDIA_TYPE_UNKNOWN: Final[int]
PJMEDIA_TYPE_VIDEO: Final[int]
PJSIP_CRED_DATA_DIGEST: Final[int]
PJSIP_CRED_DATA_EXT_AKA: Final[int]
PJSIP_CRED_DATA_PLAIN_PASSWD: Final[int]
PJSIP_DIALOG_CAP_SUPPORTED: Final[int]
PJSIP_DIALOG_CAP_UNKNOWN: Final[int]
PJSIP_DIALOG_CAP_UNSUPPORTED: Final[int]
PJSIP_EVENT_RX_MSG: Final[int]
PJSIP_EVENT_TIMER: Final[int]
PJSIP_EVENT_TRANSPORT_ERROR: Final[int]
PJSIP_EVENT_TSX_STATE: Final[int]
PJSIP_EVENT_TX_MSG: Final[int]
PJSIP_EVENT_UNKNOWN: Final[int]
PJSIP_EVENT_USER: Final[int]
PJSIP_H_ACCEPT: Final[int]
PJSIP_H_ACCEPT_ENCODING_UNIMP: Final[int]
PJSIP_H_ACCEPT_LANGUAGE_UNIMP: Final[int]
PJSIP_H_ALERT_INFO_UNIMP: Final[int]
PJSIP_H_ALLOW: Final[int]
PJSIP_H_AUTHENTICATION_INFO_UNIMP: Final[int]
PJSIP_H_AUTHORIZATION: Final[int]
PJSIP_H_CALL_ID: Final[int]
PJSIP_H_CALL_INFO_UNIMP: Final[int]
PJSIP_H_CONTACT: Final[int]
PJSIP_H_CONTENT_DISPOSITION_UNIMP: Final[int]
PJSIP_H_CONTENT_ENCODING_UNIMP: Final[int]
PJSIP_H_CONTENT_LANGUAGE_UNIMP: Final[int]
PJSIP_H_CONTENT_LENGTH: Final[int]
PJSIP_H_CONTENT_TYPE: Final[int]
PJSIP_H_CSEQ: Final[int]
PJSIP_H_DATE_UNIMP: Final[int]
PJSIP_H_ERROR_INFO_UNIMP: Final[int]
PJSIP_H_EXPIRES: Final[int]
PJSIP_H_FROM: Final[int]
PJSIP_H_IN_REPLY_TO_UNIMP: Final[int]
PJSIP_H_MAX_FORWARDS: Final[int]
PJSIP_H_MIME_VERSION_UNIMP: Final[int]
PJSIP_H_MIN_EXPIRES: Final[int]
PJSIP_H_ORGANIZATION_UNIMP: Final[int]
PJSIP_H_OTHER: Final[int]
PJSIP_H_PRIORITY_UNIMP: Final[int]
PJSIP_H_PROXY_AUTHENTICATE: Final[int]
PJSIP_H_PROXY_AUTHORIZATION: Final[int]
PJSIP_H_PROXY_REQUIRE_UNIMP: Final[int]
PJSIP_H_RECORD_ROUTE: Final[int]
PJSIP_H_REPLY_TO_UNIMP: Final[int]
PJSIP_H_REQUIRE: Final[int]
PJSIP_H_RETRY_AFTER: Final[int]
PJSIP_H_ROUTE: Final[int]
PJSIP_H_SERVER_UNIMP: Final[int]
PJSIP_H_SUBJECT_UNIMP: Final[int]
PJSIP_H_SUPPORTED: Final[int]
PJSIP_H_TIMESTAMP_UNIMP: Final[int]
PJSIP_H_TO: Final[int]
PJSIP_H_UNSUPPORTED: Final[int]
PJSIP_H_USER_AGENT_UNIMP: Final[int]
PJSIP_H_VIA: Final[int]
PJSIP_H_WARNING_UNIMP: Final[int]
PJSIP_H_WWW_AUTHENTICATE: Final[int]
PJSIP_INV_STATE_CALLING: Final[int]
PJSIP_INV_STATE_CONFIRMED: Final[int]
PJSIP_INV_STATE_CONNECTING: Final[int]
PJSIP_INV_STATE_DISCONNECTED: Final[int]
PJSIP_INV_STATE_EARLY: Final[int]
PJSIP_INV_STATE_INCOMING: Final[int]
PJSIP_INV_STATE_NULL: Final[int]
PJSIP_ROLE_UAC: Final[int]
PJSIP_ROLE_UAS: Final[int]
PJSIP_SC_ACCEPTED: Final[int]
PJSIP_SC_ADDRESS_INCOMPLETE: Final[int]
PJSIP_SC_ALTERNATIVE_SERVICE: Final[int]
PJSIP_SC_ANONIMITY_DISALLOWED: Final[int]
PJSIP_SC_BAD_EVENT: Final[int]
PJSIP_SC_BAD_EXTENSION: Final[int]
PJSIP_SC_BAD_GATEWAY: Final[int]
PJSIP_SC_BAD_IDENTITY_INFO: Final[int]
PJSIP_SC_BAD_INFO_PACKAGE: Final[int]
PJSIP_SC_BAD_LOCATION_INFORMATION: Final[int]
PJSIP_SC_BAD_REQUEST: Final[int]
PJSIP_SC_BUSY_EVERYWHERE: Final[int]
PJSIP_SC_BUSY_HERE: Final[int]
PJSIP_SC_CALL_BEING_FORWARDED: Final[int]
PJSIP_SC_CALL_TSX_DOES_NOT_EXIST: Final[int]
PJSIP_SC_CONDITIONAL_REQUEST_FAILED: Final[int]
PJSIP_SC_CONFLICT: Final[int]
PJSIP_SC_CONSENT_NEEDED: Final[int]
PJSIP_SC_DECLINE: Final[int]
PJSIP_SC_DOES_NOT_EXIST_ANYWHERE: Final[int]
PJSIP_SC_EARLY_DIALOG_TERMINATED: Final[int]
PJSIP_SC_EXTENSION_REQUIRED: Final[int]
PJSIP_SC_FIRST_HOP_LACKS_OUTBOUND_SUPPORT: Final[int]
PJSIP_SC_FLOW_FAILED: Final[int]
PJSIP_SC_FORBIDDEN: Final[int]
PJSIP_SC_GONE: Final[int]
PJSIP_SC_INTERNAL_SERVER_ERROR: Final[int]
PJSIP_SC_INTERVAL_TOO_BRIEF: Final[int]
PJSIP_SC_INVALID_IDENTITY_HEADER: Final[int]
PJSIP_SC_LENGTH_REQUIRED: Final[int]
PJSIP_SC_LOOP_DETECTED: Final[int]
PJSIP_SC_MAX_BREADTH_EXCEEDED: Final[int]
PJSIP_SC_MESSAGE_TOO_LARGE: Final[int]
PJSIP_SC_METHOD_NOT_ALLOWED: Final[int]
PJSIP_SC_MOVED_PERMANENTLY: Final[int]
PJSIP_SC_MOVED_TEMPORARILY: Final[int]
PJSIP_SC_MULTIPLE_CHOICES: Final[int]
PJSIP_SC_NOT_ACCEPTABLE: Final[int]
PJSIP_SC_NOT_ACCEPTABLE_ANYWHERE: Final[int]
PJSIP_SC_NOT_ACCEPTABLE_HERE: Final[int]
PJSIP_SC_NOT_FOUND: Final[int]
PJSIP_SC_NOT_IMPLEMENTED: Final[int]
PJSIP_SC_NO_NOTIFICATION: Final[int]
PJSIP_SC_NULL: Final[int]
PJSIP_SC_OK: Final[int]
PJSIP_SC_PAYMENT_REQUIRED: Final[int]
PJSIP_SC_PRECONDITION_FAILURE: Final[int]
PJSIP_SC_PROGRESS: Final[int]
PJSIP_SC_PROVIDE_REFERRER_HEADER: Final[int]
PJSIP_SC_PROXY_AUTHENTICATION_REQUIRED: Final[int]
PJSIP_SC_PUSH_NOTIFICATION_SERVICE_NOT_SUPPORTED: Final[int]
PJSIP_SC_QUEUED: Final[int]
PJSIP_SC_REJECTED: Final[int]
PJSIP_SC_REQUEST_ENTITY_TOO_LARGE: Final[int]
PJSIP_SC_REQUEST_PENDING: Final[int]
PJSIP_SC_REQUEST_TERMINATED: Final[int]
PJSIP_SC_REQUEST_TIMEOUT: Final[int]
PJSIP_SC_REQUEST_UPDATED: Final[int]
PJSIP_SC_REQUEST_URI_TOO_LONG: Final[int]
PJSIP_SC_RINGING: Final[int]
PJSIP_SC_SECURITY_AGREEMENT_NEEDED: Final[int]
PJSIP_SC_SERVER_TIMEOUT: Final[int]
PJSIP_SC_SERVICE_UNAVAILABLE: Final[int]
PJSIP_SC_SESSION_TIMER_TOO_SMALL: Final[int]
PJSIP_SC_TEMPORARILY_UNAVAILABLE: Final[int]
PJSIP_SC_TOO_MANY_HOPS: Final[int]
PJSIP_SC_TRYING: Final[int]
PJSIP_SC_TSX_TIMEOUT: Final[int]
PJSIP_SC_TSX_TRANSPORT_ERROR: Final[int]
PJSIP_SC_UNAUTHORIZED: Final[int]
PJSIP_SC_UNDECIPHERABLE: Final[int]
PJSIP_SC_UNKNOWN_RESOURCE_PRIORITY: Final[int]
PJSIP_SC_UNSUPPORTED_CERTIFICATE: Final[int]
PJSIP_SC_UNSUPPORTED_MEDIA_TYPE: Final[int]
PJSIP_SC_UNSUPPORTED_URI_SCHEME: Final[int]
PJSIP_SC_UNWANTED: Final[int]
PJSIP_SC_USE_IDENTITY_HEADER: Final[int]
PJSIP_SC_USE_PROXY: Final[int]
PJSIP_SC_VERSION_NOT_SUPPORTED: Final[int]
PJSIP_SC__force_32bit: Final[int]
PJSIP_SSLV23_METHOD: Final[int]
PJSIP_SSLV2_METHOD: Final[int]
PJSIP_SSLV3_METHOD: Final[int]
PJSIP_SSL_UNSPECIFIED_METHOD: Final[int]
PJSIP_TLSV1_1_METHOD: Final[int]
PJSIP_TLSV1_2_METHOD: Final[int]
PJSIP_TLSV1_3_METHOD: Final[int]
PJSIP_TLSV1_METHOD: Final[int]
PJSIP_TP_STATE_CONNECTED: Final[int]
PJSIP_TP_STATE_DESTROY: Final[int]
PJSIP_TP_STATE_DISCONNECTED: Final[int]
PJSIP_TP_STATE_SHUTDOWN: Final[int]
PJSIP_TRANSPORT_DATAGRAM: Final[int]
PJSIP_TRANSPORT_DTLS: Final[int]
PJSIP_TRANSPORT_DTLS6: Final[int]
PJSIP_TRANSPORT_IPV6: Final[int]
PJSIP_TRANSPORT_LOOP: Final[int]
PJSIP_TRANSPORT_LOOP_DGRAM: Final[int]
PJSIP_TRANSPORT_RELIABLE: Final[int]
PJSIP_TRANSPORT_SCTP: Final[int]
PJSIP_TRANSPORT_SECURE: Final[int]
PJSIP_TRANSPORT_START_OTHER: Final[int]
PJSIP_TRANSPORT_TCP: Final[int]
PJSIP_TRANSPORT_TCP6: Final[int]
PJSIP_TRANSPORT_TLS: Final[int]
PJSIP_TRANSPORT_TLS6: Final[int]
PJSIP_TRANSPORT_UDP: Final[int]
PJSIP_TRANSPORT_UDP6: Final[int]
PJSIP_TRANSPORT_UNSPECIFIED: Final[int]
PJSIP_TSX_STATE_CALLING: Final[int]
PJSIP_TSX_STATE_COMPLETED: Final[int]
PJSIP_TSX_STATE_CONFIRMED: Final[int]
PJSIP_TSX_STATE_DESTROYED: Final[int]
PJSIP_TSX_STATE_MAX: Final[int]
PJSIP_TSX_STATE_NULL: Final[int]
PJSIP_TSX_STATE_PROCEEDING: Final[int]
PJSIP_TSX_STATE_TERMINATED: Final[int]
PJSIP_TSX_STATE_TRYING: Final[int]
PJSIP_UAC_ROLE: Final[int]
PJSIP_UAS_ROLE: Final[int]
PJSUA_100REL_MANDATORY: Final[int]
PJSUA_100REL_NOT_USED: Final[int]
PJSUA_100REL_OPTIONAL: Final[int]
PJSUA_CALL_HOLD_TYPE_RFC2543: Final[int]
PJSUA_CALL_HOLD_TYPE_RFC3264: Final[int]
PJSUA_CALL_INCLUDE_DISABLED_MEDIA: Final[int]
PJSUA_CALL_MEDIA_ACTIVE: Final[int]
PJSUA_CALL_MEDIA_ERROR: Final[int]
PJSUA_CALL_MEDIA_LOCAL_HOLD: Final[int]
PJSUA_CALL_MEDIA_NONE: Final[int]
PJSUA_CALL_MEDIA_REMOTE_HOLD: Final[int]
PJSUA_CALL_NO_MEDIA_SYNC: Final[int]
PJSUA_CALL_NO_SDP_OFFER: Final[int]
PJSUA_CALL_REINIT_MEDIA: Final[int]
PJSUA_CALL_SET_MEDIA_DIR: Final[int]
PJSUA_CALL_UNHOLD: Final[int]
PJSUA_CALL_UPDATE_CONTACT: Final[int]
PJSUA_CALL_UPDATE_TARGET: Final[int]
PJSUA_CALL_UPDATE_VIA: Final[int]
PJSUA_DESTROY_NO_NETWORK: Final[int]
PJSUA_DESTROY_NO_RX_MSG: Final[int]
PJSUA_DESTROY_NO_TX_MSG: Final[int]
PJSUA_DTMF_METHOD_RFC2833: Final[int]
PJSUA_DTMF_METHOD_SIP_INFO: Final[int]
PJSUA_INVALID_ID: Final[int]
PJSUA_IPV6_DISABLED: Final[int]
PJSUA_IPV6_ENABLED: Final[int]
PJSUA_IPV6_ENABLED_NO_PREFERENCE: Final[int]
PJSUA_IPV6_ENABLED_PREFER_IPV4: Final[int]
PJSUA_IPV6_ENABLED_PREFER_IPV6: Final[int]
PJSUA_IPV6_ENABLED_USE_IPV6_ONLY: Final[int]
PJSUA_MED_TP_CLOSE_MEMBER: Final[int]
PJSUA_MED_TP_CREATING: Final[int]
PJSUA_MED_TP_DISABLED: Final[int]
PJSUA_MED_TP_IDLE: Final[int]
PJSUA_MED_TP_INIT: Final[int]
PJSUA_MED_TP_NULL: Final[int]
PJSUA_MED_TP_RUNNING: Final[int]
PJSUA_NAT64_DISABLED: Final[int]
PJSUA_NAT64_ENABLED: Final[int]
PJSUA_SIP_SIPREC_INACTIVE: Final[int]
PJSUA_SIP_SIPREC_MANDATORY: Final[int]
PJSUA_SIP_SIPREC_OPTIONAL: Final[int]
PJSUA_SIP_TIMER_ALWAYS: Final[int]
PJSUA_SIP_TIMER_INACTIVE: Final[int]
PJSUA_SIP_TIMER_OPTIONAL: Final[int]
PJSUA_SIP_TIMER_REQUIRED: Final[int]
PJSUA_SND_DEFAULT_CAPTURE_DEV: Final[int]
PJSUA_SND_DEFAULT_PLAYBACK_DEV: Final[int]
PJSUA_SND_DEV_NO_IMMEDIATE_OPEN: Final[int]
PJSUA_SND_DEV_SPEAKER_ONLY: Final[int]
PJSUA_SND_NO_DEV: Final[int]
PJSUA_SND_NULL_DEV: Final[int]
PJSUA_STATE_CLOSING: Final[int]
PJSUA_STATE_CREATED: Final[int]
PJSUA_STATE_INIT: Final[int]
PJSUA_STATE_NULL: Final[int]
PJSUA_STATE_RUNNING: Final[int]
PJSUA_STATE_STARTING: Final[int]
PJSUA_STUN_RETRY_ON_FAILURE: Final[int]
PJSUA_STUN_USE_DEFAULT: Final[int]
PJSUA_STUN_USE_DISABLED: Final[int]
PJSUA_UPNP_USE_DEFAULT: Final[int]
PJSUA_UPNP_USE_DISABLED: Final[int]
PJSUA_VID_REQ_KEYFRAME_RTCP_PLI: Final[int]
PJSUA_VID_REQ_KEYFRAME_SIP_INFO: Final[int]
PJ_LOG_HAS_COLOR: Final[int]
PJ_LOG_HAS_CR: Final[int]
PJ_LOG_HAS_DAY_NAME: Final[int]
PJ_LOG_HAS_DAY_OF_MON: Final[int]
PJ_LOG_HAS_INDENT: Final[int]
PJ_LOG_HAS_LEVEL_TEXT: Final[int]
PJ_LOG_HAS_MICRO_SEC: Final[int]
PJ_LOG_HAS_MONTH: Final[int]
PJ_LOG_HAS_NEWLINE: Final[int]
PJ_LOG_HAS_SENDER: Final[int]
PJ_LOG_HAS_SPACE: Final[int]
PJ_LOG_HAS_THREAD_ID: Final[int]
PJ_LOG_HAS_THREAD_SWC: Final[int]
PJ_LOG_HAS_TIME: Final[int]
PJ_LOG_HAS_YEAR: Final[int]
PJ_SUCCESS: Final[int]
