import type { ControlMethod } from '../../control/control-server.ts'
import type { FrameStream } from '../../net/frame-stream.ts'

/** Serves one stream that a peer has opened, until the stream ends. */
export type ServeStream = (stream: FrameStream) => Promise<void>

/** What one room adds to a command that keeps running. `serve` merges the parts. */
export interface ServicePart {
  /** Methods of the control socket, by name: other commands of this machine call them. */
  readonly methods?: Readonly<Record<string, ControlMethod>>
  /** What serves the streams that members open, by the name of the protocol. */
  readonly handlers?: Readonly<Record<string, ServeStream>>
}
