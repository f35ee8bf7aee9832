import { toHex } from '../../../protocol/digest.ts'
import { MeshError } from '../../../protocol/errors.ts'
import { encodeJoinToken } from '../../../protocol/join-token.ts'
import type { DiskSource } from '../../store/disk-source.ts'
import { type Invitation, InvitationBook } from '../../trust/invitations.ts'
import { isPlaceName, type Place } from '../../trust/members.ts'
import { SiteSigner } from '../../trust/site-signer.ts'
import type { Machine } from '../machine/machine.ts'
import type { AgentOptions } from '../machine/options.ts'
import { Enrolment } from '../mesh/enrolment.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { publishEarlier } from '../release/rollback.ts'

export function requireMaster(master: Master | undefined, machine: Machine): Master {
  if (master !== undefined) return master
  throw new MeshError('STATE_NOT_MASTER', `${machine.config.name} is not the master of the site`)
}

export type Master = Awaited<ReturnType<typeof openMaster>>

/** What only the master does: enrol machines and keep the metadata from expiring. */
export async function openMaster(machine: Machine, options: AgentOptions) {
  const { trust, state, config } = machine
  const signer = await SiteSigner.open({ keysDir: state.path('keys'), trust })
  const invitations = await InvitationBook.load(state.sublevel<Invitation>('invitations'))
  const enrolment = new Enrolment({
    trust,
    signer,
    invitations,
    site: config.site,
    joined: (member) => options.report({ type: 'member', ...member }),
  })
  await signer.renew()
  return {
    enrolment: { isOpen: () => invitations.anyOpen(), serve: enrolment.serve.bind(enrolment) },
    renew: async (): Promise<void> => {
      await signer
        .renew()
        .catch((error: Error) => options.report({ type: 'warning', text: `metadata not renewed: ${error.message}` }))
    },
    remove: async (name: string) => {
      const { id } = await signer.removeMember(name)
      return { event: 'removed', name, id }
    },
    rollback: (node: MeshNode, source: DiskSource | undefined, params: Readonly<Record<string, unknown>>) => {
      const { image, label } = params
      const request = {
        release: Number(params.release),
        force: params.force === true,
        ...(typeof image === 'string' ? { image } : {}),
        ...(typeof label === 'string' ? { label } : {}),
      }
      return publishEarlier(request, { machine, signer, node, source })
    },
    invite: async (node: MeshNode, params: Readonly<Record<string, unknown>>) => {
      const [ttlMs, uses] = [Number(params.ttlMs), Number(params.uses)]
      const place = placeOf(params, config.site)
      const opened = await invitations.open({ ttlMs, uses, place })
      const told = Array.isArray(params.addresses) ? params.addresses.map(String) : []
      const addresses = [...told, ...reachable(node.addresses())]
      const token = encodeJoinToken({ siteId: trust.siteId, peerId: node.peerId, addresses, ...opened })
      return {
        event: 'invitation',
        token,
        ...place,
        siteId: toHex(trust.siteId),
        uses,
        expires: new Date(opened.expiresAt).toISOString(),
      }
    },
  }
}

/** What an invitation binds whoever joins by it to. Errors: USAGE. */
function placeOf(params: Readonly<Record<string, unknown>>, ownSite: string): Place {
  const { role = 'machine', site = ownSite, group = site } = params
  if (role !== 'machine' && role !== 'operator')
    throw new MeshError('USAGE', `${String(role)} is no role to invite as; there are machine and operator`)
  if (isPlaceName(site) && isPlaceName(group)) return { role, site, group }
  throw new MeshError('USAGE', 'the name of a site or a group has 1 to 128 printable characters')
}

/** Addresses that mean something to another machine; the loopback ones only if there are no others. */
function reachable(addresses: readonly string[]): string[] {
  const outside = addresses.filter((address) => !/^\/ip4\/127\.|^\/ip6\/::1\//.test(address))
  return outside.length > 0 ? outside : [...addresses]
}
