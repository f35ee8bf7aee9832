import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFile, open, readFile, writeFile } from 'node:fs/promises'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { whichProgram } from '../../tools/boot/build-tool.ts'
import { makeEfiImage } from '../../tools/boot/efi-image.ts'
import { FileTree } from '../../tools/boot/file-tree.ts'
import { addModules } from '../../tools/boot/kernel-modules.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { copyRange, makeAgent, makeSystem, ROOT_BYTES } from './boot-scenario.ts'
import { differing } from './compare-disks.ts'
import { makeDisk, makeStatePartition, prepareMachine } from './prepared-disk.ts'
import { type GuestEvent, VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
const [ESP_BYTES, STATE_BYTES, NTFS_BYTES] = [176 * MIB, 64 * MIB, 32 * MIB]
const OVMF = '/usr/share/OVMF'
const LOADER = '\\EFI\\Microsoft\\Boot\\bootmgfw.efi'
/** Firmware twice, a kernel twice, and Node under emulation, on a machine that does other things. */
const DEADLINE_MS = 600_000
/** Long enough for a key that is sent as soon as the question is seen. */
const CHOICE_WAIT = '20s'

/**
 * Stands for Windows: says what it finds on its partition, writes a file there with a driver of NTFS, and switches off. With
 * `mesh.takes=first` it puts itself first in the firmware’s order, as an update of Windows does.
 */
const WINDOWS_INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp
modprobe -a virtio_pci virtio_blk efivarfs
until [ -e /dev/vda4 ]; do sleep 0.1; done
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
sha=$(sha256sum /dev/vda4 | cut -d ' ' -f 1)
current=$(efibootmgr | sed -n 's/^BootCurrent: //p')
label=$(efibootmgr | sed -n "s/^Boot$current[* ] \\([^\\t]*\\).*/\\1/p")
case "$(cat /proc/cmdline)" in *mesh.takes=first*)
  order=$(efibootmgr | sed -n 's/^BootOrder: //p')
  efibootmgr -q -o "$current,$order"
  ;;
