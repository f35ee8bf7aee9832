import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, mkdtemp, open, realpath, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readJson } from '../../protocol/document.ts'
import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'
import { anyText, list, natural, object, optional, truth } from '../../protocol/json-shape.ts'
import { NBD_CONNECT_DEADLINE_MS } from '../nbd/limits.ts'
import { fsyncDirectory, storageError } from '../state/atomic-file.ts'
import { runFolder } from '../state/socket-place.ts'
import { type DirtyExtents, readDirtyExtents } from './dirty-extents.ts'
import { QEMU_CLUSTER_BYTES, QEMU_OUTPUT_BYTES, QEMU_POLL_MS } from './limits.ts'
import { failed, optionValue, qemuImg, toolEnv, toolError } from './qemu-tools.ts'

const SECTOR_BYTES = 512
const QCOW2_MAGIC = Buffer.from('QFI\xfb', 'latin1')

/** What `qemu-img info` says of a qcow2 file. */
interface QemuImageInfo {
  /** Bytes. */
  readonly size: number
  /** Path of the external data file, if the image has one that is a plain copy of the disk. */
  readonly rawDataFile: string | undefined
  readonly bitmaps: readonly QemuBitmapInfo[]
}

interface QemuBitmapInfo {
  readonly name: string
  /** Bytes. */
  readonly granularity: number
  /** QEMU did not store the bitmap, because it is running or was killed; or the bitmap is damaged. */
  readonly inUse: boolean
  /** The bitmap records what is written. */
  readonly enabled: boolean
}

/**
 * A qcow2 file whose content is in a raw file beside it, the managed disk. The qcow2 file holds what QEMU adds:
 * persistent dirty bitmaps, and which clusters read as zeros. Clusters that read as zeros would hide what a restore
 * writes to the raw file (qemu-img(1), `data_file_raw`). So the qcow2 file is made anew whenever that may have happened
 * ({@link renew}).
 */
export class QemuImage {
  readonly path: string
  readonly #disk: string

  /** `disk`: path of the managed disk. */
  constructor(path: string, disk: string) {
    this.path = resolve(path)
    this.#disk = disk
  }

  /**
   * What the file holds, or why nobody can tell. `running`: look also while QEMU writes to the file, and do not keep a
   * machine from starting. Errors: DISK_IN_USE (QEMU is running), TOOL_MISSING.
   */
  async info(options: { running?: boolean } = {}): Promise<QemuImageInfo | string> {
    const found = await stat(this.path).catch(() => undefined)
    if (found === undefined) return `${this.path} is missing`
    if (!found.isFile()) return `${this.path} is not a file`
    const share = options.running === true ? ['--force-share'] : []
    try {
      return this.#parse(await qemuImg('info', '--output=json', '-f', 'qcow2', ...share, this.path))
    } catch (error) {
      if (isMeshError(error, 'QEMU_FAILED')) return error.message
      throw error
    }
  }

  /** Why this is not an image over the managed disk; undefined if it is. */
  async strange(info: QemuImageInfo): Promise<string | undefined> {
    const { rawDataFile } = info
    if (rawDataFile === undefined) return `${this.path} does not keep its content in a raw file`
    if (await isSameDisk(rawDataFile, this.#disk)) return undefined
    return `${this.path} keeps its content in ${rawDataFile}, which is not ${this.#disk}`
  }

  /**
   * What the file holds if it is an image over the managed disk. Undefined if it is missing, damaged, or over a disk
   * that is gone: {@link renew} loses nothing then. Errors: DISK_IN_USE, TOOL_MISSING; QEMU_FAILED if it is something
   * else.
   */
  async own(): Promise<QemuImageInfo | undefined> {
    const info = await this.info()
    const why = typeof info === 'string' ? await this.#foreign() : await this.strange(info)
    if (why === undefined) return typeof info === 'string' ? undefined : info
    const lost = typeof info !== 'string' && info.rawDataFile !== undefined && !(await exists(info.rawDataFile))
    if (lost) return undefined
    throw new MeshError('QEMU_FAILED', `${why}; it is not touched`)
  }

  /**
   * Makes the file anew over the disk as it is. The new file has `size` bytes, all read from the disk, the good bitmaps
   * of the old file, and a fresh bitmap. The old file is in force until the new one is durable. Errors: those of {@link
   * own}, DISK_FULL, STATE_UNWRITABLE.
   */
  async renew(size: number, bitmap: string, granularity: number): Promise<void> {
    if (size % SECTOR_BYTES !== 0)
      throw new MeshError('QEMU_FAILED', `${this.#disk} has ${size} bytes; QEMU wants whole sectors of ${SECTOR_BYTES}`)
    const old = await this.own()
    const path = await realpath(this.path).catch(() => this.path)
    const [fresh, scratch] = [`${path}.mesh-new`, `${path}.mesh-scratch`]
    const kept = old?.size === size ? old.bitmaps.filter(({ inUse }) => !inUse) : []
    try {
      await build(fresh, scratch, size)
      try {
        for (const one of kept) await carryOver(path, fresh, one)
      } catch (error) {
        if (!isMeshError(error, 'QEMU_FAILED')) throw error
        // A bitmap that cannot be read may have been added empty, so the file is built once more.
        await build(fresh, scratch, size)
      }
      await qemuImg('bitmap', '--add', '-g', `${granularity}`, '-f', 'qcow2', fresh, bitmap)
      await qemuImg('amend', '-q', '-f', 'qcow2', '-o', `data_file=${optionValue(resolve(this.#disk))}`, fresh)
      await makeLike(path, fresh)
      // A machine that was started meanwhile has the old file open, and would go on with it.
      await this.info()
      await rename(fresh, path)
      await fsyncDirectory(dirname(path))
    } catch (error) {
      throw storageError(error, this.path)
    } finally {
      await rm(fresh, { force: true })
      await rm(scratch, { force: true })
    }
  }

  /** Errors: DISK_IN_USE, QEMU_FAILED, TOOL_MISSING. */
  async removeBitmap(name: string): Promise<void> {
    await qemuImg('bitmap', '--remove', '-f', 'qcow2', this.path, name)
  }

  /**
   * Reads a bitmap that is stored in the file. `running`: do not keep a machine from starting. Errors: QEMU_FAILED,
   * TOOL_MISSING, those of the NBD client.
   */
  async readBitmap(name: string, options: { running?: boolean } = {}): Promise<DirtyExtents> {
    const directory = await mkdtemp(join(runFolder(), 'mesh-qemu-'))
    const socket = join(directory, 'nbd.sock')
    // qemu-nbd ends when its only client leaves, so also when this process is killed.
    const share = options.running === true ? ',force-share=on' : ''
    const image = `driver=qcow2,file.driver=file,file.filename=${optionValue(this.path)}${share}`
    const args = ['--read-only', `--bitmap=${name}`, `--socket=${socket}`, '--image-opts', image]
    const child = spawn('qemu-nbd', args, { stdio: ['ignore', 'ignore', 'pipe'], env: toolEnv() })
    let said = ''
    child.stderr.on('data', (data: Buffer) => {
      if (said.length < QEMU_OUTPUT_BYTES) said += data.toString()
    })
    const ended = once(child, 'close').catch((error: unknown) => error)
    try {
      const gone = ended.then((end) => {
        throw end instanceof Error ? toolError('qemu-nbd', end) : failed('qemu-nbd', args, said)
      })
      gone.catch(() => undefined)
      return await Promise.race([readWhenUp(socket, name), gone])
    } finally {
      child.kill()
      await ended
      await rm(directory, { recursive: true, force: true })
    }
  }

  /** Why a file that QEMU cannot read may be something else than a damaged image; undefined if it may not. */
  async #foreign(): Promise<string | undefined> {
    if (!(await exists(this.path))) return undefined
    const start = Buffer.alloc(QCOW2_MAGIC.byteLength)
    const file = await open(this.path)
    try {
      await file.read(start, 0, start.byteLength, 0)
    } finally {
      await file.close()
    }
    return start.equals(QCOW2_MAGIC) ? undefined : `${this.path} is not a qcow2 file`
  }

  #read(json: string) {
    try {
      return readJson(`what qemu-img says of ${this.path}`, isQemuImgInfo, json)
    } catch (cause) {
      throw new MeshError('QEMU_FAILED', cause instanceof Error ? cause.message : String(cause), { cause })
    }
  }

