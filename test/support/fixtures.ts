import { open, writeFile } from 'node:fs/promises'
import type { Lab } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'

export const BLOCK = 65536

/** A published image of random blocks, and a running master. */
export async function startMaster(lab: Lab, blocks: number, random: Random): Promise<Buffer> {
  const image = Buffer.from(random.bytes(blocks * BLOCK))
  await writeFile(lab.path('model.img'), image)
  await lab.serve('master', ['seed', lab.path('model.img')])
  return image
}

/** Joins `machine` with a disk of zeros as large as `image`. */
export async function joinMachine(lab: Lab, machine: string, image: Uint8Array, token: string): Promise<void> {
  await writeFile(lab.path(`${machine}.img`), new Uint8Array(image.byteLength))
  await lab.ok(machine, ['join', token, '--disk', lab.path(`${machine}.img`), '--name', machine])
}

/** Overwrites whole blocks with random bytes. */
export async function dirty(path: string, blocks: Iterable<number>, random: Random): Promise<void> {
  const disk = await open(path, 'r+')
  for (const block of blocks) await disk.write(random.bytes(BLOCK), 0, BLOCK, block * BLOCK)
  await disk.close()
}
