import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MeshProcess } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'
import { planDirt } from './dirt.ts'
import { publisherOf } from './lab-options.ts'
import { changedLayout, writeImage } from './model-image.ts'
import type { Traffic } from './network.ts'
import {
  eachOf,
  IMAGE,
  type Prepared,
  provisionedMachines,
  type Scenario,
  type StagingPhase,
  serveAll,
  stopAll,
} from './prepare.ts'

const NEWS_MS = 60_000

/**
 * Publishes the next release while all machines run. They hear of it (with `staged` they fetch it ahead), and are
 * restarted at the same moment.
 */
export async function update(prepared: Prepared, signal: AbortSignal): Promise<Scenario> {
  const { lab, options, machines, layout, pieces } = prepared
  await provisionedMachines(prepared, 'known')
  const target = lab.path('model-2.img')
  const writes = planDirt('clustered', layout.length, options.share, new Random(options.seed + 1))
  await writeImage(target, changedLayout(layout, writes), pieces)
  const serving = await serveAll(prepared)
  const phase = options.staged
    ? await publishAndStage(prepared, target, serving)
    : await publishAndTell(prepared, target, signal)
  await stopAll(prepared)
  await eachOf(machines, async (machine) => {
    const { release } = await lab.ok(machine, ['status'])
    if (release !== 2) throw new Error(`${machine} knows release ${release} only`)
  })
  return { target, release: 2, ...phase }
}

/** Publishes, and waits until all machines have the metadata of the release. */
async function publishAndTell(
  prepared: Prepared,
  target: string,
  signal: AbortSignal,
): Promise<{ publishSeconds: number }> {
  const { lab, options, machines } = prepared
  const publisher = publisherOf(options)
  const before = new Map<string, string>()
  for (const machine of machines) before.set(machine, await metadataOf(prepared, machine))
  await lab.stop(publisher)
  const begun = performance.now()
  await lab.serve(publisher, ['seed', target, '--image', IMAGE, '--force'])
  const publishSeconds = (performance.now() - begun) / 1000
  for (const machine of machines)
    for (const deadline = Date.now() + NEWS_MS; (await metadataOf(prepared, machine)) === before.get(machine); ) {
      if (Date.now() > deadline) throw new Error(`${machine} did not hear of the new release`)
      await sleep(50, undefined, { signal })
    }
  return { publishSeconds }
}

/** Publishes, and waits until all machines have staged what they need, over links of the given speed. */
async function publishAndStage(
  { lab, options, machines }: Prepared,
  target: string,
  serving: readonly MeshProcess[],
): Promise<{ staging: StagingPhase }> {
  const publisher = publisherOf(options)
  await lab.stop(publisher)
  await lab.network.shape({ lan: options.rate, uplink: options.uplink })
  const before = await lab.network.traffic()
  await lab.serve(publisher, ['seed', target, '--image', IMAGE, '--force'], 'listening')
  const begun = performance.now()
  await Promise.all(
    serving.map(async (running, i) => {
      const { left } = await running.event('staged')
      if (left !== 0) throw new Error(`${machines[i]} has no room to stage ${left} blocks`)
    }),
  )
  const seconds = (performance.now() - begun) / 1000
  const traffic = new Map<string, Traffic>()
  for (const [name, { sent, received }] of await lab.network.traffic()) {
    const from = before.get(name)
    traffic.set(name, { sent: sent - (from?.sent ?? 0), received: received - (from?.received ?? 0) })
  }
  return { staging: { seconds, traffic } }
}

/** Names the generation of the metadata that is in force. */
function metadataOf({ lab }: Prepared, machine: string): Promise<string> {
  return readFile(lab.path(machine, 'trust', 'CURRENT'), 'utf8')
}
