import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runBuildTool } from './build-tool.ts'

/** Functions are compiled when the program is loaded, not when they are called first: their bytecode is part of what is kept. */
const COMPILE_ALL = '--no-lazy'

/**
 * Loads the agent's program, and keeps what it has in memory then in the file `target` (https://nodejs.org/api/cli.html#--build-snapshot). Only the same
 * version of Node starts from it, with any processor: bytecode is the same on all, and the code cache of Node's own modules, which names a
 * processor, is left out. `bundle`: the folder that `npm run build` makes. Errors: BOOT_BUILD_FAILED.
 */
export async function makeSnapshot(target: string, bundle: string, nodeFlags: readonly string[]): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), 'mesh-snapshot-'))
  try {
    const config = join(work, 'config.json')
    await writeFile(config, JSON.stringify({ builder: join(bundle, 'agent/agent.js'), withoutCodeCache: true }))
    const flags = [...nodeFlags, COMPILE_ALL, '--snapshot-blob', target]
    await runBuildTool(process.execPath, [...flags, '--build-snapshot-config', config])
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
