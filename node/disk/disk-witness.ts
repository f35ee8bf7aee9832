import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { deviceNumber } from './device-number.ts'
import { attachmentOf, short } from './disk-mark.ts'
import { readDriveCounter } from './drive-counter.ts'
import type { DiskKind } from './known-disk.ts'
import { unlessLimit } from './system-limit.ts'

/** Something outside of the write log that changes when the disk is written. */
type DiskWitnessName = 'file times' | 'device counter' | 'drive counter'

/** What the witnesses say of a disk since a stamp was taken. */
export interface Testimony {
  /** Says that the disk was written. */
  readonly changed?: DiskWitnessName
  /** Those that could have seen a write, and saw none. */
  readonly agreed: readonly DiskWitnessName[]
}

const LETTERS: Readonly<Record<string, DiskWitnessName>> = {
  t: 'file times',
  b: 'device counter',
  d: 'drive counter',
}
const VALUE_DIGITS = 12
const SCOPE_DIGITS = 8

/** Where witnesses are heard. */
export interface WitnessPlaces {
  readonly sys: string
  readonly proc: string
  /** What the drive itself has counted; see {@link readDriveCounter}. */
  readonly driveCounter: (path: string) => Promise<string | undefined>
}

/** Those of this computer. */
export const WITNESS_PLACES: WitnessPlaces = { sys: '/sys', proc: '/proc', driveCounter: readDriveCounter }

/**
 * What the witnesses show now: `t1234….5678…,b…`, each a letter, a scope and a value, hashed. Values of different scopes (two boots,
 * two files) say nothing about each other. Errors: those of the file system.
 */
export async function stampOf(path: string, kind: DiskKind, places: WitnessPlaces = WITNESS_PLACES): Promise<string> {
  const facts = await stat(path)
  const number = facts.isBlockDevice() ? deviceNumber(facts.rdev) : undefined
  const readings = await Promise.all([
    timesOf(path, number, places),
    number === undefined ? undefined : deviceCounter(number, places),
    // What a drive counts is written by all of its partitions.
    kind === 'disk' ? driveCounter(path, places) : undefined,
  ])
  return readings.filter((reading) => reading !== undefined).join(',')
}

/** What two stamps of a disk say. */
export function compareStamps(before: string, now: string): Testimony {
  const then = parse(before)
  const agreed: DiskWitnessName[] = []
  for (const [letter, { scope, value }] of parse(now)) {
    const name = LETTERS[letter]
    const earlier = then.get(letter)
    if (name === undefined || earlier === undefined || earlier.scope !== scope) continue
    if (earlier.value !== value) return { changed: name, agreed }
    agreed.push(name)
  }
  return { agreed }
}

function parse(stamp: string): Map<string, { scope: string; value: string }> {
  const parts = [...stamp.matchAll(/([a-z])([0-9a-f]+)\.([0-9a-f]+)/g)]
  return new Map(parts.map(([, letter, scope, value]) => [letter!, { scope: scope!, value: value! }]))
}

function reading(letter: string, scope: string, value: string): string {
  return `${letter}${short(scope, SCOPE_DIGITS)}.${short(value, VALUE_DIGITS)}`
}

/** Times of change of an image file, or of the whole file behind a loop device. A tool may put the first back, not the second. */
async function timesOf(path: string, number: string | undefined, { sys }: WitnessPlaces): Promise<string | undefined> {
  const file = number === undefined ? path : await backingFile(number, sys)
  const facts = file === undefined ? undefined : await stat(file, { bigint: true }).catch(() => undefined)
  if (facts === undefined || !facts.isFile()) return undefined
  return reading('t', String(facts.ino), `${facts.mtimeNs} ${facts.ctimeNs}`)
}

/** A partition of a loop device has none: what is written to the others changes the file as well. */
async function backingFile(number: string, sys: string): Promise<string | undefined> {
  const path = join(sys, 'dev/block', number, 'loop/backing_file')
  return (await readFile(path, 'utf8').catch(unlessLimit(undefined)))?.replace(/\n$/, '')
}

/**
 * Sectors written to and discarded from a device since it was attached, as the kernel counts them; of this boot only.
 * https://www.kernel.org/doc/Documentation/block/stat.rst: sectors written are the 7th field, discarded the 14th.
 */
async function deviceCounter(number: string, places: WitnessPlaces): Promise<string | undefined> {
  const [boot, counters, attached] = await Promise.all([
    readFile(join(places.proc, 'sys/kernel/random/boot_id'), 'utf8').catch(unlessLimit(undefined)),
    readFile(join(places.sys, 'dev/block', number, 'stat'), 'utf8').catch(unlessLimit(undefined)),
    attachmentOf(number, places),
  ])
  if (boot === undefined || counters === undefined) return undefined
  const fields = counters.trim().split(/\s+/)
  return reading('b', boot, `${attached} ${fields[6]} ${fields[13]}`)
}

async function driveCounter(path: string, { driveCounter: count }: WitnessPlaces): Promise<string | undefined> {
  const written = await count(path)
  return written === undefined ? undefined : reading('d', 'drive', written)
}
