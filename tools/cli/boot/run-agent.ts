import { appendFileSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentNetwork } from '../../../node/agent/boot/agent-network.ts'
import { followLayout } from '../../../node/agent/boot/follow-layout.ts'
import { type KeepAgentOptions, keepAgent } from '../../../node/agent/boot/keep-agent.ts'
import {
  assertForThisSite,
  doubtRepaired,
  type StartedSystem,
  type StartSystemOptions,
  startSystem,
  startUnverified,
} from '../../../node/agent/boot/start-system.ts'
import { readLogConfig } from '../../../node/agent/log/log-config.ts'
import type { AgentEvent } from '../../../node/agent/machine/events.ts'
import type { AgentOptions } from '../../../node/agent/machine/options.ts'
import { type MachineDisk, machineDisks } from '../../../node/agent/machine/parts.ts'
import { isMeshError, MeshError } from '../../../protocol/errors.ts'
import { HANDOVER_FILE, MENU_FILE, NETWORK_SCRIPT, REPAIRED, SYSTEM_ROOT } from '../../boot/boot-scripts.ts'
import { WIDE_CHARACTERS } from '../../boot/console-glyphs.ts'
import type { Context } from '../command.ts'
import { BootScreen, kernelConsoles } from '../screen/boot-screen.ts'
import type { Language } from '../screen/catalogue.ts'
import { ConsoleKeys } from '../screen/console-keys.ts'
import type { ScreenState } from '../screen/draw-screen.ts'
import { KEEP_WAIT_MS, RETRY_SECONDS, UNVERIFIED_MS } from '../screen/limits.ts'
import { agentSite } from './agent-site.ts'
import { chooseSystem } from './choose-system.ts'
import { type Decision, LocalMenu } from './local-menu.ts'
import { menuFactsOr } from './menu-facts.ts'
import { provisionBare } from './provision-bare.ts'
import { StatePlace } from './state-place.ts'
import { powerMachine, runShell } from './technician.ts'

/** What a machine does when it cannot be restored. */
export type FailurePolicy = 'hold' | 'retry' | 'start'

/** Options of `mesh boot run`. */
interface RunAgentOptions {
  readonly onFailure: FailurePolicy
  readonly language: Language
  readonly text: string
  /** Default: the name that was used before, else `lab`. */
  readonly era?: string
  /** Of a bare machine: the disk to lay out, and where the master is. */
  readonly bootDisk?: string
  readonly master?: readonly string[]
  /** The firmware’s entry of a system that is not Linux. */
  readonly entry?: string
  /** State directory of a system of this computer that is a machine of its own. */
  readonly second?: string
  /** Which system starts if nobody chooses, from 1, and how long is waited for that; milliseconds. */
  readonly defaultSystem: number
  readonly choiceWait: number
}

const DEFAULT_ERA = 'lab'
const ESP_PLACE = '/run/lab-mesh/esp'

/**
 * `mesh boot run`: the only program of the agent. It returns when the machine’s root is mounted and the file is written that lets
 * `/init` start it. It does not return otherwise: by the policy it waits, tries again, or starts the system as it is.
 */
export async function runAgent({ agent, stateDir, signal }: Context, options: RunAgentOptions): Promise<void> {
  note('the agent runs')
  const consoles = kernelConsoles(process.stdout.columns || 80)
  const screen = new BootScreen(options, consoles, wideCharacters())
  screen.show({ at: 'starting' })
  const report = (event: AgentEvent): void => {
    log(event)
    screen.event(event)
  }
  const network = new AgentNetwork({ script: NETWORK_SCRIPT, leases: join(stateDir, 'boot'), report })
  const keys = new ConsoleKeys(consoles.map(({ path }) => path))
  const { attempt, unverified, isBare } = waysToStart({ ...agent, report }, options, { screen, network, keys, signal })
  const decide = decisions(keys, screen, signal)
  const { onFailure } = options
  const started = await untilStarted(attempt, unverified, { screen, onFailure, isBare, decide })
  if (started.device === undefined) return restart(started, screen)
  note(`the root is mounted from ${started.device}`)
  screen.show({ at: 'handing' })
  await network.end()
  await screen.close()
  // The last thing that is done: without this file nothing starts.
  await writeFile(HANDOVER_FILE, `${started.device}\n`)
}

/** The characters of two columns that the kernel’s console shows; none, if it has not taken the agent’s font. */
function wideCharacters(): string {
  try {
    return readFileSync(WIDE_CHARACTERS, 'utf8')
  } catch {
    return ''
  }
}

