import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'

/** A directory of the test file's own, removed after its tests. Call the result inside tests and hooks. */
export function useTempDir(): (...parts: string[]) => string {
  let dir = ''
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'mesh-test-'))
  })
  afterAll(() => rm(dir, { recursive: true, force: true }))
  return (...parts) => join(dir, ...parts)
}
