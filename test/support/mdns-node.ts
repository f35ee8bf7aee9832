import { MeshHost } from '../../node/net/host.ts'
import { loadOrCreateMachineKey } from '../../node/trust/machine-key.ts'

/** Child process of the multicast test: listens at an address, prints its own id and whom it finds by `tag`. */
const [keyFile = '', address = '', tag = ''] = process.argv.slice(2)
const key = await loadOrCreateMachineKey(keyFile)
const host = await MeshHost.start({ key, listen: [address], gate: { admits: () => true }, mdnsTag: tag })
host.onDiscover((peerId, addresses) => process.stdout.write(`found ${peerId} ${addresses.join(' ')}\n`))
process.stdout.write(`self ${key.id}\n`)
