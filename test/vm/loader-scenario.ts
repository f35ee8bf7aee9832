import assert from 'node:assert/strict'
import { open, readFile, rm, writeFile } from 'node:fs/promises'
import { grubEnv } from '../../node/agent/boot/grub-env.ts'
import { grubFacts } from '../../node/agent/boot/grub-facts.ts'
import { gptTable } from '../../node/disk/gpt-table.ts'
import { planDisk } from '../../node/disk/plan-disk.ts'
import { CHOICE_PATH, factsPath, slotPath } from '../../protocol/agent-slots.ts'
import { BIOS_LABEL, PARTITION_TYPES } from '../../protocol/disk-layout.ts'
import { makeBiosLoader } from '../../tools/boot/bios-loader.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { whichProgram } from '../../tools/boot/build-tool.ts'
import { makeEfiImage } from '../../tools/boot/efi-image.ts'
import { FileTree } from '../../tools/boot/file-tree.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { bios } from './firmware.ts'
import { VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
const SIZE = 192 * MIB
const DEADLINE_MS = 300_000
/** Stands for an agent: says which slot it was started from. */
const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
echo; echo "@@ {\\"event\\":\\"up\\",\\"line\\":\\"$(/bin/busybox cat /proc/cmdline)\\"}"
/bin/busybox poweroff -f
`

/** SeaBIOS starts GRUB from a disk, and GRUB an agent out of one of two slots, by a choice that may be missing or torn. */
export async function loaderScenario({ kernel, lab }: { kernel: KernelFiles; lab: Lab }): Promise<string> {
  const disk = await makeDisk(kernel, lab)
  const a = grubEnv({ slot: 'a' })
  assert.equal(await disk.start(a), 'a')
  assert.equal(await disk.start(grubEnv({ slot: 'a', try: 'b' })), 'b')
  assert.equal(String(await disk.choice()).slice(0, 32), String(a).slice(0, 32), 'GRUB has taken the trial out')
  assert.equal(await disk.start(), 'a', 'it is tried once')
  assert.equal(await disk.start(Buffer.concat([Buffer.alloc(512), a.subarray(512)])), 'a', 'a choice that was torn')
  assert.equal(await disk.start(grubEnv({ slot: 'b' })), 'b')
  await disk.remove(slotPath('b'))
  assert.equal(await disk.start(), 'a', 'the slot that is kept is lost')
  assert.equal(await disk.start(grubEnv({ slot: 'a', try: 'b' })), 'a', 'the slot that is tried is lost')
  await disk.remove(CHOICE_PATH)
  assert.equal(await disk.start(), 'a', 'no choice')
  await disk.remove(slotPath('a'))
  await disk.holds('No agent on this disk can be started')
  return 'kept, tried once, torn, lost, none'
}

/** A disk that is laid out, with the same agent in both slots. */
async function makeDisk(kernel: KernelFiles, lab: Lab): Promise<LoaderDisk> {
  const partition = { image: 'root', label: 'root', type: PARTITION_TYPES.root, size: MIB, grow: true }
  const layout = { esp: 128 * MIB, state: 32 * MIB, partitions: [partition] }
  const plan = planDisk(layout, { path: 'disk', size: SIZE, sectorBytes: 512 })
  const { code, core } = await makeBiosLoader(lab.dir)
  const { protectiveMbr, header, entries } = gptTable(plan)
  protectiveMbr.set(code)
  await using file = await open(lab.path('disk.img'), 'w')
  await file.truncate(SIZE)
  await file.write(Buffer.concat([protectiveMbr, header, entries]), 0, undefined, 0)
  await file.write(core, 0, core.byteLength, plan.partitions.find(({ label }) => label === BIOS_LABEL)!.offset)
  const esp = `${lab.path('disk.img')}@@${plan.partitions[0]!.offset}`
  await runTool('mkfs.vfat', ['--offset', String(MIB / 512), lab.path('disk.img'), String(layout.esp / 1024)])
  await runTool('mmd', ['-i', esp, '::/EFI', '::/EFI/mesh'])
  const disk = new LoaderDisk(lab, esp)
  const agent = await makeSmallAgent(kernel, lab)
  for (const slot of ['a', 'b']) {
    await disk.put(await readFile(agent), slotPath(slot))
    await disk.put((await grubFacts(agent))!, factsPath(slot))
  }
  return disk
}

async function makeSmallAgent(kernel: KernelFiles, lab: Lab): Promise<string> {
  const tree = new FileTree()
  await tree.program('/bin/busybox', await whichProgram('busybox'))
  tree.write('/init', INIT, 0o755)
  const [initramfs, agent] = [lab.path('initramfs'), lab.path('agent.efi')]
  await writeFile(initramfs, tree.pack())
  const commandLine = 'console=ttyS0 quiet loglevel=3 mesh.word=1'
  const parts = { kernel: kernel.image, initramfs, commandLine, release: 'ID=mesh-agent\n' }
  await makeEfiImage(agent, parts, { work: lab.dir, signing: undefined })
  return agent
}

class LoaderDisk {
  readonly #lab: Lab
  /** The EFI system partition, as mtools are told of it. */
  readonly #esp: string

  constructor(lab: Lab, esp: string) {
    this.#lab = lab
    this.#esp = esp
  }

  async put(content: Buffer, path: string): Promise<void> {
    await writeFile(this.#lab.path('file'), content)
    await runTool('mcopy', ['-o', '-i', this.#esp, this.#lab.path('file'), `::/${path}`])
  }

  async remove(path: string): Promise<void> {
    await runTool('mdel', ['-i', this.#esp, `::/${path}`])
  }

  async choice(): Promise<Buffer> {
    const copy = this.#lab.path('choice')
    await rm(copy, { force: true })
    await runTool('mcopy', ['-i', this.#esp, `::/${CHOICE_PATH}`, copy])
    return readFile(copy)
  }

  /** Starts the machine, with this choice if one is given; returns the slot that the agent was started from. */
  async start(choice?: Buffer): Promise<string> {
    if (choice !== undefined) await this.put(choice, CHOICE_PATH)
    const guest = this.#switchOn()
    const { line } = await guest.event('up', DEADLINE_MS)
    await guest.ended()
    const [, slot] = / console=ttyS0 quiet loglevel=3 mesh\.word=1 mesh\.slot=([ab])$/.exec(String(line)) ?? []
    assert.ok(slot !== undefined, String(line))
    return slot
  }

  /** Starts the machine, which shows this and stays so. */
  async holds(text: string): Promise<void> {
    const guest = this.#switchOn()
    await guest.shown(text, DEADLINE_MS)
    await guest.kill()
  }

  #switchOn(): VirtualMachine {
    const drives = [`file=${this.#lab.path('disk.img')},format=raw`]
    return VirtualMachine.start({ firmware: bios('c').options, drives, tell: {}, memory: 256 })
  }
}
