import { basename } from 'node:path'
import { rememberedMachine } from '../../../node/agent/machine/remembered-machine.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import type { ConsoleKeys } from '../screen/console-keys.ts'
import type { ScreenState } from '../screen/draw-screen.ts'

/** What a {@link chooseSystem} works with. */
interface ChooseSystemOptions {
  /** State directories of the systems of this computer, in the order in which they are offered. */
  readonly stateDirs: readonly string[]
  /** Which of them is started if nobody chooses. */
  readonly byDefault: number
  readonly waitMs: number
  readonly keys: Pick<ConsoleKeys, 'open' | 'close' | 'next'>
  readonly screen: { show(state: ScreenState): void }
  readonly signal: AbortSignal
}

const TICK_MS = 1_000

/** Which of the systems of this computer is to be restored and started, as the person at it says; its index. */
export async function chooseSystem(options: ChooseSystemOptions): Promise<number> {
  const { stateDirs, byDefault, waitMs, keys, screen, signal } = options
  if (stateDirs.length < 2) return 0
  const names = await Promise.all(stateDirs.map(nameOf))
  const until = performance.now() + waitMs
  keys.open()
  try {
    for (;;) {
      const leftMs = until - performance.now()
      if (leftMs <= 0 || signal.aborted) return byDefault
      screen.show({ at: 'systems', names, byDefault, secondsLeft: Math.ceil(leftMs / 1000) })
      const typed = await keys.next(Math.min(TICK_MS, leftMs), signal)
      if (typed?.key === '\r') return byDefault
      const chosen = Number.parseInt(typed?.key ?? '', 10) - 1
      if (chosen in names) return chosen
    }
  } finally {
    keys.close()
  }
}

/** A system is called as its image is. One whose state cannot be read is offered all the same: starting it says what is wrong. */
async function nameOf(stateDir: string): Promise<string> {
  try {
    return (await rememberedMachine(stateDir))?.image ?? basename(stateDir)
  } catch (error) {
    if (!isMeshError(error)) throw error
    return basename(stateDir)
  }
}
