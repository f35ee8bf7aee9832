import { copyFile, open, readFile } from 'node:fs/promises'
import { addressesOf } from '../../node/agent/mesh/addresses.ts'
import { StateDirectory } from '../../node/state/state-directory.ts'
import type { Lab } from '../../tools/lab/local-lab.ts'
import { runTool } from '../../tools/lab/run-tool.ts'

const MIB = 1024 ** 2

/** A partition of a disk that is made by hand. */
export interface DiskPart {
  /** Its GPT name. */
  readonly name: string
  readonly bytes: number
  /** File with what it holds; zeros behind its end. @default nothing */
  readonly content?: string
  /** A type of sgdisk. @default `8300` */
  readonly type?: string
}

/** A machine that has joined, and holds its image, before its disk is in a virtual machine. */
interface Prepared {
  /** Its name in the lab, which is that of its state directory. */
  readonly state: string
  readonly name: string
  readonly image: string
  /** File with what its disk holds when it joins. */
  readonly content: string
  /** Path of its disk in the virtual machine. */
  readonly disk: string
  /** Who serves it: other machines of the lab. */
  readonly peers: readonly string[]
}

/** It does not know its disk yet, which is a partition of a disk to come. */
export async function prepareMachine(lab: Lab, machine: Prepared): Promise<void> {
  await joinSite(lab, machine)
  await settle(lab, machine)
}

/** The first half of {@link prepareMachine}: it is a member. */
export async function joinSite(lab: Lab, { state, name, image, content }: Prepared): Promise<void> {
  const joined = lab.path(`${name}.joined`)
  await copyFile(content, joined)
  await lab.ok(state, ['join', await lab.invite('master'), '--disk', joined, '--name', name, '--image', image])
}

/** The second half: it was restored, and knows the others. If `content` was not the image it has heard of all members. */
export async function settle(lab: Lab, { state, disk, peers }: Prepared): Promise<void> {
  await lab.ok(state, ['restore'])
  const directory = await StateDirectory.open(lab.path(state), { create: false })
  try {
    const { diskIdentity: _, ...machine } = directory.machine!
    await directory.saveMachine({ ...machine, disk, listen: [] })
    for (const peer of peers) {
      const { id } = JSON.parse(await readFile(lab.path(peer, 'machine.json'), 'utf8')) as { id: string }
      // QEMU leads this address to the host’s loopback interface.
      const port = /\d+$/.exec(lab.address(peer)!)![0]
      await addressesOf(directory).putDurable(id, [`/ip4/10.0.2.2/tcp/${port}`])
    }
  } finally {
    await directory.close()
  }
}

/** A file system of ext4 with the state directories below a folder. */
export async function makeStatePartition(file: string, folder: string, bytes: number): Promise<void> {
  await runTool('mke2fs', ['-q', '-t', 'ext4', '-d', folder, '-F', file, `${bytes / 1024}k`])
}

/** Makes a disk with these partitions, one behind the other; returns where each begins, in bytes. */
export async function makeDisk(disk: string, parts: readonly DiskPart[]): Promise<number[]> {
  const starts: number[] = []
  let end = MIB
  for (const { bytes } of parts) {
    starts.push(end)
    end += bytes
  }
  await using file = await open(disk, 'w')
  await file.truncate(end + 8 * MIB)
  const args = parts.flatMap(({ name, bytes, type = '8300' }, at) => {
    const [number, first] = [at + 1, starts[at]! / 512]
    return [
      ...['-n', `${number}:${first}:${first + bytes / 512 - 1}`],
      ...['-t', `${number}:${type}`, '-c', `${number}:${name}`],
    ]
  })
  await runTool('sgdisk', ['-a', '8', ...args, disk])
  for (const [at, { content }] of parts.entries()) {
    if (content === undefined) continue
    const bytes = await readFile(content)
    await file.write(bytes, 0, bytes.byteLength, starts[at])
  }
  return starts
}
