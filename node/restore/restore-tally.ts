import assert from 'node:assert/strict'
import { toHex } from '../../protocol/digest.ts'
import type { ImageDisk } from '../disk/image-disk.ts'
import type { TreeFile } from '../store/tree-file.ts'
import type { LogState, WriteLog } from '../writelog/write-log.ts'
import type { BlockProvider } from './block-provider.ts'
import type { RestoreResult } from './restore-result.ts'

type Peer = RestoreResult['peers'][number]

/** How the result of a restore calls this machine and its peers. */
export interface Names {
  readonly machine: string
  readonly nameOf: (peerId: string) => string
}

/** What a restore is about. */
interface RestoreFacts {
  readonly target: { readonly device: { readonly size: number }; readonly log: WriteLog }
  readonly manifest: {
    readonly image: string
    readonly release: number
    readonly root: Uint8Array
    readonly size: number
  }
  readonly names: Names
  readonly tree: TreeFile
  readonly disk: ImageDisk
  readonly startedAt: number
  /** Bytes of the tree that came over the network. */
  readonly received: number
  readonly logState: LogState
  readonly movedFrom?: number | undefined
}

/** Keeps count during a restore; a log miss makes it a restore in two parts. */
export class RestoreTally {
  readonly #facts: RestoreFacts
  readonly providers: BlockProvider[] = []
  /** Blocks that were written anew, in all parts of the restore. */
  restored = 0
  /** Blocks that are still dirty at the end. */
  left = 0
  audited = 0
  /** Bytes read by a scan; the disk counts the others. */
  bytesRead = 0
  missed: number | undefined
  /** Why the log was not believed after all. */
  doubt: string | undefined
  /** Peers that know this machine’s receipts have nothing against the log. */
  peersAgree = false

  constructor(facts: RestoreFacts) {
    this.#facts = facts
  }

  result(now: number): RestoreResult {
    const { target, manifest, names, tree, disk, startedAt, received, movedFrom } = this.#facts
    const { device, log } = target
    const { zero, local, staged, copied, fetched } = this.#sources()
    // Each block that was written has been counted once, by where its content came from.
    assert.equal(zero + local + staged + copied + fetched, this.restored)
    return {
      event: 'receipt',
      verified: this.left === 0,
      image: manifest.image,
      release: manifest.release,
      root: toHex(manifest.root),
      blocks: {
        total: tree.geometry.blockCount,
        dirty: this.restored + this.left,
        zero,
        local,
        staged,
        copied,
        fetched,
        audited: this.audited,
      },
      bytes: {
        read: this.bytesRead + disk.bytesRead,
        written: disk.bytesWritten,
        received: this.providers.reduce((bytes, it) => bytes + it.bytesReceived, received),
      },
      peers: this.#peers(),
      offenders: this.#offenders(),
      log: {
        source: log.source,
        ...this.#judgement(),
        ...(this.missed === undefined ? {} : { missed: this.missed }),
        ...(movedFrom === undefined ? {} : { movedFrom }),
      },
      seconds: (now - startedAt) / 1000,
      machine: names.machine,
      startedAt: new Date(startedAt).toISOString(),
      beyondImage: device.size - manifest.size,
    }
  }

  /** What came of the log, as it was opened and as peers see it. */
  #judgement(): Pick<RestoreResult['log'], 'state' | 'reason' | 'witness'> {
    const { logState, target } = this.#facts
    const reason = this.doubt ?? (logState.state === 'unknown' ? logState.reason : undefined)
    if (reason !== undefined) return { state: 'unknown', reason, witness: 'none' }
    const { witness } = target.log
    const all = [...(witness === 'none' ? [] : [witness]), ...(this.peersAgree ? ['peers'] : [])]
    return { state: logState.state, reason: '', witness: all.join(', ') || 'none' }
  }

  #sources(): BlockProvider['counts'] {
    const sum = { zero: 0, local: 0, staged: 0, copied: 0, fetched: 0 }
    for (const { counts } of this.providers)
      for (const source of Object.keys(sum) as (keyof typeof sum)[]) sum[source] += counts[source]
    return sum
  }

  #offenders(): RestoreResult['offenders'] {
    const { nameOf } = this.#facts.names
    // All parts of a restore have one ledger.
    const ledger = this.providers.map((provider) => provider.ledger).find((one) => one !== undefined)
    return (ledger?.offenders() ?? []).map((one) => ({ ...one, name: nameOf(one.id) }))
  }

  #peers(): Peer[] {
    const { nameOf } = this.#facts.names
    const peers = new Map<string, Peer>()
    const known = (id: string): Peer => peers.get(id) ?? { id, name: nameOf(id), blocks: 0, bytes: 0, bad: 0 }
    for (const provider of this.providers) {
      for (const [id, { blocks, bytes }] of provider.deliveredBy) {
        const before = known(id)
        peers.set(id, { ...before, blocks: before.blocks + blocks, bytes: before.bytes + bytes })
      }
      for (const { id, bad } of provider.ledger?.all() ?? []) if (bad > 0) peers.set(id, { ...known(id), bad })
    }
    return [...peers.values()]
  }
}
