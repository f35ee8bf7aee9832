import { AGENT_SLOTS, type AgentSlot } from '../../../protocol/agent-slots.ts'
import { MAX_TEXT_BYTES } from '../../../protocol/constants.ts'
import { literal, natural, object, optional, type Shaped, text } from '../../../protocol/json-shape.ts'
import { AGENT_TRIES } from './limits.ts'

const release = { slot: literal(...AGENT_SLOTS), release: natural(), root: text(MAX_TEXT_BYTES) }
const trialShape = {
  ...release,
  /** How often it was to be started; absent: once. */
  starts: optional(natural()),
}
const keptShape = {
  ...release,
  image: text(MAX_TEXT_BYTES),
  /** In the other slot: the firmware starts it once, and it becomes the one that is kept if it comes as far as to be asked for this. */
  tried: optional(object(trialShape)),
  /** Root of the one that did not. */
  failed: optional(text(MAX_TEXT_BYTES)),
}

/** Check of `agent.json` in the state directory, which says which agent is on the disk. */
export const isKept = object(keptShape)
/** Which agent is on the disk, and which is tried. */
export type KeptAgent = Shaped<typeof keptShape>

/** What has become of an agent that was tried: it is kept; it is tried once more; it has failed; it is not asked for any more; or nobody knows yet. */
interface TrialOutcome {
  readonly became: 'kept' | 'again' | 'failed' | 'dropped' | 'unknown'
  /** What `agent.json` is to say: before the firmware is told to try again, after it is told to keep. */
  readonly kept: KeptAgent
}

/**
 * Judges a trial by the slot of this start. A start from the old slot says that the new agent has not come to its end, and that may be a power cut as well as a
 * fault. So it is tried {@link AGENT_TRIES} times. `newest`: root of the agent that the site wants; no other is tried again.
 */
export function judgeTrial(
  { tried, ...before }: KeptAgent & { readonly tried: NonNullable<KeptAgent['tried']> },
  current: AgentSlot | undefined,
  newest: string,
): TrialOutcome {
  const { starts = 1, ...fresh } = tried
  const { failed: _, ...rest } = before
  if (current === tried.slot) return { became: 'kept', kept: { ...fresh, image: before.image } }
  // Somebody started it from elsewhere: the firmware may still try it.
  if (current !== before.slot) return { became: 'unknown', kept: { ...before, tried } }
  if (starts >= AGENT_TRIES) return { became: 'failed', kept: { ...rest, failed: tried.root } }
  if (tried.root !== newest) return { became: 'dropped', kept: rest }
  return { became: 'again', kept: { ...before, tried: { ...fresh, starts: starts + 1 } } }
}
