import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { Random } from '../lab/random.ts'
import { hasTool, PACKAGES } from '../lab/run-tool.ts'
import { planDirt, writeThroughNbd, writeToFile } from './dirt.ts'
import {
  eachOf,
  type Prepared,
  provisionedMachines,
  type Scenario,
  serveAll,
  startMonitor,
  stopAll,
} from './prepare.ts'

/** The program that writes through the monitor. */
const WRITER = 'qemu-io'

/** A session on every machine, each with writes of its own; with a known log they go through the monitor. */
export async function restore(prepared: Prepared, signal: AbortSignal): Promise<Scenario> {
  const { lab, options, machines } = prepared
  if (options.log === 'known' && !(await hasTool(WRITER)))
    throw new MeshError('USAGE', `the program ${WRITER} is missing: install the package ${PACKAGES[WRITER]}`)
  await provisionedMachines(prepared, options.log)
  await serveAll(prepared)
  await stopAll(prepared)
  const random = new Random(options.seed + 1)
  const plans = new Map(
    machines.map((machine) => [
      machine,
      planDirt(options.dirt, options.size / GRANULE_SIZE_BYTES, options.share, random),
    ]),
  )
  await eachOf(machines, async (machine) => {
    const writes = plans.get(machine)!
    if (options.log === 'none') return writeToFile(lab.disk(machine), writes)
    const socket = await startMonitor(lab, machine)
    await writeThroughNbd(socket, writes, lab.path(`${machine}.session`), signal)
    await lab.stop(machine)
    const { dirty } = await lab.ok(machine, ['log', 'show'])
    const written = writes.reduce((sum, { length }) => sum + length / GRANULE_SIZE_BYTES, 0)
    if (dirty !== written) throw new Error(`${written} granules of ${machine} were written, its log says ${dirty}`)
  })
  return { target: lab.path('model.img'), release: 1 }
}