esac
head -c 300000 /dev/urandom >/tmp/profile
ntfscp -q /dev/vda4 /tmp/profile profile.dat && written=yes
sync
echo
echo "@@ {\\"event\\":\\"windows\\",\\"sha256\\":\\"$sha\\",\\"label\\":\\"$label\\",\\"written\\":\\"$written\\"}"
sleep 1
poweroff -f
`
const APPLETS = ['cat', 'cut', 'head', 'mkdir', 'modprobe', 'mount', 'poweroff', 'sed', 'sha256sum', 'sleep', 'sync']

interface Parts {
  readonly kernel: KernelFiles
  readonly lab: Lab
}

/**
 * Linux and a stand-in for Windows on one computer with UEFI. The agent asks which is to start; Linux starts without an answer. Windows is put
 * back byte for byte, started by the firmware once, and the agent is first again. Then Windows puts itself first.
 */
export async function windowsScenario({ kernel, lab }: Parts, random: Random): Promise<string> {
  const { disk, esp, ntfs, ntfsAt, rootAt, root, agent } = await makeComputer({ kernel, lab }, random)
  const expected = createHash('sha256')
    .update(await readFile(ntfs))
    .digest('hex')
  let starts = 0
  const switchOn = (by: { readonly kernel?: KernelFiles; readonly initramfs?: string } = {}): VirtualMachine =>
    VirtualMachine.start({
      ...by,
      memory: 768,
      tell: { step: 'idle' },
      drives: [`file=${disk},format=raw`],
      firmware: [
        ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF}/OVMF_CODE_4M.fd`],
        ...['-drive', `if=pflash,format=raw,unit=1,file=${lab.path('vars.fd')}`],
      ],
      network: ['-netdev', 'user,id=lan', '-device', 'virtio-net-pci,netdev=lan,romfile='],
      front: lab.path(`front-${starts++}`),
      // QEMU would start a kernel that it was given again, as if a stick had been left in.
      restarts: by.kernel === undefined,
    })
  const rootChanged = async (): Promise<number> => {
    await copyRange(disk, rootAt, lab.path('root.now'), ROOT_BYTES)
    return (await differing(root, lab.path('root.now'), ERA_BLOCK_BYTES)).count
  }
  const ntfsChanged = async (): Promise<number> => {
    await copyRange(disk, ntfsAt, lab.path('ntfs.now'), NTFS_BYTES)
    return (await differing(ntfs, lab.path('ntfs.now'), ERA_BLOCK_BYTES)).count
  }
  const windows = async (guest: VirtualMachine): Promise<Omit<GuestEvent, 'event'>> => {
    const { event: _, ...found } = await guest.event('windows', DEADLINE_MS)
    await guest.ended()
    return found
  }
  const choose = async (guest: VirtualMachine, number: '1' | '2'): Promise<VirtualMachine> => {
    await guest.shown('Which system is to start?', DEADLINE_MS)
    await guest.press(number)
    return guest
  }

  // Nobody chooses.
  const first = switchOn()
  const screen = await first.shown('Without a choice 1 starts in', DEADLINE_MS)
  assert.match(screen, /1 {2}linux-lab/)
  assert.match(screen, /2 {2}windows-lab/)
  const up = await first.event('up', DEADLINE_MS)
  await first.ended()
  assert.equal(up.device, '/dev/mapper/lab')
  assert.equal(await rootChanged(), 0)

  await damage(disk, ntfsAt, random)
  const told: string[] = []
  const restored = { label: 'Windows Boot Manager', sha256: expected, written: 'yes' }
  for (const why of ['changed while it was off', 'changed by a session of its own']) {
    const changed = await ntfsChanged()
    assert.ok(changed > 0)
    assert.deepEqual(await windows(await choose(switchOn(), '2')), restored)
    told.push(`${changed} pieces of NTFS ${why}: put back, started by the firmware`)
  }

  // An update of Windows puts itself first: then it starts by itself, on the disk as it is.
  await makeStandIn(lab, kernel, 'mesh.takes=first', esp)
  assert.deepEqual(await windows(await choose(switchOn(), '2')), restored)
  const byItself = await windows(switchOn())
  assert.equal(byItself.label, 'Windows Boot Manager')
  assert.notEqual(byItself.sha256, expected)
  // Somebody starts the agent from a stick, once; from then on the agent is first, and Linux is as it was.
  await makeStandIn(lab, kernel, '', esp)
  const byHand = await choose(switchOn({ kernel, initramfs: agent }), '2')
  await byHand.ended()
  assert.deepEqual(await windows(switchOn()), restored)
  const last = await choose(switchOn(), '1')
  await last.event('up', DEADLINE_MS)
  await last.ended()
  assert.equal(await rootChanged(), 0)
  return `without a choice Linux starts; ${told.join('; ')}; Windows put itself first: the agent, started once by hand, is first again`
}

