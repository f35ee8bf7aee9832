import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MAX_FACT_BYTES, MAX_TOLD_DISKS } from '../../../protocol/constants.ts'
import type { MachineFacts, ToldDisk } from '../../../protocol/enrol-messages.ts'
import { NO_DISK } from '../../disk/fixed-disks.ts'

/** Where the kernel tells of the computer. */
interface HardwarePlaces {
  readonly sys: string
  readonly proc: string
}

/** What the makers of boards leave where a model or a serial number should be. */
const FILLER =
  /^(0+|none|n\/?a|default string|not specified|not applicable|unknown|empty|system (manufacturer|product name|serial number|version)|to be filled by o\.?e\.?m\.?|o\.?e\.?m\.?|chassis serial number|123456789|\.+)$/i

/** Maker, model, serial number, memory and disks of this computer, as far as the kernel tells them; texts fit a message. */
export async function readHardware(
  { sys, proc }: HardwarePlaces = { sys: '/sys', proc: '/proc' },
): Promise<Pick<MachineFacts, 'model' | 'serial' | 'memory' | 'disks'>> {
  const dmi = (name: string): Promise<string> => factAt(join(sys, 'class/dmi/id', name))
  const tree = (name: string): Promise<string> => factAt(join(proc, 'device-tree', name))
  const vendor = await dmi('sys_vendor')
  const product = await dmi('product_name')
  const named = product.startsWith(vendor) ? product : `${vendor} ${product}`.trim()
  return {
    model: shortFact(named || (await tree('model'))),
    serial: (await dmi('product_serial')) || (await dmi('board_serial')) || (await tree('serial-number')),
    memory: await memoryBytes(proc),
    disks: await disksOf(sys),
  }
}

/** A text as it may be told to others: no control characters, at most MAX_FACT_BYTES. */
export function shortFact(text: string): string {
  let fact = text.replaceAll(/\p{C}+/gu, ' ').trim()
  while (Buffer.byteLength(fact) > MAX_FACT_BYTES) fact = fact.slice(0, -1).trimEnd()
  return fact.isWellFormed() ? fact : fact.toWellFormed()
}

async function factAt(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(() => '')
  const fact = shortFact(text)
  return FILLER.test(fact) ? '' : fact
}

async function memoryBytes(proc: string): Promise<number> {
  const text = await readFile(join(proc, 'meminfo'), 'utf8').catch(() => '')
  return Number(/^MemTotal:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024
}

async function disksOf(sys: string): Promise<ToldDisk[]> {
  const names = (await readdir(join(sys, 'block')).catch(() => [])).filter((name) => !NO_DISK.test(name)).sort()
  const disks = await Promise.all(
    names.map(async (name) => ({
      name: shortFact(name),
      // In sectors of 512 bytes, whatever the device's own are.
      size: Number(await factAt(join(sys, 'block', name, 'size'))) * 512,
      model: await factAt(join(sys, 'block', name, 'device/model')),
    })),
  )
  return disks.filter(({ size }) => size > 0).slice(0, MAX_TOLD_DISKS)
}
