import { chmod, mkdir, open, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it, onTestFinished, type TestContext, vi } from 'vitest'
import { layOutDisk, partitionNode, showPartitions } from '../../../../node/agent/boot/lay-out-disk.ts'
import { contentOf } from '../../../../node/disk/blank-disk.ts'
import type { BlockDevice } from '../../../../node/disk/block-device.ts'
import { openDevice } from '../../../../node/disk/file-device.ts'
import { type DiskPlan, planDisk } from '../../../../node/disk/plan-disk.ts'
import { type DiskLayout, PARTITION_TYPES } from '../../../../protocol/disk-layout.ts'
import { MeshError } from '../../../../protocol/errors.ts'
import { runTool } from '../../../../tools/lab/run-tool.ts'
import { attachLoop, orSkip } from '../../../support/real-devices.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const MIB = 1024 ** 2
const LAYOUT: DiskLayout = {
  esp: 128 * MIB,
  state: 64 * MIB,
  partitions: [
    { image: 'root', label: 'root', type: PARTITION_TYPES.root, size: 8 * MIB, grow: true },
    {
      image: 'win',
      label: 'Windows – ä',
      type: PARTITION_TYPES.windows,
      size: 4 * MIB,
      grow: false,
      uuid: '1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11',
    },
  ],
}
const SIZE = 256 * MIB
const LOADER = { code: Buffer.alloc(440, 'code'), core: Buffer.alloc(70_000, 'core') }
/** Writes to the disk that still come through; the plug is pulled at the next one. */
const power = vi.hoisted(() => ({ writes: Number.POSITIVE_INFINITY, flushed: [] as string[] }))

