import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { VirtualMachine } from './virtual-machine.ts'

/** Folder for what the handbook shows; without it nothing is kept. */
const FOLDER = process.env.MESH_VM_SCREENS

/** Takes a picture of what a guest shows, `NAME.png`. */
export async function keepPicture(guest: VirtualMachine, name: string): Promise<void> {
  if (FOLDER === undefined) return
  await mkdir(FOLDER, { recursive: true })
  await guest.picture(join(FOLDER, `${name}.png`))
}
