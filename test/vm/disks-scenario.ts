import assert from 'node:assert/strict'
import { copyFile, mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { readerOf } from '../../node/disk/disk-content.ts'
import { openDevice } from '../../node/disk/file-device.ts'
import { readPlan } from '../../node/disk/gpt-table.ts'
import type { PlannedPartition } from '../../node/disk/plan-disk.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { whichProgram } from '../../tools/boot/build-tool.ts'
import { makeEfiImage } from '../../tools/boot/efi-image.ts'
import { FileTree } from '../../tools/boot/file-tree.ts'
import { addModules } from '../../tools/boot/kernel-modules.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { waiting } from './bare-machine.ts'
import { copyRange, makeAgent, makeSystem } from './boot-scenario.ts'
import { keepPicture } from './screens.ts'
import { VirtualMachine, type VirtualMachineOptions } from './virtual-machine.ts'

const MIB = 1024 ** 2
const OVMF = '/usr/share/OVMF'
/** Firmware, drivers, a network and libp2p under emulation, on a machine that does other things. */
const DEADLINE_MS = 900_000
const ESP_MIB = 320
const STATE_MIB = 64

interface Room {
  readonly kernel: KernelFiles
  readonly lab: Lab
}

/** A partition of the layout, as its file says it. */
interface Part {
  readonly label: string
  readonly mib: number
  readonly more: string
}

const HEAD = `esp = "${ESP_MIB}M"\nstate = "${STATE_MIB}M"\nagent = "agent"\n`
const ROOT: Part = { label: 'root', mib: 48, more: 'image = "root"\ntype = "root"\n' }
const TOOLS: Part = { label: 'tools', mib: 4, more: 'image = "tools"\ntype = "linux"\n' }
const LOADER: Part = { label: 'win-esp', mib: 64, more: 'image = "school/win-esp"\ntype = "esp"\n' }
const WINDOWS: Part = { label: 'Windows', mib: 16, more: 'image = "school/windows"\nsystem = true\ntype = "windows"\n' }
const HOME: Part = { label: 'home', mib: 8, more: 'grow = true\ntype = "home"\n' }

/** A system that is not Linux: an EFI program that says how its partition begins, and dirties it. */
const OTHER_INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
modprobe -a virtio_pci virtio_blk nvme
until grep -qx PARTNAME=Windows /sys/class/block/*/uevent 2>/dev/null; do sleep 0.1; done
device=/dev/$(basename "$(dirname "$(grep -lx PARTNAME=Windows /sys/class/block/*/uevent)")")
echo
echo "@@ {\\"event\\":\\"windows\\",\\"device\\":\\"$device\\",\\"begins\\":\\"$(head -c 8 "$device" | tail -c 5)\\"}"
dd if=/dev/urandom of="$device" bs=64k count=16 2>/dev/null
sync
poweroff -f
`

/** A master that publishes these images and an agent, a layout of partitions, and a machine with a bare disk. */
async function diskRoom({ kernel, lab }: Room, random: Random, config = '') {
  const image = lab.path('root.img')
  await makeSystem(image, lab.dir, random)
  await lab.serve('master', ['seed', image, '--image', 'root'])
  const port = /\d+$/.exec(lab.address('master')!)![0]
  // QEMU leads this address to the host’s loopback interface.
  const file = lab.path('agent.toml')
  await writeFile(file, `[boot]\nmaster = ["/ip4/10.0.2.2/tcp/${port}"]\n${config}`)
  const commandLine = 'console=tty0 console=ttyS0'
  const agent = await makeAgent(lab, kernel, { machine: 'master', config: file, commandLine })
  const path = (name: string): string => agent.files.find((one) => one.path.endsWith(name))!.path
  await lab.ok('master', ['seed', path('agent.efi'), '--image', 'agent'])
  return { lab, kernel, image, initramfs: path('agent.img') }
}

type DiskRoom = Awaited<ReturnType<typeof diskRoom>>

async function setLayout(lab: Lab, parts: readonly Part[]): Promise<void> {
  const tables = parts.map(({ label, mib, more }) => `[[partition]]\nlabel = "${label}"\nsize = "${mib}M"\n${more}`)
  await writeFile(lab.path('layout.toml'), `${HEAD}${tables.join('')}`)
  await lab.ok('master', ['layout', 'set', lab.path('layout.toml')])
}

/** A machine with one disk; `network` tells whether its cable is in. `bare`: the emulator starts the agent, as a network would. */
async function machineOf(
  { lab, kernel, initramfs }: DiskRoom,
  { mib, sectorBytes }: { readonly mib: number; readonly sectorBytes?: number },
) {
  const disk = lab.path(`disk-${mib}-${sectorBytes ?? 512}.img`)
  await using file = await open(disk, 'w')
  await file.truncate(mib * MIB)
  const variables = `${disk}.variables`
  await copyFile(`${OVMF}/OVMF_VARS_4M.fd`, variables)
  const firmware = [
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${OVMF}/OVMF_CODE_4M.fd`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
  ]
  const nvme = sectorBytes === undefined ? {} : { nvme: sectorBytes }
  const front = `${disk}.front`
  const common = { ...nvme, front, memory: 768, tell: { step: 'idle' }, drives: [`file=${disk},format=raw`], firmware }
  const network = ['-netdev', 'user,id=lan', '-device', 'virtio-net-pci,netdev=lan,romfile=']
  const start = (more: Partial<VirtualMachineOptions>): VirtualMachine => VirtualMachine.start({ ...common, ...more })
  return {
    disk,
    bare: () => start({ kernel, initramfs, network }),
    start: (cable: 'in' | 'out') => start(cable === 'in' ? { network } : {}),
    /** It starts again by itself. */
    startAndAgain: () => start({ network, restarts: true }),
  }
}

