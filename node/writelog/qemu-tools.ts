import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { QEMU_OUTPUT_BYTES, QEMU_TOOL_DEADLINE_MS } from './limits.ts'

const execute = promisify(execFile)

/** Runs qemu-img and returns what it printed. Errors: DISK_IN_USE (a running QEMU holds the file), QEMU_FAILED, TOOL_MISSING. */
export async function qemuImg(...args: string[]): Promise<string> {
  try {
    const limits = { timeout: QEMU_TOOL_DEADLINE_MS, maxBuffer: QEMU_OUTPUT_BYTES, env: toolEnv() }
    return (await execute('qemu-img', args, limits)).stdout
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') throw toolError('qemu-img', error)
    const { stderr = '' } = error as { stderr?: string }
    // Only this failure has to be told from the others, and QEMU has no exit code for it.
    if (/Failed to get .*lock/.test(stderr))
      throw new MeshError('DISK_IN_USE', `a running QEMU uses ${args.at(args[0] === 'bitmap' ? -2 : -1)}`, {
        cause: error,
      })
    throw failed('qemu-img', args, stderr, error)
  }
}

/** QEMU_FAILED with what a program of QEMU said as it failed. */
export function failed(program: string, args: readonly string[], said: string, cause?: unknown): MeshError {
  const text = said.trim().replaceAll(/\s*\n\s*/g, '; ')
  return new MeshError('QEMU_FAILED', `${text === '' ? `${program} ${args.join(' ')} failed` : text}`, { cause })
}

/** A program that could not be started: TOOL_MISSING, or the error as it is. */
export function toolError(program: string, cause: unknown): unknown {
  if (errnoOf(cause) !== 'ENOENT') return cause
  return new MeshError('TOOL_MISSING', `the program ${program} of the package qemu-utils is missing`, { cause })
}

/** The environment for programs of QEMU, which then write their messages in English. */
export function toolEnv(): NodeJS.ProcessEnv {
  return { ...process.env, LC_ALL: 'C' }
}

/** In a list of options of qemu-img a comma is doubled. */
export function optionValue(path: string): string {
  return path.replaceAll(',', ',,')
}
