import assert from 'node:assert/strict'
import { chmod, copyFile, mkdir, mkdtemp, open, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import { type BuiltAgent, buildAgent, type KernelFiles } from '../../tools/boot/build-agent.ts'
import { whichProgram } from '../../tools/boot/build-tool.ts'
import { FileTree } from '../../tools/boot/file-tree.ts'
import { addModules } from '../../tools/boot/kernel-modules.ts'
import { siteOf } from '../../tools/cli/boot/build-facts.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { differing } from './compare-disks.ts'
import { makeDisk, makeStatePartition, prepareMachine } from './prepared-disk.ts'
import { VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
/** Bytes of the model’s root. */
export const ROOT_BYTES = 48 * MIB
const FILLER_BYTES = 12 * MIB
const [ESP_BYTES, STATE_BYTES] = [7 * MIB, 64 * MIB]
/** A firmware, a kernel, a program of 110 MB and a journal under emulation, on a machine that does other things. */
const START_DEADLINE_MS = 400_000
/** A restore waits up to 45 s for a network whose link is new. */
const HELD_DEADLINE_MS = 300_000

/** The model’s only program. It says what it finds, and by the kernel’s command line writes until the plug is pulled. */
const SYSTEM_INIT = `#!/bin/busybox sh
export PATH=/bin
read -r up idle </proc/uptime
device=$(grep -v ^rootfs /proc/mounts | grep ' / ' | cut -d ' ' -f 1)
said=$(dmesg | grep 'blocks restored' | tail -n 1 | sed 's/.*mesh: //')
agent=$(dmesg | grep 'mesh: the .*agent' | tail -n 1 | sed 's/.*mesh: //' | tr -d '"\\\\')
slot=$(sed -n 's/.*mesh.slot=\\([ab]\\).*/\\1/p' /proc/cmdline)
partition=$(dmesg | grep 'mesh: state partition' | tail -n 1 | sed 's/.*partition: //')
state=no; [ -e /var/lib/lab-mesh/machine.json ] && state=yes
echo
echo "@@ {\\"event\\":\\"up\\",\\"seconds\\":$up,\\"device\\":\\"$device\\",\\"said\\":\\"$said\\",\\"state\\":\\"$state\\",\\"agent\\":\\"$agent\\",\\"partition\\":\\"$partition\\",\\"slot\\":\\"$slot\\"}"
case "$(cat /proc/cmdline)" in
*mesh.step=write*)
  mount -o remount,rw / || mount -o remount,rw "$device" /
  mkdir -p /session
  for i in 1 2 3 4; do dd if=/dev/urandom of=/session/file$i bs=64k count=16 2>/dev/null; done
  rm -f /etc/filler; sync
  echo; echo '@@ {"event":"written"}'
  for i in $(seq 20); do echo more >>/session/log; sync; sleep 1; done
  echo; echo '@@ {"event":"settled"}'
  while :; do echo more >>/session/log; sync; sleep 1; done
  ;;
*mesh.step=serve*) exec sh /etc/serve ;;
*mesh.step=stay*) while :; do sleep 1; done ;;
*mesh.step=elsewhere*)
  mount -o remount,rw / || mount -o remount,rw "$device" /
  # In its place: free blocks are zeros in the model, and need nobody. A file of 12 MiB; mesh.at is a number of MiB.
  at=$(sed -n 's/.*mesh.at=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
  dd if=/dev/urandom of=/etc/filler bs=64k count=16 seek=$((\${at:-0} * 16)) conv=notrunc 2>/dev/null; sync
  echo; echo '@@ {"event":"written"}'
  while :; do sleep 1; done
  ;;
esac
poweroff -f
`

/** Mounts the root and switches to it, with `work` before. */
const initWith = (work: string): string => `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /sysroot
${work}
until mount -t ext4 -o ro /dev/vda3 /sysroot 2>/dev/null; do sleep 0.1; done
mount --move /run /sysroot/run
mount --move /dev /sysroot/dev
mount --move /sys /sysroot/sys
mount --move /proc /sysroot/proc
exec switch_root /sysroot /sbin/init
`
/** An ordinary start of the same system, for comparison: drivers, mount, switch. */
const DRIVERS = 'modprobe -a virtio_pci virtio_blk ext4 crc32c_generic'
const ORDINARY_INIT = initWith(DRIVERS)
/** In place of the agent: Node that does nothing, the drivers meanwhile, mount, switch. What no agent that is unpacked with this Node can be faster than. */
const FLOOR_INIT = initWith(`${DRIVERS} &\nnode -e 0\nwait`)
/** How long Node takes in this machine. */
const MEASURE_INIT = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
time_node() { read -r a b </proc/uptime; node -e 0; read -r c d </proc/uptime; echo "@@ {\\"event\\":\\"node\\",\\"from\\":$a,\\"to\\":$c}"; }
echo; time_node
poweroff -f
`

/**
 * A machine starts from the agent, again and again, from one disk: first with its log unknown, then clean and without a network card,
 * then after sessions that were cut off: with a peer, and with nobody.
 */
export async function bootScenario(
  parts: { readonly kernel: KernelFiles; readonly lab: Lab; readonly full: boolean },
  random: Random,
): Promise<string> {
  const { kernel, lab } = parts
  const [image, disk] = [lab.path('model.img'), lab.path('disk.img')]
  await makeSystem(image, lab.dir, random)
  await lab.serve('master', ['seed', image, '--image', 'root'])
  const machine = { state: 'pc', name: 'pc', image: 'root', content: image, disk: '/dev/vda3', peers: ['master'] }
  await prepareMachine(lab, machine)
  const agent = await makeAgent(lab, kernel)
  const rootAt = await makeBootDisk(disk, image, lab)
  const agentImage = agent.files.find(({ path }) => path.endsWith('agent.img'))!.path
  const switchOn = (step: string, network: readonly string[] = [], initramfs = agentImage): VirtualMachine =>
    VirtualMachine.start({
      kernel,
      initramfs,
      memory: 512,
      tell: { step },
      network,
      drives: [`file=${disk},format=raw`],
    })
  const changed = async (): Promise<number> => {
    await copyRange(disk, rootAt, lab.path('root.now'), ROOT_BYTES)
    return (await differing(image, lab.path('root.now'), ERA_BLOCK_BYTES)).count
  }
  const told: string[] = []
  const up = async (guest: VirtualMachine): Promise<{ seconds: number; restored: number; fetched: number }> => {
    const event = await guest.event('up', START_DEADLINE_MS)
    assert.equal(event.device, '/dev/mapper/lab')
    assert.equal(event.state, 'yes', 'the state directory is where the system has its folder')
    const [, restored, fetched] = /: (\d+) blocks restored, (\d+) fetched$/.exec(String(event.said)) ?? []
    assert.ok(fetched !== undefined, String(event.said))
    return { seconds: Number(event.seconds), restored: Number(restored), fetched: Number(fetched) }
  }
  for (const which of ['unknown log', 'log of one start']) {
    const guest = switchOn('idle')
    const { seconds, fetched } = await up(guest)
    await guest.ended()
    assert.equal(fetched, 0)
    assert.equal(await changed(), 0)
    told.push(`${which}: up after ${seconds} s`)
  }
  const clean = switchOn('write')
  const first = await up(clean)
  assert.deepEqual([first.restored, first.fetched], [0, 0])
  told.push(`clean log, no network card: up after ${first.seconds} s, nothing fetched`)
  // Longer than the session that is undone without a peer, which then writes nowhere else.
  await clean.event(parts.full ? 'settled' : 'written', START_DEADLINE_MS)
  await clean.kill()
  const dirt = await changed()
  assert.ok(dirt > 0)
  const again = switchOn('idle', userNetwork())
  const second = await up(again)
  await again.ended()
  assert.equal(await changed(), 0, 'the partition is the image')
  assert.ok(second.restored >= dirt && second.fetched > 0, `${second.restored} of ${dirt} blocks`)
  told.push(
    `${dirt} blocks changed, one peer: up after ${second.seconds} s, ${second.restored} restored, ${second.fetched} fetched`,
  )
  if (!parts.full) return told.join('; ')
  const { plain, floor, node } = await compared(switchOn, lab, kernel, agentImage)
  const writing = switchOn('write')
  const { seconds } = await up(writing)
  told.push(
    `clean again: the agent costs ${(seconds - plain).toFixed(1)} s (${seconds} s, ordinary start ${plain} s), ${((seconds - plain) / node).toFixed(1)} times node -e 0 (${node.toFixed(2)} s); an agent that only runs node -e 0 costs ${(floor - plain).toFixed(1)} s, ${((floor - plain) / node).toFixed(1)} times`,
  )
  await writing.event('written')
  await writing.kill()
  const same = await changed()
  const alone = switchOn('elsewhere', userNetwork('restrict=on'))
  const third = await up(alone)
  assert.ok(same > 0 && third.restored >= same, `${third.restored} of ${same} blocks`)
  assert.equal(third.fetched, 0)
  told.push(`${same} blocks changed as before, nobody reachable: up after ${third.seconds} s, nothing fetched`)
  await alone.event('written')
  await alone.kill()
  const held = switchOn('idle', userNetwork('restrict=on'))
  const screen = await held.shown('Code: ', HELD_DEADLINE_MS)
  assert.match(screen, /This computer cannot start now\./)
  assert.match(screen, /Code: PEERS_UNREACHABLE/)
  await assert.rejects(held.event('up', 5_000))
  await held.kill()
  assert.ok((await changed()) > 0)
  told.push('other blocks changed, nobody reachable: held with PEERS_UNREACHABLE')
  return told.join('; ')
}

const userNetwork = (more = ''): string[] => [
  ...['-netdev', `user,id=lan${more === '' ? '' : `,${more}`}`, '-device', 'virtio-net-pci,netdev=lan,romfile='],
]

/**
 * Seconds to an ordinary start of the same system, to one with an agent that only runs `node -e 0`, and those that the first `node -e 0` takes in
 * the same machine.
 */
async function compared(
  switchOn: (step: string, network?: readonly string[], initramfs?: string) => VirtualMachine,
  lab: Lab,
  kernel: KernelFiles,
  agentImage: string,
): Promise<{ plain: number; floor: number; node: number }> {
  const ordinary = lab.path('ordinary.img')
  const tree = new FileTree()
  for (const folder of ['/proc', '/sys', '/dev', '/run']) tree.folder(folder)
  await tree.program('/bin/busybox', await whichProgram('busybox'))
  for (const name of ['modprobe', 'mount', 'mkdir', 'sleep', 'switch_root']) tree.link(`/sbin/${name}`, '/bin/busybox')
  tree.write('/init', ORDINARY_INIT, 0o755)
  await addModules(tree, { folder: kernel.modules, names: ['virtio_pci', 'virtio_blk', 'ext4', 'crc32c_generic'] })
  await writeFile(ordinary, tree.pack())
  const up = async (initramfs: string): Promise<number> => {
    const guest = switchOn('idle', [], initramfs)
    const { seconds } = await guest.event('up', START_DEADLINE_MS)
    await guest.ended()
    return Number(seconds)
  }
  const plain = await up(ordinary)
  const floor = await up(await withInit(agentImage, FLOOR_INIT, lab.path('floor.img')))
  const measuring = switchOn('idle', [], await withInit(agentImage, MEASURE_INIT, lab.path('measure.img')))
  // The first start after the kernel, as that of the agent is.
  const { from, to } = await measuring.event('node', START_DEADLINE_MS)
  await measuring.ended()
  return { plain, floor, node: Number(to) - Number(from) }
}

/** The agent’s initramfs with another `/init`, in the file `to`. The kernel unpacks one archive after the other. */
async function withInit(agentImage: string, init: string, to: string): Promise<string> {
  const tree = new FileTree()
  tree.write('/init', init, 0o755)
  const packed = await readFile(agentImage)
  // One that is not packed begins at a multiple of four bytes.
  await writeFile(to, Buffer.concat([packed, Buffer.alloc((4 - (packed.byteLength % 4)) % 4), tree.pack()]))
  return to
}

/**
 * A small root file system, with busybox as its system, and a file that nothing can shrink. `more` adds files below the folder that it is
 * made from, of which `/etc/serve` is what the system does for mesh.step=serve.
 */
export async function makeSystem(
  image: string,
  work: string,
  random: Random,
  { bytes = ROOT_BYTES, more }: { readonly bytes?: number; readonly more?: (root: string) => Promise<void> } = {},
): Promise<void> {
  const root = await mkdtemp(join(work, 'system-'))
  for (const folder of ['bin', 'sbin', 'etc', 'proc', 'sys', 'dev', 'run', 'var/lib/lab-mesh'])
    await mkdir(join(root, folder), { recursive: true })
  await copyFile(await whichProgram('busybox'), join(root, 'bin/busybox'))
  for (const name of [
    'grep',
    'cut',
    'dmesg',
    'tail',
    'sed',
    'seq',
    'tr',
    'cat',
    'mount',
    'mkdir',
    'dd',
    'rm',
    'sync',
    'sleep',
    'poweroff',
  ])
    await symlink('busybox', join(root, 'bin', name))
  await writeFile(join(root, 'sbin/init'), SYSTEM_INIT)
  await chmod(join(root, 'sbin/init'), 0o755)
  await writeFile(join(root, 'etc/filler'), random.bytes(FILLER_BYTES))
  await more?.(root)
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-b', '4096', '-d', root, '-F', image, `${bytes / 1024}k`])
}

/** The agent of the lab's site; `config`: path of the machines' configuration file. */
export async function makeAgent(
  lab: Lab,
  kernel: KernelFiles,
  options: {
    readonly machine?: string
    readonly config?: string
    readonly commandLine?: string
    readonly menu?: string
    readonly diskImage?: boolean
  } = {},
): Promise<BuiltAgent> {
  const { machine = 'pc', config, commandLine = '', menu, diskImage = false } = options
  return buildAgent({
    site: await siteOf(lab.path(machine)),
    ...(config === undefined ? {} : { config }),
    ...(menu === undefined ? {} : { menu }),
    out: lab.path(`agent-of-${machine}`),
    bundle: join(import.meta.dirname, '../../dist'),
    nodeFlags: NODE_FLAGS,
    version: 'test',
    kernel,
    firmware: '/nonexistent',
    commandLine,
    level: 3,
    diskImage,
  })
}

/** A disk with the partitions of a machine: ESP, state, root. Returns where the root begins. */
async function makeBootDisk(disk: string, image: string, lab: Lab): Promise<number> {
  const state = lab.path('state.img')
  await makeStatePartition(state, lab.path('pc'), STATE_BYTES)
  const [, , root] = await makeDisk(disk, [
    { name: 'lab-esp', bytes: ESP_BYTES, type: 'ef00' },
    { name: 'lab-state', bytes: STATE_BYTES, content: state },
    { name: 'lab-root', bytes: ROOT_BYTES, content: image },
  ])
  return root!
}

/** Copies a part of a file into a file of its own. */
export async function copyRange(disk: string, at: number, to: string, length: number): Promise<void> {
  const file = await open(disk)
  try {
    const content = Buffer.alloc(length)
    await file.read(content, 0, length, at)
    await writeFile(to, content)
  } finally {
    await file.close()
  }
}
