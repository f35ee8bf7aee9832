import type { ConnectionGater } from '@libp2p/interface'

/** Says who may be connected: members, and joiners while an invitation is open. */
export interface Gate {
  admits(peerId: string): boolean
}

/** Applies a gate once noise has proven the other side's identity, in both directions. */
export function connectionGater(gate: Gate): ConnectionGater {
  const denies = (peerId: { toString(): string }): boolean => !gate.admits(peerId.toString())
  return {
    denyDialPeer: denies,
    denyDialMultiaddr: () => false,
    denyInboundEncryptedConnection: denies,
    denyOutboundEncryptedConnection: denies,
  }
}
