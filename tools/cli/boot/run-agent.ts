import { appendFileSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentNetwork } from '../../../node/agent/boot/agent-network.ts'
import {
  type StartedSystem,
  type StartSystemOptions,
  startSystem,
  startUnverified,
} from '../../../node/agent/boot/start-system.ts'
import { readLogConfig } from '../../../node/agent/log/log-config.ts'
import type { AgentEvent } from '../../../node/agent/machine/events.ts'
import { digestOf, toHex } from '../../../protocol/digest.ts'
import { isMeshError } from '../../../protocol/errors.ts'
import { AGENT_CONFIG, HANDOVER_FILE, NETWORK_SCRIPT, SYSTEM_ROOT } from '../../boot/boot-scripts.ts'
import type { Context } from '../command.ts'
import { BootScreen, kernelConsoles } from '../screen/boot-screen.ts'
import type { Language } from '../screen/catalogue.ts'
import { RETRY_SECONDS, UNVERIFIED_MS } from '../screen/limits.ts'
import { StatePlace } from './state-place.ts'

/** What a machine does when it cannot be restored. */
export type FailurePolicy = 'hold' | 'retry' | 'start'

/** Options of `mesh boot run`. */
interface RunAgentOptions {
  readonly onFailure: FailurePolicy
  readonly language: Language
  readonly text: string
  /** Default: the name that was used before, else `lab`. */
  readonly era?: string
}

const DEFAULT_ERA = 'lab'

/**
 * `mesh boot run`: the only program of the agent. It returns when the machine’s root is mounted and the file is written that lets
 * `/init` start it. It does not return otherwise: by the policy it waits, tries again, or starts the system as it is.
 */
export async function runAgent({ agent, stateDir, signal }: Context, options: RunAgentOptions): Promise<void> {
  note('the agent runs')
  const screen = new BootScreen(options, kernelConsoles(process.stdout.columns || 80))
  screen.show({ at: 'starting' })
  const report = (event: AgentEvent): void => {
    log(event)
    screen.event(event)
  }
  const network = new AgentNetwork({ script: NETWORK_SCRIPT, leases: join(stateDir, 'boot'), report })
  const start = async (): Promise<StartSystemOptions> => ({
    ...agent,
    report,
    siteId: toHex(digestOf(readFileSync(join(AGENT_CONFIG, '1.root.json')))),
    era: options.era ?? (await eraOf(stateDir)),
    root: SYSTEM_ROOT,
    bringUp: () => {
      screen.show({ at: 'looking' })
      return network.bringUp()
    },
  })
  const place = new StatePlace()
  const attempt = async (): Promise<StartedSystem> => {
    note(`state partition: ${await place.mounted()}`)
    screen.show({ at: 'checking' })
    return startSystem(await start())
  }
  const unverified = async (why: unknown): Promise<StartedSystem> => {
    const started = await startUnverified(await start(), why)
    await sleep(UNVERIFIED_MS)
    return started
  }
  const started = await untilStarted(attempt, unverified, { screen, options, signal })
  note(`the root is mounted from ${started.device}`)
  screen.show({ at: 'handing' })
  await network.end()
  await screen.close()
  // The last thing that is done: without this file nothing starts.
  await writeFile(HANDOVER_FILE, `${started.device}\n`)
}

async function untilStarted(
  attempt: () => Promise<StartedSystem>,
  unverified: (why: unknown) => Promise<StartedSystem>,
  { screen, options, signal }: { screen: BootScreen; options: RunAgentOptions; signal: AbortSignal },
): Promise<StartedSystem> {
  for (;;) {
    let failure: unknown
    try {
      return await attempt()
    } catch (error) {
      failure = error
    }
    if (options.onFailure === 'start') {
      tell(failure, 'start', screen)
      try {
        return await unverified(failure)
      } catch (error) {
        failure = error
      }
    }
    // What cannot even be started as it is waits for somebody.
    const next = options.onFailure === 'retry' ? 'retry' : 'hold'
    tell(failure, next, screen)
    await waitForEnter(next === 'retry' ? RETRY_SECONDS * 1000 : undefined, signal)
    screen.show({ at: 'starting' })
  }
}

function tell(error: unknown, next: FailurePolicy, screen: BootScreen): void {
  const code = isMeshError(error) ? error.code : 'UNEXPECTED'
  const message = error instanceof Error ? error.message : String(error)
  log({ type: 'warning', text: `${code}: ${message}` })
  screen.show({ at: 'failed', code, message, next, retrySeconds: RETRY_SECONDS })
}

/** Until Enter is pressed, or a time is over. */
async function waitForEnter(ms: number | undefined, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    // The timer also keeps the process alive where there is no keyboard.
    const timer = setInterval(() => ms !== undefined && done(), ms ?? 2 ** 30)
    const done = (): void => {
      clearInterval(timer)
      process.stdin.off('data', done)
      process.stdin.pause()
      signal.removeEventListener('abort', done)
      resolve()
    }
    process.stdin.on('error', () => undefined)
    process.stdin.on('data', done)
    signal.addEventListener('abort', done)
  })
}

async function eraOf(stateDir: string): Promise<string> {
  const config = await readLogConfig(stateDir)
  return config?.source === 'dm-era' ? config.name : DEFAULT_ERA
}

const note = (text: string): void => log({ type: 'note', text })

/** Into the kernel’s log, which the system takes over into its own. */
function log(event: AgentEvent): void {
  const text =
    event.type === 'note' || event.type === 'warning'
      ? event.text
      : event.type === 'receipt'
        ? `${event.receipt.image} release ${event.receipt.release}: ${event.receipt.blocks.dirty} blocks restored, ${event.receipt.blocks.fetched} fetched`
        : undefined
  if (text === undefined) return
  try {
    appendFileSync('/dev/kmsg', `mesh: ${text.replaceAll(/\s+/g, ' ').slice(0, 900)}\n`)
  } catch {
    // Nothing depends on it.
  }
}
