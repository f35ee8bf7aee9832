import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { ErrorCode } from '../../protocol/errors.ts'
import { Lab, type MeshEvent, MeshProcess, type Outcome } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool, runTool } from '../../tools/lab/run-tool.ts'
import { whyNoNetwork } from '../../tools/netlab/network.ts'
import { makeAgentFolder } from '../support/agent-folder.ts'
import { startMaster } from '../support/fixtures.ts'
import { type Lan, useLan } from '../support/lan.ts'
import { testSeed } from '../support/seed.ts'

const CLIENT = join(import.meta.dirname, '../support/pxe-client.ts')
const IPXE = '/usr/lib/ipxe'
const PORT = 7434
const MIB = 1024 ** 2
const why =
  (await whyNoNetwork()) ??
  ((await hasTool('dnsmasq')) && (await hasTool('curl')) && (await hasTool(join(IPXE, 'snponly.efi')))
    ? undefined
    : 'needs the Debian packages dnsmasq-base, curl and ipxe')
if (why !== undefined) console.warn(`SKIPPED: ${why}`)
const hasFirewall = await hasTool('nft')
if (!hasFirewall) console.warn('SKIPPED: firewall rules need the Debian package nftables')

/** A room: the master at 10.77.0.1, with the school’s DHCP server or without, and a machine that starts. */
describe.skipIf(why !== undefined)('mesh boot serve', { timeout: 120_000 }, () => {
  const random = new Random(testSeed('boot-serve'))
  const openLan = useLan()
  const children: ChildProcess[] = []
  let lab: Lab
  let siteId: string
  let contents: Map<string, Buffer>

  beforeAll(async () => {
    // dnsmasq runs as nobody, and must get there.
    const folder = await mkdtemp(join(tmpdir(), 'mesh-test-'))
    await chmod(folder, 0o755)
    process.env.TMPDIR = folder
    lab = await Lab.open()
    await startMaster(lab, 16, random)
    siteId = String((await lab.ok('master', ['machines'])).siteId)
    await lab.stop('master')
    contents = await makeAgentFolder(lab.path('agent'), random, { siteId })
  }, 60_000)
  afterAll(async () => {
    await lab.close()
    await rm(process.env.TMPDIR!, { recursive: true, force: true })
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    // Of what was killed.
    for (const name of await leftovers()) await rm(join(tmpdir(), name), { recursive: true })
  })

  async function room({ school }: { school: boolean }): Promise<Lan> {
    const lan = await openLan()
    for (const name of ['boss', 'pc']) await lan.addMachine(name)
    await lan.cable('boss', '10.77.0.1/24')
    await lan.cable('pc')
    await lan.ip('pc', 'route', 'add', 'default', 'dev', 'eth0')
    if (school) await addSchool(lan)
    return lan
  }

  async function addSchool(lan: Lan): Promise<void> {
    await lan.addMachine('school')
    await lan.cable('school', '10.77.0.2/24')
    run(lan, 'school', [
      ...[
        'dnsmasq',
        '--keep-in-foreground',
        '--conf-file=/dev/null',
        '--port=0',
        '--user=root',
        '--pid-file=',
        '--no-ping',
      ],
      ...['--log-facility=/dev/null', '--leasefile-ro', '--dhcp-range=10.77.0.100,10.77.0.150'],
    ])
  }

  function run(lan: Lan, machine: string, args: readonly string[]): ChildProcess {
    const [program = '', ...rest] = [...lan.through(machine), ...args]
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    return child
  }

  const serve = (lan: Lan, ...more: string[]): MeshProcess =>
    lan.mesh('boss', 'boot', 'serve', lab.path('agent'), '--state', lab.path('master'), ...more)

  async function serving(lan: Lan, ...more: string[]): Promise<MeshProcess> {
    const started = serve(lan, ...more)
    await started.event('boot-serving')
    return started
  }

  async function fails(lan: Lan, code: ErrorCode, message: RegExp, ...more: string[]): Promise<Outcome> {
    const outcome = await serve(lan, ...more).exited
    expect(outcome.result, outcome.stderr).toMatchObject({ event: 'error', code })
    expect(outcome.stderr).toMatch(message)
    expect(outcome.stderr).not.toMatch(/\n\s+at /)
    expect(await leftovers()).toEqual([])
    return outcome
  }

  /** The answer of a server to what a firmware asks. */
  async function answer(lan: Lan, server: string, ...ask: string[]): Promise<Record<string, string>> {
    const child = run(lan, 'pc', [process.execPath, CLIENT, '--mac', await macOf(lan), ...ask])
    for await (const line of createInterface({ input: child.stdout! })) {
      const found = JSON.parse(line) as Record<string, string>
      if (found.from !== server) continue
      child.kill('SIGKILL')
      await once(child, 'exit')
      return found
    }
    throw new Error('the client ended')
  }

  async function macOf(lan: Lan): Promise<string> {
    return /link\/ether (\S+)/.exec(await lan.ip('pc', 'link', 'show', 'eth0'))![1]!
  }

  const curl = (lan: Lan, ...args: string[]): Promise<string> => {
    const [program = '', ...rest] = [...lan.through('pc'), 'curl', '-sS', '--max-time', '60', ...args]
    return runTool(program, rest)
  }
  const status = (lan: Lan, path: string, ...args: string[]): Promise<string> =>
    curl(lan, '-o', '/dev/null', '-w', '%{http_code}', '--path-as-is', ...args, `http://10.77.0.1:${PORT}${path}`)

  /** Folders of dnsmasq, and processes that have one open, which nobody needs any more. */
  async function leftovers(): Promise<string[]> {
    return (await readdir(tmpdir())).filter((name) => name.startsWith('mesh-boot-serve-'))
  }

  async function dnsmasqOf(pid: number): Promise<number[]> {
    const found: number[] = []
    for (const name of (await readdir('/proc')).filter((one) => /^\d+$/.test(one))) {
      const text = await readFile(`/proc/${name}/stat`, 'utf8').catch(() => '')
      if (Number(text.split(') ')[1]?.split(' ')[1]) === pid) found.push(Number(name))
    }
    return found
  }

  const step = (process_: MeshProcess, mac: string, wanted: string): Promise<MeshEvent | undefined> =>
    process_.when((event) => event.event === 'boot-machine' && event.mac === mac && event.step === wanted)

  it('tells every kind of firmware beside the school’s DHCP what to start, and has it', async () => {
    const lan = await room({ school: true })
    const mesh = await serving(lan)
    const mac = await macOf(lan)
    const school = await answer(lan, '10.77.0.2', '--arch', '7')
    expect(school.yours).toMatch(/^10\.77\.0\.1\d\d$/)
    const proxy = await answer(lan, '10.77.0.1', '--arch', '7')
    expect(proxy).toMatchObject({ yours: '0.0.0.0', option60: 'PXEClient' })
    expect(await step(mesh, mac, 'asks')).toMatchObject({ firmware: 'UEFI', address: null })
    // iPXE goes by an offer only if it names a server, too.
    for (const arch of ['0', '7']) {
      const ipxe = await answer(lan, '10.77.0.1', '--arch', arch, '--ipxe')
      expect([ipxe.file, ipxe.next]).toEqual([`http://10.77.0.1:${PORT}/boot.ipxe`, '10.77.0.1'])
    }
    const http = await answer(lan, '10.77.0.1', '--arch', '16', '--vendor', 'HTTPClient')
    expect(http).toMatchObject({ option60: 'HTTPClient', file: `http://10.77.0.1:${PORT}/agent.efi` })
    await lan.ip('pc', 'addr', 'add', '10.77.0.50/24', 'dev', 'eth0')
    const there = ['--server', '10.77.0.1', '--address', '10.77.0.50']
    expect((await answer(lan, '10.77.0.1', '--arch', '0', ...there)).file).toBe('undionly.kpxe')
    expect((await answer(lan, '10.77.0.1', '--arch', '7', ...there)).file).toBe('snponly.efi')
    for (const name of ['undionly.kpxe', 'snponly.efi']) {
      await curl(lan, '-o', lab.path(name), `tftp://10.77.0.1/${name}`)
      expect((await readFile(lab.path(name))).equals(await readFile(join(IPXE, name)))).toBe(true)
    }
    await expect(curl(lan, '--path-as-is', 'tftp://10.77.0.1/../dnsmasq.conf')).rejects.toThrow()
    for (const [name, content] of contents) {
      await curl(lan, '-o', lab.path('got'), `http://10.77.0.1:${PORT}/${name}`)
      expect((await readFile(lab.path('got'))).equals(content), name).toBe(true)
    }
    expect(await step(mesh, mac, 'loaded')).toMatchObject({ address: '10.77.0.50' })
    const outcome = await mesh.stop('SIGINT')
    expect([outcome.code, outcome.result], outcome.stderr).toEqual([0, { event: 'stopped' }])
    expect(await leftovers()).toEqual([])
  })

  it('serves the files of the agent and nothing else, read-only, in parts', async () => {
    const lan = await room({ school: true })
    await lan.ip('pc', 'addr', 'add', '10.77.0.50/24', 'dev', 'eth0')
    await serving(lan)
    for (const path of [
      '/',
      '/agent.json',
      '/../agent.json',
      '/%2e%2e/master/machine.json',
      '/agent.img/',
      '//agent.img',
    ])
      expect(await status(lan, path), path).toBe('404')
    expect(await status(lan, '/agent.img', '-X', 'POST', '-d', 'x')).toBe('405')
    expect(await status(lan, '/agent.img', '-X', 'DELETE')).toBe('405')
    expect(await status(lan, '/agent.efi', '-r', '2000000-')).toBe('416')
    const head = await curl(lan, '-I', `http://10.77.0.1:${PORT}/agent.efi`)
    expect(head).toMatch(/200 OK[\s\S]*Content-Type: application\/efi[\s\S]*Content-Length: 1000001/)
    await curl(lan, '-r', '999000-', '-o', lab.path('part'), `http://10.77.0.1:${PORT}/agent.efi`)
    expect((await readFile(lab.path('part'))).equals(contents.get('agent.efi')!.subarray(999_000))).toBe(true)
  })

  it('streams a large file to a room at once', async () => {
    const lan = await room({ school: true })
    const sizes = { 'boot.ipxe': 1, vmlinuz: 1, 'agent.img': 40 * MIB, 'agent.efi': 1 }
    await makeAgentFolder(lab.path('agent'), random, { siteId, sizes })
    const mesh = await serving(lan)
    const addresses = Array.from({ length: 30 }, (_, i) => `10.77.0.${160 + i}`)
    for (const address of addresses) await lan.ip('pc', 'addr', 'add', `${address}/24`, 'dev', 'eth0')
    const url = `http://10.77.0.1:${PORT}/agent.img`
    const got = await Promise.all(
      addresses.map((address) =>
        curl(lan, '--interface', address, '-o', '/dev/null', '-w', '%{size_download}', '--limit-rate', '20M', url),
      ),
    )
    expect(new Set(got)).toEqual(new Set([String(40 * MIB)]))
    const memory = /VmHWM:\s+(\d+) kB/.exec(await readFile(`/proc/${mesh.child.pid}/status`, 'utf8'))![1]!
    // All of it is 1200 MiB.
    expect(Number(memory) / 1024).toBeLessThan(400)
    contents = await makeAgentFolder(lab.path('agent'), random, { siteId })
  })

  it('lends addresses out where nobody does, and refuses to beside a DHCP server', async () => {
    const lan = await room({ school: false })
    await fails(lan, 'USAGE', /is not in the network of eth0/, '--dhcp', '10.78.0.100-10.78.0.120')
    const mesh = await serving(lan, '--dhcp', '10.77.0.100-10.77.0.120')
    const uefi = await answer(lan, '10.77.0.1', '--arch', '7')
    expect(uefi.yours).toMatch(/^10\.77\.0\.1[012]\d$/)
    expect([uefi.file, uefi.next]).toEqual(['snponly.efi', '10.77.0.1'])
    expect((await answer(lan, '10.77.0.1', '--arch', '0')).file).toBe('undionly.kpxe')
    expect((await answer(lan, '10.77.0.1', '--arch', '0', '--ipxe')).file).toBe(`http://10.77.0.1:${PORT}/boot.ipxe`)
    const http = await answer(lan, '10.77.0.1', '--arch', '16', '--vendor', 'HTTPClient')
    expect(http).toMatchObject({ option60: 'HTTPClient', file: `http://10.77.0.1:${PORT}/agent.efi` })
    await mesh.stop()
    await addSchool(lan)
    await fails(lan, 'USAGE', /10\.77\.0\.2 is a DHCP server/, '--dhcp', '10.77.0.200-10.77.0.210')
  })

  it('warns of what would keep machines away', async () => {
    const lan = await room({ school: false })
    if (hasFirewall) {
      await writeFile(
        lab.path('rules'),
        'table inet filter { chain input { type filter hook input priority 0; policy drop; ct state established accept; iif "lo" accept; udp dport { 67, 69 } accept; }; }',
      )
      await runTool('ip', [...lan.through('boss').slice(1), 'nft', '-f', lab.path('rules')])
    }
    await makeAgentFolder(lab.path('agent'), random, { siteId, rootVersion: 0 })
    const mesh = await serving(lan)
    const warnings = mesh.events.filter(({ event }) => event === 'warning').map(({ text }) => String(text))
    expect(
      warnings.some((text) => /no DHCP server has answered.*--dhcp 10\.77\.0\.100-10\.77\.0\.199/.test(text)),
    ).toBe(true)
    expect(warnings.some((text) => /mesh does not listen at 10\.77\.0\.1/.test(text))).toBe(true)
    expect(warnings.some((text) => /root was of version 0, and it is of version 1 now/.test(text))).toBe(true)
    if (hasFirewall) expect(warnings.some((text) => /seems to drop UDP 4011 and TCP 7434/.test(text))).toBe(true)
    const told = (pattern: RegExp): Promise<MeshEvent | undefined> =>
      mesh.when(({ text }) => pattern.test(String(text)))
    await lan.ip('boss', 'link', 'set', 'eth0', 'down')
    expect(await told(/eth0 has lost its address 10\.77\.0\.1/)).toMatchObject({ event: 'warning' })
    await lan.ip('boss', 'link', 'set', 'eth0', 'up')
    expect(await told(/10\.77\.0\.1 is back on eth0/)).toMatchObject({ event: 'note' })
    if (hasFirewall) await runTool('ip', [...lan.through('boss').slice(1), 'nft', 'flush', 'ruleset'])
    await lan.ip('pc', 'addr', 'add', '10.77.0.50/24', 'dev', 'eth0')
    expect(await status(lan, '/vmlinuz')).toBe('200')
  })

  it('serves a signed agent to UEFI itself, and a new one once it is made', async () => {
    const lan = await room({ school: true })
    await lan.ip('pc', 'addr', 'add', '10.77.0.50/24', 'dev', 'eth0')
    contents = await makeAgentFolder(lab.path('agent'), random, { siteId, signed: true })
    await serving(lan)
    const there = ['--server', '10.77.0.1', '--address', '10.77.0.50']
    expect((await answer(lan, '10.77.0.1', '--arch', '7', ...there)).file).toBe('agent.efi')
    expect((await answer(lan, '10.77.0.1', '--arch', '7', '--ipxe')).file).toBe(`http://10.77.0.1:${PORT}/agent.efi`)
    await curl(lan, '-o', lab.path('got'), 'tftp://10.77.0.1/agent.efi')
    expect((await readFile(lab.path('got'))).equals(contents.get('agent.efi')!)).toBe(true)
    await writeFile(lab.path('agent', 'vmlinuz'), 'half of it')
    expect(await status(lan, '/vmlinuz')).toBe('503')
    contents = await makeAgentFolder(lab.path('agent'), random, { siteId })
    expect(await status(lan, '/vmlinuz')).toBe('200')
  })

  it('takes dnsmasq with it, whatever ends it, and ends when dnsmasq does', async () => {
    const lan = await room({ school: true })
    const killed = await serving(lan)
    const [child] = await dnsmasqOf(killed.child.pid!)
    expect(await readFile(`/proc/${child}/comm`, 'utf8')).toBe('dnsmasq\n')
    expect(await readFile(`/proc/${child}/status`, 'utf8')).toMatch(/Uid:\t65534\t/)
    await killed.stop('SIGKILL')
    while (
      existsSync(`/proc/${child}`) &&
      !/State:\s+Z/.test(await readFile(`/proc/${child}/status`, 'utf8').catch(() => ''))
    )
      await sleep(20)
    // What a killed one has left behind goes at the next start.
    const before = await leftovers()
    const other = await serving(lan)
    expect(before).toHaveLength(1)
    expect((await leftovers()).filter((name) => before.includes(name))).toEqual([])
    const [second] = await dnsmasqOf(other.child.pid!)
    process.kill(second!, 'SIGKILL')
    const outcome = await other.exited
    expect(outcome.result).toMatchObject({ code: 'BOOT_SERVE_FAILED', message: 'dnsmasq has ended by SIGKILL' })
  })

  it('says what is wrong with the agent, the network, the ports and the user', async () => {
    // With the school's server the look at who answers takes no time.
    const lan = await room({ school: true })
    const hold = async (kind: 'udp' | 'tcp', port: number): Promise<void> => {
      const code = kind === 'udp' ? `d.createSocket('udp4').bind(${port}` : `n.createServer().listen(${port}`
      const script = `const d = require('dgram'), n = require('net'); ${code}, () => console.log('held'))`
      const child = run(lan, 'boss', [process.execPath, '-e', script])
      await once(child.stdout!, 'data')
    }
    const free = async (): Promise<void> => {
      const child = children.pop()!
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    for (const [kind, port] of [
      ['tcp', PORT],
      ['udp', 67],
      ['udp', 69],
      ['udp', 4011],
    ] as const) {
      await hold(kind, port)
      const outcome = await fails(
        lan,
        'PORT_TAKEN',
        new RegExp(`node \\(process \\d+\\) has port ${port} \\(${kind.toUpperCase()}\\)`),
      )
      expect(outcome.code).toBe(6)
      await free()
    }
    await fails(
      lan,
      'USAGE',
      /no network card or address eth7; it has eth0 \(10\.77\.0\.1\/24\)/,
      '--interface',
      'eth7',
    )
    for (const [card, address] of [
      ['eth1', '10.88.0.1/24'],
      ['eth2', '10.89.0.1/24'],
    ] as const) {
      if (card === 'eth1') await lan.ip('boss', 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth2')
      await lan.ip('boss', 'addr', 'add', address, 'dev', card)
      await lan.ip('boss', 'link', 'set', card, 'up')
    }
    await fails(lan, 'USAGE', /several networks: eth0 \(10\.77\.0\.1\/24\), eth1 .*; say by --interface/)
    await makeAgentFolder(lab.path('agent'), random, { siteId: 'a'.repeat(64), site: 'other' })
    await fails(lan, 'BOOT_AGENT_UNFIT', /is of another site: other, aaaaaaaa…/, '--interface', 'eth0')
    await makeAgentFolder(lab.path('agent'), random, { siteId })
    const user = await new MeshProcess(['boot', 'serve', '--json'], {}, { uid: 65534, gid: 65534 }).exited
    const said = { event: 'error', code: 'ROOT_NEEDED' }
    expect([user.result, user.code], user.stderr).toEqual([expect.objectContaining(said), 2])
  })
})
