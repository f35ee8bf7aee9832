/** What the build knows of a bundle. */
export interface BundleFacts {
  readonly version: string
  /** Set in the Debian package: where compiled code is kept. Otherwise it is kept beside the bundle. */
  readonly cache?: string
  /** Set in the Debian package: what runs this bundle, which stays the same when the package is updated. */
  readonly program?: string
}

declare const BUNDLED_VERSION: string | undefined
declare const BUNDLED_CACHE: string | undefined
declare const BUNDLED_PROGRAM: string | undefined

/** The facts of this bundle; undefined if these are the sources. */
export const BUNDLE: BundleFacts | undefined =
  typeof BUNDLED_VERSION === 'string'
    ? {
        version: BUNDLED_VERSION,
        ...(typeof BUNDLED_CACHE === 'string' ? { cache: BUNDLED_CACHE } : {}),
        ...(typeof BUNDLED_PROGRAM === 'string' ? { program: BUNDLED_PROGRAM } : {}),
      }
    : undefined
