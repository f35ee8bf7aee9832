import { canonicalize } from '@tufjs/canonical-json'
import {
  MAX_BLOCK_SIZE_BYTES,
  MAX_IMAGE_SIZE_BYTES,
  MAX_METADATA_FILE_BYTES,
  MIN_BLOCK_SIZE_BYTES,
} from './constants.ts'
import { type Digest, digestFromHex, toHex } from './digest.ts'
import { MeshError } from './errors.ts'
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
  /** Free text for people, at most 200 characters. */
  readonly label: string
  /** When it was published, ISO 8601 in UTC. */
  readonly time: string
}

const FORMAT = 1
const MAX_LABEL_CHARACTERS = 200
/** Those that each manifest has. */
const KEYS = ['blockSize', 'format', 'image', 'label', 'preserve', 'release', 'root', 'size', 'time']

/** Segments of `[a-z0-9][a-z0-9._-]*` joined by `/`, at most 128 characters, so that a name is safe in paths everywhere. */
export function isImageName(text: string): boolean {
  return text.length <= 128 && /^[a-z0-9][a-z0-9._-]*(\/[a-z0-9][a-z0-9._-]*)*$/.test(text) && !text.includes('..')
}

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
      label: manifest.label,
      time: manifest.time,
    }),
  )
}

/** The inverse of {@link encodeManifest}; accepts nothing else. Errors: MANIFEST_INVALID saying what is wrong. */
export function decodeManifest(bytes: Uint8Array): Manifest {
  if (bytes.byteLength > MAX_METADATA_FILE_BYTES) throw invalid(`${bytes.byteLength} bytes are too many`)
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw invalid('it is no JSON', cause)
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw invalid('it is no JSON object')
  const fields = json as Record<string, unknown>
  if (fields.format !== FORMAT)
    throw invalid(`format ${String(fields.format)} is not known; update mesh on this machine`)
  const { repeats: repeatsHex, ...others } = fields
  if (Object.keys(others).sort().join() !== KEYS.join()) throw invalid('its keys are not those of format 1')

  const { image, label, time } = fields
  if (typeof image !== 'string' || !isImageName(image)) throw invalid('image is no image name')
  if (typeof label !== 'string' || label.length > MAX_LABEL_CHARACTERS) throw invalid('label is no short text')
  if (typeof time !== 'string' || Number.isNaN(Date.parse(time)) || new Date(time).toISOString() !== time) {
    throw invalid('time is no UTC time')
  }
  const release = natural(fields.release, 'release', 1, 2 ** 31)
  const size = natural(fields.size, 'size', 1, MAX_IMAGE_SIZE_BYTES)
  const blockSize = natural(fields.blockSize, 'blockSize', MIN_BLOCK_SIZE_BYTES, MAX_BLOCK_SIZE_BYTES)
  if (!isBlockSize(blockSize)) throw invalid('blockSize is no power of two')
  const root = typeof fields.root === 'string' ? digestFromHex(fields.root) : undefined
  if (root === undefined) throw invalid('root is no SHA-256 in hexadecimal')
  const preserve = decodePreserve(fields.preserve, countBlocks(size, blockSize))
  const repeats = typeof repeatsHex === 'string' ? digestFromHex(repeatsHex) : undefined
  if (repeatsHex !== undefined && repeats === undefined) throw invalid('repeats is no SHA-256 in hexadecimal')

  const manifest = {
    image,
    release,
    size: byteCount(size),
    blockSize: byteCount(blockSize),
    root,
    preserve,
    ...(repeats === undefined ? {} : { repeats }),
    label,
    time,
  }
  if (Buffer.compare(encodeManifest(manifest), bytes) !== 0) throw invalid('it is not in canonical form')
  return manifest
}

function decodePreserve(value: unknown, blocks: number): RangeSet {
  if (!Array.isArray(value)) throw invalid('preserve is no list')
  return RangeSet.from(
    value.map((run: unknown): [number, number] => {
      if (!Array.isArray(run) || run.length !== 2) throw invalid('preserve holds something else than [start, end]')
      const start = natural(run[0], 'preserve start', 0, blocks)
      return [start, natural(run[1], 'preserve end', start, blocks)]
    }),
  )
}

function natural(value: unknown, name: string, least: number, most: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) {
    throw invalid(`${name} is no whole number from ${least} to ${most}`)
  }
  return value
}

function invalid(why: string, cause?: unknown): MeshError {
  return new MeshError('MANIFEST_INVALID', `manifest refused: ${why}`, { cause })
}
