import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { AgentFolder } from '../../../../tools/boot/serve/agent-folder.ts'
import { Random } from '../../../../tools/lab/random.ts'
import { makeAgentFolder } from '../../../support/agent-folder.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

const siteId = 'b'.repeat(64)
const random = new Random(3)

describe('the folder of an agent', () => {
  it.each([
    ['there is no agent.json', (dir: string) => rm(join(dir, 'agent.json'))],
    ['agent.json is damaged', (dir: string) => writeFile(join(dir, 'agent.json'), '{"site":')],
    ['agent.json', (dir: string) => writeFile(join(dir, 'agent.json'), '{"site":"lab"}')],
    ['agent.img is not the file that was made', (dir: string) => writeFile(join(dir, 'agent.img'), 'half of it')],
    ['vmlinuz cannot be read (ENOENT)', (dir: string) => rm(join(dir, 'vmlinuz'))],
    [
      'is of another site: other, cccccccc…, not bbbbbbbb…',
      async (dir: string) => void (await makeAgentFolder(dir, random, { siteId: 'c'.repeat(64), site: 'other' })),
    ],
    [
      'has no agent.efi',
      async (dir: string) =>
        void (await makeAgentFolder(dir, random, { siteId, sizes: { 'boot.ipxe': 1, vmlinuz: 1, 'agent.img': 1 } })),
    ],
  ])('is refused: %s', async (message, harm) => {
    const dir = await temporaryDirectory()
    await makeAgentFolder(dir, random, { siteId })
    await harm(dir)
    const opening = AgentFolder.open(dir, siteId)
    await expect(opening).rejects.toMatchObject({
      code: 'BOOT_AGENT_UNFIT',
      message: expect.stringContaining(message),
    })
  })

  it('gives nothing while it is made anew, and then the new files', async () => {
    const dir = await temporaryDirectory()
    await makeAgentFolder(dir, random, { siteId })
    const folder = await AgentFolder.open(dir, siteId)
    await writeFile(join(dir, 'vmlinuz'), 'half of it')
    await expect(folder.open('vmlinuz')).rejects.toMatchObject({ code: 'BOOT_AGENT_UNFIT' })
    const contents = await makeAgentFolder(dir, random, { siteId, version: '9' })
    const { handle, size } = await folder.open('vmlinuz')
    const content = Buffer.alloc(size)
    await handle.read(content, 0, size, 0)
    await handle.close()
    expect(content.equals(contents.get('vmlinuz')!)).toBe(true)
    expect(folder.facts.version).toBe('9')
  })
})
