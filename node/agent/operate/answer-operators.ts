import { readFile } from 'node:fs/promises'
import { MAX_ADDRESSES_PER_PEER, OPERATE_PROTOCOL } from '../../../protocol/constants.ts'
import { isSignedDocument, type MachineState } from '../../../protocol/operate-messages.ts'
import { OperateServer } from '../../operate/operate-server.ts'
import { Resetter } from '../../operate/resetter.ts'
import { RollStore } from '../../operate/roll-store.ts'
import type { ResetConfig } from '../../state/machine-config.ts'
import { storedDocument } from '../../state/stored-document.ts'
import { readDiskState } from '../machine/disk-state.ts'
import type { AgentEvent, StagingStatus } from '../machine/events.ts'
import type { Machine } from '../machine/machine.ts'
import type { ServicePart } from '../machine/service-part.ts'
import type { UseWatch } from '../offer/use-watch.ts'
import { ReceiptArchive } from '../receipts/receipt-archive.ts'

const RESET_COMMAND = 'systemctl reboot'
const WARN_COMMAND = 'wall'

/** What {@link answerOperators} works with. */
interface AnswerOperatorsOptions {
  readonly machine: Machine
  readonly use: UseWatch
  readonly reset: ResetConfig
  readonly version: string | undefined
  readonly addresses: () => readonly string[]
  readonly staging: () => StagingStatus | undefined
  /** Called with the number of a receipt of this machine that an operator has, and with the name of that operator. */
  readonly heardOf: (number: number, by: string) => Promise<void>
  readonly report: (event: AgentEvent) => void
}

/** Answers what operators of other machines ask this one, and resets it for them, until the stack ends. */
export function answerOperators(options: AnswerOperatorsOptions, stack: AsyncDisposableStack): ServicePart {
  const { machine, use, reset, version, addresses, staging, heardOf, report } = options
  const resetter = new Resetter({
    command: reset.command ?? defaultReset(machine),
    warnCommand: reset.warnCommand ?? WARN_COMMAND,
    inUse: () => use.look(),
    warn: (text) => report({ type: 'warning', text }),
  })
  stack.adopt(resetter, (it) => it.stop())
  const startedAt = new Date(Date.now() - process.uptime() * 1000).toISOString()
  const archive = new ReceiptArchive(machine.state)
  const server = new OperateServer({
    mayOperate: (peerId) => machine.isOperator(peerId),
    group: () => machine.trust.view().memberById(machine.config.id)?.group ?? machine.config.site,
    state: () =>
      describeMachine(machine, version, { startedAt, use, resetter, staging: staging(), addresses: addresses() }),
    receipts: async (since, askedBy) => {
      // Whoever asks for what comes after a receipt has that one.
      await heardOf(since, machine.nameOf(askedBy))
      return archive.page(machine.config.id, since)
    },
    newestOf: async (peerId) => (await archive.last(peerId))?.number ?? null,
    rolls: rollsOf(machine),
    resetter,
  })
  return { handlers: { [OPERATE_PROTOCOL]: (stream) => server.serve(stream) } }
}

/** The roll documents that this machine keeps. */
function rollsOf(machine: Machine): RollStore {
  const { state, trust } = machine
  const shelf = state.shelf('rolls', storedDocument('a stored roll document', isSignedDocument))
  return new RollStore({
    shelf: { get: (group) => shelf.get(group), put: (group, document) => shelf.putDurable(group, document) },
    mayOperate: (peerId) => machine.isOperator(peerId),
    isGroup: (group) => trust.view().members.some((member) => member.group === group),
  })
}

/** Whoever runs the site's own machines has to say first that they may be reset. */
function defaultReset(machine: Machine): string {
  return machine.config.role === 'machine' ? RESET_COMMAND : ''
}

/** What only the command knows that serves. */
interface LiveFacts {
  /** ISO 8601. */
  readonly startedAt: string
  readonly use: Pick<UseWatch, 'inUse'>
  readonly resetter: Pick<Resetter, 'state'>
  readonly staging: StagingStatus | undefined
  readonly addresses: readonly string[]
}
const AT_REST: LiveFacts = {
  startedAt: '',
  use: { inUse: false },
  resetter: { state: { pending: false, failure: null } },
  staging: undefined,
  addresses: [],
}

/** What a machine says of itself to operators. `live`: of the command that serves; without it, of a machine on which none does. */
export async function describeMachine(
  machine: Machine,
  version: string | undefined,
  { startedAt, use, resetter, staging, addresses }: LiveFacts = AT_REST,
): Promise<MachineState> {
  const { config, state, trust } = machine
  const disk = await readDiskState(state)
  const image = config.image ?? disk?.image
  return {
    machine: config.name,
    bootId: (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim(),
    startedAt,
    disk:
      disk === undefined
        ? null
        : { image: disk.image, release: disk.release, root: disk.root, whole: disk.state === 'whole' },
    newest: image === undefined ? null : (trust.view().newest(image)?.release ?? null),
    staged: staging?.state === 'done' ? staging.release : null,
    inUse: use.inUse,
    reset: resetter.state,
    lastReceipt: (await new ReceiptArchive(state).last(config.id))?.number ?? null,
    addresses: addresses.slice(0, MAX_ADDRESSES_PER_PEER),
    ...(version === undefined ? {} : { version }),
    ...(config.disk === undefined ? {} : { device: config.disk }),
    ...(staging === undefined
      ? {}
      : { staging: { release: staging.release, wanted: staging.wanted, staged: staging.staged } }),
  }
}
