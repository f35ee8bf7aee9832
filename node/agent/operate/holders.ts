import { zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Bitmap } from '../../../protocol/bitmap.ts'
import { MAX_IMAGE_SIZE_BYTES, MAX_TEXT_BYTES, MIN_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'
import { toHex } from '../../../protocol/digest.ts'
import { anyText, type Check, natural, object, text } from '../../../protocol/json-shape.ts'
import type { Machine } from '../machine/machine.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { HeldRelease } from '../offer/open-source.ts'

const MAX_BLOCKS = MAX_IMAGE_SIZE_BYTES / MIN_BLOCK_SIZE_BYTES
/** More than a control reply has. */
const MAX_HELD_BYTES = 64 * 1024 * 1024

/** Blocks of one image that a running machine can serve. */
export interface Holder {
  readonly id: string
  readonly held: Bitmap
}

/** As {@link Holder}, in JSON: mostly all blocks, or runs of them. */
interface HolderJson {
  readonly id: string
  readonly blocks: number
  /** One bit a block, least significant first, zstd, base64. */
  readonly held: string
}

/** What a command of another version tells of a holder must be this. */
export const isHolderJson: Check<HolderJson> = object({
  id: text(MAX_TEXT_BYTES),
  blocks: natural(MAX_BLOCKS),
  held: anyText(MAX_HELD_BYTES),
})

/** Who holds what of the image with this root (hexadecimal): the connected machines, and this one with what it serves (`offered`). */
export function holdersOf(
  root: string,
  machine: Machine,
  node: MeshNode,
  offered: readonly HeldRelease[] = [],
): Holder[] {
  const others = node.swarm.holders(root).map(({ peerId, held }) => ({ id: peerId, held }))
  const own = offered.find(({ manifest }) => toHex(manifest.root) === root)
  if (own === undefined) return others
  const held = Bitmap.fromRanges(own.source.tree.geometry.blockCount, own.source.held())
  return [...others, { id: machine.config.id, held }]
}

/** A holder as the control socket carries it. */
export function encodeHolder({ id, held }: Holder): HolderJson {
  const bytes = new Uint8Array(Math.ceil(held.length / 8))
  held.store(0, bytes)
  return { id, blocks: held.length, held: zstdCompressSync(bytes).toString('base64') }
}

/** The inverse of {@link encodeHolder}. */
export function decodeHolder({ id, blocks, held: text }: HolderJson): Holder {
  const held = new Bitmap(blocks)
  held.load(0, zstdDecompressSync(Buffer.from(text, 'base64'), { maxOutputLength: Math.ceil(blocks / 8) }))
  return { id, held }
}
