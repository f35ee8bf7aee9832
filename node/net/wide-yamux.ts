import { serviceCapabilities } from '@libp2p/interface'
import { yamux } from '@libp2p/yamux'
import { MAX_STREAMS_PER_CONNECTION, STREAM_WINDOW_BYTES, STREAMS_BURST, STREAMS_PER_SECOND } from './limits.ts'

type YamuxFactory = ReturnType<ReturnType<typeof yamux>>
type YamuxMuxer = ReturnType<YamuxFactory['createStreamMuxer']>
type YamuxStream = YamuxMuxer['streams'][number]

/** The window that every stream begins with in both directions, by the specification of yamux. */
const FIRST_WINDOW_BYTES = 256 * 1024

/**
 * Yamux with a receive window of STREAM_WINDOW_BYTES on streams that this machine opens, which is announced: a stream begins with 256 KiB,
 * as everywhere, and the rest follows at once in window updates. Streams that the peer opens carry its requests, and stay at 256 KiB. A
 * peer that announces nothing is sent 256 KiB, and what it allows after that.
 *
 * The library has no option for a window that begins larger than that of the peer, and no exported class to inherit from. It
 * doubles the window at each update that comes within four round trips. So a stream that is opened here is told that a round trip takes
 * for ever, and is made to send an update for every doubling: 4 for 4 MiB. Others are told that it is not known. Only public methods are replaced
 * and called, so that the compiler knows when they change; that the library still doubles is known by a test
 * (wide-yamux.test.ts).
 */
export function wideYamux(): () => YamuxFactory {
  const create = yamux({
    maxInboundStreams: MAX_STREAMS_PER_CONNECTION,
    maxOutboundStreams: MAX_STREAMS_PER_CONNECTION,
    streamOptions: { maxStreamWindowSize: STREAM_WINDOW_BYTES },
  })
  return () => {
    const inner = create()
    const factory = {
      protocol: inner.protocol,
      [serviceCapabilities]: ['@libp2p/stream-multiplexing'],
      createStreamMuxer: (connection) => widened(inner.createStreamMuxer(connection)),
    } satisfies YamuxFactory & Record<symbol, readonly string[]>
    return factory
  }
}

function widened(muxer: YamuxMuxer): YamuxMuxer {
  const unknown = (): number => -1
  muxer.getRTT = unknown
  const open = muxer.onCreateStream.bind(muxer)
  muxer.onCreateStream = () => {
    muxer.getRTT = () => Number.POSITIVE_INFINITY
    const stream = open()
    muxer.getRTT = unknown
    // The library opens the stream in a microtask of its own, which is queued before this one.
    queueMicrotask(() => widen(stream))
    return stream
  }
  const accept = muxer.onRemoteStream.bind(muxer)
  const pace = { left: STREAMS_BURST, at: performance.now() }
  muxer.onRemoteStream = (stream) => {
    const now = performance.now()
    pace.left = Math.min(STREAMS_BURST, pace.left + ((now - pace.at) * STREAMS_PER_SECOND) / 1000) - 1
    pace.at = now
    // The library ends the connection of a peer whose frames fail.
    if (pace.left < 0) throw new Error('the peer opens one stream after the other')
    // The first update accepts the stream, and announces nothing.
    stream.sendWindowUpdate()
    updateRarely(stream, FIRST_WINDOW_BYTES)
    accept(stream)
  }
  return muxer
}

function widen(stream: YamuxStream): void {
  for (let window = FIRST_WINDOW_BYTES; window < STREAM_WINDOW_BYTES && stream.status === 'open'; window *= 2) {
    stream.sendWindowUpdate()
  }
  updateRarely(stream, STREAM_WINDOW_BYTES)
}

/**
 * Yamux tells the sender of every frame that has been read, so that each small message is answered by another, which costs as
 * much. Here it does when half of the window is used up, as other implementations do (hashicorp/yamux): the sender of a full
 * window never waits for that. A paused stream tells nothing, also if it was paused anew by what it had kept back.
 */
function updateRarely(stream: YamuxStream, windowBytes: number): void {
  let usedBytes = 0
  const receive = stream.handleData.bind(stream)
  stream.handleData = (frame) => {
    usedBytes += frame.header.length
    receive(frame)
  }
  const update = stream.sendWindowUpdate.bind(stream)
  stream.sendWindowUpdate = () => {
    if (usedBytes < windowBytes / 2 || stream.readStatus === 'paused') return
    usedBytes = 0
    update()
  }
}
