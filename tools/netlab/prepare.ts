import { constants, copyFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { SiteSigner } from '../../node/trust/site-signer.ts'
import { TrustStore } from '../../node/trust/trust-store.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { makeHole } from '../bench/benches.ts'
import type { MeshProcess } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'
import { type LabOptions, machineNames, publisherOf } from './lab-options.ts'
import { type Layout, modelLayout, type Pieces, randomPieces, writeImage } from './model-image.ts'
import type { Traffic } from './network.ts'
import type { ShapedLab } from './shaped-lab.ts'
import { systemPieces } from './system-files.ts'

/** Name of the image that the lab publishes. */
export const IMAGE = 'lab'
const SOURCE_NUMBER = 253
/** Commands that prepare machines at the same time. */
const AT_ONCE = 4
const MEET_MS = 120_000

/** What a scenario works with. */
export interface Prepared {
  readonly lab: ShapedLab
  readonly options: LabOptions
  readonly machines: readonly string[]
  readonly layout: Layout
  readonly pieces: Pieces
}

/**
 * What a scenario has prepared. At the start of the measured phase all machines run `mesh restore` at the same moment.
 * Links have full speed until then.
 */
export interface Scenario {
  /** Path of the content that the disks are to hold at the end, and the number of that release. */
  readonly target: string
  readonly release: number
  /** Seconds of publishing, where that is part of the scenario. */
  readonly publishSeconds?: number
  /** How the machines fetched the release ahead, if they did. */
  readonly staging?: StagingPhase
}

/** The phase from when the publisher can be reached until the last machine has staged all that it needs. */
export interface StagingPhase {
  readonly seconds: number
  /** What each participant sent and received meanwhile. */
  readonly traffic: ReadonlyMap<string, Traffic>
}

/** Makes the network, the machines, the image, and its source, which serves it. */
export async function prepareLab(lab: ShapedLab, options: LabOptions): Promise<Prepared> {
  const layout = modelLayout(options.size / GRANULE_SIZE_BYTES, new Random(options.seed))
  // The next release has pieces of its own, so there are twice as many.
  const pieces = options.content === 'system' ? await systemPieces(2 * layout.length) : randomPieces(options.seed)
  await writeImage(lab.path('model.img'), layout, pieces)
  const machines = machineNames(options.machines)
  const publisher = publisherOf(options)
  await lab.add(publisher, SOURCE_NUMBER, publisher === 'central' ? 'uplink' : 'lan')
  for (const [i, machine] of machines.entries()) await lab.add(machine, i + 1, 'lan')
  if (publisher === 'central') {
    await lab.ok(publisher, ['seed', lab.path('model.img'), '--image', IMAGE, '--once'])
    await moveBehindUplink(lab, publisher)
  }
  await lab.serve(publisher, ['seed', lab.path('model.img'), '--image', IMAGE])
  if (options.from === 'both') {
    await lab.add('central', SOURCE_NUMBER, 'uplink')
    await copyOfModel(lab, 'central')
    await enrol(lab, publisher, ['central'])
    await lab.stop(publisher)
    await moveBehindUplink(lab, publisher)
    await lab.serve(publisher, ['seed', lab.path('model.img'), '--image', IMAGE])
    await lab.ok('central', ['restore'])
    await lab.serve('central', ['up'])
  }
  return { lab, options, machines, layout, pieces }
}

/** Moves central into another site than that of the machines. Nobody serves the publisher's state meanwhile. */
async function moveBehindUplink(lab: ShapedLab, publisher: string): Promise<void> {
  const trust = await TrustStore.open(lab.path(publisher, 'trust'))
  const signer = await SiteSigner.open({ keysDir: lab.path(publisher, 'keys'), trust })
  const moved = trust
    .view()
    .members.filter(({ name, role }) => name === 'central' || (publisher === 'central' && role === 'master'))
  for (const member of moved) await signer.addMember({ ...member, site: 'central' })
}

/** Lets all machines join. Their disks exist. */
export async function enrol(lab: ShapedLab, publisher: string, machines: readonly string[]): Promise<void> {
  const { token } = await lab.ok(publisher, ['invite', '--uses', String(machines.length)])
  await eachOf(machines, async (machine) => {
    const join = ['join', String(token), '--disk', lab.disk(machine), '--name', machine]
    // Where many processes share few cores a first attempt may be too late. A second one goes on with it.
    await lab
      .ok(machine, join)
      .catch(() => lab.ok(machine, join))
      .catch(() => lab.ok(machine, join))
  })
}

/** A disk for each machine that holds zeros. */
export async function blankDisks({ lab, options, machines }: Prepared): Promise<void> {
  for (const machine of machines) await makeHole(lab.disk(machine), options.size)
}

async function copyOfModel(lab: ShapedLab, machine: string): Promise<void> {
  await copyFile(lab.path('model.img'), lab.disk(machine), constants.COPYFILE_FICLONE)
}

/** Provisions the machines. Their first restore then finds nothing to do; with a log, the log begins there. */
export async function provisionedMachines(prepared: Prepared, log: 'known' | 'none'): Promise<void> {
  const { lab, options, machines } = prepared
  for (const machine of machines) await copyOfModel(lab, machine)
  await enrol(lab, publisherOf(options), machines)
  await eachOf(machines, async (machine) => {
    if (log === 'known') {
      await startMonitor(lab, machine)
      await lab.stop(machine)
    }
    await lab.ok(machine, ['restore'])
  })
}

/**
 * Runs `mesh up` on all machines until each has met all others, as on every day before. So they know each other's
 * addresses.
 */
export async function serveAll({ lab, machines }: Prepared): Promise<MeshProcess[]> {
  const started = await Promise.all(machines.map((machine) => lab.serve(machine, ['up'])))
  const met = started.flatMap((running, i) =>
    machines
      .filter((_, other) => other !== i)
      .map((name) => running.when(({ event, up, name: met }) => event === 'peer' && up === true && met === name)),
  )
  const late = new AbortController()
  const deadline = sleep(MEET_MS, undefined, { signal: late.signal }).then(() => {
    throw new Error(`the machines did not all meet within ${MEET_MS / 1000} s`)
  })
  await Promise.race([Promise.all(met), deadline]).finally(() => late.abort())
  return started
}

/** Stops what runs on the machines, and waits for it. */
export async function stopAll({ lab, machines }: Prepared): Promise<void> {
  await Promise.all(machines.map((machine) => lab.stop(machine)))
}

/** Starts a monitor and returns its socket. */
export async function startMonitor(lab: ShapedLab, machine: string): Promise<string> {
  const socket = lab.path(`${machine}.nbd`)
  await lab.serve(machine, ['monitor', lab.disk(machine), '--nbd', `unix:${socket}`], 'monitoring')
  return socket
}

/** Does `work` for each item, AT_ONCE items at a time. */
export async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
