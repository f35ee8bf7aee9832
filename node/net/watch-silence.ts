import type { MessageStream } from '@libp2p/interface'
import { SILENCE_TICK_MS, SILENCE_TICKS } from './limits.ts'

/** What of a connection of @libp2p/tcp is used here: every piece that the socket has read goes through it. */
interface SocketStream {
  onData: (data: Uint8Array) => void
  readonly readStatus: string
}

/**
 * Ends a connection through which nothing has come for SILENCE_TICKS looks: the peer lost its power, its cable or its address.
 * TCP would notice that after a quarter of an hour. Each byte counts, so a slow link full of content is never taken for a dead
 * one; looks are counted and not time, so a computer that slept ends nothing. A connection of another kind is left as it is.
 */
export function watchSilence(connection: MessageStream): void {
  if (!isSocketStream(connection)) return
  let silent = 0
  const receive = connection.onData.bind(connection)
  connection.onData = (data) => {
    silent = 0
    receive(data)
  }
  const timer = setInterval(() => {
    // What is not read on purpose cannot be heard.
    if (connection.readStatus === 'paused') silent = 0
    else if (++silent >= SILENCE_TICKS) {
      clearInterval(timer)
      connection.abort(new Error(`nothing came for ${(SILENCE_TICKS * SILENCE_TICK_MS) / 1000} s`))
    }
  }, SILENCE_TICK_MS)
  timer.unref()
  connection.addEventListener('close', () => clearInterval(timer))
}

function isSocketStream(stream: MessageStream & Partial<SocketStream>): stream is MessageStream & SocketStream {
  return typeof stream.onData === 'function'
}
