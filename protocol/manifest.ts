import { canonicalize } from '@tufjs/canonical-json'
import {
  MAX_BLOCK_SIZE_BYTES,
  MAX_IMAGE_SIZE_BYTES,
  MAX_METADATA_FILE_BYTES,
  MAX_TEXT_BYTES,
  MIN_BLOCK_SIZE_BYTES,
} from './constants.ts'
import { type Digest, digestFromHex, toHex } from './digest.ts'
import { readDocument } from './document.ts'
import { MeshError } from './errors.ts'
import { anyText, type Check, list, natural, object, optional, text, time, which } from './json-shape.ts'
import { RangeSet } from './ranges.ts'
import { type ByteCount, byteCount, countBlocks } from './units.ts'

/** The small document that names one release of an image; its SHA-256 is what the site signs (docs/PROTOCOL.md). */
export interface Manifest {
  /** See {@link isImageName}. */
  readonly image: string
  /** From 1; strictly increasing per image. */
  readonly release: number
  /** Exact bytes of the image; need not be a multiple of the block size. */
  readonly size: ByteCount
  readonly blockSize: ByteCount
  /** Root of the hash tree. */
  readonly root: Digest
  /** Blocks that are never hashed, served or restored. */
  readonly preserve: RangeSet
  /** Digest of the list of repeats (repeats.ts), of the size of a block; absent if there is none. */
  readonly repeats?: Digest
  /**
   * Bytes of the logical sectors that the image's partition table counts in; absent if the image has no table, or nothing tells.
   * A disk with other sectors shows no partitions.
   */
  readonly sectorSize?: number
  /** Free text for people, at most 200 characters. */
  readonly label: string
  /** When it was published, ISO 8601 in UTC. */
  readonly time: string
}

const FORMAT = 1
const MAX_LABEL_CHARACTERS = 200
const MAX_RELEASE = 2 ** 31
const SECTOR_SIZES: readonly number[] = [512, 1024, 2048, 4096]

/** Segments of `[a-z0-9][a-z0-9._-]*` joined by `/`, at most 128 characters, so that a name is safe in paths everywhere. */
export function isImageName(text: string): boolean {
  return text.length <= 128 && /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)*$/.test(text) && !text.includes('..')
}

/** Whether a block may have so many bytes: a power of two from 4 KiB to 1 MiB. */
export function isBlockSize(value: number): boolean {
  return Number.isInteger(Math.log2(value)) && value >= MIN_BLOCK_SIZE_BYTES && value <= MAX_BLOCK_SIZE_BYTES
}

/** Canonical JSON (sorted keys, no white space), format 1. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  return Buffer.from(
    canonicalize({
      format: FORMAT,
      image: manifest.image,
      release: manifest.release,
      size: manifest.size,
      blockSize: manifest.blockSize,
      root: toHex(manifest.root),
      preserve: [...manifest.preserve.runs()].map((run) => [...run]),
      ...(manifest.repeats === undefined ? {} : { repeats: toHex(manifest.repeats) }),
      ...(manifest.sectorSize === undefined ? {} : { sectorSize: manifest.sectorSize }),
      label: manifest.label,
      time: manifest.time,
    }),
  )
}

const isDigest: Check<string> = which(text(MAX_TEXT_BYTES), (hex) => digestFromHex(hex) !== undefined)
const isRun: Check<readonly number[]> = which(list(natural(), 2), ({ length }) => length === 2)

const MANIFEST = {
  name: 'the manifest',
  format: FORMAT,
  shape: object({
    image: which(text(MAX_TEXT_BYTES), isImageName),
    release: which(natural(MAX_RELEASE), (release) => release > 0),
    size: which(natural(MAX_IMAGE_SIZE_BYTES), (size) => size > 0),
    blockSize: which(natural(), isBlockSize),
    root: isDigest,
    preserve: list(isRun, MAX_METADATA_FILE_BYTES),
    repeats: optional(isDigest),
    sectorSize: optional(which(natural(), (size) => SECTOR_SIZES.includes(size))),
    label: which(anyText(MAX_METADATA_FILE_BYTES), (label) => label.length <= MAX_LABEL_CHARACTERS),
    time,
  }),
  fault: 'MANIFEST_INVALID',
} as const

/** What a manifest says. Errors: MANIFEST_INVALID saying what is wrong, FORMAT_NEWER. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  if (bytes.byteLength > MAX_METADATA_FILE_BYTES)
    throw new MeshError('MANIFEST_INVALID', `the manifest has ${bytes.byteLength} bytes, which are too many`)
  const read = readDocument(MANIFEST, bytes)
  const { image, release, size, blockSize, root, preserve, repeats, sectorSize, label, time } = read
  return {
    image,
    release,
    size: byteCount(size),
    blockSize: byteCount(blockSize),
    root: digestFromHex(root)!,
    preserve: preservedOf(preserve, countBlocks(size, blockSize)),
    ...(repeats === undefined ? {} : { repeats: digestFromHex(repeats)! }),
    ...(sectorSize === undefined ? {} : { sectorSize }),
    label,
    time,
  }
}

/** Runs in ascending order, apart from each other, inside of the image. */
function preservedOf(runs: readonly (readonly number[])[], blocks: number): RangeSet {
  let end = -1
  const checked = runs.map(([start = 0, stop = 0]): [number, number] => {
    if (start <= end || stop <= start || stop > blocks)
      throw new MeshError('MANIFEST_INVALID', `the manifest is damaged: preserve has a run from ${start} to ${stop}`)
    end = stop
    return [start, stop]
  })
  return RangeSet.from(checked)
}
