import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { agentFirst, bootNext } from '../../../../node/agent/boot/boot-next.ts'
import { parseBootMenu } from '../../../../node/agent/boot/firmware.ts'
import { runTool } from '../../../../tools/lab/run-tool.ts'
import { codeOf } from '../../../support/error-code.ts'
import { attachLoop } from '../../../support/real-devices.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const GUID = '8be4df61-93ca-11d2-aa0d-00e098032b8c'
const WINDOWS = '\\EFI\\Microsoft\\Boot\\bootmgfw.efi'

/** A load option (UEFI Specification 2.10, section 3.1.3) for a program on the first partition of some disk. */
function loadOption(label: string, path: string): Buffer {
  const utf16 = (text: string): Buffer => Buffer.from(`${text}\0`, 'utf16le')
  const drive = Buffer.alloc(42)
  drive.set([4, 1, 42, 0, 1, 0, 0, 0])
  drive.writeBigUInt64LE(2048n, 8)
  drive.writeBigUInt64LE(204800n, 16)
  drive.fill(7, 24, 40)
  drive.set([2, 2], 40)
  const file = Buffer.concat([Buffer.from([4, 4, 0, 0]), utf16(path)])
  file.writeUInt16LE(file.byteLength, 2)
  const places = Buffer.concat([drive, file, Buffer.from([0x7f, 0xff, 4, 0])])
  const head = Buffer.from([1, 0, 0, 0, 0, 0])
  head.writeUInt16LE(places.byteLength, 4)
  return Buffer.concat([head, utf16(label), places])
}

/** The variables of a firmware, as files; efibootmgr takes them from there. */
async function firmware(order: readonly number[], entries: Readonly<Record<string, Buffer>>, current = 0) {
  const variables = await temporaryDirectory()
  const file = (name: string): string => join(variables, `${name}-${GUID}`)
  const put = (name: string, content: Buffer): Promise<void> =>
    writeFile(file(name), Buffer.concat([Buffer.from([7, 0, 0, 0]), content]))
  const numbers = (...all: number[]): Buffer => Buffer.from(Uint16Array.from(all).buffer)
  await put('BootOrder', numbers(...order))
  await put('BootCurrent', numbers(current))
  for (const [number, option] of Object.entries(entries)) await put(`Boot${number}`, option)
  vi.stubEnv('EFIVARFS_PATH', `${variables}/`)
  vi.stubEnv('LIBEFIVAR_OPS', 'efivarfs')
  const read = async (name: string): Promise<number[]> => [
    ...new Uint16Array(Uint8Array.from((await readFile(file(name))).subarray(4)).buffer),
  ]
  return { variables, read }
}

const agent = loadOption('lab-mesh agent A', '\\EFI\\mesh\\agent-a.efi')
const windows = loadOption('Windows Boot Manager', WINDOWS)

