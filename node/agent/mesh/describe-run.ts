import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import type { RunningNode } from '../../../protocol/message-parts.ts'
import { describeDisk } from '../../disk/known-disk.ts'
import { macAddresses } from '../machine/mac-addresses.ts'
import type { Machine } from '../machine/machine.ts'

/** UTF-8 takes up to three bytes a UTF-16 unit. */
const MAX_TEXT_CHARACTERS = MAX_TEXT_BYTES / 4

/** What this process says of itself to other machines: a number that no other has, and which computer it is. */
export async function describeRun({ config }: Pick<Machine, 'config'>): Promise<RunningNode> {
  const { disk, diskIdentity } = config
  const known = disk === undefined || diskIdentity === undefined ? disk : describeDisk(disk, diskIdentity)
  return {
    instance: randomBytes(8).toString('hex'),
    host: clean(hostname()),
    disk: clean(known ?? ''),
    mac: await macAddresses(),
    addresses: [],
  }
}

function clean(text: string): string {
  return text.replace(/\p{C}/gu, ' ').slice(0, MAX_TEXT_CHARACTERS)
}
