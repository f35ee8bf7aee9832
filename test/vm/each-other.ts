import assert from 'node:assert/strict'
import { rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ERA_BLOCK_BYTES } from '../../node/writelog/limits.ts'
import { agentTree } from '../../tools/boot/agent-tree.ts'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { addModules } from '../../tools/boot/kernel-modules.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../tools/lab/node-flags.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { copyRange, makeSystem } from './boot-scenario.ts'
import { differing } from './compare-disks.ts'
import { addMesh } from './initramfs.ts'
import { joinSite, makeDisk, makeStatePartition, settle } from './prepared-disk.ts'
import { type GuestEvent, VirtualMachine } from './virtual-machine.ts'

const MIB = 1024 ** 2
/** Node, mesh, the tools of the write log, and a file that sessions write to. */
const ROOT_BYTES = 224 * MIB
const [ESP_BYTES, STATE_BYTES] = [7 * MIB, 64 * MIB]
/** A kernel, a program of 110 MB and a restore under emulation, twice at a time, on a machine that does other things. */
const DEADLINE_MS = 900_000
const NAMES = ['left', 'right'] as const
type Name = (typeof NAMES)[number]
const PORT = 7433

/** What the system of this model does when it is to serve: mesh runs in it, as the unit of the package does. */
const SERVE = `export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run
modprobe virtio_net 2>/dev/null
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0 2>/dev/null
node ${NODE_FLAGS.join(' ')} /mesh/mesh.js up --json --no-mdns --listen /ip4/0.0.0.0/tcp/${PORT} --state /var/lib/lab-mesh 2>&1 |
  while read -r line; do case "$line" in {*) echo "@@ $line" ;; *) echo "$line" ;; esac; done
`

interface Parts {
  readonly kernel: KernelFiles
  readonly lab: Lab
  /** Path of the agent’s initramfs. */
  readonly agent: string
}

/**
 * Two virtual machines of which each is put right by the other, in whose system mesh runs. No process of the master runs, nor of
 * any other machine. The master of the lab serves when this begins, and is stopped.
 */
export async function eachOther(parts: Parts, random: Random): Promise<string> {
  const { lab } = parts
  const pair = await Pair.prepare(parts, random)
  await lab.stop('master')
  await lab.stop('other')
  // The log of a machine is unknown at its first start, and its second one makes it clean.
  for (const name of NAMES) for (let starts = 0; starts < 2; starts++) await pair.upAndOff(name)
  const told: string[] = []
  for (const [dirty, helper] of [
    ['left', 'right'],
    ['right', 'left'],
  ] as const) {
    await pair.session(dirty)
    const serving = await pair.serve(helper)
    const { fetched } = await pair.upAndOff(dirty)
    await serving.kill()
    assert.ok(fetched > 0, `${dirty} fetched nothing`)
    assert.equal(await pair.changed(dirty), 0)
    told.push(`${fetched} fetched by ${dirty} from the system of ${helper}`)
  }
  return `master off, two machines: ${told.join(', ')}; both are the image`
}

/** Two machines that know each other’s address. */
class Pair {
  readonly #parts: Parts
  readonly #image: string
  readonly #rootAt: number

  private constructor(parts: Parts, image: string, rootAt: number) {
    this.#parts = parts
    this.#image = image
    this.#rootAt = rootAt
  }

  static async prepare(parts: Parts, random: Random): Promise<Pair> {
    const { lab, kernel } = parts
    const image = lab.path('pair.img')
    await makeSystem(image, lab.dir, random, { bytes: ROOT_BYTES, more: (root) => addServing(root, kernel) })
    await lab.ok('master', ['seed', image, '--image', 'pair'])
    // They fetch all of it, and so hear of each other.
    const content = lab.path('blank.img')
    await writeFile(content, '')
    await truncate(content, ROOT_BYTES)
    const machines = NAMES.map((name, at) => ({
      ...{ state: name, name, image: 'pair', content, disk: '/dev/vda3' },
      peers: [NAMES[1 - at]!],
    }))
    for (const machine of machines) await joinSite(lab, machine)
    for (const machine of machines) await settle(lab, machine)
    let rootAt = 0
    for (const name of NAMES) {
      const state = lab.path(`${name}-state.img`)
      await makeStatePartition(state, lab.path(name), STATE_BYTES)
      const starts = await makeDisk(lab.path(`${name}-disk.img`), [
        { name: 'lab-esp', bytes: ESP_BYTES, type: 'ef00' },
        { name: 'lab-state', bytes: STATE_BYTES, content: state },
        { name: 'lab-root', bytes: ROOT_BYTES, content: image },
      ])
      rootAt = starts[2]!
    }
    return new Pair(parts, image, rootAt)
  }

  /** A session writes 1 MiB, and is cut off. */
  async session(name: Name): Promise<void> {
    const guest = this.#switchOn(name, 'elsewhere')
    await guest.event('up', DEADLINE_MS)
    await guest.event('written', DEADLINE_MS)
    await guest.kill()
    assert.ok((await this.changed(name)) > 0)
  }

  /** The system is up, and serves what it is. */
  async serve(name: Name): Promise<VirtualMachine> {
    const guest = this.#switchOn(name, 'serve')
    await guest.event('up', DEADLINE_MS)
    await guest.event('listening', DEADLINE_MS)
    return guest
  }

  async upAndOff(name: Name): Promise<{ fetched: number }> {
    const guest = this.#switchOn(name, 'idle')
    const event = await guest.event('up', DEADLINE_MS)
    await guest.ended()
    return { fetched: fetchedBy(event) }
  }

  /** Pieces of the root that are not those of the model. */
  async changed(name: Name): Promise<number> {
    const now = this.#parts.lab.path('pair.now')
    await copyRange(this.#parts.lab.path(`${name}-disk.img`), this.#rootAt, now, ROOT_BYTES)
    return (await differing(this.#image, now, ERA_BLOCK_BYTES)).count
  }

  /** The host passes connections to the address that the machine had in the lab on to it. */
  #switchOn(name: Name, step: string): VirtualMachine {
    const { kernel, lab, agent } = this.#parts
    const port = /\d+$/.exec(lab.address(name)!)![0]
    return VirtualMachine.start({
      kernel,
      initramfs: agent,
      memory: 1024,
      tell: { step, at: 0 },
      drives: [`file=${lab.path(`${name}-disk.img`)},format=raw`],
      network: [
        ...['-netdev', `user,id=lan,hostfwd=tcp:127.0.0.1:${port}-:${PORT}`],
        ...['-device', 'virtio-net-pci,netdev=lan,romfile='],
      ],
    })
  }
}

/** Puts mesh and Node into the root of a model. */
async function addServing(root: string, kernel: KernelFiles): Promise<void> {
  const tree = await agentTree({ stripped: true })
  await addMesh(tree)
  await addModules(tree, { folder: kernel.modules, names: ['virtio_net', 'ext4'] })
  const archive = `${root}.cpio`
  await writeFile(archive, tree.pack())
  await runTool('busybox', ['sh', '-c', `cd '${root}' && busybox cpio -idmu <'${archive}'`])
  await rm(archive)
  await writeFile(join(root, 'etc/serve'), SERVE)
}

function fetchedBy({ device, said }: GuestEvent): number {
  assert.equal(device, '/dev/mapper/lab')
  const fetched = /: \d+ blocks restored, (\d+) fetched$/.exec(String(said))?.[1]
  assert.ok(fetched !== undefined, String(said))
  return Number(fetched)
}
