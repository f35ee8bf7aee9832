import type { KeysChanged } from '../../node/agent/site/change-keys.ts'
import type { SiteShown } from '../../node/agent/site/show-site.ts'
import { shortKeyId } from '../../protocol/key-code.ts'
import { formatTime } from '../../protocol/local-time.ts'
import { formatTable } from './format.ts'

/** The keys of a site, for people. */
export function describeSite({ site, siteId, name, role, masters, members, roles, unused, advice }: SiteShown): string {
  const facts: [string, string][] = [
    ['site', site],
    ['site id', siteId],
    ['this is', `${name} (${role})`],
    ...masters.map((one): [string, string] => ['master', `${one.name}, peer id ${one.id}`]),
    ['members', String(members)],
  ]
  const table = formatTable([
    ['role', 'signs', 'keys needed', 'version', 'valid until', 'key', ''],
    ...roles.flatMap(({ role: own, signs, version, expires, state, threshold, keys }) =>
      keys.map(({ id, here }, at) => [
        ...(at === 0
          ? [own, signs, `${threshold} of ${keys.length}`, String(version), `${formatTime(expires)}${STATES[state]}`]
          : ['', '', '', '', '']),
        shortKeyId(id),
        here ? 'here' : 'elsewhere',
      ]),
    ),
  ])
  const spare = unused.map((id) => `The key ${shortKeyId(id)} is here, and signs nothing.`)
  return [
    ...facts.map(([what, value]) => `${what.padEnd(10)}${value}`),
    '',
    table,
    ...(spare.length + advice.length === 0 ? [] : ['', ...spare, ...advice.map((one) => `To do: ${one}.`)]),
  ].join('\n')
}

const STATES = { valid: '', soon: ' (soon)', expired: ' (EXPIRED)' } as const

/** What became of the keys of a role, for people. */
export function describeRotated(
  { role, keys, threshold, root, dryRun }: KeysChanged,
  files: readonly string[],
): string {
  if (keys.length === 0) return `The ${role} role is taken back. What it has published stays, and is signed by targets.`
  if (dryRun) return `The ${role} role could get new keys; everything was signed and checked, and nothing was kept.`
  const where = files.length === 0 ? 'is on this master' : `are in ${files.join(', ')}, and nowhere else`
  const needed = keys.length === 1 ? 'It signs' : `${threshold} of them must sign`
  return [
    `The ${role} role has ${keys.length === 1 ? 'a new key' : `${keys.length} new keys`}: ${keys.map(shortKeyId).join(', ')}. ${needed} from root version ${root} on.`,
    `${keys.length === 1 && files.length === 1 ? `It is in ${files[0]}, and nowhere else` : `${keys.length === 1 ? 'It' : 'They'} ${where}`}. The keys before sign nothing any more.`,
  ].join('\n')
}