type TestMachine = Awaited<ReturnType<typeof machineOf>>

/** The parts of a disk are compared from here on. */
async function partition(disk: string, label: string): Promise<{ readonly at: number; readonly size: number }> {
  const found = (await partitions(disk)).find((one) => one.label === label)
  assert.ok(found, `there is no partition ${label}`)
  return { at: found.offset, size: found.size }
}

async function partitions(disk: string): Promise<readonly PlannedPartition[]> {
  const device = await openDevice(disk, { writable: false })
  try {
    for (const sectorBytes of [512, 4096]) {
      const found = await readPlan(readerOf(device), { size: device.size, sectorBytes }, new Map())
      if (found !== undefined) return found.plan.partitions
    }
    throw new Error(`${disk} has no table`)
  } finally {
    await device.close()
  }
}

async function assertHolds(lab: Lab, disk: string, label: string, image: string): Promise<void> {
  const expected = await readFile(image)
  const { at } = await partition(disk, label)
  await copyRange(disk, at, lab.path('now.img'), expected.byteLength)
  assert.ok(expected.equals(await readFile(lab.path('now.img'))), `${label} is its image`)
}

/** The images of the second system, and of data. */
async function makeImages({ lab, kernel }: DiskRoom, random: Random) {
  const tree = new FileTree()
  for (const folder of ['/proc', '/sys', '/dev']) tree.folder(folder)
  await tree.program('/bin/busybox', await whichProgram('busybox'))
  const applets = ['mount', 'grep', 'sleep', 'basename', 'dirname', 'head', 'tail', 'dd', 'sync', 'poweroff']
  for (const name of [...applets, 'modprobe']) tree.link(`/sbin/${name}`, '/bin/busybox')
  tree.write('/init', OTHER_INIT, 0o755)
  await addModules(tree, { folder: kernel.modules, names: ['virtio_pci', 'virtio_blk', 'nvme', 'ext4'] })
  const [initramfs, program] = [lab.path('other.cpio'), lab.path('other.efi')]
  await writeFile(initramfs, tree.pack())
  const parts = { kernel: kernel.image, initramfs, commandLine: 'console=ttyS0 quiet', release: 'ID=other\n' }
  await mkdir(lab.path('work'))
  await makeEfiImage(program, parts, { work: lab.path('work'), signing: undefined })
  const loader = lab.path('loader.img')
  await runTool('mkfs.vfat', ['-C', loader, String(LOADER.mib * 1024)])
  for (const folder of ['EFI', 'EFI/Microsoft', 'EFI/Microsoft/Boot'])
    await runTool('mmd', ['-i', loader, `::${folder}`])
  await runTool('mcopy', ['-i', loader, program, '::EFI/Microsoft/Boot/bootmgfw.efi'])
  const windows = lab.path('windows.img')
  const content = random.bytes(WINDOWS.mib * MIB)
  // How a partition of NTFS begins.
  Buffer.from(content.buffer, content.byteOffset).write('\u00ebR\u0090NTFS    ', 'latin1')
  await writeFile(windows, content)
  const tools = lab.path('tools.img')
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-b', '4096', '-F', tools, `${TOOLS.mib * 1024}k`])
  for (const [name, image] of [
    ['tools', tools],
    ['school/win-esp', loader],
    ['school/windows', windows],
  ] as const)
    await lab.ok('master', ['seed', image, '--image', name])
  return { tools, loader, windows }
}

