import { BUNDLE } from './cli/bundle.ts'
import { refuseOldNode } from './cli/node-release.ts'
import { LATE_FLAGS } from './lab/node-flags.ts'

// An old Node runs these lines and what they import from ./cli/node-release.ts, so that it can say what is wrong. Whatever is
// newer is asked for below.
if (!refuseOldNode(process.versions.node, process.argv)) await main()

async function main(): Promise<void> {
  const { setFlagsFromString } = process.getBuiltinModule('node:v8')
  for (const flag of LATE_FLAGS)
    if (!process.execArgv.some((given) => nameOf(given) === nameOf(flag))) setFlagsFromString(flag)
  // Compiled code is kept, if it can be: without it V8 compiles again at each boot.
  if (BUNDLE !== undefined) {
    const { enableCompileCache } = process.getBuiltinModule('node:module')
    enableCompileCache(BUNDLE.cache ?? `${import.meta.dirname}/cache`)
  }
  const { runCommandLine } = await import('./cli/command-line.ts')
  await runCommandLine(process.argv.slice(2))
  // A stream tells only afterwards that its last write failed.
  await new Promise((resolve) => setImmediate(resolve))
  // Everything is durable and reported by now. Idle timers of the network must not hold up the boot.
  process.exit()
}

/** Name of a flag of V8: `maglev` of `--no-maglev`. */
function nameOf(flag: string): string {
  return flag.replace(/^--(no-)?/, '').replace(/=.*/, '')
}
