import { execFile } from 'node:child_process'
import { appendFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { makeSnapshot } from '../../../tools/boot/agent-snapshot.ts'
import { NODE_FLAGS } from '../../../tools/lab/node-flags.ts'
import { makeBundle } from '../../../tools/make-bundle.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const TRAP = join(import.meta.dirname, '../../support/ask-trap.ts')

/** Asked by libraries for their own output: debug, its colours, and the marks that brace-expansion puts into a pattern. */
const HARMLESS = [
  'Math.random',
  'process.env',
  'process.env.BUF_BIGINT_DISABLE',
  'process.env.DEBUG',
  'process.env.FORCE_COLOR',
  'process.env.TF_BUILD',
  'process.env.__MINIMATCH_TESTING_PLATFORM__',
  'process.stderr',
]

it('asks nothing of the machine that builds the agent while it is loaded', { timeout: 120_000 }, async () => {
  const work = await temporaryDirectory()
  await makeBundle({ directory: work })
  const program = join(work, 'agent/agent.js')
  const asked = async (): Promise<string[]> => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', TRAP, program])
    return (JSON.parse(stdout) as string[]).filter((one) => !HARMLESS.includes(one))
  }
  expect(await asked()).toEqual([])
  const content = await readFile(program, 'utf8')
  const asking =
    "Date.now(), new Date(), process.getBuiltinModule('os').hostname(), process.getBuiltinModule('fs').existsSync('/'), process.pid;"
  await writeFile(program, asking)
  await appendFile(program, content)
  expect(await asked()).toEqual(['Date.now', 'fs.existsSync', 'new Date', 'os.hostname', 'process.pid'])
})

it('can hash in threads once it is started', { timeout: 120_000 }, async () => {
  const work = await temporaryDirectory()
  await makeBundle({ directory: work })
  const [program, blob] = [join(work, 'agent/agent.js'), join(work, 'snapshot')]
  const request = { id: 1, scan: 1, path: program, offset: 0, length: 65536, blockSize: 65536 }
  // It starts a thread instead of `mesh boot run`.
  const hashes = `
    const { startupSnapshot } = process.getBuiltinModule('node:v8')
    const keep = startupSnapshot.setDeserializeMainFunction
    startupSnapshot.setDeserializeMainFunction = () => keep(() => {
      const { Worker } = process.getBuiltinModule('node:worker_threads')
      const thread = new Worker(${JSON.stringify(join(work, 'agent/hash-worker.js'))}, { execArgv: [] })
      thread.once('message', ({ digests }) => {
        console.log(digests.length)
        process.exit()
      })
      thread.postMessage(${JSON.stringify(request)})
    });
`
  await writeFile(program, `${hashes}${await readFile(program, 'utf8')}`)
  await makeSnapshot(blob, work, NODE_FLAGS)
  const { stdout } = await promisify(execFile)(process.execPath, [...NODE_FLAGS, '--snapshot-blob', blob])
  expect(stdout).toBe('32\n')
})
