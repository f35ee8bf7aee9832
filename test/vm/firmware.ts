import { chmod, copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Lab } from '../../tools/lab/local-lab.ts'

const FOLDER = '/usr/share/OVMF'

/** QEMU’s options of a computer’s firmware, and of a network card that it starts from. */
export interface FirmwareOptions {
  readonly options: readonly string[]
  readonly card: readonly string[]
}

/** A firmware of UEFI: its code, and its variables as they are when the computer is switched on for the first time. */
export interface UefiFirmware {
  readonly code: string
  readonly variables: string
  readonly more?: readonly string[]
}

/** OVMF as Debian brings it. */
export const PLAIN_UEFI: UefiFirmware = { code: 'OVMF_CODE_4M.fd', variables: 'OVMF_VARS_4M.fd' }

/** SeaBIOS with its screen on the serial console, and the card’s ROM, which is iPXE in QEMU. `from`: disk (c), CD (d), network (n). */
export function bios(from: 'c' | 'd' | 'n'): FirmwareOptions {
  return { options: ['-machine', 'pc,graphics=off', '-boot', from], card: from === 'n' ? [] : ['romfile='] }
}

/** OVMF with its own driver of the card, and a copy of its variables. */
export async function uefi(lab: Lab, { code, variables, more = [] }: UefiFirmware): Promise<FirmwareOptions> {
  const copy = lab.path('variables.fd')
  await copyFile(join(FOLDER, variables), copy)
  await chmod(copy, 0o600)
  const options = [
    ...['-machine', 'q35,smm=on', ...more],
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${join(FOLDER, code)}`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${copy}`],
  ]
  return { options, card: ['romfile='] }
}
