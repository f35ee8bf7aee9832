import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { readLogConfig } from '../../node/agent/log/log-config.ts'
import { peekLog } from '../../node/agent/log/log-peek.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { makeImage } from '../../tools/demo/make-image.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { differing } from './compare-disks.ts'
import { VirtualMachine, type VirtualMachineOptions } from './virtual-machine.ts'

const DISK_BYTES = 48 * 1024 ** 2
const SESSIONS = 3

/**
 * The guest's disk is served by `mesh monitor` here; it mounts ext4 on it and writes until it is killed, and in every other
 * session the monitor is killed before it. Then the disk is restored by the log.
 */
export async function nbdScenario(
  parts: Omit<VirtualMachineOptions, 'drives' | 'tell'> & { readonly lab: Lab },
  random: Random,
): Promise<string> {
  const { lab } = parts
  const [image, disk, socket] = [lab.path('model.img'), lab.path('pc.img'), lab.path('nbd.sock')]
  await makeImage(image, DISK_BYTES, lab.dir)
  await lab.serve('master', ['seed', image])
  await makeEmpty(disk)
  await lab.ok('pc', ['join', await lab.invite('master'), '--disk', disk, '--name', 'pc'])
  const told: string[] = []
  for (let session = 0; session <= SESSIONS; session++) {
    const monitor = await lab.start('pc', ['monitor', disk, '--nbd', `unix:${socket}`])
    await monitor.event('monitoring')
    const killMonitor = session % 2 === 0
    if (session > 0) {
      const drive = `driver=nbd,server.type=unix,server.path=${socket},export=pc.img`
      const guest = await VirtualMachine.boot({
        ...parts,
        drives: [drive],
        tell: { step: 'nbd', seed: random.below(2 ** 31) },
      })
      await guest.event('writing')
      await sleep(200 + random.below(4000))
      if (killMonitor) await monitor.stop('SIGKILL')
      await guest.kill()
    }
    await monitor.stop()
    const changed = await differing(image, disk, GRANULE_SIZE_BYTES)
    const log = await peekLog((await readLogConfig(lab.path('pc')))!, disk)
    const receipt = await lab.ok('pc', ['restore'])
    assert.ok((await differing(image, disk, GRANULE_SIZE_BYTES)).isEmpty, 'the disk is the image')
    if (session === 0) continue
    assert.equal(log.state, 'known')
    if (log.state !== 'known') continue
    const missed = changed.subtract(log.dirty)
    assert.ok(missed.isEmpty, `the log misses granules ${[...missed.runs()].join(' ')}`)
    assert.ok(!changed.isEmpty, 'the session changed something')
    const { source, state, reason } = receipt.log as Record<string, unknown>
    assert.deepEqual({ source, state, reason }, { source: 'nbd', state: 'dirty', reason: '' })
    told.push(
      `${changed.count} granules changed, ${log.dirty.count} in the log${killMonitor ? ' (monitor killed)' : ''}`,
    )
  }
  return told.join('; ')
}

async function makeEmpty(path: string): Promise<void> {
  const { open } = await import('node:fs/promises')
  const file = await open(path, 'w')
  await file.truncate(DISK_BYTES)
  await file.close()
}
