import { mkdir, rm, writeFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { codeOf } from '../../support/error-code.ts'
import { mount } from '../../support/real-devices.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { forge } from './forger.ts'

describe('the trusted metadata on a full disk', () => {
  it('stays what it was, and goes on when there is space', async (context) => {
    const dir = await temporaryDirectory()
    const small = `${dir}/small`
    await mkdir(small)
    await mount(context, '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', small)
    const { signer, trust } = await makeSite(`${dir}/site`)
    const machine = await TrustStore.join(`${small}/machine`, trust.siteId, (name) => trust.file(name))
    await signer.publish(makeManifest())
    // The longer targets.json is written by tuf-js, in place: it needs space where the others do not.
    const padding = (signed: object) => Object.assign(signed, { padding: 'x'.repeat(12_000) })
    const fetch = await forge(`${dir}/site/keys`, (name) => trust.file(name), { edit: { targets: padding } })
    // From no room at all to nearly enough: each step of a refresh meets the end of the disk.
    const ballast = `${small}/ballast`
    const codes = new Set<string>()
    for (let pages = 0; !codes.has('OK'); pages++) {
      await fillBut(ballast, pages)
      const code = await codeOf(machine.refresh(fetch))
      codes.add(code)
      const view = (await TrustStore.open(`${small}/machine`)).view()
      expect(view.newest('win')?.release, `${pages} pages`).toBe(code === 'OK' ? 1 : undefined)
      expect(machine.view().versions).toEqual(view.versions)
    }
    expect([...codes]).toEqual(['DISK_FULL', 'OK'])
  })
})

/** Fills the file system but for `pages` pages of 4 KiB. */
async function fillBut(ballast: string, pages: number): Promise<void> {
  await rm(ballast, { force: true })
  for (let size = 64; size > 0; size--) {
    const full = await writeFile(ballast, Buffer.alloc(size * 4096, 1)).then(
      () => false,
      () => true,
    )
    if (full) continue
    await writeFile(ballast, Buffer.alloc(Math.max(0, size - pages) * 4096, 1))
    return
  }
}
