import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { MeshError } from '../../protocol/errors.ts'

/**
 * Refuses a disk that the system may write to behind our back: the device itself, a partition of it, something stacked
 * on it (device mapper, RAID), or a loop device over this file is mounted read-write or used as swap.
 * Errors: DISK_MOUNTED naming the mount point.
 */
export async function assertNotMounted(path: string, options: { force: boolean }): Promise<void> {
  if (options.force) return
  const numbers = await deviceNumbersOver(path)
  if (numbers.size === 0) return
  const mounts = await readFile('/proc/self/mountinfo', 'utf8')
  for (const line of mounts.split('\n')) {
    // Fields: id, parent, major:minor, root, mount point, options … (proc_pid_mountinfo(5)).
    const [, , number, , point, flags] = line.split(' ')
    if (number !== undefined && numbers.has(number) && flags?.split(',').includes('rw')) {
      throw new MeshError('DISK_MOUNTED', `${path} is mounted read-write on ${unescapeOctal(point ?? '')}`, {
        detail: { path },
      })
    }
  }
  const swaps = await readFile('/proc/swaps', 'utf8').catch(() => '')
  for (const line of swaps.split('\n').slice(1)) {
    const device = line.split(/\s/)[0]
    if (!device) continue
    const number = await deviceNumber(unescapeOctal(device))
    if (number !== undefined && numbers.has(number)) {
      throw new MeshError('DISK_MOUNTED', `${path} is in use as swap space`, { detail: { path } })
    }
  }
}

/** `major:minor` of every block device whose content lives (partly) on this disk or file. */
async function deviceNumbersOver(path: string): Promise<Set<string>> {
  const facts = await stat(path)
  const names = facts.isBlockDevice()
    ? [(await realpath(path)).replace(/^\/dev\//, '')]
    : await loopsOver(await realpath(path))
  const numbers = new Set<string>()
  for (const name of names) await addWithDependents(name.replaceAll('/', '!'), numbers)
  return numbers
}

async function addWithDependents(name: string, numbers: Set<string>): Promise<void> {
  const folder = `/sys/class/block/${name}`
  const number = await readFile(`${folder}/dev`, 'utf8')
    .then((text) => text.trim())
    .catch(() => undefined)
  if (number === undefined || numbers.has(number)) return
  numbers.add(number)
  const inside = await readdir(folder).catch(() => [])
  // A partition is a folder inside its disk's folder, named after it.
  for (const entry of inside) if (entry.startsWith(name)) await addWithDependents(entry, numbers)
  for (const holder of await readdir(`${folder}/holders`).catch(() => [])) await addWithDependents(holder, numbers)
}

async function loopsOver(file: string): Promise<string[]> {
  const loops: string[] = []
  for (const name of await readdir('/sys/class/block').catch(() => [])) {
    if (!name.startsWith('loop')) continue
    const backing = await readFile(`/sys/class/block/${name}/loop/backing_file`, 'utf8').catch(() => '')
    if (backing.trimEnd() === file) loops.push(name)
  }
  return loops
}

async function deviceNumber(path: string): Promise<string | undefined> {
  const facts = await stat(path).catch(() => undefined)
  if (facts === undefined || !facts.isBlockDevice()) return undefined
  return `${(facts.rdev >> 8) & 0xfff}:${(facts.rdev & 0xff) | ((facts.rdev >> 12) & 0xfff00)}`
}

/** The kernel writes blanks in paths as `\040`. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