/** How a system is started, verified or as it is; and whether there is one. */
interface WaysToStart {
  readonly attempt: () => Promise<StartedSystem>
  readonly unverified: (why: unknown) => Promise<StartedSystem>
  /** Whether there is nothing on the machine yet. */
  readonly isBare: () => boolean
}

/** What a person at the machine sees and touches, and its network. */
interface AtTheMachine {
  readonly screen: BootScreen
  readonly network: AgentNetwork
  readonly keys: ConsoleKeys
  readonly signal: AbortSignal
}

function waysToStart(
  agent: AgentOptions,
  options: RunAgentOptions,
  { screen, network, keys, signal }: AtTheMachine,
): WaysToStart {
  let chosen = agent.stateDir
  let hasChosen = false
  const bringUp = (): Promise<void> => bringNetworkUp(screen, network)
  const start = async (disks: readonly MachineDisk[]): Promise<StartSystemOptions> => ({
    ...systemOf(chosen, disks, agent, options, (image) => screen.about(image)),
    siteId: await agentSite(),
    era: options.era ?? (await eraOf(chosen)),
    root: SYSTEM_ROOT,
    bringUp,
  })
  const place = new StatePlace()
  const attempt = async (): Promise<StartedSystem> => {
    const siteId = await agentSite() // a damaged agent does nothing to the machine
    await mountState(place, { ...agent, siteId }).catch(async (error: unknown) => {
      if (!place.isBare) throw error
      const { bootDisk, master = [] } = options
      await provisionBare({ ...agent, siteId, master, disk: bootDisk, network, screen })
      await mountState(place, { ...agent, siteId })
    })
    if (await followLayout(agent)) await restartLaidOut(screen)
    const disks = await disksOf(agent, options)
    const stateDirs = disks.filter((one) => one.isSystem).map((one) => one.stateDir)
    // What was chosen before a failure is the default after it.
    const byDefault = hasChosen ? stateDirs.indexOf(chosen) : Math.min(options.defaultSystem, stateDirs.length) - 1
    const choice = { stateDirs, byDefault, waitMs: options.choiceWait }
    chosen = stateDirs[await chooseSystem({ ...choice, keys, screen, signal })] ?? chosen
    hasChosen = true
    screen.show({ at: 'checking' })
    let view: KeepAgentOptions['view']
    const trusted: StartSystemOptions['trusted'] = (seen, stateDir) => {
      if (stateDir === agent.stateDir) view = seen
    }
    const started = await startSystem({ ...(await start(disks)), trusted })
    await keepOwnAgent({ ...agent, bringUp, view }, screen)
    return started
  }
  const unverified = async (why: unknown): Promise<StartedSystem> => {
    const started = await startUnverified(await start(await disksOf(agent, options)), why)
    await sleep(UNVERIFIED_MS)
    return started
  }
  return { attempt, unverified, isBare: () => place.isBare }
}

function bringNetworkUp(screen: BootScreen, network: AgentNetwork): Promise<void> {
  screen.show({ at: 'looking' })
  return network.bringUp()
}

/** Errors: BOOT_STATE_MISSING, those of {@link assertForThisSite}. */
async function mountState(
  place: StatePlace,
  { stateDir, siteId }: Pick<StartSystemOptions, 'stateDir' | 'siteId'>,
): Promise<void> {
  const said = await place.mounted()
  note(`state partition: ${said}`)
  await assertForThisSite({ stateDir, siteId })
  if (said.endsWith(REPAIRED)) await doubtRepaired(stateDir)
}

/** The managed disks of this computer. A second machine on it restores its own disk, when it is chosen. */
async function disksOf({ stateDir }: AgentOptions, { second }: RunAgentOptions): Promise<MachineDisk[]> {
  const own = await machineDisks(stateDir)
  return second === undefined ? own : [...own, { stateDir: second, image: '', isSystem: true, wasRestored: true }]
}

