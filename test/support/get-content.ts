import type { BlockSource, Position } from '../../node/store/block-source.ts'
import type { Digest } from '../../protocol/digest.ts'

/** Asks for one thing. Fails if there is not exactly one answer. */
export async function getContent(source: BlockSource, digest: Digest, hint: Position): Promise<Uint8Array | undefined> {
  const answers: (Uint8Array | undefined)[] = []
  await source.getMany([{ digest, ...hint }], (_, content) => answers.push(content))
  if (answers.length !== 1) throw new Error(`${answers.length} answers to one request`)
  return answers[0]
}