describe('a system that the firmware starts next', () => {
  afterEach(() => void vi.unstubAllEnvs())

  it('is found by the path of its program or by its label, and the agent stays first', async () => {
    for (const entry of [WINDOWS, '/efi/microsoft/boot/BOOTMGFW.EFI', 'windows boot manager']) {
      const { variables, read } = await firmware([0, 1], { '0000': agent, '0001': windows })
      expect(await bootNext({ entry, variables })).toMatchObject({ number: '0001', label: 'Windows Boot Manager' })
      expect(await read('BootNext')).toEqual([1])
      expect(await read('BootOrder')).toEqual([0, 1])
    }
  })

  it('does not stay first in the order, where it has put itself', async () => {
    const other = loadOption('lab-mesh agent B', '\\EFI\\mesh\\agent-b.efi')
    const { variables, read } = await firmware([1, 0, 2], { '0000': agent, '0001': windows, '0002': other }, 2)
    await bootNext({ entry: WINDOWS, variables })
    expect(await read('BootOrder')).toEqual([2, 1, 0])
    expect(await read('BootNext')).toEqual([1])
  })

  it('finds the agent first, whose entry the firmware has left out of the order', async () => {
    const { variables, read } = await firmware([1], { '0000': agent, '0001': windows }, 1)
    await bootNext({ entry: WINDOWS, variables })
    expect(await read('BootOrder')).toEqual([0, 1])
  })

  it('is refused where there is no entry, or no UEFI', async () => {
    const { variables } = await firmware([0], { '0000': agent })
    expect(await codeOf(bootNext({ entry: 'Windows Boot Manager', variables }))).toBe('BOOT_NO_SYSTEM')
    const bios = join(variables, 'none')
    await expect(bootNext({ entry: WINDOWS, variables: bios })).rejects.toThrow('was not started by UEFI')
  })

  it('is read from what both versions of efibootmgr print', () => {
    const text = (path: string): string =>
      `BootNext: 0003\nBootCurrent: 0001\nTimeout: 1 seconds\nBootOrder: 0001,0003\nBoot0001* mesh agent\tHD(1,GPT,aa,0x800,0x32000)/${path.replace('X', 'EFI\\mesh\\agent.efi')}\nBoot0003  Windows Boot Manager\tHD(1,GPT,aa,0x800,0x32000)/${path.replace('X', 'EFI\\Microsoft\\Boot\\bootmgfw.efi')}57494e444f5753\n`
    for (const path of ['File(\\X)', '\\X']) {
      const menu = parseBootMenu(text(path))
      expect(menu).toMatchObject({ order: ['0001', '0003'], current: '0001', next: '0003' })
      expect(menu.entries.map(({ number, label }) => [number, label])).toEqual([
        ['0001', 'mesh agent'],
        ['0003', 'Windows Boot Manager'],
      ])
      expect(menu.entries[1]!.path).toContain(WINDOWS)
    }
    expect(parseBootMenu('No BootOrder is set; firmware will attempt recovery\n')).toMatchObject({ order: [] })
  })

  it('leaves the order alone on a machine that starts the agent over the network', () => {
    const entries = [{ number: '0001', label: 'UEFI PXEv4', path: 'PciRoot(0x0)/MAC(52540012,1)/IPv4(0.0.0.0)' }]
    expect(agentFirst({ entries, order: ['0001', '0002'], current: '0001', next: undefined })).toBeUndefined()
    expect(agentFirst({ entries, order: [], current: undefined, next: undefined })).toBeUndefined()
  })

  it('gets an entry, out of the order, if it has none: its program is looked for on partitions with FAT', async (context) => {
    const folder = await temporaryDirectory()
    const at = (name: string): string => join(folder, name)
    await runTool('truncate', ['-s', '64M', at('disk.img')])
    await runTool('sgdisk', ['-n', '1:0:+1M', '-n', '2:0:+40M', '-t', '2:ef00', at('disk.img')])
    // The partitions are devices of their own here: the kernel of a test machine may not look for any on loop devices.
    const disk = await attachLoop(at('disk.img'), context)
    for (const [number, program] of [
      ['1', 'other.efi'],
      ['2', 'start.efi'],
    ] as const) {
      await runTool('truncate', ['-s', '1M', at(number)])
      await runTool('mkfs.fat', [at(number)])
      await mkdir(at(`tree${number}/EFI/Lab`), { recursive: true })
      await writeFile(at(`tree${number}/EFI/Lab/${program}`), 'program')
      if (number === '2') await mkdir(at('tree2/EFI/mesh'))
      if (number === '2') await writeFile(at('tree2/EFI/mesh/agent-b.efi'), 'agent')
      await runTool('mcopy', ['-s', '-i', at(number), at(`tree${number}/EFI`), '::'])
      await mkdir(at(`sys/disk/disk${number}`), { recursive: true })
      await writeFile(at(`sys/disk/disk${number}/partition`), `${number}\n`)
      for (const place of ['class', 'dev']) await mkdir(at(place), { recursive: true })
      await symlink(at(`sys/disk/disk${number}`), at(`class/disk${number}`))
      await symlink(await attachLoop(at(number), context), at(`dev/disk${number}`))
    }
    await symlink(disk, at('dev/disk'))
    // Not every kernel of a test machine has FAT: mtools reads it in its place.
    await mkdir(at('bin'))
    const programs = { mount: 'mcopy -s -n -i "$5" "::*" "$6"', umount: 'rm -r "$1"/*' }
    for (const [name, line] of Object.entries(programs))
      await writeFile(at(`bin/${name}`), `#!/bin/sh\n${line}\n`, { mode: 0o755 })
    vi.stubEnv('PATH', `${at('bin')}:${process.env.PATH}`)
    const places = { partitions: at('class'), devices: at('dev'), mount: at('mounted') }
    const { variables, read } = await firmware([0], { '0000': agent })
    const made = await bootNext({ entry: '\\EFI\\Lab\\start.efi', variables, places })
    expect(made).toMatchObject({ number: '0001', label: 'lab-mesh start.efi' })
    expect(made.path).toMatch(/^HD\(2,GPT,/)
    expect([await read('BootNext'), await read('BootOrder')]).toEqual([[1], [0]])
    const missing = bootNext({ entry: '/EFI/none.efi', variables, places })
    await expect(missing).rejects.toThrow('no EFI system partition has \\EFI\\none.efi')

    // Firmware that was reset knows nothing of the agent, which is on that partition, too.
    const reset = await firmware([1], { '0001': windows }, 1)
    await bootNext({ entry: WINDOWS, variables: reset.variables, places })
    expect([await reset.read('BootNext'), await reset.read('BootOrder')]).toEqual([[1], [0, 1]])
    const own = await readFile(join(reset.variables, `Boot0000-${GUID}`))
    expect(own.includes(Buffer.from('lab-mesh agent B', 'utf16le'))).toBe(true)
  })
})
