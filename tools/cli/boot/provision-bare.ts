import { cp, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AgentNetwork } from '../../../node/agent/boot/agent-network.ts'
import { BareDisk } from '../../../node/agent/boot/bare-disk.ts'
import { showPartitions } from '../../../node/agent/boot/lay-out-disk.ts'
import { provision } from '../../../node/agent/boot/provision.ts'
import type { AgentOptions } from '../../../node/agent/machine/options.ts'
import { digestFromHex } from '../../../protocol/digest.ts'
import { BIOS_LOADER } from '../../boot/boot-scripts.ts'
import type { BootScreen } from '../screen/boot-screen.ts'

/** Where a bare machine keeps what it becomes, until its disk is laid out. */
const BARE_STATE = '/run/lab-mesh/bare'

/** What a bare machine is provisioned with. */
interface ProvisionBareOptions extends AgentOptions {
  /** Hexadecimal. */
  readonly siteId: string
  readonly master: readonly string[]
  /** The disk to lay out; default: the only one. */
  readonly disk: string | undefined
  readonly network: AgentNetwork
  readonly screen: BootScreen
}

/** From a bare disk to one with a state partition, after somebody has let the machine in. Errors: those of {@link provision}, of the disks and of the layout. */
export async function provisionBare(options: ProvisionBareOptions): Promise<void> {
  const { disk: named, network, screen, siteId, stateDir, report } = options
  const disk = await BareDisk.find(named)
  screen.show({ at: 'looking' })
  await network.bringUp()
  const enrolled = await provision({
    ...options,
    stateDir: BARE_STATE,
    siteId: digestFromHex(siteId)!,
    disk,
    loader: { code: await readFile(BIOS_LOADER.code), core: await readFile(BIOS_LOADER.core) },
    laying: async () => {
      screen.show({ at: 'laying' })
      // The leases, which were written before there was a state.
      await cp(join(stateDir, 'boot'), join(BARE_STATE, 'boot'), { recursive: true }).catch(() => undefined)
    },
  })
  await showPartitions(disk.disk.path, disk.plan)
  const { name, group } = enrolled
  report({ type: 'note', text: `this machine is ${name}, group ${group}; ${disk.disk.path} is laid out` })
}
