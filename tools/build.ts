import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { START_FLAGS } from './lab/node-flags.ts'
import { makeBundle } from './make-bundle.ts'

/** `npm run build`: the bundle that npm packs. Only `mesh.js` is run by its name; it loads the other files. */
const directory = join(import.meta.dirname, '../dist')
const command = join(directory, 'mesh.js')
await makeBundle({ directory })
await writeFile(command, `#!/usr/bin/env -S node ${START_FLAGS.join(' ')}\n${await readFile(command, 'utf8')}`)
await chmod(command, 0o755)
