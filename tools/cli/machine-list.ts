import { MAX_MEMBERS } from '../../protocol/constants.ts'
import { MeshError } from '../../protocol/errors.ts'
import { isMachineName, isPlaceName, sameName } from '../../protocol/names.ts'
import { MAX_MACHINE_LIST_BYTES } from './limits.ts'

/** One line of a list of machines. */
interface ListedMachine {
  /** As members are listed with: `02:00:5e:10:00:01`. */
  readonly mac: string
  readonly name: string
  readonly group?: string
}

/**
 * Reads a list of machines: network card, name, group (may be left out), one machine a line, as CSV (RFC 4180) with commas, or with the
 * semicolons or tabs of other spreadsheets. A first line without a network card is a heading; empty lines and lines that begin
 * with # are skipped. Network cards as `02-00-5E-10-00-01`, `0200.5e10.0001` and `02005E100001`, too. Errors: USAGE, naming the line.
 */
export function parseMachineList(file: string, text: string): ListedMachine[] {
  if (Buffer.byteLength(text) > MAX_MACHINE_LIST_BYTES)
    throw new MeshError('USAGE', `${file} is too long for a list of machines`)
  const lines = text.replace(/^\uFEFF/, '').split(/\r\n|\n|\r/)
  const found: ListedMachine[] = []
  let isFirst = true
  for (const [at, line] of lines.entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const cells = cellsOf(line)
    const mac = macOf(cells[0] ?? '')
    const isHeading = isFirst && mac === undefined && !/\d/.test(cells[0] ?? '')
    isFirst = false
    if (isHeading) continue
    const wrong = (why: string): MeshError => new MeshError('USAGE', `${file}, line ${at + 1}: ${why}`)
    found.push(machineOf(mac, cells, found, wrong))
    if (found.length > MAX_MEMBERS) throw wrong(`a site has at most ${MAX_MEMBERS} members`)
  }
  if (found.length === 0) throw new MeshError('USAGE', `${file} names no machine`)
  return found
}

function machineOf(
  mac: string | undefined,
  cells: readonly string[],
  before: readonly ListedMachine[],
  wrong: (why: string) => MeshError,
): ListedMachine {
  const [first = '', name = '', group = ''] = cells
  if (mac === undefined)
    throw wrong(`${JSON.stringify(first)} is no address of a network card, such as 02:00:5e:10:00:01`)
  if (!isMachineName(name)) throw wrong(`${JSON.stringify(name)} is no machine name`)
  if (group !== '' && !isPlaceName(group)) throw wrong(`${JSON.stringify(group)} is no name of a group`)
  if (before.some((one) => one.mac === mac)) throw wrong(`${mac} stands there twice`)
  if (before.some((one) => sameName(one.name, name))) throw wrong(`${name} stands there twice`)
  return { mac, name, ...(group === '' ? {} : { group }) }
}

/** The cells of a line, by the first of comma, semicolon and tab that is in it. */
function cellsOf(line: string): string[] {
  const divider = /[,;\t]/.exec(line)?.[0] ?? ','
  const cell = new RegExp(`(?:^|${divider})(?:"((?:[^"]|"")*)"|([^${divider}]*))`, 'g')
  return [...line.matchAll(cell)].map(([, quoted, plain = '']) => (quoted?.replaceAll('""', '"') ?? plain).trim())
}

function macOf(text: string): string | undefined {
  const digits = text.trim().toLowerCase().replaceAll(/[:.-]/g, '')
  return /^[0-9a-f]{12}$/.test(digits) ? digits.match(/../g)!.join(':') : undefined
}
