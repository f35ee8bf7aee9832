import { readFileSync } from 'node:fs'

declare const BUNDLED_VERSION: string | undefined

/** Whether this is the bundle, not the sources. */
export const IS_BUNDLE = typeof BUNDLED_VERSION === 'string'

/** Version of the package; the bundle has it built in. */
export const VERSION =
  typeof BUNDLED_VERSION === 'string'
    ? BUNDLED_VERSION
    : (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version
