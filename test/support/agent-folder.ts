import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, toHex } from '../../protocol/digest.ts'
import { type AgentFacts, FACTS_FILE } from '../../tools/boot/agent-facts.ts'
import type { Random } from '../../tools/lab/random.ts'

const SIZES: Readonly<Record<string, number>> = {
  'boot.ipxe': 112,
  vmlinuz: 300_000,
  'agent.img': 700_000,
  'agent.efi': 1_000_001,
}

/** A folder like that of `mesh boot build`, with files of random bytes. Returns their content. */
export async function makeAgentFolder(
  dir: string,
  random: Random,
  { sizes = SIZES, ...facts }: Pick<AgentFacts, 'siteId'> & Partial<AgentFacts> & { readonly sizes?: typeof SIZES },
): Promise<Map<string, Buffer>> {
  await mkdir(dir, { recursive: true })
  const contents = new Map(Object.entries(sizes).map(([name, size]) => [name, Buffer.from(random.bytes(size))]))
  for (const [name, content] of contents) await writeFile(join(dir, name), content)
  const files = [...contents].map(([name, content]) => ({
    name,
    size: content.byteLength,
    sha256: toHex(digestOf(content)),
  }))
  const all: AgentFacts = {
    ...{ site: 'lab', rootVersion: 1, version: '0.1.0', kernel: '6.1.0-x', signed: false },
    ...facts,
    files,
  }
  await writeFile(join(dir, FACTS_FILE), JSON.stringify(all))
  return contents
}
