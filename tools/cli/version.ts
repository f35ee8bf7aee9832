import { readFileSync } from 'node:fs'
import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readJson } from '../../protocol/document.ts'
import { object, text } from '../../protocol/json-shape.ts'
import { BUNDLE } from './bundle.ts'

/** Version of the package; the bundle has it built in. */
export const VERSION =
  BUNDLE?.version ??
  readJson(
    'package.json',
    object({ version: text(MAX_TEXT_BYTES) }),
    readFileSync(new URL('../../package.json', import.meta.url)),
  ).version
