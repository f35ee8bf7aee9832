import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { EXIT } from '../../protocol/errors.ts'
import { decodeJoinToken, encodeJoinToken } from '../../protocol/join-token.ts'
import type { MeshEvent, MeshProcess, Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { whyNoNetwork } from '../../tools/netlab/network.ts'
import { type Lan, useLan } from '../support/lan.ts'
import { testSeed } from '../support/seed.ts'
import { useTempDir } from '../support/temp-dir.ts'

const why = await whyNoNetwork()
if (why !== undefined) console.warn(`SKIPPED: ${why}`)

const BLOCKS = 16
const ALONE = '--no-mdns'

describe.skipIf(why !== undefined)('networks as they are', { timeout: 240_000 }, () => {
  const dir = useTempDir()
  const openLan = useLan()
  const random = new Random(testSeed('networks'))
  const model = random.bytes(BLOCKS * 65536)

  /** A master that serves an image, each in a folder of its own; resolves when it serves. */
  async function seed(lan: Lan, test: string, ...options: string[]): Promise<MeshProcess> {
    await writeFile(dir(`${test}.img`), model)
    const args = ['seed', dir(`${test}.img`), '--image', 'm', '--name', 'boss', '--state', dir(test, 'boss')]
    const master = lan.mesh('boss', ...args, ...options)
    await master.event('serving')
    return master
  }

  async function invite(lan: Lan, test: string): Promise<MeshEvent> {
    const { result } = await lan.mesh('boss', 'invite', '--uses', '9', '--state', dir(test, 'boss')).exited
    return result!
  }

  async function join(lan: Lan, test: string, token: string, disk: Uint8Array = random.bytes(model.byteLength)) {
    await writeFile(dir(`${test}-pc1.img`), disk)
    const args = ['join', token, '--disk', dir(`${test}-pc1.img`), '--name', 'pc1', '--state', dir(test, 'pc1')]
    return lan.mesh('pc1', ...args).exited
  }

  function on(lan: Lan, test: string, command: string, ...options: string[]): MeshProcess {
    return lan.mesh('pc1', command, '--state', dir(test, 'pc1'), ...options)
  }

  async function expectRestored(test: string, outcome: Outcome): Promise<void> {
    expect(outcome.code, outcome.stderr).toBe(0)
    expect((await readFile(dir(`${test}-pc1.img`))).equals(model)).toBe(true)
  }

  async function twoMachines(): Promise<Lan> {
    const lan = await openLan()
    for (const [i, name] of ['boss', 'pc1'].entries()) {
      await lan.addMachine(name)
      await lan.cable(name, `10.78.0.${i + 1}/24`)
    }
    return lan
  }

  it('without IPv4: a machine joins, and restores', async () => {
    const lan = await openLan()
    for (const [i, name] of ['boss', 'pc1'].entries()) {
      await lan.addMachine(name)
      await lan.cable(name, `fd00:78::${i + 1}/64`)
    }
    const master = await seed(lan, 'six', ALONE)
    expect((await master.event('listening')).addresses).toEqual(['/ip6/fd00:78::1/tcp/7433'])
    const invited = await invite(lan, 'six')
    expect(invited.warning).toBeUndefined()
    expect(decodeJoinToken(String(invited.token)).addresses).toEqual(['/ip6/fd00:78::1/tcp/7433'])
    expect((await join(lan, 'six', String(invited.token))).code).toBe(0)
    await expectRestored('six', await on(lan, 'six', 'restore', ALONE).exited)
  })

  it('a token whose first addresses are dead, or lead to another machine, still joins; one of loopback is warned of', async () => {
    const lan = await twoMachines()
    await lan.addMachine('other')
    await lan.cable('other', '10.78.0.3/24')
    await seed(lan, 'dead', ALONE)
    const token = decodeJoinToken(String((await invite(lan, 'dead')).token))
    // Nobody has these, and packets to them are lost without a word.
    await lan.ip('pc1', 'route', 'add', '192.0.2.0/24', 'via', '10.78.0.200')
    const dead = Array.from({ length: 6 }, (_, i) => `/ip4/192.0.2.${i + 1}/tcp/7433`)
    const stranger = lan.mesh('other', 'seed', dir('dead.img'), '--image', 'x', '--state', dir('dead', 'other'), ALONE)
    await stranger.event('serving')
    const addresses = [...dead, '/ip4/10.78.0.3/tcp/7433', ...token.addresses]
    expect((await join(lan, 'dead', encodeJoinToken({ ...token, addresses }))).code).toBe(0)
    await expectRestored('dead', await on(lan, 'dead', 'restore', ALONE).exited)
    await lan.ip('boss', 'link', 'set', 'eth0', 'down')
    expect((await invite(lan, 'dead')).warning).toMatch(/another machine cannot join by this token.*127\.0\.0\.1/)
  })

  it('machines that know only the site find its master by multicast DNS, also beside lab machines, and are told apart', async () => {
    const lan = await twoMachines()
    await lan.addMachine('pc2')
    await lan.cable('pc2', '10.78.0.3/24')
    await seed(lan, 'bare')
    const ask = async (...args: string[]): Promise<MeshEvent> =>
      (await lan.mesh('boss', ...args, '--state', dir('bare', 'boss')).exited).result!
    const { siteId } = await ask('machines')
    const enrol = async (machine: string): Promise<MeshProcess> => {
      const disk = dir(`bare-${machine}.img`)
      await writeFile(disk, new Uint8Array(model.byteLength))
      const state = ['--state', dir('bare', machine)]
      return lan.mesh(machine, 'enrol', '--site-id', String(siteId), '--disk', disk, '--name', machine, ...state)
    }
    const waiting = async (count: number): Promise<MeshEvent[]> => {
      for (;;) {
        const machines = (await ask('machines')).machines as unknown as MeshEvent[]
        if (machines.length === count) return machines
      }
    }
    const first = await enrol('pc1')
    expect(await waiting(1)).toMatchObject([{ name: 'pc1', address: '10.78.0.2', mac: [expect.any(String)] }])
    expect(await ask('approve', 'pc1')).toMatchObject({ machines: [{ name: 'pc1', wipe: false }] })
    expect((await first.exited).result).toMatchObject({ event: 'enrolled', name: 'pc1' })
    await expectRestored('bare', await on(lan, 'bare', 'restore').exited)
    const up = on(lan, 'bare', 'up')
    await up.event('listening')

    const second = await enrol('pc2')
    expect(await waiting(1)).toMatchObject([{ name: 'pc2', address: '10.78.0.3' }])
    expect((await waiting(1))[0]).not.toHaveProperty('replaces')
    expect(await ask('approve', '--all')).toMatchObject({ machines: [{ name: 'pc2' }], left: [] })
    expect((await second.exited).result).toMatchObject({ name: 'pc2' })
    const members = (await ask('peers')).peers as unknown as MeshEvent[]
    expect(members.map(({ name }) => name).sort()).toEqual(['pc1', 'pc2'])
  })

  it('a machine that was switched off, or that moved, does not stay connected; both are found again', async () => {
    const lan = await twoMachines()
    const master = await seed(lan, 'moved')
    await join(lan, 'moved', String((await invite(lan, 'moved')).token), model)
    const said = (one: MeshProcess, from = 0): unknown[] =>
      one.events.slice(from).flatMap(({ event, up: isUp }) => (event === 'peer' ? [isUp] : []))
    // The connection by which it joined is over, and both know of the next one.
    await master.when(() => said(master).at(-1) === false)
    const up = on(lan, 'moved', 'up')
    for (const one of [master, up]) await one.when(() => said(one).at(-1) === true)
    const before = new Map([master, up].map((one) => [one, one.events.length]))
    for (const [i, name] of ['boss', 'pc1'].entries()) {
      await lan.ip(name, 'addr', 'flush', 'dev', 'eth0')
      await lan.ip(name, 'addr', 'add', `10.85.7.${i + 1}/24`, 'dev', 'eth0')
    }
    // Each of the two ends the silent connection by its own clock. Who is dialled before its own has ended never is without the other.
    const isMoved = ({ event, addresses }: MeshEvent): boolean =>
      event === 'listening' && String(addresses).includes('10.85')
    const isBack = (one: MeshProcess): boolean => said(one, before.get(one)).join().includes('false,true')
    await Promise.race([master, up].map((one) => one.when(() => isBack(one))))
    for (const one of [master, up]) await one.when(() => said(one).at(-1) === true)
    const moved = await master.when(isMoved)
    expect(moved?.addresses).toEqual(['/ip4/10.85.7.1/tcp/7433'])
  })

  it('a clean restore needs no network, not even loopback; mesh up and mesh seed wait for one', async () => {
    const lan = await twoMachines()
    await seed(lan, 'none')
    await join(lan, 'none', String((await invite(lan, 'none')).token), model)
    await expectRestored('none', await on(lan, 'none', 'restore').exited)
    await lan.ip('pc1', 'link', 'del', 'eth0')
    await lan.ip('pc1', 'link', 'set', 'lo', 'down')
    await expectRestored('none', await on(lan, 'none', 'restore').exited)
    const up = on(lan, 'none', 'up')
    expect((await up.event('listening')).addresses).toEqual([])
    await lan.cable('pc1', '10.78.0.7/24')
    await up.when(({ event, up: isUp }) => event === 'peer' && isUp === true)
    expect(
      up.events.some(({ event, addresses }) => event === 'listening' && String(addresses).includes('10.78.0.7')),
    ).toBe(true)
  })

  it('a port of the switch that opens late is waited for, and that is said', async () => {
    const lan = await twoMachines()
    await seed(lan, 'late', ALONE)
    await join(lan, 'late', String((await invite(lan, 'late')).token))
    await lan.ip('pc1', 'link', 'set', 'eth0', 'down')
    await lan.ip('pc1', 'link', 'set', 'eth0', 'up')
    await lan.ip('hub', 'link', 'set', 'dev', 'pc1', 'nomaster')
    const restore = on(lan, 'late', 'restore', ALONE)
    const note = await restore.when(({ event, text }) => event === 'note' && String(text).includes('eth0'))
    expect(note?.text).toMatch(/a switch may let nothing through for 30 s.*Waiting for \d+ s more/)
    await lan.ip('hub', 'link', 'set', 'dev', 'pc1', 'master', 'br0')
    await expectRestored('late', await restore.exited)
  })

  it('a cable that is pulled in the middle is told of, and the restore goes on when it is back', async () => {
    const lan = await twoMachines()
    await seed(lan, 'cable', ALONE, '--max-upload', '1Mbit')
    await join(lan, 'cable', String((await invite(lan, 'cable')).token))
    const restore = on(lan, 'cable', 'restore', ALONE)
    await restore.when(({ event, phase }) => event === 'progress' && phase === 'restore')
    await lan.ip('hub', 'link', 'set', 'dev', 'pc1', 'down')
    const said = await restore.when(({ event }) => event === 'warning')
    expect(said?.text).toMatch(/^network card eth0 has no link/)
    await lan.ip('hub', 'link', 'set', 'dev', 'pc1', 'up')
    await restore.when(({ event, text }) => event === 'note' && String(text).includes('has a link again'))
    await expectRestored('cable', await restore.exited)
  })

  it('a port that another program has is named; a restore takes another', async () => {
    const lan = await twoMachines()
    await seed(lan, 'port', ALONE)
    await join(lan, 'port', String((await invite(lan, 'port')).token))
    const program = "require('net').createServer().listen(7433, '0.0.0.0', () => console.log('listens'))"
    const [ip = '', ...rest] = [...lan.through('pc1'), process.execPath, '-e', program]
    const holder = spawn(ip, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
    onTestFinished(() => void holder.kill())
    await once(holder.stdout, 'data')
    const up = await on(lan, 'port', 'up', ALONE).exited
    expect([up.code, up.result?.code]).toEqual([EXIT.network, 'PORT_TAKEN'])
    expect(up.result?.message).toMatch(new RegExp(`\\(process ${holder.pid}\\) listens on /ip4/0.0.0.0/tcp/7433`))
    const restored = await on(lan, 'port', 'restore', ALONE).exited
    expect(restored.events.find(({ event }) => event === 'note')?.text).toMatch(/this restore listens on another port/)
    await expectRestored('port', restored)
  })
})
