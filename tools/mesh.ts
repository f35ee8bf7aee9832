#!/usr/bin/env -S node --max-semi-space-size=1 --heap-growing-percent=150 --no-maglev
import { runCommandLine } from './command-line.ts'

await runCommandLine(process.argv.slice(2))
// Everything is durable and said by now; idle timers of the network must not hold up the boot.
process.exit()
