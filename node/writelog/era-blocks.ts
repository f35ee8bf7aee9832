import { MeshError } from '../../protocol/errors.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'

const DOCUMENT = /^\s*<blocks>(?<entries>.*)<\/blocks>\s*$/s
const ENTRY = /\s*<(?:block block\s*=\s*"(\d+)"|range begin\s*=\s*"(\d+)"\s+end\s*=\s*"(\d+)")\s*\/>\s*/y

/**
 * Reads what era_invalidate(8) prints: `<block block="7"/>` and `<range begin="1" end = "3"/>`, the end exclusive,
 * between `<blocks>` and `</blocks>`. Anything else is an error, a document that was cut above all: ERA_FAILED.
 */
export function parseEraBlocks(xml: string): RangeSet {
  const entries = DOCUMENT.exec(xml)?.groups?.entries
  if (entries === undefined) throw new MeshError('ERA_FAILED', 'era_invalidate printed no whole list of blocks')
  const runs: Run[] = []
  const end = entries.trimEnd().length
  ENTRY.lastIndex = 0
  for (let at = 0; at < end; at = ENTRY.lastIndex) {
    const found = ENTRY.exec(entries)
    if (found === null)
      throw new MeshError(
        'ERA_FAILED',
        `era_invalidate printed something unknown: ${entries.slice(at, at + 60).trim()}`,
      )
    const [, block, begin, until] = found
    const run: Run = block === undefined ? [Number(begin), Number(until)] : [Number(block), Number(block) + 1]
    if (run[0] >= run[1] || !Number.isSafeInteger(run[1]))
      throw new MeshError('ERA_FAILED', `era_invalidate printed the range ${run[0]} to ${run[1]}`)
    runs.push(run)
  }
  return RangeSet.from(runs)
}
