import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { anyText, type Check, natural, object, optional, text } from '../../../protocol/json-shape.ts'
import type { KnownDisk } from '../../disk/known-disk.ts'
import { isKnownDisk } from '../../state/machine-config.ts'
import type { Shelf } from '../../state/shelf.ts'
import type { StateDirectory } from '../../state/state-directory.ts'
import { storedDocument } from '../../state/stored-document.ts'
import { MAX_PATH_BYTES } from './limits.ts'

/** Where the master has the content of one of its images: it serves all that it has. */
export interface PublishedImage {
  readonly image: string
  /** The release that was published from there, and its root, hexadecimal. */
  readonly release: number
  readonly root: string
  /** Path of the disk that was published, and what that is known by. */
  readonly disk: string
  readonly diskIdentity?: KnownDisk
  /** Path the content is served from, if that is not the disk: the master's own copy. */
  readonly servedFrom?: string
}

const isPublished: Check<PublishedImage> = object({
  image: text(MAX_TEXT_BYTES),
  release: natural(),
  root: text(MAX_TEXT_BYTES),
  disk: anyText(MAX_PATH_BYTES),
  diskIdentity: optional(isKnownDisk),
  servedFrom: optional(anyText(MAX_PATH_BYTES)),
})

const shelfOf = (state: StateDirectory): Shelf<PublishedImage> =>
  state.shelf('published-images', storedDocument('where an image was published from', isPublished))

/** All images that were published from this state directory, by name. */
export async function publishedImages(state: StateDirectory): Promise<PublishedImage[]> {
  const found: PublishedImage[] = []
  for await (const [, published] of shelfOf(state).iterator()) found.push(published)
  return found
}

/** Remembers it, in place of what was remembered of that image, and of the same disk. Durable when it resolves. */
export async function rememberPublished(state: StateDirectory, published: PublishedImage): Promise<void> {
  const { image, disk, servedFrom } = published
  const others = (await publishedImages(state)).filter((one) => one.image !== image)
  // A disk holds one image; a copy stays what it is.
  const gone = others.filter((one) => one.servedFrom === undefined && servedFrom === undefined && one.disk === disk)
  const keys = gone.map((one) => one.image)
  await shelfOf(state).changeDurable([[image, published]], keys)
}

/** What was published last from the disk with this path: the master may have the disks of several images. */
export async function publishedFrom(
  { state }: { readonly state: StateDirectory },
  disk: string,
): Promise<PublishedImage | undefined> {
  return (await publishedImages(state)).findLast((one) => one.disk === disk)
}

/** The image that is meant: the one that is named, else the one that was published from the disk before. */
export function imageOf(
  { image }: { readonly image?: string },
  last: PublishedImage | undefined,
): { readonly image?: string } {
  const meant = image ?? last?.image
  return meant === undefined ? {} : { image: meant }
}
