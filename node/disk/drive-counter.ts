import { execFile } from 'node:child_process'
import { readJson } from '../../protocol/document.ts'
import { list, object, optional, real, text as textOf, truth } from '../../protocol/json-shape.ts'
import { DRIVE_COUNTER_DEADLINE_MS } from './limits.ts'

/** Pages of one log, and rows of one page: ATA has at most 256 of each. */
const MOST_ROWS = 256

/** The part of what `smartctl --json` prints that is read here (smartmontools 7). */
const isSmartctlOutput = object({
  nvme_smart_health_information_log: optional(object({ host_writes: optional(real) })),
  ata_device_statistics: optional(
    object({
      pages: optional(
        list(
          object({
            table: optional(
              list(
                object({
                  name: optional(textOf(1024)),
                  value: optional(real),
                  flags: optional(object({ valid: optional(truth) })),
                }),
                MOST_ROWS,
              ),
            ),
          }),
          MOST_ROWS,
        ),
      ),
    }),
  ),
})

/** Prints what a program of smartmontools says of a drive; undefined if it is not installed, fails, or takes too long. */
type AskDrive = (path: string) => Promise<string | undefined>

/**
 * What a whole drive has counted of the writes to it, as it tells itself: of NVMe the host's write commands, of ATA the logical sectors
 * written. Counters of other kinds are coarse or come late, and are left out. Undefined for drives that tell none.
 */
export async function readDriveCounter(path: string, ask: AskDrive = askSmartctl): Promise<string | undefined> {
  const text = await ask(path)
  if (text === undefined) return undefined
  try {
    const said = readJson('the output of smartctl', isSmartctlOutput, text)
    const commands = said.nvme_smart_health_information_log?.host_writes
    if (commands !== undefined) return `nvme ${commands}`
    const statistics = said.ata_device_statistics?.pages?.flatMap(({ table = [] }) => table) ?? []
    const sectors = statistics.find(({ name, flags }) => name === 'Logical Sectors Written' && flags?.valid !== false)
    return sectors?.value === undefined ? undefined : `ata ${sectors.value}`
  } catch {
    return undefined
  }
}

/** Its exit code tells of the drive's health, not only of its own failures. */
function askSmartctl(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const child = execFile('smartctl', ['--json', '-A', '-l', 'devstat', path], (_error, output) => {
      clearTimeout(late)
      resolve(output === '' ? undefined : output)
    })
    const late = setTimeout(() => {
      // A program that waits for a dying drive cannot even be killed, so it is not waited for.
      child.kill('SIGKILL')
      child.stdout?.destroy()
      child.stderr?.destroy()
      child.unref()
      resolve(undefined)
    }, DRIVE_COUNTER_DEADLINE_MS)
  })
}
