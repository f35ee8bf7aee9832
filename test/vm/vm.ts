import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { bareScenario, MEDIA } from './bare-scenario.ts'
import { bootScenario } from './boot-scenario.ts'
import { Container } from './container.ts'
import { cutsScenario } from './cuts-scenario.ts'
import { layoutScenario, severalScenario, wrongDiskScenario } from './disks-scenario.ts'
import { eraScenario } from './era-scenario.ts'
import { buildInitramfs } from './initramfs.ts'
import { fetchKernel } from './kernel.ts'
import { loaderScenario } from './loader-scenario.ts'
import { nbdScenario } from './nbd-scenario.ts'
import { networkScenario } from './network-scenario.ts'
import { installPackages, Unavailable } from './packages.ts'
import { pxeScenario } from './pxe-scenario.ts'
import { roomsScenario } from './rooms-scenario.ts'
import { secureBootScenario } from './secureboot-scenario.ts'
import { serviceScenario } from './service-scenario.ts'
import { VirtualMachine, type VirtualMachineOptions } from './virtual-machine.ts'
import { windowsScenario } from './windows-scenario.ts'

/**
 * `npm run vm [-- --seed N --runs N --quick] [SCENARIO…]`: the slow suite, or the scenarios that are named (SCENARIOS; `rooms` runs only so). A real kernel (Debian's, emulated by
 * QEMU, so that it runs everywhere) uses a disk until the plug is pulled; then the write log must know of every change. `--quick`: only the first half of `bare` and of `boot`,
 * which is skipped where packages cannot be installed.
 */
const ROOT = join(import.meta.dirname, '../..')
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seed: { type: 'string' },
    runs: { type: 'string', default: '1' },
    quick: { type: 'boolean', default: false },
  },
})
const firstSeed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
type Guest = Required<Pick<VirtualMachineOptions, 'kernel' | 'initramfs'>>
const SCENARIOS: Readonly<Record<string, (parts: Guest & { lab: Lab }, random: Random) => Promise<string>>> = {
  nbd: nbdScenario,
  era: (parts, random) => eraScenario(parts, parts.lab.dir, random),
  ...Object.fromEntries(
    MEDIA.map((medium) => [
      `bare-${medium}`,
      ({ kernel, lab }: Guest & { lab: Lab }, random: Random) =>
        bareScenario({ kernel, lab, full: !values.quick }, random, medium),
    ]),
  ),
  boot: ({ kernel, lab }, random) => bootScenario({ kernel, lab, full: !values.quick }, random),
  cuts: ({ kernel, lab }, random) => cutsScenario({ kernel, lab }, random),
  loader: ({ kernel, lab }) => loaderScenario({ kernel, lab }),
  service: ({ lab }, random) => serviceScenario({ lab }, random),
  secureboot: ({ kernel, lab }) => secureBootScenario({ kernel, lab }),
  disks: ({ kernel, lab }, random) => wrongDiskScenario({ kernel, lab }, random),
  layout: ({ kernel, lab }, random) => layoutScenario({ kernel, lab }, random),
  several: ({ kernel, lab }, random) => severalScenario({ kernel, lab }, random),
  pxe: ({ kernel, lab }, random) => pxeScenario({ kernel, lab }, random),
  network: ({ kernel, lab }, random) => networkScenario({ kernel, lab }, random),
  rooms: ({ kernel, lab }, random) => roomsScenario({ kernel, lab }, random),
  windows: ({ kernel, lab }, random) => windowsScenario({ kernel, lab }, random),
}
/** Six machines at once take long: run only if it is named. */
const ONLY_NAMED = new Set(['rooms'])
const wanted = Object.keys(SCENARIOS).filter(
  (name) =>
    (positionals.length === 0 && !ONLY_NAMED.has(name)) ||
    positionals.some((part) => name === part || name.startsWith(`${part}-`)),
)
const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`

const begun = performance.now()
const work = await mkdtemp(join(tmpdir(), 'mesh-vm-'))
const labs = new Set<Lab>()
let counts = { passed: 0, failed: 0 }
let skipped = 0
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void stop(signal))
try {
  await installPackages()
  if (spawnSync(process.execPath, [join(ROOT, 'tools/build.ts')], { stdio: 'inherit' }).status !== 0)
    throw new Error('the build failed')
  const kernel = await fetchKernel()
  const initramfs = await buildInitramfs(kernel, work)
  console.log(`the guest is built: ${seconds(begun)}`)
  for (let run = 0; run < Number(values.runs); run++)
    for (const name of wanted) await runScenario(name, firstSeed + run, { kernel, initramfs })
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error))
  skipped = values.quick && error instanceof Unavailable ? wanted.length : 0
} finally {
  await rm(work, { recursive: true, force: true })
}
if (skipped > 0) console.log('SKIPPED: no machine was started in QEMU, because of the packages above')
console.log(`${counts.passed} passed, ${counts.failed} failed, ${skipped} skipped in ${seconds(begun)}`)
process.exitCode = counts.failed === 0 && counts.passed + skipped > 0 ? 0 : 1

async function runScenario(name: string, seed: number, parts: Guest): Promise<void> {
  console.log(`--- ${name}, seed ${seed} (repeat with npm run vm -- --seed ${seed} ${name})`)
  const at = performance.now()
  const lab = await Lab.open({ entry: join(ROOT, 'dist/mesh.js') })
  labs.add(lab)
  try {
    const random = new Random(seed)
    const told = await SCENARIOS[name]!({ ...parts, lab }, random)
    console.log(`    passed in ${seconds(at)}: ${told}`)
    counts = { ...counts, passed: counts.passed + 1 }
  } catch (error) {
    console.log(`    FAILED after ${seconds(at)}: ${error instanceof Error ? error.stack : String(error)}`)
    counts = { ...counts, failed: counts.failed + 1 }
  } finally {
    VirtualMachine.killAll()
    await Container.killAll()
    await lab.close()
    labs.delete(lab)
  }
}

async function stop(signal: NodeJS.Signals): Promise<void> {
  VirtualMachine.killAll()
  await Container.killAll()
  await Promise.all([...labs].map((lab) => lab.close()))
  rmSync(work, { recursive: true, force: true })
  console.log(`interrupted by ${signal}`)
  process.exit(130)
}
