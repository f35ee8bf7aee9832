import { readdir, readFile, realpath, stat, writeFile } from 'node:fs/promises'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { openFault } from './device-fault.ts'
import { deviceNumber } from './device-number.ts'

/** What the kernel tells in /sys of its block devices. A device is named by its numbers: `254:16`. */
export class KernelDisks {
  readonly #sys: string

  constructor(sys = '/sys') {
    this.#sys = sys
  }

  /**
   * The number of the device at a path; undefined for a regular file. Errors: DISK_MISSING, DISK_UNREADABLE,
   * DISK_NOT_A_DISK.
   */
  async numberOf(path: string): Promise<string | undefined> {
    const facts = await stat(path).catch((error: unknown) => {
      throw openFault(path, error, { writable: false })
    })
    if (facts.isFile()) return undefined
    if (!facts.isBlockDevice())
      throw new MeshError('DISK_NOT_A_DISK', `${path} is neither a file nor a block device`, { detail: { path } })
    return deviceNumber(facts.rdev)
  }

  /** The path that the kernel itself gives the device, such as `/dev/sda2`, whatever links udev makes. */
  async nodeOf(number: string): Promise<string> {
    const [, name] = /^DEVNAME=(.+)$/m.exec(await this.#read(`dev/block/${number}/uevent`)) ?? []
    if (name === undefined) throw new MeshError('DISK_MISSING', `the kernel has no block device ${number}`)
    return `/dev/${name}`
  }

  /** Size of a device in sectors of 512 bytes, whatever its own sectors are. */
  async sectorsOf(number: string): Promise<number> {
    return Number(await this.#read(`dev/block/${number}/size`))
  }

  /** Names of the devices that stand on this one. */
  async holdersOf(number: string): Promise<string[]> {
    const path = `${this.#sys}/dev/block/${number}/holders`
    return readdir(path).catch(refused(path))
  }

  /** Bytes of the longest discard that the kernel lets through; 0: it refuses all discards. */
  async discardMax(number: string): Promise<number> {
    return Number(await this.#read(await this.#discardFile(number)))
  }

  /** Sets that limit. A device that has no discards accepts no value at all, not even the one it has. */
  async setDiscardMax(number: string, bytes: number): Promise<void> {
    if ((await this.discardMax(number)) === bytes) return
    const path = `${this.#sys}/${await this.#discardFile(number)}`
    await writeFile(path, String(bytes)).catch(refused(path))
  }

  /** The device-mapper device of this name, if there is one. */
  async mapped(name: string): Promise<{ readonly number: string; readonly suspended: boolean } | undefined> {
    for (const entry of await readdir(`${this.#sys}/block`)) {
      if (!entry.startsWith('dm-')) continue
      const folder = `block/${entry}`
      // Devices come and go while this looks.
      const found = await this.#read(`${folder}/dm/name`).catch(absent)
      if (found !== name) continue
      return {
        number: await this.#read(`${folder}/dev`),
        suspended: (await this.#read(`${folder}/dm/suspended`)) !== '0',
      }
    }
    return undefined
  }

  /** The file or device that a loop device stands for; undefined if it is none. */
  async backingFile(number: string): Promise<string | undefined> {
    return this.#read(`dev/block/${number}/loop/backing_file`).catch(absent)
  }

  /** A partition has no queue of its own, so the file of its disk is meant. */
  async #discardFile(number: string): Promise<string> {
    const link = `${this.#sys}/dev/block/${number}`
    const folder = await realpath(link).catch(refused(link))
    const own = await stat(`${folder}/queue`).catch(absent)
    const queue = own === undefined ? await realpath(`${folder}/../queue`) : `${folder}/queue`
    return `${queue.slice((await realpath(this.#sys)).length + 1)}/discard_max_bytes`
  }

  async #read(path: string): Promise<string> {
    const text = await readFile(`${this.#sys}/${path}`, 'utf8').catch(refused(`${this.#sys}/${path}`))
    return text.replace(/\n$/, '')
  }
}

function refused(path: string): (error: unknown) => never {
  return (cause) => {
    throw new MeshError('DISK_UNREADABLE', `${path}: ${errnoOf(cause) ?? String(cause)}`, { detail: { path }, cause })
  }
}

function absent(error: unknown): undefined {
  const errno = errnoOf(error)
  if (errno === 'ENOENT' || errno === 'ENODEV' || errno === 'ENXIO') return undefined
  throw error
}
