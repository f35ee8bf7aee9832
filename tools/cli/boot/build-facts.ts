import { join, resolve } from 'node:path'
import { Machine } from '../../../node/agent/machine/machine.ts'
import { MeshError } from '../../../protocol/errors.ts'
import type { AgentSite } from '../../boot/build-agent.ts'
import { BUNDLE } from '../bundle.ts'

/** The site that a state directory belongs to. Errors: those of the state directory. */
export async function siteOf(stateDir: string): Promise<AgentSite> {
  const { config, trust } = await Machine.look(stateDir)
  const root = await trust.file('1.root.json')
  if (root === undefined) throw new MeshError('STATE_CORRUPT', `${stateDir} has lost the site’s first root metadata`)
  return { name: config.site, root }
}

/** Folder of the bundle: that of this program, or the one that was built from the sources. */
export function bundleFolder(): string {
  return BUNDLE !== undefined ? import.meta.dirname : join(import.meta.dirname, '../../../dist')
}

/** Key and certificate; both are given, or neither. Errors: USAGE. */
export function signingOf({
  signKey,
  signCert,
}: {
  signKey?: string
  signCert?: string
}): { key: string; certificate: string } | undefined {
  if (signKey === undefined && signCert === undefined) return undefined
  if (signKey === undefined || signCert === undefined)
    throw new MeshError('USAGE', 'give --sign-key and --sign-cert, both')
  return { key: resolve(signKey), certificate: resolve(signCert) }
}