/** A bare machine is let in, and starts its system. */
async function provisioned(room: DiskRoom, machine: TestMachine, name: string): Promise<VirtualMachine> {
  const guest = machine.bare()
  await room.lab.ok('master', ['approve', '--code', await waiting(room.lab), '--as', name])
  return guest
}

/**
 * One machine with two systems, a partition that is restored at every boot, and one that nobody restores: all are made and filled, each is
 * restored when it has to be, the person at the machine chooses, and the receipts tell of each image.
 */
export async function severalScenario(parts: Room, random: Random): Promise<string> {
  const entry = 'entry = \'\\EFI\\Microsoft\\Boot\\bootmgfw.efi\'\nchoice-wait = "20s"\n'
  const room = await diskRoom(parts, random, entry)
  const { lab, image } = room
  const { tools, loader, windows } = await makeImages(room, random)
  await setLayout(lab, [ROOT, TOOLS, LOADER, WINDOWS, HOME])
  const machine = await machineOf(room, { mib: 640 })
  const { disk } = machine
  const first = await provisioned(room, machine, 'pc1')
  for (const text of ['Which system is to start?', 'tools', 'school/win-esp', 'school/windows'])
    await first.shown(text, DEADLINE_MS)
  const up = await first.event('up', DEADLINE_MS)
  await first.ended()
  const all = [
    ['root', image],
    ['tools', tools],
    ['win-esp', loader],
    ['Windows', windows],
  ] as const
  for (const [label, content] of all) await assertHolds(lab, disk, label, content)
  assert.match(await runTool('sgdisk', ['-v', disk]), /No problems found/)
  const home = await partition(disk, 'home')
  assert.equal(home.size, (640 - 2 - ESP_MIB - STATE_MIB - 48 - 4 - 64 - 16) * MIB)

  const windowsStarts = async (cable: 'in' | 'out'): Promise<void> => {
    const agent = machine.start(cable)
    await agent.shown('"lab-mesh agent A"', DEADLINE_MS)
    await agent.shown('2  school/windows', DEADLINE_MS)
    await agent.press('2')
    await agent.ended()
    for (const [label, content] of all.slice(1)) await assertHolds(lab, disk, label, content)
    // The machine restarts here; this emulator ends at that.
    const other = machine.start(cable)
    const { begins } = await other.event('windows', DEADLINE_MS)
    await other.ended()
    assert.equal(begins, 'NTFS ')
  }
  await windowsStarts('out')
  await using file = await open(disk, 'r+')
  const { at } = await partition(disk, 'tools')
  await file.write(random.bytes(MIB), 0, MIB, at + MIB)
  await windowsStarts('in')
  const last = machine.start('out')
  const { said } = await last.event('up', DEADLINE_MS)
  await last.ended()
  assert.match(String(said), /^root release 1: 0 blocks restored/)
  for (const [label, content] of all.slice(0, 3)) await assertHolds(lab, disk, label, content)
  await assert.rejects(assertHolds(lab, disk, 'Windows', windows))

  const receipts = await receiptsOn(lab, disk)
  assert.deepEqual([...new Set(receipts)].sort(), ['root', 'school/win-esp', 'school/windows', 'tools'])
  return `4 images on one disk: up ${up.seconds} s after the kernel; the second system chosen twice, by BootNext; ${receipts.length} receipts: ${receipts.join(', ')}`
}

