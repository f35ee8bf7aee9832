import { join } from 'node:path'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { makeManifest, makeSite } from '../../support/site.ts'

/**
 * Child process of the crash test: in the directory given it makes a site, then publishes, enrols and refreshes a
 * second store without end. Prints `published N`, `refreshed N` when each is said to be durable.
 */
const dir = process.argv[2] ?? ''
process.stdout.write('begun\n')
const { signer, trust } = await makeSite(dir)
const machineDir = join(dir, 'machine')
const machine = await TrustStore.open(machineDir).catch(() =>
  TrustStore.join(machineDir, trust.siteId, (name) => trust.file(name)),
)
for (;;) {
  const release = (trust.view().newest('win')?.release ?? 0) + 1
  await signer.publish(makeManifest({ release }))
  process.stdout.write(`published ${release}\n`)
  const member = {
    id: `id-${release % 5}`,
    name: `pc-${release}`,
    role: 'machine',
    site: 'lab',
    group: 'lab',
    mac: [],
    added: 'now',
  } as const
  const enrolled = signer.addMember(member)
  await machine.refresh((name) => trust.file(name))
  process.stdout.write(`refreshed ${release}\n`)
  await enrolled
}
