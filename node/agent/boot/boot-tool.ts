import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { type ErrorCode, MeshError } from '../../../protocol/errors.ts'
import { BOOT_TOOL_DEADLINE_MS } from './limits.ts'

const execute = promisify(execFile)

/** Runs a program of the agent to its end, and returns what it printed. Errors: `code` with what it said. */
export async function runBootTool(
  name: string,
  args: readonly string[],
  code: ErrorCode = 'BOOT_NO_SYSTEM',
): Promise<string> {
  const env = { ...process.env, PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin` }
  try {
    return (await execute(name, args, { env, timeout: BOOT_TOOL_DEADLINE_MS })).stdout.trim()
  } catch (cause) {
    const said = String((cause as { stderr?: string }).stderr ?? '').trim()
    const text = `${name} ${args.join(' ')}: ${said === '' ? 'failed' : said.replaceAll(/\s*\n\s*/g, '; ')}`
    throw new MeshError(code, text, { cause })
  }
}
