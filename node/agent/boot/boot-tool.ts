import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { MeshError } from '../../../protocol/errors.ts'
import { BOOT_TOOL_DEADLINE_MS } from './limits.ts'

const execute = promisify(execFile)

/** Runs a program of the agent to its end. Errors: BOOT_NO_SYSTEM with what it said. */
export async function runBootTool(name: string, args: readonly string[]): Promise<void> {
  try {
    await execute(name, args, { timeout: BOOT_TOOL_DEADLINE_MS })
  } catch (cause) {
    const said = String((cause as { stderr?: string }).stderr ?? '').trim()
    const text = `${name} ${args.join(' ')}: ${said === '' ? 'failed' : said.replaceAll(/\s*\n\s*/g, '; ')}`
    throw new MeshError('BOOT_NO_SYSTEM', text, { cause })
  }
}
