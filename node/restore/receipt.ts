import { toHex } from '../../protocol/digest.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { TreeFile } from '../store/tree-file.ts'
import type { LogSource, LogState, WriteLog } from '../writelog/write-log.ts'
import type { BlockProvider } from './block-provider.ts'

/** The record of one restore; the last line of `mesh restore --json`. Fields may be added, never renamed. */
export interface Receipt {
  readonly event: 'receipt'
  /** True only if every block that could have changed equals the signed manifest. */
  readonly verified: boolean
  readonly image: string
  readonly release: number
  /** Root of the hash tree, hexadecimal. */
  readonly root: string
  readonly blocks: {
    readonly total: number
    /** Blocks that differed from the release, or that the log said might. */
    readonly dirty: number
    /** Dirty blocks whose content was found on a disk of this computer, or already fetched for another block. */
    readonly local: number
    /** Dirty blocks that are all zeros in the release. */
    readonly zero: number
    /** Dirty blocks whose content had been fetched ahead, while the machine ran. */
    readonly staged: number
    readonly fetched: number
    /** Blocks that the log called clean and that were hashed all the same. */
    readonly audited: number
  }
  readonly bytes: {
    readonly read: number
    readonly written: number
    /** Content of blocks and hash pages that came over the network. */
    readonly received: number
  }
  readonly peers: readonly ReceiptPeer[]
  readonly log: {
    readonly source: LogSource
    readonly state: LogState['state']
    readonly reason: string
    /** A block that was wrong though the log called it clean, so that the disk was scanned. */
    readonly missed?: number
    /** The log was kept against this release until now, and what differs between the two was added to it. */
    readonly movedFrom?: number
  }
  readonly seconds: number
  readonly machine: string
  /** ISO 8601. */
  readonly startedAt: string
  /** Bytes of the disk behind the image, which are left alone. */
  readonly beyondImage: number
}

export interface ReceiptPeer {
  readonly id: string
  readonly name: string
  /** Blocks of the image it delivered. */
  readonly blocks: number
  readonly bytes: number
  /** Wrong blocks it delivered; the peer was banned. */
  readonly bad: number
}

/** What a restore is about. */
export interface ReceiptFacts {
  readonly options: {
    readonly device: { readonly size: number }
    readonly manifest: {
      readonly image: string
      readonly release: number
      readonly root: Uint8Array
      readonly size: number
    }
    readonly log: WriteLog
    readonly machine: string
    readonly nameOf: (peerId: string) => string
  }
  readonly tree: TreeFile
  readonly disk: ImageDisk
  readonly startedAt: number
  /** Bytes of the tree that came over the network. */
  readonly received: number
  readonly logState: LogState
  readonly movedFrom?: number | undefined
}

/** Keeps count during a restore; a log miss makes it a restore in two parts. */
export class ReceiptBook {
  readonly #facts: ReceiptFacts
  readonly providers: BlockProvider[] = []
  dirty = 0
  /** Blocks that are still dirty at the end. */
  left = 0
  audited = 0
  /** Bytes read by a scan; the disk counts the others. */
  bytesRead = 0
  missed: number | undefined

  constructor(facts: ReceiptFacts) {
    this.#facts = facts
  }

  receipt(now: number): Receipt {
    const { options, tree, disk, startedAt, received, logState, movedFrom } = this.#facts
    const { manifest, device, log, machine } = options
    const sum = (count: (provider: BlockProvider) => number): number =>
      this.providers.reduce((total, provider) => total + count(provider), 0)
    return {
      event: 'receipt',
      verified: this.left === 0,
      image: manifest.image,
      release: manifest.release,
      root: toHex(manifest.root),
      blocks: {
        total: tree.geometry.blockCount,
        dirty: this.dirty,
        local: sum((it) => it.counts.local),
        zero: sum((it) => it.counts.zero),
        staged: sum((it) => it.counts.staged),
        fetched: sum((it) => it.counts.fetched),
        audited: this.audited,
      },
      bytes: {
        read: this.bytesRead + disk.bytesRead,
        written: disk.bytesWritten,
        received: received + sum((it) => it.bytesReceived),
      },
      peers: this.#peers(),
      log: {
        source: log.source,
        state: logState.state,
        reason: logState.state === 'unknown' ? logState.reason : '',
        ...(this.missed === undefined ? {} : { missed: this.missed }),
        ...(movedFrom === undefined ? {} : { movedFrom }),
      },
      seconds: (now - startedAt) / 1000,
      machine,
      startedAt: new Date(startedAt).toISOString(),
      beyondImage: device.size - manifest.size,
    }
  }

  #peers(): ReceiptPeer[] {
    const { nameOf } = this.#facts.options
    const peers = new Map<string, ReceiptPeer>()
    const known = (id: string): ReceiptPeer => peers.get(id) ?? { id, name: nameOf(id), blocks: 0, bytes: 0, bad: 0 }
    for (const provider of this.providers) {
      for (const [id, { blocks, bytes }] of provider.deliveredBy) {
        const before = known(id)
        peers.set(id, { ...before, blocks: before.blocks + blocks, bytes: before.bytes + bytes })
      }
      for (const { id, bad } of provider.ledger()) if (bad > 0) peers.set(id, { ...known(id), bad })
    }
    return [...peers.values()]
  }
}
