import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Stage } from '../../node/store/stage.ts'
import { checkMaster, proveMaster } from '../../node/trust/master-proof.ts'
import { digestOf } from '../../protocol/digest.ts'
import { GOLDEN_KEY } from '../support/key-of.ts'
import { makeSite } from '../support/site.ts'
import { folder } from './folder.ts'
import type { Target } from './target.ts'

const BLOCK_BYTES = 65_536

function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

/** The index of a stage. Whatever it says, no content is taken that has another digest. */
const stage: Target = {
  name: 'stage-index',
  errors: ['FORMAT_NEWER'],
  async seeds() {
    const path = join(folder(), 'stage-seed')
    const made = await Stage.open(path, BLOCK_BYTES)
    await made.close()
    const empty = await readFile(join(path, 'index'))
    return [empty, Buffer.concat([empty, Buffer.alloc(32, 1), Buffer.alloc(32), Buffer.alloc(32, 2)])]
  },
  async run(input) {
    const path = join(folder(), 'stage')
    await mkdir(path, { recursive: true })
    await writeFile(join(path, 'index'), input)
    const before = openFiles()
    const opened = await Stage.open(path, BLOCK_BYTES).catch((error: unknown) => {
      assert.equal(openFiles(), before, 'files stay open')
      throw error
    })
    try {
      assert.equal(await opened.read(Buffer.alloc(32, 1)), undefined)
      const peeked = await Stage.peek(path)
      return peeked !== undefined
    } finally {
      await opened.close()
    }
  },
}

/** Root metadata of a site, as a stranger sends it. No root that the site has not signed makes a stranger the master. */
const root: Target = {
  name: 'root-metadata',
  errors: ['METADATA_INVALID', 'FORMAT_NEWER'],
  takesSeeds: false,
  async seeds() {
    const { trust } = await makeSite(join(folder(), 'site'))
    const bytes = await trust.file('1.root.json')
    assert(bytes !== undefined)
    return [bytes]
  },
  async run(input) {
    const vouched = { siteId: digestOf(input), master: 'a', machine: 'b' }
    const fetch = async (name: string): Promise<Uint8Array | undefined> => (name === '1.root.json' ? input : undefined)
    await checkMaster(vouched, proveMaster(vouched, GOLDEN_KEY), fetch)
    assert.fail('a stranger is taken for the master')
  },
}

export const STATE_TARGETS: readonly Target[] = [stage, root]
