import type { PackageFacts } from './package-facts.ts'

/** Longer lines are cut off by some readers. */
const WIDTH = 80

/**
 * CHANGELOG.md in the form of deb-changelog(5): one entry for each version, the newest first. What is not released yet belongs
 * to the version of the package.
 */
export function debianChangelog({ changelog, debianVersion, epoch, maintainer }: PackageFacts): string {
  const entries = changelog
    .split(/^## /m)
    .slice(1)
    .map((part) => {
      const [heading = '', ...lines] = part.split('\n')
      const [, named = debianVersion, day] = /^(\d\S*) - (\d{4}-\d\d-\d\d)/.exec(heading) ?? []
      const date = day === undefined ? epoch : Date.parse(`${day}T00:00:00Z`) / 1000
      return { named, date, items: itemsOf(lines.join('\n')) }
    })
    .filter(({ items }) => items.length > 0)
  // The version that has not been released may have the number of the last one.
  const merged = entries.filter(({ named }, i) => named !== entries[i - 1]?.named)
  for (const { named, items } of entries) {
    const entry = merged.find((one) => one.named === named)
    if (entry !== undefined && entry.items !== items) entry.items.push(...items)
  }
  return merged
    .map(({ named, date, items }) =>
      [
        `lab-mesh (${named}) unstable; urgency=medium`,
        '',
        ...items.map((item) => wrapped(item.replaceAll('**', ''))),
        '',
        ` -- ${maintainer}  ${rfc2822(date)}`,
        '',
      ].join('\n'),
    )
    .join('\n')
}

/** The items of all lists; lines that are indented go on with one. */
function itemsOf(markdown: string): string[] {
  return [...markdown.matchAll(/^- (.*(?:\n {2}.*)*)/gm)].map(([, item = '']) => item)
}

function wrapped(text: string): string {
  const lines = ['  *']
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1) ?? ''
    if (last.length + 1 + word.length > WIDTH) lines.push(`    ${word}`)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines.join('\n')
}

/** A date as RFC 2822 writes it: `Mon, 30 Nov 2026 13:40:10 +0000`. */
function rfc2822(seconds: number): string {
  return new Date(seconds * 1000).toUTCString().replace('GMT', '+0000')
}
