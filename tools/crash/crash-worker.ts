import { CrashRuns } from './crash-run.ts'
import type { WrongOrder } from './wrong-orders.ts'

/**
 * A process with the arguments SEED [WRONG-ORDER]. It makes the runs whose numbers it is sent, until its parent lets
 * go.
 */
const [seed = '', order] = process.argv.slice(2)
const runs = await CrashRuns.open(Number(seed), order as WrongOrder | undefined)
let last: Promise<void> = Promise.resolve()

process.on('message', (run: number) => {
  last = last.then(async () => {
    const record = await runs.run(run)
    if (process.connected) process.send?.({ run, record })
  })
})
process.on('disconnect', () => void last.then(() => runs.close()))
// A parent that is interrupted from the keyboard lets go of this process, which then still has to tidy up.
process.on('SIGINT', () => undefined)
process.send?.('ready')
