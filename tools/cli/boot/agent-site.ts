import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, toHex } from '../../../protocol/digest.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { AGENT_CONFIG } from '../../boot/boot-scripts.ts'

/** The site that the agent was made for, as its id in hexadecimal. Errors: BOOT_AGENT_UNFIT if the agent has lost its root metadata. */
export async function agentSite(): Promise<string> {
  const path = join(AGENT_CONFIG, '1.root.json')
  const root = await readFile(path).catch((cause: unknown) => {
    const text = `the agent is damaged: ${path} cannot be read (${errnoOf(cause)})`
    throw new MeshError('BOOT_AGENT_UNFIT', text, { cause })
  })
  return toHex(digestOf(root))
}
