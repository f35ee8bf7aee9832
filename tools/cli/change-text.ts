import type { ReleaseChange } from '../../node/agent/machine/events.ts'
import { formatBytes } from './format.ts'

/** What a release changes, before it is signed: two or three short lines. */
export function describeChange(change: ReleaseChange): string {
  const { image, release, size, sizeBefore, content, contentBefore } = change
  const lines = [`${image} release ${release}: ${describeBlocks(change)}`]
  if (sizeBefore === null) lines.push(`size: ${formatBytes(size)}`)
  else if (sizeBefore === size) lines.push(`size: ${formatBytes(size)}, as before`)
  else lines.push(`size: ${size} bytes, before ${sizeBefore} bytes`)
  const before = contentBefore === null ? '' : contentBefore === content ? ', as before' : `; before ${contentBefore}`
  if (content !== null) lines.push(`found: ${content}${before}`)
  return lines.join('\n')
}

function describeBlocks({ sizeBefore, blocks }: ReleaseChange): string {
  if (sizeBefore === null) return 'the first'
  if (blocks === null)
    return 'what changes is not known (other block size, or the hash tree of the release before is not here)'
  const { total, changed, zeroed } = blocks
  return `${changed} of ${total} blocks change (${percent(changed, total)}), of these ${zeroed} become zeros`
}

/** `57 %`; below ten with one digit more. */
function percent(part: number, whole: number): string {
  const value = whole === 0 ? 0 : (100 * part) / whole
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)} %`
}
