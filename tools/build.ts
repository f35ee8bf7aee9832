import { join } from 'node:path'
import { makeBundle } from './make-bundle.ts'

await makeBundle({ directory: join(import.meta.dirname, '../dist') })