/** A computer with both systems, the agent on its disk as the handbook says, and no variables of the firmware yet. */
async function makeComputer({ kernel, lab }: Parts, random: Random) {
  const [root, ntfs, disk] = [lab.path('root.img'), lab.path('windows.img'), lab.path('disk.img')]
  await makeSystem(root, lab.dir, random)
  await writeFile(ntfs, new Uint8Array(NTFS_BYTES))
  await runTool('mkntfs', ['-q', '-F', '-Q', '-s', '512', '-p', '0', '-H', '0', '-S', '0', ntfs])
  await writeFile(lab.path('pagefile'), random.bytes(8 * MIB))
  await runTool('ntfscp', ['-q', '-f', ntfs, lab.path('pagefile'), 'pagefile.sys'])
  await lab.serve('master', ['seed', root, '--image', 'linux-lab'])
  await lab.ok('master', ['seed', ntfs, '--image', 'windows-lab'])
  const common = { peers: ['master'] }
  await prepareMachine(lab, {
    ...{ ...common, state: 'pc', name: 'pc', image: 'linux-lab', content: root, disk: '/dev/vda3' },
  })
  await prepareMachine(lab, {
    ...{ ...common, state: 'pc/windows', name: 'pc-windows', image: 'windows-lab', content: ntfs, disk: '/dev/vda4' },
  })
  const config = lab.path('agent.toml')
  const choice = `second = "/var/lib/lab-mesh/windows"\ndefault-system = 1\nchoice-wait = "${CHOICE_WAIT}"\n`
  await writeFile(config, `[boot]\nentry = '${LOADER}'\n${choice}`)
  const built = await makeAgent(lab, kernel, { config, commandLine: 'console=ttyS0' })
  const agent = (name: string): string => built.files.find(({ path }) => path.endsWith(name))!.path
  const [espImage, state] = [lab.path('esp.img'), lab.path('state.img')]
  await writeFile(espImage, new Uint8Array(ESP_BYTES))
  await runTool('mkfs.vfat', ['-F', '32', espImage])
  await runTool('mmd', [
    '-i',
    espImage,
    '::/EFI',
    '::/EFI/BOOT',
    '::/EFI/mesh',
    '::/EFI/Microsoft',
    '::/EFI/Microsoft/Boot',
  ])
  for (const place of ['BOOT/BOOTX64.EFI', 'mesh/agent-a.efi'])
    await runTool('mcopy', ['-i', espImage, agent('agent.efi'), `::/EFI/${place}`])
  await makeStatePartition(state, lab.path('pc'), STATE_BYTES)
  const [espAt, , rootAt, ntfsAt] = await makeDisk(disk, [
    { name: 'lab-esp', bytes: ESP_BYTES, content: espImage, type: 'ef00' },
    { name: 'lab-state', bytes: STATE_BYTES, content: state },
    { name: 'lab-root', bytes: ROOT_BYTES, content: root },
    { name: 'windows', bytes: NTFS_BYTES, content: ntfs, type: '0700' },
  ])
  const esp = `${disk}@@${espAt}`
  await makeStandIn(lab, kernel, '', esp)
  await copyFile(`${OVMF}/OVMF_VARS_4M.fd`, lab.path('vars.fd'))
  return { disk, esp, root, ntfs, rootAt: rootAt!, ntfsAt: ntfsAt!, agent: agent('agent.img') }
}

/** Puts the stand-in where Windows has its loader. `esp`: the file system, as mtools takes it. */
async function makeStandIn(lab: Lab, kernel: KernelFiles, told: string, esp: string): Promise<void> {
  const tree = new FileTree()
  for (const folder of ['/proc', '/sys', '/dev', '/tmp']) tree.folder(folder)
  await tree.program('/bin/busybox', await whichProgram('busybox'))
  for (const name of APPLETS) tree.link(`/bin/${name}`, '/bin/busybox')
  for (const name of ['efibootmgr', 'ntfscp']) await tree.program(`/usr/bin/${name}`, await whichProgram(name))
  tree.write('/init', WINDOWS_INIT, 0o755)
  await addModules(tree, { folder: kernel.modules, names: ['virtio_pci', 'virtio_blk', 'efivarfs', 'ext4'] })
  const [initramfs, efi] = [lab.path('windows.cpio'), lab.path('bootmgfw.efi')]
  await writeFile(initramfs, tree.pack())
  const commandLine = `console=ttyS0 quiet ${told}`
  const parts = { kernel: kernel.image, initramfs, commandLine, release: 'ID=stand-in\n' }
  await makeEfiImage(efi, parts, { work: lab.dir, signing: undefined })
  await runTool('mcopy', ['-o', '-i', esp, efi, '::/EFI/Microsoft/Boot/bootmgfw.efi'])
}

/** What a session, a virus or a failing disk leaves: a piece of 1 MiB and a single byte. */
async function damage(disk: string, ntfsAt: number, random: Random): Promise<void> {
  await using file = await open(disk, 'r+')
  await file.write(random.bytes(MIB), 0, MIB, ntfsAt + 3 * MIB)
  await file.write(Buffer.from([0x2a]), 0, 1, ntfsAt + 20 * MIB)
}
