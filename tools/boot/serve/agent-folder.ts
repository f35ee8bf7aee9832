import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { type AgentFacts, FACTS_FILE, readAgentFacts } from '../agent-facts.ts'

/** Files that machines fetch. The image for CD and USB stick is not among them. */
export const SERVED_FILES = ['boot.ipxe', 'vmlinuz', 'agent.img', 'agent.efi'] as const

/** Name of such a file. */
export type ServedFile = (typeof SERVED_FILES)[number]

/** One file to be sent. Whoever gets it closes it. */
export interface OpenedFile {
  readonly handle: FileHandle
  readonly size: number
  readonly sha256: string
}

/** The folder that `mesh boot build` has made. If it is made anew meanwhile the new agent is served. */
export class AgentFolder {
  readonly path: string
  readonly #siteId: string
  #facts: AgentFacts
  #stamp: string
  #loading: Promise<void> | undefined

  private constructor(path: string, siteId: string, facts: AgentFacts, stamp: string) {
    this.path = path
    this.#siteId = siteId
    this.#facts = facts
    this.#stamp = stamp
  }

  /** Opens the folder of an agent of this site, and hashes its files. Errors: BOOT_AGENT_UNFIT. */
  static async open(path: string, siteId: string): Promise<AgentFolder> {
    const stamp = await stampOf(path)
    return new AgentFolder(path, siteId, await factsOf(path, siteId), stamp)
  }

  /** What the agent is. */
  get facts(): AgentFacts {
    return this.#facts
  }

  /** Opens a file of the agent as it is now. Errors: BOOT_AGENT_UNFIT, such as while the folder is being made anew. */
  async open(name: ServedFile): Promise<OpenedFile> {
    await this.#refresh()
    const fact = this.#facts.files.find((file) => file.name === name)!
    const handle = await open(join(this.path, name)).catch((cause: unknown) => {
      throw unfit(`${join(this.path, name)} cannot be read (${errnoOf(cause)})`)
    })
    const { size } = await handle.stat()
    if (size === fact.size) return { handle, size, sha256: fact.sha256 }
    await handle.close()
    throw unfit(`${join(this.path, name)} has ${size} bytes, not ${fact.size}: it is being made anew, or was changed`)
  }

  async #refresh(): Promise<void> {
    const stamp = await stampOf(this.path)
    if (stamp === this.#stamp) return
    this.#loading ??= (async () => {
      this.#facts = await factsOf(this.path, this.#siteId)
      this.#stamp = stamp
    })().finally(() => (this.#loading = undefined))
    await this.#loading
  }
}

const unfit = (message: string): MeshError => new MeshError('BOOT_AGENT_UNFIT', message)

async function stampOf(path: string): Promise<string> {
  const found = await stat(join(path, FACTS_FILE)).catch((cause: unknown) => {
    const why = errnoOf(cause) === 'ENOENT' ? `there is no ${FACTS_FILE}` : `${FACTS_FILE}: ${errnoOf(cause)}`
    throw unfit(`${path} holds no agent that can be served: ${why}`)
  })
  return `${found.ino} ${found.mtimeMs} ${found.size}`
}

async function factsOf(path: string, siteId: string): Promise<AgentFacts> {
  const content = await readFile(join(path, FACTS_FILE))
  let facts: AgentFacts
  try {
    facts = readAgentFacts(content)
  } catch (error) {
    throw unfit(`${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
  if (facts.siteId !== siteId)
    throw unfit(
      `the agent in ${path} is of another site: ${facts.site}, ${facts.siteId.slice(0, 8)}…, not ${siteId.slice(0, 8)}…`,
    )
  for (const name of SERVED_FILES) {
    const fact = facts.files.find((file) => file.name === name)
    if (fact === undefined) throw unfit(`the agent in ${path} has no ${name}`)
    if ((await hashOf(join(path, name))) !== fact.sha256)
      throw unfit(`${join(path, name)} is not the file that was made: it was changed, or not copied whole`)
  }
  return facts
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash).catch((cause: unknown) => {
    throw unfit(`${path} cannot be read (${errnoOf(cause)})`)
  })
  return hash.digest('hex')
}
