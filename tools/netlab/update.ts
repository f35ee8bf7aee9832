import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Random } from '../lab/random.ts'
import { publisherOf } from './lab-options.ts'
import { changedLayout, writeImage } from './model-image.ts'
import { eachOf, IMAGE, type Prepared, provisionedMachines, type Scenario, serveAll, stopAll } from './prepare.ts'

const NEWS_MS = 60_000

/** The next release is published while all machines run; they hear of it, and are restarted at the same moment. */
export async function update(prepared: Prepared, signal: AbortSignal): Promise<Scenario> {
  const { lab, options, machines, layout, pieces } = prepared
  await provisionedMachines(prepared, 'none')
  const target = lab.path('model-2.img')
  await writeImage(target, changedLayout(layout, options.share, new Random(options.seed + 1)), pieces)
  await serveAll(prepared)
  const publisher = publisherOf(options)
  const before = new Map<string, string>()
  for (const machine of machines) before.set(machine, await metadataOf(prepared, machine))
  await lab.stop(publisher)
  const begun = performance.now()
  await lab.serve(publisher, ['seed', target, '--image', IMAGE])
  const publishSeconds = (performance.now() - begun) / 1000
  for (const machine of machines)
    for (const deadline = Date.now() + NEWS_MS; (await metadataOf(prepared, machine)) === before.get(machine); ) {
      if (Date.now() > deadline) throw new Error(`${machine} did not hear of the new release`)
      await sleep(50, undefined, { signal })
    }
  await stopAll(prepared)
  await eachOf(machines, async (machine) => {
    const { release } = await lab.ok(machine, ['status'])
    if (release !== 2) throw new Error(`${machine} knows release ${release} only`)
  })
  return { target, release: 2, publishSeconds }
}

/** The generation of the metadata that is in force. */
function metadataOf({ lab }: Prepared, machine: string): Promise<string> {
  return readFile(lab.path(machine, 'trust', 'CURRENT'), 'utf8')
}
