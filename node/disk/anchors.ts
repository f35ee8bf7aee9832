import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'

const WORDS = GRANULE_SIZE_BYTES / 4
/**
 * Words of a granule that are looked at, enough to tell most granules apart, few enough to cost nothing beside hashing: the
 * first ones, where many formats number their pages, and others at a distance that is no power of two.
 */
const SAMPLES = Uint32Array.of(0, 1, 2, 3, 71, 154, 237, 320, 403, 486, 569, 652, 735, 818, 901, 984)

/**
 * Gathers anchors: granules of 4 KiB chosen by their content, the same ones wherever it stands. They are those whose
 * fingerprint ends in `bits` zero bits; granules that look like zeros are none. Two contents may have the same fingerprint.
 */
export class AnchorGatherer {
  readonly #mask: number
  readonly #found: Uint32Array
  #length = 0

  /** For at most so many granules. */
  constructor(bits: number, granules: number) {
    this.#mask = 2 ** bits - 1
    this.#found = new Uint32Array(2 * granules)
  }

  /** Pairs of a fingerprint and the granule's number. */
  get anchors(): Uint32Array {
    return this.#found.slice(0, this.#length)
  }

  /** Looks at granules `first` to `end` of the buffer that `words` is of. */
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
      if (any === 0 || (fingerprint & this.#mask) !== 0) continue
      this.#found[this.#length++] = fingerprint >>> 0
      this.#found[this.#length++] = granule
    }
  }
}
