import type { Stream } from '@libp2p/interface'

/** What of a stream of @libp2p/yamux is used here; its types call all of it public. */
interface YamuxStream {
  readonly state: number
  readonly recvWindow: number
  readonly recvWindowCapacity: number
  sendWindowUpdate: () => void
}

/** `StreamState.Established`: nothing but the window is to be told. */
const ESTABLISHED = 3

/**
 * yamux tells the sender of every frame that has been read, so that each small message is answered by another, which costs as
 * much. Here it does when half of the window is used up, as other implementations do (hashicorp/yamux): the sender of a full
 * window never waits for that, and the bytes on the wire mean the same. A stream of another muxer is left as it is.
 */
export function rareWindowUpdates(stream: Stream): void {
  if (!isYamuxStream(stream)) return
  const send = stream.sendWindowUpdate.bind(stream)
  stream.sendWindowUpdate = () => {
    const half = stream.recvWindowCapacity > stream.recvWindow / 2
    if (stream.state !== ESTABLISHED || !half) send()
  }
}

function isYamuxStream(stream: Stream & Partial<YamuxStream>): stream is Stream & YamuxStream {
  return (
    typeof stream.sendWindowUpdate === 'function' &&
    typeof stream.state === 'number' &&
    typeof stream.recvWindow === 'number' &&
    typeof stream.recvWindowCapacity === 'number'
  )
}
