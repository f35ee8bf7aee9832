import { readFileSync } from 'node:fs'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readJson } from '../../protocol/document.ts'
import { object, text } from '../../protocol/json-shape.ts'

declare const BUNDLED_VERSION: string | undefined

/** Whether this is the bundle, not the sources. */
export const IS_BUNDLE = typeof BUNDLED_VERSION === 'string'

/** Version of the package; the bundle has it built in. */
export const VERSION =
  typeof BUNDLED_VERSION === 'string'
    ? BUNDLED_VERSION
    : readJson(
        'package.json',
        object({ version: text(MAX_TEXT_BYTES) }),
        readFileSync(new URL('../../package.json', import.meta.url)),
      ).version
