import { ATTACKS } from './attacks.ts'
import { HostileMember } from './hostile-member.ts'

/** A hostile member as a process of its own: `attacker.ts STATE ADDRESS TARGETS TOKEN ATTACK`; TARGETS is JSON, addresses by name. */
const [state = '', address = '', targets = '{}', token = '', attack = ''] = process.argv.slice(2)
process.on('unhandledRejection', () => undefined)
const evil = await HostileMember.start(state, address, JSON.parse(targets) as Record<string, string>, token)
await ATTACKS[attack]!(evil)
await evil.connect()
process.stdout.write('ready\n')