/**
 * A machine whose disk is NVMe with sectors of 4096 bytes. Its site signs another layout: a partition more for an image, and one for none. The
 * partition that is restored anyway is cut for them. Meanwhile its state file system is damaged, and repaired. A layout that would move a partition is refused.
 */
export async function layoutScenario(parts: Room, random: Random): Promise<string> {
  const room = await diskRoom(parts, random)
  const { lab, image } = room
  const tools = lab.path('tools.img')
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-b', '4096', '-F', tools, `${TOOLS.mib * 1024}k`])
  await lab.ok('master', ['seed', tools, '--image', 'tools'])
  await setLayout(lab, [{ ...ROOT, more: `${ROOT.more}grow = true\n` }])
  const machine = await machineOf(room, { mib: 640, sectorBytes: 4096 })
  const { disk } = machine
  const first = await provisioned(room, machine, 'pc1')
  const { device, seconds } = await first.event('up', DEADLINE_MS)
  await first.ended()
  assert.equal(device, '/dev/mapper/lab')
  await assertHolds(lab, disk, 'root', image)

  let heard = 0
  /** A restore that has to fetch hears of what was signed. It looks at the whole disk, because its state was repaired. */
  const hear = async (layout: readonly Part[]): Promise<void> => {
    await setLayout(lab, layout)
    await damageState(lab, disk)
    await dirty(disk, 'root', { image, place: heard++, random })
    const guest = machine.start('in')
    const up = await guest.event('up', DEADLINE_MS)
    await guest.ended()
    assert.match(String(up.said), /[1-9]\d* fetched$/)
    assert.equal(up.partition, 'mounted /dev/nvme0n1p2, repaired')
    await assertHolds(lab, disk, 'root', image)
  }
  await hear([ROOT, TOOLS, HOME])
  const changing = machine.startAndAgain()
  await changing.shown('Preparing the disk', DEADLINE_MS)
  await changing.event('up', DEADLINE_MS)
  await changing.ended()
  const sizes = async (): Promise<string> =>
    (await partitions(disk)).map(({ label, size }) => `${label} ${size / MIB}`).join(', ')
  const expected = `lab-esp ${ESP_MIB}, lab-state ${STATE_MIB}, root 48, tools 4, home ${640 - 2 - ESP_MIB - STATE_MIB - 52}`
  assert.equal(await sizes(), expected)
  for (const [label, content] of [
    ['root', image],
    ['tools', tools],
  ] as const)
    await assertHolds(lab, disk, label, content)

  await hear([ROOT, { ...TOOLS, mib: 8 }, HOME])
  const refusing = machine.start('out')
  await refusing.event('up', DEADLINE_MS)
  await refusing.ended()
  assert.equal(await sizes(), expected)
  const { refused } = await lab.ok(await stateOf(lab, disk), ['layout', 'show'])
  assert.equal(refused, `tools has ${4 * MIB} bytes and can have ${4 * MIB}, and the layout wants ${8 * MIB}`)
  return `up ${seconds} s after the kernel; the disk became ${expected} MiB; refused: ${refused}`
}

/**
 * A disk that is smaller than the layout: the screen says so, and nothing is written. A disk that holds something unknown: the screen says what,
 * nothing is written until somebody says that it may be wiped, then it is laid out.
 */
