import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { asFallback } from '../../../../node/agent/boot/agent-start.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

describe('where firmware looks by itself', () => {
  it.each([
    ['there is nothing', {}, { 'BOOTX64.EFI': 'the agent' }],
    ['there is an older agent, or another system', { 'BOOTX64.EFI': 'other' }, { 'BOOTX64.EFI': 'the agent' }],
    [
      'there is shim',
      { 'BOOTX64.EFI': 'shim', 'grubx64.efi': 'older' },
      { 'BOOTX64.EFI': 'shim', 'grubx64.efi': 'the agent' },
    ],
  ])('is the agent, if %s', async (_, before, after) => {
    const folder = await temporaryDirectory()
    const agent = join(folder, 'agent-a.efi')
    await writeFile(agent, 'the agent')
    const boot = join(folder, 'EFI/BOOT')
    await mkdir(boot, { recursive: true })
    for (const [name, text] of Object.entries(before)) await writeFile(join(boot, name), text)
    await asFallback(agent, boot)
    const names = await readdir(boot)
    const found = await Promise.all(names.map(async (name) => [name, await readFile(join(boot, name), 'utf8')]))
    expect(Object.fromEntries(found)).toEqual(after)
  })
})
