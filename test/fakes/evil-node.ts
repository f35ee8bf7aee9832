import { Machine } from '../../node/agent/machine/machine.ts'
import { MeshNode } from '../../node/agent/mesh/mesh-node.ts'
import { openDevice } from '../../node/disk/file-device.ts'
import { ImageDisk } from '../../node/disk/image-disk.ts'
import type { Holding } from '../../node/store/block-source.ts'
import { DiskSource } from '../../node/store/disk-source.ts'
import { TreeStore } from '../../node/store/tree-store.ts'
import { Bitmap } from '../../protocol/bitmap.ts'

/**
 * A member that misbehaves, as a process of its own: `evil-node.ts STATE ADDRESS MODE`. It speaks the protocol with the
 * real code; only what it serves is wrong. Modes: `lie` flips a byte in every block, `stall` never answers, `leave` exits
 * after a few blocks, `stale` claims newer metadata than it has.
 */
const [stateDir = '', address = '', mode = ''] = process.argv.slice(2)
const LEAVE_AFTER = 5

const machine = await Machine.open(stateDir)
if (mode === 'stale') {
  const { trust } = machine
  const view = trust.view.bind(trust)
  trust.view = () => {
    const { siteId, head, members, removed, images, expires, layout } = view()
    return {
      siteId,
      head,
      members,
      removed,
      images,
      expires,
      layout,
      versions: { root: 1, timestamp: 1_000_000 },
      memberById: (id) => view().memberById(id),
      newest: (image) => view().newest(image),
      release: (image, release) => view().release(image, release),
      releases: (image) => view().releases(image),
      releaseByRoot: (root) => view().releaseByRoot(root),
    }
  }
}
const manifest = machine.manifest()
const tree = await new TreeStore(machine.state.path('trees')).open(manifest)
const held = new Bitmap(tree.geometry.blockCount)
held.setRange(0, held.length)
const disk = new ImageDisk(await openDevice(machine.diskPath, { writable: false }), manifest)
const source = new DiskSource({ disk, tree, held })

let served = 0
const evil: Holding = {
  root: source.root,
  size: source.size,
  blockSize: source.blockSize,
  held: () => source.held(),
  has: (digest) => source.has(digest),
  onChange: (listener) => source.onChange(listener),
  getMany: async (requests, deliver) => {
    if (mode === 'stall') return new Promise(() => undefined)
    await source.getMany(requests, (at, block) => {
      if (mode === 'leave' && ++served > LEAVE_AFTER) process.exit(0)
      if (mode !== 'lie' || block === undefined) return deliver(at, block)
      const wrong = Buffer.from(block)
      wrong[100]! ^= 1
      deliver(at, wrong)
    })
  },
}
const node = await MeshNode.start({ machine, listen: [address], mdns: false, report: () => undefined })
node.hold(evil)
process.stdout.write('ready\n')
process.on('SIGTERM', () => process.exit(0))
