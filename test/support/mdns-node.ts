import { MeshHost } from '../../node/net/host.ts'
import { loadOrCreateMachineKey } from '../../node/trust/machine-key.ts'

/** Child process of the multicast test: listens at addresses, prints its own id, whom it finds by `tag`, and whom it is connected to. */
const [keyFile = '', addresses = '', tag = ''] = process.argv.slice(2)
const key = await loadOrCreateMachineKey(keyFile)
const host = await MeshHost.start({ key, listen: addresses.split(','), gate: { admits: () => true }, mdnsTag: tag })
host.onConnect((peerId) => process.stdout.write(`connected ${peerId}\n`))
host.onDiscover((peerId, found) => {
  process.stdout.write(`found ${peerId} ${found.join(' ')}\n`)
  host.connect(peerId, found).catch(() => undefined)
})
process.stdout.write(`self ${key.id}\n`)