/** What is special about one of the systems. The configuration file speaks of the first one’s disk. */
function systemOf(
  chosen: string,
  disks: readonly MachineDisk[],
  { configured, ...agent }: AgentOptions,
  { entry }: RunAgentOptions,
  about: (image: string) => void,
): Omit<StartSystemOptions, 'siteId' | 'era' | 'root' | 'bringUp'> {
  const others = disks.filter(({ stateDir }) => stateDir !== chosen)
  return {
    ...agent,
    ...(configured === undefined || chosen !== agent.stateDir ? {} : { configured }),
    ...(entry === undefined ? {} : { entry }),
    stateDir: chosen,
    others: others.map(({ stateDir }) => stateDir),
    ...(disks.length < 2 ? {} : { about }),
    // A system that was never restored gets its content together with the others, while they can be reached.
    before: others.filter(({ isSystem, wasRestored }) => !isSystem || !wasRestored),
  }
}

/** The firmware starts the other system. Whoever comes back from here ends the agent, and then nothing starts. */
async function restart({ next }: StartedSystem, screen: BootScreen): Promise<never> {
  note(`the computer is restarted, and the firmware starts ${next?.label}`)
  screen.show({ at: 'handing' })
  await screen.close()
  await powerMachine('reboot')
  throw new MeshError('BOOT_NO_SYSTEM', 'the computer was not restarted')
}

/** The kernel sees a table that has changed when it starts. */
async function restartLaidOut(screen: BootScreen): Promise<never> {
  screen.show({ at: 'laying' })
  await powerMachine('reboot')
  throw new MeshError('LAYOUT_FAILED', 'the disk has a new layout, and the computer was not restarted')
}

/** What a failure looks like, on the screen. */
type FailedState = Extract<ScreenState, { at: 'failed' }>

interface AfterFailure {
  readonly screen: BootScreen
  readonly onFailure: FailurePolicy
  /** Whether there is nothing on the machine yet. */
  readonly isBare: () => boolean
  /** What a person at the machine wants; after `ms` it is tried again. */
  readonly decide: (failed: FailedState, ms: number | undefined) => Promise<Decision>
}

async function untilStarted(
  attempt: () => Promise<StartedSystem>,
  unverified: (why: unknown) => Promise<StartedSystem>,
  { screen, onFailure, isBare, decide }: AfterFailure,
): Promise<StartedSystem> {
  for (;;) {
    let failure: unknown
    try {
      return await attempt()
    } catch (error) {
      failure = error
    }
    let decision: Decision = onFailure === 'start' && !isBare() ? 'start' : 'retry'
    do {
      if (decision === 'start') {
        screen.show(failed(failure, 'start'))
        try {
          return await unverified(failure)
        } catch (error) {
          failure = error
        }
      }
      // What cannot even be started as it is waits for somebody. A bare machine has nothing that could be started.
      const next = onFailure === 'retry' || isBare() ? 'retry' : 'hold'
      decision = await decide(failed(failure, next), next === 'retry' ? RETRY_SECONDS * 1000 : undefined)
    } while (decision === 'start')
    screen.show({ at: 'starting' })
  }
}

/** Without the newest agent on its disk the machine starts as it was started this time. */
async function keepOwnAgent(
  options: AgentOptions & Pick<KeepAgentOptions, 'bringUp' | 'view'>,
  screen: BootScreen,
): Promise<void> {
  try {
    const fetching = (): void => screen.show({ at: 'keeping' })
    const report = (event: AgentEvent): void => {
      log(event)
      screen.event(event, 'keeping')
    }
    const kept = await keepAgent({ ...options, report, place: ESP_PLACE, waitMs: KEEP_WAIT_MS, fetching })
    if (kept === undefined) return
    const tried = kept.tried === undefined ? '' : `; release ${kept.tried.release} is tried at the next start`
    note(`the agent on the disk: release ${kept.release}, slot ${kept.slot}${tried}`)
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    log({ type: 'warning', text: `the agent is not put on the disk: ${text}` })
  }
}

function failed(error: unknown, next: FailurePolicy): FailedState {
  const code = isMeshError(error) ? error.code : 'UNEXPECTED'
  const message = error instanceof Error ? error.message : String(error)
  log({ type: 'warning', text: `${code}: ${message}` })
  return { at: 'failed', code, message, next, retrySeconds: RETRY_SECONDS }
}

/** Whoever is at the machine decides. What the menu needs is read at the first failure. */
function decisions(keys: ConsoleKeys, screen: BootScreen, signal: AbortSignal): AfterFailure['decide'] {
  let menu: LocalMenu | undefined
  return async (state, ms) => {
    const acts = { shell: runShell, power: powerMachine, note }
    menu ??= new LocalMenu({
      facts: await menuFactsOr(MENU_FILE, note),
      keys,
      screen,
      signal,
      ...acts,
    })
    return menu.decide(state, ms)
  }
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
