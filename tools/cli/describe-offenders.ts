import type { Receipt } from '../../protocol/receipt.ts'

const WORDS = {
  wrong: 'sent wrong content',
  violation: 'broke the protocol',
  silent: 'was silent',
  slow: 'was slow',
  busy: 'put off what it was asked for',
} as const

/** Who cost a restore time, and by what: "pc07 was silent (2), was slow". Nobody: an empty text. */
export function describeOffenders(offenders: Receipt['offenders'] = []): string {
  const kinds = Object.keys(WORDS) as (keyof typeof WORDS)[]
  const texts = offenders.map((one) => {
    const did = kinds.filter((kind) => one[kind] > 0)
    return `${one.name} ${did.map((kind) => (one[kind] > 1 ? `${WORDS[kind]} (${one[kind]})` : WORDS[kind])).join(', ')}`
  })
  return texts.join('; ')
}
