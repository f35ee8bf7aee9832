import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { MIN_ANCHOR_BITS } from './limits.ts'

const WORDS = GRANULE_SIZE_BYTES / 4
/**
 * Words of a granule that its fingerprint is made of. They tell most granules apart and cost nothing beside hashing.
 * The first words are among them, because many formats number their pages there; the others lie at a distance that is
 * no power of two.
 */
const SAMPLES = Uint32Array.of(0, 1, 2, 3, 71, 154, 237, 320, 403, 486, 569, 652, 735, 818, 901, 984)

/** Neighbouring granules of which at least one is an anchor: 7. Of random granules every 4th is an anchor then. */
export const ANCHOR_WINDOW = 2 ** (MIN_ANCHOR_BITS + 1) - 1
/** Fingerprint of granules that cannot be anchors. */
const NONE = 2 ** 32 - 1

/**
 * Gathers anchors: granules of 4 KiB chosen by their content, so that the same content gives the same anchors wherever
 * it stands. An anchor is the granule with the least fingerprint of some ANCHOR_WINDOW neighbouring granules
 * (winnowing: Schleimer, Wilkerson and Aiken, 2003). So no run of that length is without an anchor, and a run of one
 * content has few. Granules that look like zeros are no anchors, and granules outside of the part that is looked at do
 * not count. With more `bits` than MIN_ANCHOR_BITS there are fewer anchors: their fingerprints must also end in that
 * many more zero bits. Two different contents may have the same fingerprint.
 */
export class AnchorGatherer {
  readonly #mask: number
  readonly #prints: Uint32Array

  /** `granules`: how many granules will be looked at, at most. */
  constructor(bits: number, granules: number) {
    this.#mask = 2 ** (bits - MIN_ANCHOR_BITS) - 1
    this.#prints = new Uint32Array(granules).fill(NONE)
  }

  /** Pairs: a fingerprint, then the number of its granule, in ascending order of the numbers. */
  get anchors(): Uint32Array {
    const prints = this.#prints
    const found = new Uint32Array(2 * prints.length)
    let length = 0
    let least = -1
    for (let end = 0; end < prints.length + ANCHOR_WINDOW - 1; end++) {
      const first = Math.max(0, end - ANCHOR_WINDOW + 1)
      const before = least
      if (least < first) least = this.#leastOf(first, Math.min(end + 1, prints.length), before)
      else if (end < prints.length && prints[end]! < prints[least]!) least = end
      if (least === before || least === -1 || (prints[least]! & this.#mask) !== 0) continue
      found[length++] = prints[least]!
      found[length++] = least
    }
    return found.slice(0, length)
  }

  /** Looks at granules `first` to `end` (exclusive) of the buffer that `words` is a view of. */
  look(words: Uint32Array, first: number, end: number): void {
    for (let granule = first; granule < end; granule++) {
      let fingerprint = 0
      let any = 0
      for (let i = 0, start = granule * WORDS; i < SAMPLES.length; i++) {
        const sample = words[start + SAMPLES[i]!]!
        any |= sample
        // The mixing of MurmurHash3 (public domain, Austin Appleby).
        fingerprint = Math.imul(fingerprint ^ Math.imul(sample, 0xcc9e2d51), 0x1b873593)
        fingerprint = (fingerprint << 13) | (fingerprint >>> 19)
      }
      fingerprint = Math.imul(fingerprint ^ (fingerprint >>> 16), 0x85ebca6b)
      fingerprint ^= fingerprint >>> 13
      if (any !== 0) this.#prints[granule] = fingerprint
    }
  }

  /** The least of some granules, -1 if none has a fingerprint: the first one, or the last of those equal to the granule `before`. */
  #leastOf(first: number, end: number, before: number): number {
    const again = this.#prints[before]
    let [least, print] = [-1, NONE]
    for (let granule = first; granule < end; granule++) {
      const other = this.#prints[granule]!
      if (other > print || (other === print && other !== again)) continue
      least = granule
      print = other
    }
    return least
  }
}
