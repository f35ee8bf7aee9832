import { type DiskLayout, decodeLayout } from '../../../protocol/disk-layout.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { isRecord, literal, natural, object } from '../../../protocol/json-shape.ts'
import { assertImagesFit, siteLayout } from '../../trust/site-layout.ts'
import type { SiteSigner } from '../../trust/site-signer.ts'
import type { TrustStore } from '../../trust/trust-store.ts'
import { Machine } from '../machine/machine.ts'

/** The answer to `layout`. */
export const isLayoutSet = object({ event: literal('layout-set'), version: natural() })

/**
 * Signs a layout of disks that another command of the master asks for. `version`: that of the timestamp role. Errors: LAYOUT_INVALID,
 * FORMAT_NEWER, IMAGE_UNKNOWN, USAGE, and those of signing.
 */
export async function publishLayout(
  { layout: asked }: Readonly<Record<string, unknown>>,
  { trust, signer }: { readonly trust: TrustStore; readonly signer: SiteSigner },
): Promise<{ event: 'layout-set'; version: number }> {
  if (!isRecord(asked)) throw new MeshError('USAGE', 'layout takes a layout of disks')
  const layout = decodeLayout(asked)
  assertImagesFit(trust.view(), layout)
  await signer.setLayout(layout)
  return { event: 'layout-set', version: trust.view().versions.timestamp }
}

/** The layout of disks that this machine knows of, whatever its role. Errors: LAYOUT_MISSING, LAYOUT_INVALID, FORMAT_NEWER, and those of the state directory. */
export async function knownLayout(stateDir: string): Promise<DiskLayout> {
  const { trust } = await Machine.look(stateDir)
  return siteLayout(trust.view())
}