export async function wrongDiskScenario(parts: Room, random: Random): Promise<string> {
  const room = await diskRoom(parts, random)
  const { lab, image } = room
  await setLayout(lab, [{ ...ROOT, more: `${ROOT.more}grow = true\n` }])
  const needed = (2 + ESP_MIB + STATE_MIB + ROOT.mib) * MIB

  const small = await machineOf(room, { mib: 400 })
  const tooSmall = await provisioned(room, small, 'pc1')
  const screen = await tooSmall.shown('Code: DISK_TOO_SMALL', DEADLINE_MS)
  await keepPicture(tooSmall, 'disk-too-small')
  await tooSmall.kill()
  assert.match(flat(screen), new RegExp(`/dev/vda has ${400 * MIB} bytes, the layout of the site needs ${needed}`))
  assert.ok(
    (await readFile(small.disk)).every((byte) => byte === 0),
    'nothing was written',
  )
  assert.deepEqual((await lab.ok('master', ['peers'])).peers, [])

  const foreign = await machineOf(room, { mib: 448 })
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-F', '-L', 'thesis', foreign.disk])
  const before = await readFile(foreign.disk)
  const asking = foreign.bare()
  const code = await waiting(lab, 'ext4')
  await lab.ok('master', ['approve', '--all', '--ttl', '2h'])
  const why = await asking.shown('holds ext4', DEADLINE_MS)
  await keepPicture(asking, 'foreign-disk')
  assert.ok(before.equals(await readFile(foreign.disk)), 'nothing was written')
  await lab.ok('master', ['approve', '--code', code, '--as', 'pc2', '--wipe'])
  await asking.event('up', DEADLINE_MS)
  await asking.ended()
  await assertHolds(lab, foreign.disk, 'root', image)
  return `smaller: ${/Details:.*?needs \d+/.exec(flat(screen))?.[0]}; foreign: ${/Details:.*?wiped/.exec(flat(why))?.[0]}; then laid out`
}

/** The lines of a screen as one. */
const flat = (screen: string): string => screen.replaceAll(/\s+/g, ' ')

const BLOCK = 64 * 1024

/** A block of a partition is not what it was, behind everybody's back. What was dirty at one `place` before comes from the stage. */
async function dirty(
  disk: string,
  label: string,
  { image, place, random }: { readonly image: string; readonly place: number; readonly random: Random },
): Promise<void> {
  const content = await readFile(image)
  // Blocks of zeros need nobody.
  const blocks = Array.from({ length: content.byteLength / BLOCK }, (_, block) => block)
  const filled = blocks.filter((block) => content[block * BLOCK] !== 0)
  const { at } = await partition(disk, label)
  await using file = await open(disk, 'r+')
  await file.write(random.bytes(BLOCK), 0, BLOCK, at + filled[place]! * BLOCK)
}

/** The kernel has found the file system of the state wrong, and it is. */
async function damageState(lab: Lab, disk: string): Promise<void> {
  const { at, size } = await partition(disk, 'lab-state')
  const file = lab.path('damaged.img')
  await copyRange(disk, at, file, size)
  for (const request of ['ssv state 2', 'sif /identity.pem links_count 7', 'ssv free_blocks_count 1'])
    await runTool('debugfs', ['-w', '-R', request, file])
  await using whole = await open(disk, 'r+')
  const content = await readFile(file)
  await whole.write(content, 0, content.byteLength, at)
}

/** Images of the receipts of a machine that is switched off, the oldest first. */
async function receiptsOn(lab: Lab, disk: string): Promise<string[]> {
  const { receipts } = (await lab.ok(await stateOf(lab, disk), ['receipts'])) as unknown as {
    receipts: { number: number; image: string; verified: boolean }[]
  }
  assert.ok(receipts.every(({ verified }) => verified))
  return receipts.sort((a, b) => a.number - b.number).map(({ image }) => image)
}

/** A copy of the state directory of a machine that is switched off; its name in the lab. */
async function stateOf(lab: Lab, disk: string): Promise<string> {
  const { at, size } = await partition(disk, 'lab-state')
  await copyRange(disk, at, lab.path('state.img'), size)
  // Replays the journal.
  await runTool('e2fsck', ['-f', '-p', lab.path('state.img')]).catch(() => undefined)
  await mkdir(lab.path('pc-state'), { recursive: true })
  await runTool('debugfs', ['-R', `rdump / ${lab.path('pc-state')}`, lab.path('state.img')])
  return 'pc-state'
}
