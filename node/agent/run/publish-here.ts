import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_OPERATE_BYTES, MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { MeshError } from '../../../protocol/errors.ts'
import {
  anyText,
  type Check,
  list,
  literal,
  natural,
  object,
  optional,
  real,
  text,
  truth,
} from '../../../protocol/json-shape.ts'
import { callControl } from '../../control/control-client.ts'
import { isLent } from '../../trust/key-file.ts'
import type { AgentEvent, Published, ReleaseChange } from '../machine/events.ts'
import { MAX_PATH_BYTES } from '../machine/limits.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { notMaster } from '../machine/require-master.ts'
import type { ServicePart } from '../machine/service-part.ts'
import { askWork, isServer } from '../machine/work.ts'
import { saidTo } from '../mesh/ask-members.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import type { OfferedDisks } from '../offer/offered-disks.ts'
import { checkRequest, publishRelease } from '../release/publish-release.ts'
import type { ReleaseRequest } from '../release/release-plan.ts'
import { isReleaseChange } from '../release/rollback.ts'
import { MAX_PRESERVE_OPTIONS, WORK_TICK_MS } from './limits.ts'

const isRequest = object({
  disk: anyText(MAX_PATH_BYTES),
  image: optional(text(MAX_TEXT_BYTES)),
  blockSize: optional(natural()),
  preserve: list(object({ offset: natural(), length: natural() }), MAX_PRESERVE_OPTIONS),
  copy: truth,
  force: truth,
  acceptNewDisk: optional(truth),
  label: optional(anyText(MAX_TEXT_BYTES)),
  lent: optional(isLent),
})

/** What a running master has published for another command. */
interface PublishedThere {
  readonly published: Published
  readonly change?: ReleaseChange
  readonly warnings: readonly string[]
}
const isPublishedThere: Check<PublishedThere> = object({
  published: object({
    event: literal('published'),
    image: text(MAX_TEXT_BYTES),
    release: natural(),
    root: text(MAX_TEXT_BYTES),
    size: natural(),
    blockSize: natural(),
    seconds: real,
    unchanged: truth,
  }),
  change: optional(isReleaseChange),
  warnings: list(anyText(MAX_OPERATE_BYTES), MAX_PRESERVE_OPTIONS),
})

/** What {@link publishMethods} works with. */
interface PublishMethodsOptions {
  readonly machine: Machine
  readonly node: MeshNode
  readonly disks: OfferedDisks
  /** When what this command offers by itself is there. */
  readonly ready: Promise<unknown>
  readonly report: (event: AgentEvent) => void
  readonly signal: AbortSignal
}

/**
 * The control method `publish` of a running master: publishes another image, and offers it beside those that it offers. One at a time,
 * and after the image that the command itself publishes.
 */
export function publishMethods(options: PublishMethodsOptions): ServicePart {
  let last = options.ready.catch(() => undefined)
  const publish = async (params: Readonly<Record<string, unknown>>): Promise<PublishedThere> => {
    const turn = last.then(() => publishOther(options, params))
    last = turn.catch(() => undefined)
    return turn
  }
  return { methods: { publish } }
}

/** Errors: STATE_IN_USE if the image is offered here already, and those of {@link publishRelease}. */
async function publishOther(
  { machine, node, disks, report, signal }: PublishMethodsOptions,
  params: Readonly<Record<string, unknown>>,
): Promise<PublishedThere> {
  if (machine.config.role !== 'master') throw notMaster(machine.config)
  if (!isRequest(params)) throw new MeshError('USAGE', 'publish takes a disk and the options of mesh seed')
  const request: ReleaseRequest = params
  const size = await checkRequest(request)
  let change: ReleaseChange | undefined
  const warnings: string[] = []
  const noting = (event: AgentEvent): void => {
    if (event.type === 'change') change = event.change
    else if (event.type === 'warning') warnings.push(event.text)
    report(event)
  }
  // What another machine has signed with the keys of this one is signed over only if that is said.
  if (request.force) machine.trust.takeForks()
  const mayPublish = (image: string): void => {
    if (!disks.held.some(({ manifest }) => manifest.image === image)) return
    const text = `${machine.state.directory} is in use by a mesh command (pid ${process.pid}) that serves image ${image}; stop it, then publish the next release of that image`
    throw new MeshError('STATE_IN_USE', text)
  }
  const context = { size, listen: undefined, said: saidTo(node), report: noting, signal, mayPublish }
  const { published, manifest, path } = await publishRelease(machine, request, context)
  node.forkSettled()
  report({ type: 'published', published })
  await disks.open({ manifest, path, whole: true })
  return { published, warnings, ...(change === undefined ? {} : { change }) }
}

/**
 * Lets the running master of a state directory publish, and tells how far it is. Undefined if none runs.
 * Errors: those of {@link publishMethods}.
 */
export async function publishThere(
  stateDir: string,
  request: ReleaseRequest,
  { report }: Pick<AgentOptions, 'report'>,
): Promise<Published | undefined> {
  const work = await askWork(stateDir)
  if (work === undefined || !isServer(work)) return undefined
  const { disk, image, blockSize, preserve, copy, force, acceptNewDisk, label, lent } = request
  const params = { disk, image, blockSize, preserve, copy, force, acceptNewDisk, label, lent }
  const ended = new AbortController()
  const watching = tellProgress(stateDir, report, ended.signal)
  try {
    const { published, change, warnings } = await callControl(stateDir, 'publish', isPublishedThere, params)
    for (const text of warnings) report({ type: 'warning', text })
    if (change !== undefined) report({ type: 'change', change })
    report({ type: 'note', text: `mesh ${work.command} (pid ${work.pid}), which runs here, serves it` })
    return published
  } finally {
    ended.abort()
    await watching
  }
}

async function tellProgress(stateDir: string, report: AgentOptions['report'], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const work = await askWork(stateDir).catch(() => undefined)
    if (work?.progress !== undefined && !signal.aborted) report({ type: 'progress', ...work.progress })
    await sleep(WORK_TICK_MS, undefined, { signal }).catch(() => undefined)
  }
}