  #parse(json: string): QemuImageInfo {
    const told = this.#read(json)
    const { data } = told['format-specific']
    const file = data['data-file']
    return {
      size: told['virtual-size'],
      rawDataFile: data['data-file-raw'] === true && file !== undefined ? resolve(dirname(this.path), file) : undefined,
      bitmaps: (data.bitmaps ?? []).map(({ name, granularity, flags }) => ({
        name,
        granularity,
        inUse: flags.includes('in-use'),
        enabled: flags.includes('auto'),
      })),
    }
  }
}

const words = anyText(64 * 1024)
const MAX_BITMAPS = 65535
/** The part of the JSON of `qemu-img info` that is used here. */
const isQemuImgInfo = object({
  'virtual-size': natural(),
  'format-specific': object({
    data: object({
      'data-file': optional(words),
      'data-file-raw': optional(truth),
      bitmaps: optional(list(object({ name: words, granularity: natural(), flags: list(words, 64) }), MAX_BITMAPS)),
    }),
  }),
})

/**
 * Making an image empties its data file. So the image is made over a scratch file, and is told of the disk at the end.
 */
async function build(fresh: string, scratch: string, size: number): Promise<void> {
  await rm(fresh, { force: true })
  const options = [`data_file=${optionValue(scratch)}`, 'data_file_raw=on', `cluster_size=${QEMU_CLUSTER_BYTES}`]
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', options.join(','), fresh, `${size}`)
}

async function carryOver(from: string, to: string, bitmap: QemuBitmapInfo): Promise<void> {
  const { name, granularity, enabled } = bitmap
  const how = ['--add', '--merge', name, ...(enabled ? [] : ['--disable'])]
  await qemuImg('bitmap', ...how, '-g', `${granularity}`, '-b', from, '-F', 'qcow2', '-f', 'qcow2', to, name)
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined
}

/** Whether two paths lead to the same disk. */
async function isSameDisk(one: string, other: string): Promise<boolean> {
  const [a, b] = await Promise.all([stat(one).catch(() => undefined), stat(other)])
  if (a === undefined) return false
  return b.isBlockDevice() ? a.isBlockDevice() && a.rdev === b.rdev : a.ino === b.ino && a.dev === b.dev
}

/** Gives the new file the owner and mode of the old one, and makes it durable. */
async function makeLike(old: string, fresh: string): Promise<void> {
  const facts = await stat(old).catch(() => undefined)
  if (facts !== undefined) {
    await chown(fresh, facts.uid, facts.gid)
    await chmod(fresh, facts.mode & 0o7777)
  }
  const file = await open(fresh, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

async function readWhenUp(socket: string, bitmap: string): Promise<DirtyExtents> {
  for (const deadline = performance.now() + NBD_CONNECT_DEADLINE_MS; ; await sleep(QEMU_POLL_MS)) {
    try {
      return await readDirtyExtents(`nbd+unix:///?socket=${encodeURIComponent(socket)}`, bitmap)
    } catch (error) {
      const notYet = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ECONNREFUSED'
      if (!notYet || performance.now() > deadline) throw error
    }
  }
}
