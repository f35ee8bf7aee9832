import { readFile } from 'node:fs/promises'
import { InvalidArgumentError } from 'commander'
import {
  type DiskLayout,
  decodeLayout,
  isGuid,
  LAYOUT_UNIT_BYTES,
  type LayoutPartition,
  PARTITION_TYPES,
} from '../../protocol/disk-layout.ts'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { isRecord } from '../../protocol/json-shape.ts'
import { nearestWord } from '../../protocol/nearest-word.ts'
import { isParseError, lineOf } from './config/config-file.ts'
import { MAX_CONFIG_BYTES } from './limits.ts'
import { parseSize } from './parse.ts'

type Table = Readonly<Record<string, unknown>>
type Wrong = (why: string) => MeshError

const KEYS = ['esp', 'state', 'agent', 'uuid', 'partition'] as const
const PARTITION_KEYS = ['image', 'system', 'label', 'type', 'size', 'grow', 'uuid'] as const

/** Reads a layout of disks (TOML 1.0, docs/OPERATIONS.md). Errors: LAYOUT_INVALID naming the file and what is wrong in it. */
export async function readLayoutFile(path: string): Promise<DiskLayout> {
  const wrong: Wrong = (why) => new MeshError('LAYOUT_INVALID', `${path}: ${why}`)
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new MeshError('LAYOUT_INVALID', `${path} cannot be read (${errnoOf(cause)})`, { cause })
  })
  if (bytes.byteLength > MAX_CONFIG_BYTES)
    throw wrong(`${bytes.byteLength} bytes, at most ${MAX_CONFIG_BYTES} are allowed`)
  const { parseTOML, getStaticTOMLValue } = await import('toml-eslint-parser')
  let table: Table
  try {
    table = getStaticTOMLValue(parseTOML(bytes.toString(), { tomlVersion: '1.0' })) as Table
  } catch (error) {
    if (!isParseError(error)) throw error
    throw wrong(`line ${lineOf(error)}: ${error.message.toLowerCase()}`)
  }
  return layoutOf(table, wrong)
}

function layoutOf(table: Table, wrong: Wrong): DiskLayout {
  assertKnown(table, KEYS, wrong)
  const { agent, uuid, partition = [] } = table
  if (!Array.isArray(partition) || !partition.every((one) => isRecord(one)))
    throw wrong('write each partition as a table of its own that begins with [[partition]]')
  const layout = {
    esp: sizeOf(table.esp, 'esp', wrong),
    state: sizeOf(table.state, 'state', wrong),
    ...(agent === undefined ? {} : { agent }),
    ...(uuid === undefined ? {} : { uuid: guidOf(uuid, wrong) }),
    partitions: (partition as readonly Table[]).map((one, at) =>
      partitionOf(one, (why) => wrong(`partition ${at + 1}: ${why}`)),
    ),
  }
  try {
    return decodeLayout(layout)
  } catch (error) {
    throw wrong((error as Error).message)
  }
}

function partitionOf(table: Table, wrong: Wrong): LayoutPartition {
  assertKnown(table, PARTITION_KEYS, wrong)
  const { image, system, label = image, grow = false, uuid } = table
  if (image !== undefined && typeof image !== 'string')
    throw wrong('image is the name of an image, such as image = "root"; leave it out for a partition that is only made')
  if (typeof label !== 'string' || label.length > 36)
    throw wrong('give it a label of at most 36 characters, such as label = "root"')
  if (typeof grow !== 'boolean') throw wrong('grow is true or false')
  if (system !== undefined && typeof system !== 'boolean') throw wrong('system is true or false')
  return {
    ...(image === undefined ? {} : { image }),
    ...(system === undefined ? {} : { system }),
    label,
    type: typeOf(table.type, wrong),
    size: sizeOf(table.size, 'size', wrong),
    grow,
    ...(uuid === undefined ? {} : { uuid: guidOf(uuid, wrong) }),
  }
}

function guidOf(uuid: unknown, wrong: Wrong): string {
  if (typeof uuid === 'string' && isGuid(uuid.toLowerCase())) return uuid.toLowerCase()
  throw wrong(`uuid = ${JSON.stringify(uuid)} is no GUID`)
}

function typeOf(type: unknown, wrong: Wrong): string {
  const named = Object.entries(PARTITION_TYPES).find(([name]) => name === type)?.[1]
  if (named !== undefined) return named
  if (typeof type === 'string' && isGuid(type.toLowerCase())) return type.toLowerCase()
  throw wrong(`type is one of ${Object.keys(PARTITION_TYPES).join(', ')}, or a GUID`)
}

/** Rounded up to a whole MiB. */
function sizeOf(value: unknown, name: string, wrong: Wrong): number {
  try {
    const bytes = parseSize(String(value))
    return Math.ceil(bytes / LAYOUT_UNIT_BYTES) * LAYOUT_UNIT_BYTES
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error
    throw wrong(`${name}${value === undefined ? ' is missing' : ` = ${JSON.stringify(value)}`}: ${error.message}`)
  }
}

function assertKnown(table: Table, known: readonly string[], wrong: Wrong): void {
  for (const key of Object.keys(table)) {
    if (known.includes(key)) continue
    const near = nearestWord(key, known)
    throw wrong(
      `unknown key ${key}${near === undefined ? `; known are ${known.join(', ')}` : `; did you mean ${near}?`}`,
    )
  }
}
