import { MAX_TEXT_BYTES } from '../../protocol/constants.ts'
import { readJson } from '../../protocol/document.ts'
import { list, natural, object, type Shaped, text, truth, which } from '../../protocol/json-shape.ts'
import { MAX_AGENT_FILES } from './limits.ts'

/** Name of the file that `mesh boot build` writes last, beside the agent: what the agent is. */
export const FACTS_FILE = 'agent.json'

const isName = which(text(MAX_TEXT_BYTES), (name) => /^[a-z0-9][a-z0-9.-]*$/.test(name))
const isHash = which(text(64), (hex) => /^[0-9a-f]{64}$/.test(hex))
const facts = {
  site: text(MAX_TEXT_BYTES),
  siteId: isHash,
  /** Version of the site’s newest root metadata when the agent was made. */
  rootVersion: natural(),
  /** Version of mesh, and of the kernel. */
  version: text(MAX_TEXT_BYTES),
  kernel: text(MAX_TEXT_BYTES),
  /** Whether `agent.efi` is signed for Secure Boot. */
  signed: truth,
  files: list(object({ name: isName, size: natural(), sha256: isHash }), MAX_AGENT_FILES),
} as const
const isFacts = object(facts)

/** What an agent is: whose, of which versions, and its files. */
export type AgentFacts = Shaped<typeof facts>

/** Reads the content of {@link FACTS_FILE}. Throws an Error that says what is wrong with it. */
export function readAgentFacts(content: Uint8Array): AgentFacts {
  return readJson(FACTS_FILE, isFacts, content)
}
