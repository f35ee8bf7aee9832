import { MAX_IMAGE_SIZE_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { type ByteCount, type ByteOffset, byteCount } from '../../protocol/units.ts'
import type { BlockDevice } from '../disk/block-device.ts'
import { NBD_LOG_ALIGNMENT_BYTES } from './limits.ts'
import { NbdClient, type NbdClientOptions } from './nbd-client.ts'

/**
 * Opens an export of an NBD server as a disk. Once the connection is lost, or a write or a flush has failed, everything
 * fails: nobody knows what the server holds. A server without flush is refused, because nothing that it acknowledges
 * need last. Errors: those of {@link NbdClient.connect}, DISK_EMPTY, DISK_TOO_LARGE.
 */
export async function openNbdDevice(
  uri: string,
  options: { writable: boolean } & Pick<NbdClientOptions, 'connectMs' | 'replyMs'>,
): Promise<BlockDevice> {
  const client = await NbdClient.connect(uri, options)
  try {
    assertSuitable(client, options.writable)
    return new NbdDevice(client)
  } catch (error) {
    await client.close()
    throw error
  }
}

function assertSuitable({ uri, facts }: NbdClient, writable: boolean): void {
  const { size, readOnly, canFlush, alignment } = facts
  const unsuitable = (what: string): MeshError => new MeshError('NBD_UNSUITABLE', `${uri} ${what}`)
  if (size === 0) throw new MeshError('DISK_EMPTY', `${uri} is empty`)
  if (size > MAX_IMAGE_SIZE_BYTES) throw new MeshError('DISK_TOO_LARGE', `${uri} has ${size} bytes`)
  if (alignment > NBD_LOG_ALIGNMENT_BYTES)
    throw unsuitable(`takes multiples of ${alignment} bytes only, not of ${NBD_LOG_ALIGNMENT_BYTES}`)
  if (!writable) return
  if (readOnly) throw unsuitable('is read-only')
  if (!canFlush) throw unsuitable('offers no flush, so nothing that is written there is sure to last')
}

class NbdDevice implements BlockDevice {
  readonly path: string
  readonly size: ByteCount
  readonly kind = 'block'
  readonly #client: NbdClient
  #failure: unknown

  constructor(client: NbdClient) {
    this.#client = client
    this.path = client.uri
    this.size = byteCount(client.size)
  }

  read(offset: ByteOffset, into: Uint8Array): Promise<void> {
    return this.#client.read(offset, into)
  }

  write(offset: ByteOffset, data: Uint8Array): Promise<void> {
    return this.#change(() => this.#client.write(offset, data))
  }

  flush(): Promise<void> {
    return this.#change(() => this.#client.flush())
  }

  close(): Promise<void> {
    return this.#client.close()
  }

  async #change(work: () => Promise<void>): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure
    try {
      await work()
    } catch (error) {
      this.#failure ??= error
      throw error
    }
  }
}
