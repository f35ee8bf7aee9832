#!/usr/bin/env -S node --max-semi-space-size=1 --heap-growing-percent=150 --no-maglev --invocation-count-for-turbofan=12000
import { enableCompileCache } from 'node:module'
import { join } from 'node:path'
import { IS_BUNDLE } from './cli/version.ts'

// What V8 has compiled is kept beside the bundle, where that can be written: each boot waits for it otherwise.
if (IS_BUNDLE) enableCompileCache(join(import.meta.dirname, 'cache'))
const { runCommandLine } = await import('./cli/command-line.ts')
await runCommandLine(process.argv.slice(2))
// Everything is durable and said by now; idle timers of the network must not hold up the boot.
process.exit()
