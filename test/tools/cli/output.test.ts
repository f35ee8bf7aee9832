import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { temporaryDirectory } from '../../support/temporary.ts'

const ROOT = join(import.meta.dirname, '../../..')

describe('output that cannot be written', () => {
  it.each([[[]], [['--json']]])('is told, and decides nothing: %j', async (options) => {
    const file = join(await temporaryDirectory(), 'mesh.toml')
    await writeFile(file, 'mdns = true\n')
    await using full = await open('/dev/full', 'w')
    const args = [join(ROOT, 'tools/mesh.ts'), 'config', 'check', file, ...options]
    const child = spawn(process.execPath, args, { stdio: ['ignore', full.fd, 'pipe'] })
    const [said, [code]] = await Promise.all([text(child.stderr!), once(child, 'close')])
    expect(said).toBe('mesh: warning: the output cannot be written (ENOSPC); the work goes on\n')
    expect(code).toBe(0)
  })

  it('may be that of errors, too', async () => {
    await using full = await open('/dev/full', 'w')
    const args = [join(ROOT, 'tools/mesh.ts'), 'config', 'check', '/no/such/file']
    const child = spawn(process.execPath, args, { stdio: ['ignore', full.fd, full.fd] })
    expect((await once(child, 'close'))[0]).toBe(2)
  })
})

/** Prints whether it was asked to stop, as soon as there is something to read. */
const WAITING = `
import { once } from 'node:events'
import { Command } from 'commander'
import { action, withCommonOptions } from './tools/cli/command.ts'
const wait = async ({ signal }) => {
  console.log('ready')
  await once(process.stdin, 'data')
  console.log(signal.aborted ? 'stopped' : 'goes on')
  process.exit()
}
await withCommonOptions(new Command('wait')).action(action(wait)).parseAsync([], { from: 'user' })
`

it.each([
  ['SIGHUP', 'goes on'],
  ['SIGTERM', 'stopped'],
] as const)('a command that has no terminal, after %s, %s', async (signal, wanted) => {
  const args = ['--input-type=module', '-e', WAITING]
  const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['pipe', 'pipe', 'ignore'] })
  await once(child.stdout!, 'data')
  child.kill(signal)
  // The signal is handled before what is written afterwards.
  setTimeout(() => child.stdin!.write('?'), 200)
  expect(await text(child.stdout!)).toBe(`${wanted}\n`)
})
