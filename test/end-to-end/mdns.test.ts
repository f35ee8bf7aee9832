import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { runTool } from '../../tools/lab/run-tool.ts'
import { useTempDir } from '../support/temp-dir.ts'

const NODE = join(import.meta.dirname, '../support/mdns-node.ts')
const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn('SKIPPED: multicast between two machines needs network namespaces, which need root')

describe.skipIf(!isRoot)('multicast DNS', () => {
  const dir = useTempDir()
  const spaces = ['a', 'b', 'c'].map((name) => `mesh-${process.pid}-${name}`)
  const running: ChildProcess[] = []
  afterEach(async () => {
    for (const child of running) child.kill('SIGKILL')
    for (const space of spaces) await runTool('ip', ['netns', 'del', space]).catch(() => undefined)
  })

  /** Three machines on one switch: a bridge in the first namespace. */
  async function cable(): Promise<void> {
    for (const space of spaces) await runTool('ip', ['netns', 'add', space])
    const [hub = ''] = spaces
    await runTool('ip', ['-n', hub, 'link', 'add', 'br0', 'type', 'bridge', 'mcast_snooping', '0'])
    await runTool('ip', ['-n', hub, 'addr', 'add', '10.9.0.1/24', 'dev', 'br0'])
    await runTool('ip', ['-n', hub, 'link', 'set', 'br0', 'up'])
    for (const [i, space] of spaces.entries()) {
      if (i > 0) {
        const port = `port${i}`
        await runTool('ip', ['-n', space, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', port, 'netns', hub])
        await runTool('ip', ['-n', hub, 'link', 'set', port, 'master', 'br0', 'up'])
        await runTool('ip', ['-n', space, 'addr', 'add', `10.9.0.${i + 1}/24`, 'dev', 'eth0'])
        await runTool('ip', ['-n', space, 'link', 'set', 'eth0', 'up'])
      }
      const device = i === 0 ? 'br0' : 'eth0'
      await runTool('ip', ['-n', space, 'route', 'add', '224.0.0.0/4', 'dev', device])
    }
  }

  function start(index: number, tag: string): { lines: string[]; line: (pattern: RegExp) => Promise<RegExpExecArray> } {
    const args = [NODE, dir(`${index}.pem`), `/ip4/10.9.0.${index + 1}/tcp/7433`, tag]
    const child = spawn('ip', ['netns', 'exec', spaces[index] ?? '', process.execPath, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    running.push(child)
    const lines: string[] = []
    const line = async (pattern: RegExp): Promise<RegExpExecArray> => {
      for (;;) {
        for (const text of lines) {
          const match = pattern.exec(text)
          if (match !== null) return match
        }
        await new Promise((resolve) => child.stdout.once('data', resolve))
      }
    }
    child.stdout.on('data', (chunk: Buffer) => lines.push(...chunk.toString().trim().split('\n')))
    return { lines, line }
  }

  it('lets machines of one site find each other on a subnet, and no others', async () => {
    await cable()
    const machines = [start(0, 'mesh-0000aaaa.local'), start(1, 'mesh-0000aaaa.local'), start(2, 'mesh-0000bbbb.local')]
    const ids = await Promise.all(machines.map(async ({ line }) => (await line(/^self (\S+)/))[1] ?? ''))
    const [first, second, other] = machines
    await first?.line(new RegExp(`^found ${ids[1]} /ip4/10\\.9\\.0\\.2/tcp/7433`))
    await second?.line(new RegExp(`^found ${ids[0]} /ip4/10\\.9\\.0\\.1/tcp/7433`))
    expect(other?.lines.filter((text) => text.startsWith('found'))).toEqual([])
    expect(first?.lines.join()).not.toContain(ids[2])
  })
})
