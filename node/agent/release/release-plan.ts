import { basename } from 'node:path'
import { DEFAULT_BLOCK_SIZE_BYTES } from '../../../protocol/constants.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { isImageName } from '../../../protocol/manifest.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { preservedBlocks } from '../../store/build-tree.ts'
import type { VerifiedManifest } from '../../trust/verified-manifest.ts'
import type { Machine } from '../machine/machine.ts'

/** What is to be published. */
export interface ReleaseRequest {
  /** Path of a block device or of an image file. */
  readonly disk: string
  /** Default: the machine's image, else the file name of the disk. */
  readonly image?: string
  /** Bytes. Default: that of the newest release, else 64 KiB. */
  readonly blockSize?: number
  /** Bytes that are never hashed, served or restored; default: those of the newest release. */
  readonly preserve: readonly { offset: number; length: number }[]
  /** Serve from an own copy in the state directory. */
  readonly copy: boolean
  /** Publish a disk although it is mounted read-write, or the release may be a mistake. */
  readonly force: boolean
  /** Publish the disk although another one was published from the same path before. */
  readonly acceptNewDisk?: boolean
  /** Remark for people. */
  readonly label?: string
  /** Private keys, as text, that sign besides those on the master. */
  readonly lent?: readonly string[]
}

/** What the next release is to be, before its disk is read. */
export interface ReleasePlan {
  readonly image: string
  /** Its number. */
  readonly release: number
  /** The newest release. */
  readonly before: VerifiedManifest | undefined
  /** Bytes. */
  readonly size: number
  readonly blockSize: number
  readonly preserve: RangeSet
}

/** Plans the next release of an image; `machine` is undefined before the site is created. Errors: RANGE_INVALID. */
export function planRelease(machine: Machine | undefined, request: ReleaseRequest, size: number): ReleasePlan {
  const image = request.image ?? machine?.config.image ?? imageNameOf(request.disk)
  const before = machine?.trust.view().newest(image)
  const blockSize = request.blockSize ?? before?.blockSize ?? DEFAULT_BLOCK_SIZE_BYTES
  const preserve = preserveOf(request.preserve, before, size, blockSize)
  return { image, release: (before?.release ?? 0) + 1, before, size, blockSize, preserve }
}

function preserveOf(
  wanted: ReleaseRequest['preserve'],
  before: VerifiedManifest | undefined,
  size: number,
  blockSize: number,
): RangeSet {
  if (wanted.length > 0) return preservedBlocks(wanted, size, blockSize)
  if (before === undefined || before.preserve.isEmpty) return RangeSet.empty
  if (before.blockSize !== blockSize || before.size !== size) {
    throw new MeshError(
      'RANGE_INVALID',
      'the disk or block size changed, so the preserved ranges have to be given again',
    )
  }
  return before.preserve
}

/** A valid image name from a file name: `Model Image.qcow2` → `model-image`. */
function imageNameOf(disk: string): string {
  const stem = basename(disk)
    .replace(/\.[^.]*$/, '')
    .toLowerCase()
  const name = stem
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/\.{2,}/g, '.')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 64)
  return isImageName(name) ? name : 'image'
}
