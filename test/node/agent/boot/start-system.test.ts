import { copyFile, mkdir, open, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { linkLocalAddress, readLease } from '../../../../node/agent/boot/agent-network.ts'
import { type StartSystemOptions, startSystem, startUnverified } from '../../../../node/agent/boot/start-system.ts'
import { readLogDoubt } from '../../../../node/agent/log/log-doubt.ts'
import { StateDirectory } from '../../../../node/state/state-directory.ts'
import { MeshError } from '../../../../protocol/errors.ts'
import { Lab } from '../../../../tools/lab/local-lab.ts'
import { Random } from '../../../../tools/lab/random.ts'

const SIZE = 2 * 1024 ** 2

describe('a machine that starts from the agent', () => {
  let lab: Lab
  let options: StartSystemOptions

  beforeAll(async () => {
    lab = await Lab.open()
    const image = lab.path('model.img')
    await writeFile(image, new Random(7).bytes(SIZE))
    await lab.serve('master', ['seed', image, '--image', 'root'])
    const disk = lab.path('pc.img')
    await copyFile(image, disk)
    await lab.ok('pc', ['join', await lab.invite('master'), '--disk', disk, '--name', 'pc'])
    await lab.ok('pc', ['restore'])
    await copyFile(image, lab.path('pc2.img'))
    await lab.ok('pc2', ['join', await lab.invite('master'), '--disk', lab.path('pc2.img'), '--name', 'pc2'])
    const root = lab.path('root')
    await mkdir(root)
    const state = await StateDirectory.open(lab.path('pc'), { create: false, readOnly: true })
    options = {
      stateDir: lab.path('pc'),
      siteId: state.machine!.siteId,
      era: 'lab',
      root,
      listen: ['/ip4/127.0.0.1/tcp/0'],
      mdns: false,
      bringUp: () => Promise.reject(new Error('the network is not needed')),
      signal: new AbortController().signal,
      report: () => undefined,
    }
  }, 60_000)
  afterAll(() => lab.close())

  it('restores a clean disk without the network, and needs a block device for the log', async () => {
    await expect(startSystem(options)).rejects.toMatchObject({ code: 'DISK_NOT_A_DISK' })
  })

  it('brings the network up when something has to be fetched', async () => {
    const file = await open(lab.path('pc.img'), 'r+')
    await file.write(Buffer.alloc(4096, 'x'), 0, 4096, 0)
    await file.close()
    await expect(startSystem(options)).rejects.toThrow('the network is not needed')
  })

  it('refuses the machine of another site, the master, and a machine that has not joined', async () => {
    await expect(startSystem({ ...options, siteId: '0'.repeat(64) })).rejects.toMatchObject({
      code: 'STATE_OTHER_SITE',
    })
    await expect(startSystem({ ...options, stateDir: lab.path('master') })).rejects.toMatchObject({ code: 'USAGE' })
    await expect(startSystem({ ...options, stateDir: lab.path('nobody') })).rejects.toMatchObject({
      code: 'STATE_MISSING',
    })
  })

  it('leaves a disk that is no root of Linux to the firmware, once the logs of other systems are in doubt', async () => {
    // The other system of this computer has a log, as a monitor leaves it.
    const other = await lab.start('pc2', ['monitor', lab.path('pc2.img'), '--nbd', `unix:${lab.path('nbd')}`])
    await other.event('monitoring')
    await other.stop()
    await lab.ok('pc', ['restore'])
    const entry = '\\EFI\\Microsoft\\Boot\\bootmgfw.efi'
    const starts = startSystem({ ...options, entry, variables: lab.path('bios'), others: [lab.path('pc2')] })
    // No machine that runs tests is to be told what to start.
    await expect(starts).rejects.toThrow(`${entry} cannot be started next: this computer was not started by UEFI`)
    const state = await StateDirectory.open(lab.path('pc2'), { create: false })
    try {
      expect(await readLogDoubt(state)).toContain('another system of this computer was started')
    } finally {
      await state.close()
    }
  })

  it('says in a receipt, before anything is mounted, that it starts a disk that is not restored', async () => {
    const why = new MeshError('PEERS_UNREACHABLE', 'no machine of the site could be reached in 45 s')
    // An image file can neither be logged nor does this one hold a file system.
    await expect(startUnverified(options, why)).rejects.toMatchObject({ code: 'BOOT_NO_SYSTEM' })
    const { receipts } = (await lab.ok('pc', ['receipts'])) as unknown as {
      receipts: { verified: boolean; failure: { code: string; message: string } }[]
    }
    const last = receipts.at(-1)
    expect(last).toMatchObject({ verified: false, failure: { code: 'BOOT_UNVERIFIED' } })
    expect(last!.failure.message).toContain('no machine of the site could be reached')
    const state = await StateDirectory.open(lab.path('pc'), { create: false })
    try {
      expect(await readLogDoubt(state)).toContain('the system was started without the log')
    } finally {
      await state.close()
    }
  })
})

describe('the network of the agent', () => {
  it.each([
    ['192.168.7.20/24 192.168.7.1\n', { address: '192.168.7.20/24', gateway: '192.168.7.1' }],
    ['10.0.2.15/24 \n', { address: '10.0.2.15/24', gateway: undefined }],
    ['', undefined],
    ['10.0.2.15/24 x; reboot', undefined],
  ])('reads the lease %j', (text, lease) => {
    expect(readLease(text)).toEqual(lease)
  })

  it('takes a link-local address that may be used, the same each time', () => {
    expect(linkLocalAddress('52:54:00:12:34:56')).toBe('169.254.53.86/16')
    for (let byte = 0; byte < 256; byte++) {
      const [, , third] = linkLocalAddress(`52:54:00:12:${byte.toString(16).padStart(2, '0')}:ff`).split('.')
      expect(Number(third)).toBeGreaterThanOrEqual(1)
      expect(Number(third)).toBeLessThanOrEqual(254)
    }
  })
})
