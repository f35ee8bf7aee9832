import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { grubEnv } from '../../../../node/agent/boot/grub-env.ts'
import { runTool } from '../../../../tools/lab/run-tool.ts'
import { orSkip } from '../../../support/real-devices.ts'
import { temporaryDirectory } from '../../../support/temporary.ts'

describe('a block of variables for GRUB', () => {
  it('is read by its own tool, whole units long', async (context) => {
    await orSkip(context, 'which', ['grub-editenv'])
    const file = join(await temporaryDirectory(), 'block')
    const long = `console=ttyS0 ${'x'.repeat(1200)}`
    for (const [values, bytes] of [
      [{ slot: 'a', try: 'b' }, 1024],
      [{ slot: 'b' }, 1024],
      [{ arguments: long }, 2048],
      [{ arguments: 'a\\b "c d"' }, 1024],
    ] as const) {
      const block = grubEnv(values)
      expect(block.byteLength).toBe(bytes)
      await writeFile(file, block)
      const listed = Object.entries(values).map(([name, value]) => `${name}=${value}\n`)
      expect(await runTool('grub-editenv', [file, 'list'])).toBe(listed.join(''))
    }
  })

  it('that says which slot is started differs in its first sector only', () => {
    const [before, after] = [grubEnv({ slot: 'a' }), grubEnv({ slot: 'a', try: 'b' })]
    expect(before.subarray(512).equals(after.subarray(512))).toBe(true)
  })
})
