import assert from 'node:assert/strict'
import { copyFile, open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import { RangeSet, type Run } from '../../protocol/ranges.ts'
import { makeImage } from '../../tools/demo/make-image.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { differing } from './compare-disks.ts'
import { VirtualMachine, type VirtualMachineOptions } from './virtual-machine.ts'

const DISK_BYTES = 48 * 1024 ** 2
const STATE_BYTES = 64 * 1024 ** 2
const SESSIONS = 2

interface ReceiptFacts {
  readonly verified: boolean
  readonly blocks: { readonly dirty: number }
  readonly log: { readonly source: string; readonly state: string; readonly reason: string; readonly missed?: number }
}

/**
 * In a guest: a master publishes /dev/vda, a machine restores /dev/vdb from it and is used through dm-era, first by a
 * hook, then with ext4 on it, until the plug is pulled; after each session it is restored by the log. The disks are compared from outside.
 */
export async function eraScenario(
  parts: Omit<VirtualMachineOptions, 'drives' | 'tell'>,
  work: string,
  random: Random,
): Promise<string> {
  const [image, disk, state] = ['master.img', 'pc.img', 'state.img'].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ]
  await makeImage(image, DISK_BYTES, work)
  await copyFile(image, disk)
  await emptyFileSystem(state, STATE_BYTES)
  const drives = [image, disk, state].map((path) => `file=${path},format=raw`)
  const boot = (step: string): Promise<VirtualMachine> =>
    VirtualMachine.boot({ ...parts, drives, tell: { step, seed: random.below(2 ** 31) } })
  const told: string[] = []
  for (let session = 1; session <= SESSIONS; session++) {
    const guest = await boot('era')
    await checkRestore(guest, session === 1, image, disk, told)
    const { first, again } = await guest.event('hooked')
    assert.deepEqual((first as { hooks?: object }).hooks, { ran: ['10-name'], failed: [] })
    assert.equal((again as { hooks?: object }).hooks, undefined)
    const { refused, restore } = await guest.event('refused')
    assert.match(String((refused as string[])[0]), /not supported/i)
    assert.match(String((refused as string[])[1]), /not supported/i)
    assert.match(String(restore), /is mounted read-write|in use/)
    // The file system was mounted and has written something; the log tells while the device is used.
    const used = await guest.event('used')
    assert.equal(used.state, 'known', String(used.reason))
    assert.ok((used.dirty as Run[]).length > 0)
    assert.equal(used.hostname, 'pc')
    await guest.event('writing')
    await sleep(500 + random.below(4000))
    await guest.kill()
  }
  const guest = await boot('check')
  await checkRestore(guest, false, image, disk, told)
  const again = (await guest.event('again')).receipt as ReceiptFacts
  assert.equal(again.log.state, 'clean')
  assert.equal(again.blocks.dirty, 0)
  await guest.event('done')
  await guest.ended()
  assert.ok((await differing(image, disk, ERA_BLOCK_BYTES)).isEmpty, 'the disk is the image')
  return told.join('; ')
}

/** The log's dirty set holds what differs, and the restore goes by it. */
async function checkRestore(
  guest: VirtualMachine,
  first: boolean,
  image: string,
  disk: string,
  told: string[],
): Promise<void> {
  const changed = await differing(image, disk, ERA_BLOCK_BYTES)
  const log = await guest.event('log')
  const receipt = (await guest.event('receipt')).receipt as ReceiptFacts
  await guest.event('equal')
  assert.ok(receipt.verified)
  assert.equal(receipt.log.source, 'dm-era')
  if (first) return assert.equal(receipt.log.state, 'unknown')
  assert.equal(log.state, 'known', String(log.reason))
  const dirty = RangeSet.from(log.dirty as Run[])
  const missed = changed.subtract(dirty)
  assert.ok(missed.isEmpty, `the log misses blocks ${[...missed.runs()].join(' ')}`)
  assert.ok(!changed.isEmpty, 'the session changed something')
  assert.equal(receipt.log.state, 'dirty')
  assert.equal(receipt.log.missed, undefined)
  assert.equal(receipt.blocks.dirty, dirty.count)
  told.push(`${changed.count} blocks changed, ${dirty.count} in the log (era_invalidate alone: ${String(log.alone)})`)
}

async function emptyFileSystem(path: string, size: number): Promise<void> {
  const file = await open(path, 'w')
  await file.truncate(size)
  await file.close()
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-F', path])
}