vi.mock('../../../../node/disk/file-device.ts', async (original) => {
  const real = await original<{ openDevice: typeof openDevice }>()
  const wrapped = async (...args: Parameters<typeof openDevice>): Promise<BlockDevice> => {
    const device = await real.openDevice(...args)
    if (!args[1].writable) return device
    return new Proxy(device, {
      get: (target, name) => {
        if (name === 'write')
          return async (at: number, data: Uint8Array) => {
            if (power.writes-- <= 0) throw new MeshError('DISK_IO', 'the plug was pulled')
            power.flushed.push(`write ${at}`)
            return target.write(at as Parameters<BlockDevice['write']>[0], data)
          }
        if (name === 'flush') power.flushed.push('flush')
        const value: unknown = Reflect.get(target, name)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
  }
  return { ...real, openDevice: wrapped }
})

beforeEach(() => {
  power.writes = Number.POSITIVE_INFINITY
  power.flushed = []
})

async function diskOf(
  context: TestContext,
  sectorBytes = 512,
): Promise<{ device: string; plan: DiskPlan; state: string }> {
  const here = await temporaryDirectory()
  const file = join(here, 'disk.img')
  await writeFile(file, '')
  await truncate(file, SIZE)
  const state = join(here, 'state')
  await mkdir(state, { mode: 0o700 })
  await writeFile(join(state, 'identity.pem'), 'key', { mode: 0o600 })
  for (const tool of ['mke2fs', 'mkfs.vfat', 'sfdisk']) await orSkip(context, 'which', [tool])
  const device = await attachLoop(file, context, { sectorBytes })
  return { device, plan: planDisk(LAYOUT, { path: device, size: SIZE, sectorBytes }), state }
}

async function holds(path: string): Promise<string | undefined> {
  const device = await openDevice(path, { writable: false })
  return contentOf(device).finally(() => device.close())
}

/** Not every kernel of a container shows the partitions of a GPT, so they are looked at as devices of their own. */
async function expectComplete(device: string, { partitions, sectorBytes }: DiskPlan): Promise<void> {
  const [esp, state] = partitions.slice(0, 2).map(async ({ offset, size }) => {
    const place = ['--offset', String(offset), '--sizelimit', String(size), '--sector-size', String(sectorBytes)]
    const part = (await runTool('losetup', ['--find', '--show', '--read-only', ...place, device])).trim()
    onTestFinished(async () => void (await runTool('losetup', ['--detach', part])))
    return part
  }) as [Promise<string>, Promise<string>]
  await runTool('fsck.fat', ['-n', await esp])
  await runTool('e2fsck', ['-f', '-n', await state])
  expect(await runTool('debugfs', ['-R', 'cat /identity.pem', await state])).toBe('key')
  expect(await runTool('debugfs', ['-R', 'stat /identity.pem', await state])).toContain('Mode:  0600')
}

describe('laying out a disk', () => {
  it.for([512, 4096])('makes what other programs read, on sectors of %i bytes', async (sectorBytes, context) => {
    const { device, plan, state } = await diskOf(context, sectorBytes)
    await layOutDisk(device, plan, { stateDir: state, loader: LOADER })
    await expectComplete(device, plan)
    const said = String(await runTool('sfdisk', ['--verify', device]))
    expect(said).toContain('No errors detected')
    const { partitiontable: table } = JSON.parse(String(await runTool('sfdisk', ['--json', device]))) as {
      partitiontable: { label: string; id: string; partitions: Record<string, string | number>[] }
    }
    expect(table.label).toBe('gpt')
    expect(table.id).toBe(plan.guid.toUpperCase())
    const rest = SIZE - 2 * MIB - (128 + 64 + 4) * MIB
    const upper = (text: string) => text.toUpperCase()
    expect(table.partitions).toEqual(
      [
        { at: MIB, bytes: 128 * MIB, type: 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b', name: 'lab-esp' },
        { at: 129 * MIB, bytes: 64 * MIB, type: PARTITION_TYPES.linux, name: 'lab-state' },
        { at: 193 * MIB, bytes: rest, type: PARTITION_TYPES.root, name: 'root' },
        { at: 193 * MIB + rest, bytes: 4 * MIB, type: PARTITION_TYPES.windows, name: 'Windows – ä' },
        // No BIOS starts from other sectors.
        ...(sectorBytes === 512
          ? [{ at: 65_536, bytes: MIB - 65_536, type: '21686148-6449-6e6f-744e-656564454649', name: 'lab-bios' }]
          : []),
      ].map(({ at, bytes, type, name }, i) => ({
        node: partitionNode(device, plan.partitions[i]!.number),
        start: at / sectorBytes,
        size: bytes / sectorBytes,
        type: upper(type),
        uuid: upper(plan.partitions[i]!.uuid),
        name,
      })),
    )
    expect(plan.partitions[3]!.uuid).toBe('1b0f3f6c-4a3e-4b0f-9a3c-0d8a1f6e2c11')
    expect(await holds(device)).toBe(`GPT with ${plan.partitions.length} partitions: vfat, ext4`)
    const first = Buffer.alloc(65_536 + LOADER.core.byteLength)
    await using file = await open(device)
    await file.read(first, 0, first.byteLength, 0)
    const isThere = sectorBytes === 512
    expect(first.subarray(0, 440).equals(LOADER.code)).toBe(isThere)
    expect(first.subarray(65_536).equals(LOADER.core)).toBe(isThere)
    // A loop device that was not attached for it shows no partitions.
    await expect(showPartitions(device, plan)).rejects.toMatchObject({ code: 'LAYOUT_FAILED' })
  })

  it('leaves a disk that counts as blank wherever it is cut short, and is complete when it is run again', async (context) => {
    const { device, plan, state } = await diskOf(context)
    // A disk that held something.
    await runTool('sgdisk', ['-n', '1:2048:4095', device])
    const before = await holds(device)
    expect(before).toContain('GPT')
    await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', '-E', `offset=${plan.partitions[3]!.offset}`, device, '2048k'])
    const begins: (string | undefined)[] = []
    for (let writes = 0; ; writes++) {
      power.writes = writes
      const failure = await layOutDisk(device, plan, { stateDir: state, loader: LOADER }).then(
        () => undefined,
        (error: unknown) => error,
      )
      begins.push(await holds(device))
      if (failure === undefined) break
      expect(failure).toMatchObject({ code: 'DISK_IO' })
    }
    // Before the first write the disk is what it was, after the last one it is complete.
    expect(begins).toEqual([
      before,
      ...Array.from({ length: 15 }, () => undefined),
      'GPT with 5 partitions: vfat, ext4',
    ])
    await expectComplete(device, plan)
    const last = power.flushed.slice(-4)
    expect(last).toEqual([expect.stringMatching(/^write [1-9]/), 'flush', 'write 0', 'flush'])
  })

  it('says which program failed, and leaves a disk that counts as blank, and no loop device', async (context) => {
    const { device, plan, state } = await diskOf(context)
    const shims = join(await temporaryDirectory(), 'bin')
    await mkdir(shims)
    const { PATH } = process.env
    onTestFinished(() => {
      process.env.PATH = PATH
    })
    process.env.PATH = `${shims}:${PATH}`
    for (const tool of ['mkfs.vfat', 'mke2fs', 'losetup']) {
      await writeFile(join(shims, tool), '#!/bin/sh\necho it is broken >&2\nexit 1\n')
      await chmod(join(shims, tool), 0o755)
      const failed = layOutDisk(device, plan, { stateDir: state, loader: LOADER })
      await expect(failed).rejects.toMatchObject({ code: 'LAYOUT_FAILED', exitCode: 3 })
      await expect(failed).rejects.toThrow(/it is broken/)
      await writeFile(join(shims, tool), `#!/bin/sh\nPATH=${PATH} exec ${tool} "$@"\n`)
      expect(await holds(device)).toBeUndefined()
      expect(await runTool('losetup', ['--associated', device])).toBe('')
    }
    await layOutDisk(device, plan, { stateDir: state, loader: LOADER })
    await expectComplete(device, plan)
  })

  it('refuses a disk that is in use, and one that is too small', async (context) => {
    const { device, plan, state } = await diskOf(context)
    const handle = await open(device, 'r+')
    try {
      await runTool('mke2fs', ['-q', '-F', '-t', 'ext4', device])
      const place = join(await temporaryDirectory(), 'mnt')
      await mkdir(place)
      await orSkip(context, 'mount', [device, place])
      try {
        await expect(layOutDisk(device, plan, { stateDir: state, loader: LOADER })).rejects.toMatchObject({
          code: 'DISK_MOUNTED',
        })
      } finally {
        await runTool('umount', [place])
      }
      const small = { path: device, size: 205 * MIB, sectorBytes: 512 }
      expect(() => planDisk(LAYOUT, small)).toThrow(
        expect.objectContaining({ code: 'DISK_TOO_SMALL', detail: expect.objectContaining({ needed: 206 * MIB }) }),
      )
      expect(planDisk(LAYOUT, { ...small, size: 206 * MIB }).partitions[2]!.size).toBe(8 * MIB)
    } finally {
      await handle.close()
    }
    expect(await readFile(join(state, 'identity.pem'), 'utf8')).toBe('key')
  })
})
