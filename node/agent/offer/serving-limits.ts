import { getPriority, setPriority } from 'node:os'
import { parseUplinkRule } from '../../../protocol/uplink-rule.ts'
import type { ServeLimits } from '../../exchange/serve/serve-pace.ts'
import type { UplinkLimit } from '../../exchange/uplink/uplink-pace.ts'
import type { ServingConfig } from '../../state/machine-config.ts'
import type { AgentEvent } from '../machine/events.ts'
import type { MeshNode } from '../mesh/mesh-node.ts'
import { IN_USE_CPU_SHARE, IN_USE_RATE_SHARE, SERVING_NICE } from './limits.ts'
import { UseWatch } from './use-watch.ts'

/** Tells a node what serving and the uplink may take. Errors: USAGE. */
export function limitNode(node: Pick<MeshNode, 'limitServing' | 'limitUplink'>, config: ServingConfig): void {
  node.limitServing(servingLimits(config, false))
  node.limitUplink(uplinkLimit(config))
}

/** Looks whether somebody uses the machine, until the stack ends. Serving takes less as long as somebody does. */
export function spareUser(
  node: Pick<MeshNode, 'limitServing'>,
  config: ServingConfig,
  report: (event: AgentEvent) => void,
  stack: AsyncDisposableStack,
): UseWatch {
  const use = new UseWatch({
    check: config.inUseCheck,
    changed: (inUse) => node.limitServing(servingLimits(config, inUse)),
    warn: (text) => report({ type: 'warning', text }),
  })
  use.start()
  return stack.adopt(use, (it) => it.stop())
}

/** What serving may take: all it wants while nobody uses the machine, unless the user said otherwise. */
function servingLimits(config: ServingConfig, inUse: boolean): ServeLimits {
  const { maxUpload, maxCpu, maxPeers } = config
  const cpuShare = inUse ? Math.min(maxCpu ?? 1, IN_USE_CPU_SHARE) : maxCpu
  return {
    ...(maxUpload === undefined ? {} : { bytesPerSecond: maxUpload * (inUse ? IN_USE_RATE_SHARE : 1) }),
    ...(cpuShare === undefined ? {} : { cpuShare }),
    ...(maxPeers === undefined ? {} : { peers: maxPeers }),
  }
}

/** What may cross the uplink; undefined: all that there is. */
function uplinkLimit({ uplink, uplinkStrict = false }: ServingConfig): UplinkLimit | undefined {
  return uplink === undefined ? undefined : { rules: parseUplinkRule(uplink), strict: uplinkStrict }
}

/** Lets everything else on this machine go first. Threads that are made later inherit it. */
export function stepBack({ nice = SERVING_NICE }: ServingConfig): void {
  if (nice > getPriority()) setPriority(nice)
}
