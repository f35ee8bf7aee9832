import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { assertImagesFit, siteLayout } from '../../../node/trust/site-layout.ts'
import { TrustStore } from '../../../node/trust/trust-store.ts'
import { type DiskLayout, PARTITION_TYPES } from '../../../protocol/disk-layout.ts'
import { byteCount } from '../../../protocol/units.ts'
import { codeOf } from '../../support/error-code.ts'
import { makeManifest, makeSite } from '../../support/site.ts'
import { temporaryDirectory } from '../../support/temporary.ts'
import { forge } from './forger.ts'

const MIB = 1024 ** 2
const LAYOUT: DiskLayout = {
  esp: 256 * MIB,
  state: 64 * MIB,
  partitions: [{ image: 'win', label: 'win', type: PARTITION_TYPES.windows, size: MIB, grow: true }],
}

describe('the layout of disks in the signed metadata', () => {
  it('comes to every machine, and stays while other things are signed', async () => {
    const here = await temporaryDirectory()
    const { trust, signer } = await makeSite(here)
    expect(await codeOf(async () => siteLayout(trust.view()))).toBe('LAYOUT_MISSING')
    await signer.setLayout(LAYOUT)
    const { timestamp } = trust.view().versions
    await signer.setLayout(LAYOUT)
    expect(trust.view().versions.timestamp, 'the same layout signs nothing').toBe(timestamp)
    await signer.publish(makeManifest())
    await signer.addMember({ id: 'id-1', name: 'pc1', role: 'machine', site: 'lab', group: 'lab', mac: [], added: 'x' })
    const joined = await TrustStore.join(join(here, 'joined'), trust.siteId, (name) => trust.file(name))
    expect(siteLayout(joined.view())).toEqual(LAYOUT)
    const other = { ...LAYOUT, state: 128 * MIB }
    await signer.setLayout(other)
    await joined.refresh((name) => trust.file(name))
    expect(siteLayout(joined.view())).toEqual(other)
  })

  it('that a later version has signed does not stop this one from trusting the rest', async () => {
    const here = await temporaryDirectory()
    const { trust, signer } = await makeSite(here)
    await signer.setLayout(LAYOUT)
    const fetch = await forge(join(here, 'keys'), (name) => trust.file(name), {
      edit: { targets: (signed) => Object.assign(signed, { layout: { format: 3, disks: [] } }) },
    })
    const joined = await TrustStore.join(join(here, 'joined'), trust.siteId, fetch)
    expect(await codeOf(async () => siteLayout(joined.view()))).toBe('FORMAT_NEWER')
  })

  it('is refused if an image is not there, or larger than its partition', async () => {
    const { trust, signer } = await makeSite(await temporaryDirectory())
    const fits = (layout: DiskLayout) => codeOf(async () => assertImagesFit(trust.view(), layout))
    expect(await fits(LAYOUT)).toBe('IMAGE_UNKNOWN')
    await signer.publish(makeManifest({ size: byteCount(MIB) }))
    expect([...assertImagesFit(trust.view(), LAYOUT).values()].map(({ release }) => release)).toEqual([1])
    expect(await fits({ ...LAYOUT, agent: 'agent' })).toBe('IMAGE_UNKNOWN')
    await signer.publish(makeManifest({ image: 'agent', size: byteCount(63 * MIB) }))
    expect(assertImagesFit(trust.view(), { ...LAYOUT, agent: 'agent' }).size).toBe(1)
    expect(await fits({ ...LAYOUT, agent: 'agent', esp: 255 * MIB })).toBe('LAYOUT_INVALID')
    await signer.publish(makeManifest({ release: 2, size: byteCount(MIB + 1) }))
    expect(await fits(LAYOUT)).toBe('LAYOUT_INVALID')
  })
})
