import { Bitmap } from '../../../protocol/bitmap.ts'
import { toHex } from '../../../protocol/digest.ts'
import type { MeshError } from '../../../protocol/errors.ts'
import type { HeldImage } from '../../../protocol/message-parts.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { countBlocks } from '../../../protocol/units.ts'
import { MAX_UNKNOWN_RUNS } from './limits.ts'
import type { FindImage } from './swarm-options.ts'

/** What a peer has told of an image that this machine does not know. */
interface Told {
  readonly blocks: RangeSet
  /** It was more than is kept. */
  readonly isCut: boolean
}

const NOTHING: Told = { blocks: RangeSet.empty, isCut: false }

/**
 * What one peer says to hold. An image takes memory as its signed manifest says, whatever the peer says of it. Of images that no
 * manifest names yet a few runs of blocks are kept: peers often hear of a release before this machine does. Roots are hexadecimal.
 */
export class HeldImages {
  readonly #imageOf: FindImage
  readonly #violation: (what: string) => MeshError
  readonly #known = new Map<string, Bitmap>()
  readonly #unknown = new Map<string, Told>()

  /** `violation` makes the error for what a peer must not send. */
  constructor(imageOf: FindImage, violation: (what: string) => MeshError) {
    this.#imageOf = imageOf
    this.#violation = violation
  }

  /** Whether the peer says to hold nothing. */
  get isEmpty(): boolean {
    return this.#known.size + this.#unknown.size === 0
  }

  /** Blocks of an image that a manifest names; undefined if the peer does not hold that image. */
  of(root: string): Bitmap | undefined {
    return this.#known.get(root)
  }

  /** The peer holds (parts of) just these images. Errors: PROTOCOL_VIOLATION. */
  replace(images: readonly HeldImage[]): void {
    const roots = new Set(images.map((image) => toHex(image.root)))
    for (const map of [this.#known, this.#unknown])
      for (const root of map.keys()) if (!roots.has(root)) map.delete(root)
    for (const { root, size, blockSize } of images) {
      const key = toHex(root)
      const signed = this.#imageOf(key)
      if (signed !== undefined && (signed.size !== size || signed.blockSize !== blockSize))
        throw this.#violation(`another size of the image ${key.slice(0, 8)} than is signed`)
      if (this.#known.has(key) || this.#unknown.has(key)) continue
      this.#unknown.set(key, NOTHING)
      this.#recognise(key)
    }
  }

  /** The peer gained and lost blocks. Returns whether the image is known. Errors: PROTOCOL_VIOLATION. */
  change(root: string, gained: RangeSet, lost: RangeSet): boolean {
    const known = this.#known.get(root)
    if (known !== undefined) {
      change(known, gained, lost, this.#violation)
      return true
    }
    const told = this.#unknown.get(root)
    if (told === undefined) throw this.#violation('have of an image it does not hold')
    const blocks = told.blocks.subtract(lost).union(gained)
    const isCut = told.isCut || blocks.runCount > MAX_UNKNOWN_RUNS
    this.#unknown.set(root, isCut ? { blocks: RangeSet.empty, isCut } : { blocks, isCut })
    return false
  }

  /** The peer does not have a block after all. */
  forget(root: string, index: number): void {
    this.#known.get(root)?.clear(index)
  }

  /**
   * Other manifests are trusted now. Returns the roots of images that are known since, and of which the peer holds something; undefined
   * if the peer has told more of one of them than was kept, so that it is to be asked anew. Errors: PROTOCOL_VIOLATION.
   */
  recogniseAll(): readonly string[] | undefined {
    const now = [...this.#unknown].filter(([root]) => this.#imageOf(root) !== undefined)
    if (now.some(([, { isCut }]) => isCut)) return undefined
    for (const [root] of now) this.#recognise(root)
    return now.map(([root]) => root)
  }

  #recognise(root: string): void {
    const signed = this.#imageOf(root)
    if (signed === undefined) return
    const held = new Bitmap(countBlocks(signed.size, signed.blockSize))
    change(held, this.#unknown.get(root)!.blocks, RangeSet.empty, this.#violation)
    this.#unknown.delete(root)
    this.#known.set(root, held)
  }
}

function change(held: Bitmap, gained: RangeSet, lost: RangeSet, violation: (what: string) => MeshError): void {
  if (gained.end > held.length || lost.end > held.length) throw violation('have beyond the image')
  for (const [start, end] of lost.runs()) held.clearRange(start, end)
  for (const [start, end] of gained.runs()) held.setRange(start, end)
}
