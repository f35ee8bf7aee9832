import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runBuildTool } from './build-tool.ts'

/**
 * Loads the agent's program, and keeps what it has in memory then in the file `target` (https://nodejs.org/api/cli.html#--build-snapshot). Only the same
 * version of Node starts from it, with any processor: compiled code, which would depend on that, is left out. `bundle`: the folder that
 * `npm run build` makes. Errors: BOOT_BUILD_FAILED.
 */
export async function makeSnapshot(target: string, bundle: string, nodeFlags: readonly string[]): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), 'mesh-snapshot-'))
  try {
    const config = join(work, 'config.json')
    await writeFile(config, JSON.stringify({ builder: join(bundle, 'agent/agent.js'), withoutCodeCache: true }))
    await runBuildTool(process.execPath, [...nodeFlags, '--snapshot-blob', target, '--build-snapshot-config', config])
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
