import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { whyNoNetwork } from '../../tools/netlab/network.ts'
import { type Lan, useLan } from '../support/lan.ts'
import { useTempDir } from '../support/temp-dir.ts'

const NODE = join(import.meta.dirname, '../support/mdns-node.ts')
const LISTEN = '/ip4/0.0.0.0/tcp/7433,/ip6/::/tcp/7433'
const why = await whyNoNetwork()
if (why !== undefined) console.warn(`SKIPPED: ${why}`)

interface Started {
  readonly lines: string[]
  /** The first line that matches; waits for it. */
  readonly line: (pattern: RegExp) => Promise<RegExpExecArray>
}

describe.skipIf(why !== undefined)('multicast DNS', { timeout: 60_000 }, () => {
  const dir = useTempDir()
  const openLan = useLan()
  const running: ChildProcess[] = []
  afterEach(() => {
    for (const child of running) child.kill('SIGKILL')
  })

  function start(lan: Lan, machine: string, tag: string): Started {
    const [program = '', ...rest] = [
      ...lan.through(machine),
      process.execPath,
      NODE,
      dir(`${machine}.pem`),
      LISTEN,
      tag,
    ]
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
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

  const idOf = async ({ line }: Started): Promise<string> => (await line(/^self (\S+)/))[1] ?? ''

  it('lets machines of one site find each other on a subnet without a router, and no others', async () => {
    const lan = await openLan()
    for (const [i, name] of ['a', 'b', 'c'].entries()) {
      await lan.addMachine(name)
      await lan.cable(name, `10.9.0.${i + 1}/24`)
    }
    const tags = ['mesh-0000aaaa.local', 'mesh-0000aaaa.local', 'mesh-0000bbbb.local']
    const machines = ['a', 'b', 'c'].map((name, i) => start(lan, name, tags[i]!))
    const ids = await Promise.all(machines.map(idOf))
    const [first, second, other] = machines
    await first?.line(new RegExp(`^found ${ids[1]} /ip4/10\\.9\\.0\\.2/tcp/7433`))
    await second?.line(new RegExp(`^found ${ids[0]} /ip4/10\\.9\\.0\\.1/tcp/7433`))
    expect(other?.lines.filter((text) => text.startsWith('found'))).toEqual([])
    expect(first?.lines.join()).not.toContain(ids[2])
  })

  it('finds and connects over IPv6 where there is nothing else', async () => {
    const lan = await openLan()
    for (const [i, name] of ['a', 'b'].entries()) {
      await lan.addMachine(name)
      await lan.cable(name, `fd00:9::${i + 1}/64`)
    }
    const [a, b] = [start(lan, 'a', 'mesh-0000aaaa.local'), start(lan, 'b', 'mesh-0000aaaa.local')]
    const [idA, idB] = [await idOf(a), await idOf(b)]
    await a.line(new RegExp(`^found ${idB} /ip6/fd00:9::2/tcp/7433$`))
    await b.line(new RegExp(`^found ${idA} /ip6/fd00:9::1/tcp/7433$`))
    await a.line(new RegExp(`^connected ${idB}`))
  })

  it('finds on a card that comes later, where there was not even loopback, and at an address that changes', async () => {
    const lan = await openLan()
    for (const name of ['a', 'b']) await lan.addMachine(name)
    const [a, b] = [start(lan, 'a', 'mesh-0000aaaa.local'), start(lan, 'b', 'mesh-0000aaaa.local')]
    const [idA, idB] = [await idOf(a), await idOf(b)]
    await lan.cable('a', '10.9.0.1/24')
    await lan.cable('b', '10.9.0.2/24')
    await a.line(new RegExp(`^found ${idB} .*/ip4/10\\.9\\.0\\.2/tcp/7433`))
    await b.line(new RegExp(`^found ${idA} .*/ip4/10\\.9\\.0\\.1/tcp/7433`))
    await lan.ip('b', 'addr', 'flush', 'dev', 'eth0')
    await lan.ip('b', 'addr', 'add', '10.9.0.77/24', 'dev', 'eth0')
    await a.line(new RegExp(`^found ${idB} .*/ip4/10\\.9\\.0\\.77/tcp/7433`))
  })

  it('finds on each of several cards', async () => {
    const lan = await openLan()
    for (const [i, name] of ['a', 'b'].entries()) {
      await lan.addMachine(name)
      await lan.cable(name, `10.9.0.${i + 1}/24`)
    }
    // The route to everywhere leads to a card that nobody else is on.
    await lan.ip('a', 'link', 'add', 'wan0', 'type', 'veth', 'peer', 'name', 'wan1')
    await lan.ip('a', 'addr', 'add', '10.90.0.1/24', 'dev', 'wan0')
    for (const end of ['wan0', 'wan1']) await lan.ip('a', 'link', 'set', end, 'up')
    await lan.ip('a', 'route', 'add', 'default', 'dev', 'wan0')
    const [a, b] = [start(lan, 'a', 'mesh-0000aaaa.local'), start(lan, 'b', 'mesh-0000aaaa.local')]
    const [idA, idB] = [await idOf(a), await idOf(b)]
    await a.line(new RegExp(`^found ${idB} .*/ip4/10\\.9\\.0\\.2/tcp/7433`))
    await b.line(new RegExp(`^found ${idA} .*/ip4/10\\.9\\.0\\.1/tcp/7433`))
  })
})
