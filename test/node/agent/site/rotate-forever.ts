import { openSite } from '../../../../node/agent/release/open-site.ts'
import { changeKeys } from '../../../../node/agent/site/change-keys.ts'
import { SITE_ROLES } from '../../../../node/trust/site-keys.ts'

/** Child process of the crash test: makes the state directory given a master, and gives its roles new keys without end. Prints `root N` after each. */
const stateDir = process.argv[2] ?? ''
const machine = await openSite(stateDir, { listen: [] }, { report: () => undefined, command: 'site rotate' })
process.stdout.write('begun\n')
for (let at = 0; ; at++) {
  const role = SITE_ROLES[at % SITE_ROLES.length]!
  const { root } = await changeKeys(machine, {
    change: 'rotate',
    role,
    given: [],
    next: [],
    threshold: 1,
    dryRun: false,
  })
  process.stdout.write(`root ${root}\n`)
}
