import { enableCompileCache } from 'node:module'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { IS_BUNDLE } from './cli/version.ts'

// Compiled code is kept beside the bundle, if that can be written: without it V8 compiles again at each boot.
if (IS_BUNDLE) enableCompileCache(join(import.meta.dirname, 'cache'))
const { runCommandLine } = await import('./cli/command-line.ts')
await runCommandLine(process.argv.slice(2))
// A stream tells only afterwards that its last write failed.
await setImmediate()
// Everything is durable and reported by now. Idle timers of the network must not hold up the boot.
process.exit()
