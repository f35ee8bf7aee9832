import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { FIREWALL_DEADLINE_MS, FIREWALL_OUTPUT_BYTES } from './limits.ts'

/** A port that machines which start must reach. */
export interface NeededPort {
  readonly kind: 'udp' | 'tcp'
  readonly port: number
}

/** Names that `nft list ruleset` and `iptables-save` may print for a port. */
const NAMES: Readonly<Record<number, string>> = { 67: 'bootps', 69: 'tftp', 4011: 'altserviceboot' }
const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' }

/**
 * What looks as if the firewall of this machine does not let machines in, as one sentence with what to do; undefined if nothing does, or if the rules cannot be read.
 * Rules can ask for more than is understood here, so this is a doubt and no proof.
 */
export async function firewallDoubt(card: string, needed: readonly NeededPort[]): Promise<string | undefined> {
  const nft = await listing('nft', ['list', 'ruleset'])
  if (nft !== undefined) return doubtOf(nft, readNft(nft, card, needed), card)
  const tables = await listing('iptables-save', ['-t', 'filter'])
  return tables === undefined ? undefined : doubtOf(tables, readIptables(tables, card, needed), card)
}

async function listing(program: string, args: readonly string[]): Promise<string | undefined> {
  const options = { env, timeout: FIREWALL_DEADLINE_MS, maxBuffer: FIREWALL_OUTPUT_BYTES }
  return promisify(execFile)(program, args, options).then(
    ({ stdout }) => stdout,
    () => undefined,
  )
}

/** Ports that no rule of `nft list ruleset` lets in, of the tables in which something drops what comes in. */
export function readNft(rules: string, card: string, needed: readonly NeededPort[]): NeededPort[] {
  return rules
    .split(/^(?=table )/m)
    .filter((table) => /^table (ip|inet) /.test(table) && /hook input\b/.test(table))
    .flatMap((table) => {
      const lines = table.split('\n').map((line) => line.trim())
      const drops = /hook input\b[^\n]*policy drop;/.test(table) || lines.some((line) => isBareDrop(line))
      return needed.filter(
        (port) => lines.some((line) => drop.test(line) && names(line, port)) || (drops && !lets(lines, card, port)),
      )
    })
    .filter((port, at, all) => all.indexOf(port) === at)
}

const drop = /\b(drop|reject)\b/

/** The last rule of a chain, as people write it: everything that is left. */
const isBareDrop = (line: string): boolean => /^(counter (packets \d+ bytes \d+ )?)?(drop|reject\b[^;]*)$/.test(line)

function lets(lines: readonly string[], card: string, port: NeededPort): boolean {
  return lines.some((line) => {
    if (!/\baccept$/.test(line.replace(/ comment ".*"$/, '')) || !isOfCard(line, card)) return false
    return names(line, port) || !/\b(dport|sport|ct state|ct status|icmp|icmpv6|l4proto|protocol)\b/.test(line)
  })
}

function isOfCard(line: string, card: string): boolean {
  const [, wanted] = /\biif(?:name)? "?([^"\s]+)"?/.exec(line) ?? []
  return (
    wanted === undefined ||
    wanted === card ||
    wanted === '{' ||
    (wanted.endsWith('*') && card.startsWith(wanted.slice(0, -1)))
  )
}

/** Whether a rule is about a port: `udp dport 67`, `udp dport { 60-70, 4011 }`, `udp dport bootps`. */
function names(line: string, { kind, port }: NeededPort): boolean {
  const [, ofKind, set = ''] = /\b(udp|tcp|th) dport (\{[^}]*\}|\S+)/.exec(line) ?? []
  if (ofKind !== kind && ofKind !== 'th') return false
  return isIn(set.replace(/[{}]/g, ''), port)
}

function isIn(set: string, port: number): boolean {
  return set.split(',').some((one) => {
    const [first = '', last = first] = one.trim().split(/[-:]/)
    return first === NAMES[port] || (Number(first) <= port && port <= Number(last))
  })
}

/** The same of `iptables-save`. */
export function readIptables(rules: string, card: string, needed: readonly NeededPort[]): NeededPort[] {
  const lines = rules.split('\n')
  const drops = /^:INPUT DROP/m.test(rules) || lines.some((line) => /^-A INPUT -j (DROP|REJECT)/.test(line))
  const isAbout = (line: string, { kind, port }: NeededPort): boolean =>
    line.includes(`-p ${kind} `) && isIn(/--dports? (\S+)/.exec(line)?.[1] ?? '', port)
  const isOpen = (line: string): boolean => !/ -p | --ctstate | -m /.test(line)
  const isOfThisCard = (line: string): boolean => !/ -i /.test(line) || line.includes(` -i ${card} `)
  return needed.filter((port) => {
    if (lines.some((line) => / -j (DROP|REJECT)/.test(line) && isAbout(line, port))) return true
    const accepts = lines.filter((line) => /^-A .* -j ACCEPT/.test(line) && isOfThisCard(line))
    return drops && !accepts.some((line) => isAbout(line, port) || isOpen(line))
  })
}

function doubtOf(rules: string, missing: readonly NeededPort[], card: string): string | undefined {
  if (missing.length === 0) return undefined
  const of = (kind: NeededPort['kind']): number[] =>
    missing.filter((port) => port.kind === kind).map(({ port }) => port)
  const shown = (['udp', 'tcp'] as const)
    .filter((kind) => of(kind).length > 0)
    .map((kind) => `${kind.toUpperCase()} ${of(kind).join(', ')}`)
    .join(' and ')
  return `the firewall of this machine seems to drop ${shown} on ${card}. If no machine appears here, let them in: ${remedy(rules, missing, card)}`
}

function remedy(rules: string, missing: readonly NeededPort[], card: string): string {
  if (/\bufw-/.test(rules))
    return missing.map(({ kind, port }) => `\`ufw allow in on ${card} to any port ${port} proto ${kind}\``).join(', ')
  if (/\bfirewalld\b/.test(rules))
    return `\`firewall-cmd ${missing.map(({ kind, port }) => `--add-port=${port}/${kind}`).join(' ')}\``
  return 'rules that accept these ports from that card, before the one that drops'
}
