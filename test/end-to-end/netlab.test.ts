import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import type { RestoreResult } from '../../node/restore/restore-result.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { whyNoNetwork } from '../../tools/netlab/network.ts'
import { testSeed } from '../support/seed.ts'
import { useTempDir } from '../support/temp-dir.ts'

const NETLAB = join(import.meta.dirname, '../../tools/netlab/netlab.ts')
const LIMIT_MS = 300_000

interface Result {
  readonly seconds: { readonly last: number; readonly median: number; readonly ideal: number; readonly each: number[] }
  readonly bytes: {
    readonly outOfMaster: number
    readonly overUplink: number
    readonly received: number
    readonly receivedMost: number
    readonly ideal: {
      readonly fromSource: number
      readonly fromSourceInBlocks: number
      readonly into: number
      readonly intoMost: number
    }
  }
  readonly cpuSeconds: { readonly machines: number; readonly source: number }
  readonly peakMib: { readonly machine: number; readonly source: number }
  readonly receipts: readonly RestoreResult[]
  readonly staging?: { readonly seconds: number; readonly overUplink: number; readonly received: number }
}

const why = await whyNoNetwork()
if (why !== undefined) console.warn(`SKIPPED: ${why}`)

describe('npm run lab, its command line', () => {
  it.each([
    [['provision', '--machines', '0'], /--machines.*Give a whole number from 1 to 200/],
    [['provision', '--rate', 'fast'], /--rate.*Give a rate such as 20Mbit/],
    [['provision', '--size', '100K'], /--size.*Give whole MiB/],
    [['provision', '--dirt', 'uniform'], /unknown option '--dirt'/],
    [['restore', '--dirt', 'some'], /--dirt.*Allowed choices are uniform, clustered/],
    [['update', '--share', '0.9'], /--share.*at most 0.5/],
    [['provision', '--uplink', '1mbit'], /--uplink goes with --from central/],
    [['provision', '--kill-fetcher'], /--kill-fetcher goes with --from central/],
    [['provision', '--content', 'zeros'], /--content.*Allowed choices are random, system/],
    [['fly'], /unknown command 'fly'/],
  ])('%j is refused', async (args, message) => {
    const child = spawn(process.execPath, [NETLAB, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    const [printed, said, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
    expect(code).toBe(2)
    expect(printed).toBe('')
    expect(said).toMatch(message)
    expect(said).not.toMatch(/\n\s+at /)
  })
})

describe.skipIf(why !== undefined)('npm run lab', { timeout: LIMIT_MS }, () => {
  const dir = useTempDir()
  const running = new Set<ChildProcess>()
  afterEach(async () => {
    for (const child of running) {
      child.kill()
      await once(child, 'close')
    }
  })

  function start(...args: string[]) {
    const all = [...args, '--no-build', '--json', '--seed', String(testSeed(args.join(' ')) % 1e9)]
    const child = spawn(process.execPath, [NETLAB, ...all], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, TMPDIR: dir() },
    })
    running.add(child)
    child.on('close', () => running.delete(child))
    return child
  }

  async function run(...args: string[]): Promise<Result> {
    const child = start(...args)
    const [printed, said] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
    expect(child.exitCode, said).toBe(0)
    const result = JSON.parse(printed) as Result
    expect(result.receipts.map(({ verified }) => verified)).not.toContain(false)
    expect(result.seconds.last).toBe(Math.max(...result.seconds.each))
    expect(result.seconds.median).toBeLessThanOrEqual(result.seconds.last)
    if (!args.includes('system') && !args.includes('--staged')) {
      expect(result.bytes.received).toBeGreaterThanOrEqual(result.bytes.ideal.into)
      expect(result.bytes.receivedMost).toBeGreaterThanOrEqual(result.bytes.ideal.intoMost)
    }
    expect(result.cpuSeconds.machines).toBeGreaterThan(0)
    expect(result.peakMib.source).toBeGreaterThan(0)
    expect(await leftBy(child)).toEqual([])
    return result
  }

  /** Namespaces and directories of a run. */
  async function leftBy(child: ChildProcess): Promise<string[]> {
    const namespaces = (await runTool('ip', ['netns', 'list'])).split('\n').map((line) => line.split(' ')[0] ?? '')
    return [...namespaces, ...(await readdir(dir()))].filter((name) => name.startsWith(`meshlab-${child.pid}-`))
  }

  /** Waits for a line, and reads no more of what the lab says, which must not matter to it. */
  async function says(child: ReturnType<typeof start>, line: string): Promise<void> {
    let said = ''
    for await (const chunk of child.stderr) {
      said += String(chunk)
      if (said.includes(line)) return
    }
    throw new Error(`the lab ended without “${line}”: ${said}`)
  }

  async function isAlive(pid: number): Promise<boolean> {
    return readFile(`/proc/${pid}/stat`, 'utf8').then(
      (line) => !/\) [ZX] /.test(line),
      () => false,
    )
  }

  it('provisions machines from the master', async () => {
    const result = await run('provision', '--machines', '3', '--size', '4M')
    expect(result.receipts.length).toBe(3)
    expect(result.bytes.outOfMaster).toBeGreaterThanOrEqual(result.bytes.ideal.fromSource)
    expect(result.bytes.ideal.into).toBe(3 * result.bytes.ideal.fromSource)
    expect(result.bytes.overUplink).toBe(0)
  })

  it('provisions machines with system files, of which fewer bytes travel than they have', async () => {
    const result = await run('provision', '--machines', '2', '--size', '8M', '--content', 'system')
    expect(result.bytes.received).toBeLessThan(0.95 * result.bytes.ideal.into)
  })

  it('restores what the log knows', async () => {
    const result = await run('restore', '--machines', '2', '--size', '4M', '--share', '0.1', '--dirt', 'clustered')
    expect(result.receipts.map(({ log }) => log.state)).toEqual(['dirty', 'dirty'])
    expect(result.bytes.receivedMost).toBeLessThan(2 * 1024 ** 2)
  })

  it('restores without a log, from machines and a central source', async () => {
    const args = ['--machines', '2', '--size', '2M', '--log', 'none', '--from', 'both', '--mdns']
    const { receipts } = await run('restore', ...args)
    expect(receipts.map(({ log }) => log.source)).toEqual(['scan', 'scan'])
    expect(receipts.every(({ blocks }) => blocks.dirty > 0)).toBe(true)
  })

  it('updates over the uplink, no faster than that is', async () => {
    const result = await run(
      ...['update', '--machines', '2', '--size', '2M', '--share', '0.25', '--from', 'central', '--uplink', '500kbit'],
    )
    expect(result.receipts.map(({ release }) => release)).toEqual([2, 2])
    expect(result.bytes.outOfMaster).toBe(0)
    expect(result.bytes.overUplink).toBeGreaterThanOrEqual(result.bytes.ideal.fromSource)
    expect(result.bytes.ideal.fromSource).toBe(0.25 * 2 * 1024 ** 2)
    expect(result.seconds.ideal).toBeCloseTo(8.39, 1)
    // What a link sends ahead at the beginning is not waited for.
    expect(result.seconds.last).toBeGreaterThan(0.8 * result.seconds.ideal)
  })

  it('stages an update over the uplink, and restores it without any network', async () => {
    const result = await run(
      ...['update', '--staged', '--machines', '2', '--size', '2M', '--share', '0.25', '--from', 'central'],
    )
    expect(result.receipts.map(({ release, bytes }) => [release, bytes.received])).toEqual([
      [2, 0],
      [2, 0],
    ])
    expect(result.staging!.overUplink).toBeGreaterThanOrEqual(result.bytes.ideal.fromSource)
    expect(result.staging!.received).toBeGreaterThanOrEqual(result.bytes.ideal.into)
    expect(result.bytes.overUplink).toBeLessThan(50_000)
  })

  it('brings what is behind the uplink over it once, although the machine that fetches is killed', async () => {
    const { bytes } = await run(
      ...['provision', '--machines', '3', '--size', '16M', '--from', 'central', '--uplink', '20mbit', '--kill-fetcher'],
    )
    expect(bytes.overUplink).toBeGreaterThanOrEqual(bytes.ideal.fromSource)
    // Who is late by seconds on a busy machine counts as gone; each for itself would be three times.
    expect(bytes.overUplink).toBeLessThan(2.5 * bytes.ideal.fromSourceInBlocks)
  })

  it('leaves nothing when it is interrupted, whatever it does', async () => {
    for (const moment of ['preparing', 'measuring']) {
      const child = start('provision', '--machines', '2', '--size', '2M', '--rate', '1mbit')
      await says(child, moment)
      child.kill('SIGTERM')
      await once(child, 'close')
      expect(child.exitCode).toBe(130)
      expect(await leftBy(child)).toEqual([])
    }
  })

  it('removes what a killed run has left', async () => {
    const killed = start('provision', '--machines', '2', '--size', '2M', '--rate', '1mbit')
    await says(killed, 'measuring')
    const pids = (await runTool('ip', ['netns', 'pids', `meshlab-${killed.pid}-master`])).trim().split('\n')
    // The master, and what it may be running to see who uses the machine.
    expect(pids.length).toBeGreaterThanOrEqual(1)
    killed.kill('SIGKILL')
    await once(killed, 'close')
    // Its processes end with it.
    for (const pid of pids) while (await isAlive(Number(pid))) await sleep(20)
    expect(await leftBy(killed)).not.toEqual([])
    await run('provision', '--machines', '1', '--size', '1M')
    expect(await leftBy(killed)).toEqual([])
  })
})
