import { createHash } from 'node:crypto'
import { readFile, realpath } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { agree, sameHardware, sameName } from './compare-disks.ts'
import { type DiskFactValues, FACT_NAMES, type FactName, type KnownDisk } from './known-disk.ts'
import { unlessLimit } from './system-limit.ts'

/** Letters by which a mark names its facts. */
const LETTERS: Readonly<Record<FactName, string>> = {
  wwid: 'w',
  serial: 's',
  udevWwn: 'W',
  udevSerial: 'S',
  udevName: 'N',
  partition: 'p',
  partitionNumber: 'n',
  mapped: 'm',
  raid: 'r',
  file: 'f',
}
const KIND = 'k'
const ATTACHED = 'a'
/** Of a SHA-256, in hexadecimal digits: facts of the few disks that a computer ever has are told apart by less. */
const DIGITS = 8

/**
 * What a write log knows its disk by, short enough for its header: each fact as a letter and the beginning of its hash, such as
 * `k1f0a…w93b1…`. `attached`: what names the device until it is detached or the machine boots, see {@link attachmentOf}.
 */
export function markOf({ kind, facts }: KnownDisk, attached?: string): string {
  const parts = FACT_NAMES.flatMap((name) => (facts[name] === undefined ? [] : [LETTERS[name] + short(facts[name])]))
  return [KIND + short(kind), ...parts, ...(attached === undefined ? [] : [ATTACHED + short(attached)])].join('')
}

/** Why a log of the disk with the mark `kept` must not be believed for the one with the mark `now`; undefined if it may. */
export function markDoubt(kept: string, now: string): string | undefined {
  const [before, after] = [parse(kept), parse(now)]
  if (before === undefined || after === undefined) return 'the log does not say of which disk it is'
  const hardware = sameHardware(before.facts, after.facts)
  const file = agree(before.facts, after.facts, 'file')
  if (before.kind !== after.kind || sameName(before.facts, after.facts) === false || hardware === false)
    return 'the log is of another disk'
  if (file === false) return 'the log is of another image file'
  const attached = before.attached !== undefined && before.attached === after.attached
  if (hardware === true || file === true || attached) return undefined
  return 'nothing tells this disk from others: it shows no serial number'
}

interface Mark {
  readonly kind: string | undefined
  readonly attached: string | undefined
  readonly facts: DiskFactValues
}

function parse(mark: string): Mark | undefined {
  const parts = mark.match(new RegExp(`[a-zA-Z][0-9a-f]{${DIGITS}}`, 'g')) ?? []
  if (parts.length === 0 || parts.join('') !== mark) return undefined
  const values = new Map(parts.map((part) => [part[0]!, part.slice(1)]))
  const facts = FACT_NAMES.flatMap((name) => {
    const value = values.get(LETTERS[name])
    return value === undefined ? [] : [[name, value] as const]
  })
  return { kind: values.get(KIND), attached: values.get(ATTACHED), facts: Object.fromEntries(facts) }
}

/**
 * What the kernel numbers an attached disk by until the machine boots (diskseq, Linux 5.15): two devices that had one name one after
 * the other differ in it. Undefined for older kernels. `number`: `major:minor`.
 */
export async function attachmentOf(number: string, places: { sys: string; proc: string }): Promise<string | undefined> {
  const folder = await realpath(join(places.sys, 'dev/block', number)).catch(() => undefined)
  if (folder === undefined) return undefined
  const read = (path: string): Promise<string | undefined> => readFile(path, 'utf8').catch(unlessLimit(undefined))
  const [boot, sequence] = await Promise.all([
    read(join(places.proc, 'sys/kernel/random/boot_id')),
    read(join(folder, 'diskseq')).then((own) => own ?? read(join(dirname(folder), 'diskseq'))),
  ])
  return boot === undefined || sequence === undefined ? undefined : `${boot.trim()} ${sequence.trim()}`
}

/** The beginning of a text's hash. */
export function short(text: string, digits = DIGITS): string {
  return createHash('sha256').update(text).digest('hex').slice(0, digits)
}
