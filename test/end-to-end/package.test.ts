import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { VERSION } from '../../tools/cli/version.ts'
import { Lab } from '../../tools/lab/local-lab.ts'
import { Random } from '../../tools/lab/random.ts'
import { hasTool } from '../../tools/lab/run-tool.ts'
import { startMaster } from '../support/fixtures.ts'
import { testSeed } from '../support/seed.ts'
import { SystemCopy } from '../support/system-copy.ts'
import { useTempDir } from '../support/temp-dir.ts'

const ROOT = join(import.meta.dirname, '../..')
const LATER = '99.0.0'
const BLOCKS = 16
/** Nobody else is met. */
const ALONE = ['--listen', '/ip4/127.0.0.1/tcp/0', '--no-mdns']
const run = promisify(execFile)

const tools = [
  ...['dpkg-deb', 'zstd', 'lintian', 'x86_64-linux-gnu-strip', 'aarch64-linux-gnu-strip', 'man'],
  ...['qemu-aarch64-static', '/usr/aarch64-linux-gnu/lib/libstdc++.so.6', '/usr/aarch64-linux-gnu/lib/libatomic.so.1'],
]
const missing = (await Promise.all(tools.map(async (tool) => ((await hasTool(tool)) ? [] : [tool])))).flat()
const isHere = process.arch === 'x64' && process.getuid?.() === 0 && missing.length === 0
if (!isHere)
  console.log(`SKIPPED: the package is built and installed as root on x64; missing: ${missing.join(', ') || 'none'}`)

async function build(out: string, { version = VERSION, arch = 'amd64' } = {}): Promise<void> {
  const args = [join(ROOT, 'tools/package/package.ts'), '--fast', '--out', out, '--version', version]
  await run(process.execPath, [...args, '--arch', arch])
}

const hashOf = async (path: string): Promise<string> =>
  createHash('sha256')
    .update(await readFile(path))
    .digest('hex')

describe.skipIf(!isHere)('the package', () => {
  const dir = useTempDir()
  const name = `lab-mesh_${VERSION}_amd64`
  let system: SystemCopy

  beforeAll(async () => {
    await build(dir('one'))
    await build(dir('one'), { version: LATER })
    system = await SystemCopy.open(dir('system'), dir('one'))
  })
  afterAll(() => system?.close())

  const install = (version: string, env: NodeJS.ProcessEnv = {}) =>
    system.run('dpkg', ['-i', `/mnt/lab-mesh_${version}_amd64.deb`], env)
  const mesh = (...args: string[]) => system.run('mesh', args)
  /** Every file of the state directory, except for the database, which a command that opens it writes anew. */
  const state = () => system.shell('find /var/lib/lab-mesh -type f ! -path "*/db/*" | sort | xargs sha256sum')
  const calls = async (): Promise<string> => system.shell('cat /run/systemctl; rm /run/systemctl')

  it('has the same bytes if it is built again', async () => {
    await build(dir('two'))
    const files = (await readdir(dir('two'))).sort()
    expect(files).toEqual([`${name}.deb`, `${name}.tar.zst`])
    for (const file of files) expect(await hashOf(dir('two', file)), file).toBe(await hashOf(dir('one', file)))
  })

  it('is built for another kind of machine, of what npm has for that, and works there', async (context) => {
    const built = await build(dir('arm64'), { arch: 'arm64' }).catch((error: Error) => error.message)
    if (typeof built === 'string' && built.includes('npm pack')) {
      console.log(`SKIPPED: npm has no Node for arm64 here: ${built}`)
      return context.skip(built)
    }
    expect(built).toBe(undefined)
    const deb = dir('arm64', `lab-mesh_${VERSION}_arm64.deb`)
    expect((await run('dpkg-deb', ['-f', deb, 'Architecture'])).stdout).toBe('arm64\n')
    await run('dpkg-deb', ['-x', deb, dir('arm64', 'tree')])
    for (const file of ['node', 'classic-level.node']) {
      const { stdout } = await run('readelf', ['-h', dir('arm64', 'tree/usr/lib/lab-mesh', file)])
      expect(stdout, file).toMatch(/Machine: +AArch64/)
    }
    // The master is of this kind of machine, so that the two kinds meet.
    const lab = await Lab.open()
    try {
      const image = await startMaster(lab, BLOCKS, new Random(testSeed('package')))
      const pc = lab.path('pc.img')
      await writeFile(pc, new Uint8Array(image.byteLength))
      const program = ['node', 'mesh.js'].map((file) => dir('arm64', 'tree/usr/lib/lab-mesh', file))
      const options = ['--state', lab.path('pc'), ...ALONE]
      const arm = (...args: string[]) =>
        run('qemu-aarch64-static', ['-L', '/usr/aarch64-linux-gnu', ...program, ...args, ...options])
      await arm('join', await lab.invite('master'), '--disk', pc, '--name', 'pc')
      const { stdout } = await arm('restore')
      expect(stdout).toContain(`Verified: model release 1, ${BLOCKS} blocks`)
      expect(await hashOf(pc)).toBe(await hashOf(lab.path('model.img')))
    } finally {
      await lab.close()
    }
  })

  it('is what Debian expects, and the tarball holds the same files', async () => {
    const { stdout } = await run('lintian', ['--allow-root', '--fail-on', 'error,warning', dir('one', `${name}.deb`)])
    expect(stdout).toBe('')
    const list = async (command: string, ...args: string[]): Promise<string[]> =>
      (await run(command, args)).stdout
        .split('\n')
        .map((line) => line.replace(/^(\S+) +(\S+) .*? (?:\.\/)?(usr|var)/, '$1 $2 $3'))
        .filter((line) => /^[d-]/.test(line) && !line.endsWith(' ./'))
        .sort()
    const deb = await list('dpkg-deb', '-c', dir('one', `${name}.deb`))
    expect(deb.length).toBeGreaterThan(50)
    expect(deb.every((line) => line.split(' ')[1] === 'root/root')).toBe(true)
    expect(await list('tar', '-tvf', dir('one', `${name}.tar.zst`))).toEqual(deb)
  })

  it('gives mesh, whatever Node the system has, with man pages and completions', async () => {
    await writeFile(dir('one', 'node'), '#!/bin/sh\necho no Node >&2\nexit 1\n', { mode: 0o755 })
    await system.shell('install /mnt/node /usr/local/bin/node; install /mnt/node /usr/bin/node')
    expect(await install(VERSION)).toMatchObject({ code: 0 })
    expect((await mesh('--version')).stdout.trim()).toBe(VERSION)
    expect(await system.shell('dpkg --verify lab-mesh')).toBe('')
    const page = await system.shell('man --warnings mesh-restore mesh.toml mesh 2>&1')
    for (const word of ['--accept-new-disk', 'serving.max-upload', 'FORMAT_NEWER']) expect(page).toContain(word)
    expect(page).not.toContain('warning:')
    const unit = await system.shell('cat /usr/lib/systemd/system/mesh-up.service')
    expect(unit).toContain('\nExecStart=/usr/bin/mesh up\n')
    // A later version's state directory (10) does not become readable by trying again.
    expect(unit).toContain('\nRestartPreventExitStatus=2 10 12\n')
    expect(await system.shell('ls /etc/systemd/system/multi-user.target.wants')).toContain('mesh-up.service')
    // Nothing runs before somebody has made the machine a member.
    expect(await calls()).not.toContain('start')
  })

  it('seeds, joins and restores', async () => {
    await system.shell('head -c 3M /dev/urandom >/srv/model.img; truncate -s 3M /srv/pc.img')
    const common = [...ALONE, '--json']
    const seed = system.start('mesh', ['seed', '/srv/model.img', '--image', 'model', ...common])
    await new Promise<void>((resolve, reject) => {
      seed.once('exit', () => reject(new Error('mesh seed has ended')))
      createInterface({ input: seed.stdout! }).on('line', (line) => line.includes('"serving"') && resolve())
    })
    const { stdout } = await mesh('invite', '--json')
    const token = /"token":"([^"]+)"/.exec(stdout)?.[1] ?? ''
    const pc = ['--state', '/srv/pc', ...common]
    expect(await mesh('join', token, '--disk', '/srv/pc.img', '--name', 'pc', ...pc)).toMatchObject({ code: 0 })
    expect(await mesh('restore', ...pc)).toMatchObject({ code: 0 })
    await system.shell('cmp /srv/model.img /srv/pc.img')
    const ended = once(seed, 'exit')
    seed.kill('SIGINT')
    await ended
    const { stdout: plan } = await mesh('install', '--dry-run', '--state', '/srv/pc')
    expect(plan).toContain('\nExecStart=/usr/bin/mesh restore --state /srv/pc\n')
    // Node keeps what it compiled where the system keeps such things.
    expect(await system.shell('ls /var/cache/lab-mesh')).not.toBe('')
    expect(await system.shell('ls /usr/lib/lab-mesh')).not.toContain('cache')
  })

  it('waits for a restore before it replaces anything', async () => {
    const restore = system.start('/usr/lib/lab-mesh/node', [
      '-e',
      'console.log(1); setInterval(() => {}, 1000)',
      'restore',
    ])
    await new Promise((resolve) => restore.stdout!.once('data', resolve))
    for (const args of [
      ['-i', `/mnt/lab-mesh_${LATER}_amd64.deb`],
      ['--remove', 'lab-mesh'],
    ]) {
      const { code, stderr } = await system.run('dpkg', args, { LAB_MESH_WAIT: '0' })
      expect(code).not.toBe(0)
      expect(stderr).toContain('a restore still runs')
      expect((await mesh('--version')).stdout.trim()).toBe(VERSION)
    }
    expect(await system.shell('dpkg -s lab-mesh')).toMatch(/^Status: \w+ ok installed$/m)
    const upgrade = system.run('dpkg', ['-i', `/mnt/lab-mesh_${VERSION}_amd64.deb`], { LAB_MESH_WAIT: '600' })
    restore.kill()
    expect((await upgrade).code).toBe(0)
    await calls()
  })

  it('is updated: state is kept, what runs is started again, and nothing else', async () => {
    const before = await state()
    expect(before).toContain('/var/lib/lab-mesh/keys/')
    expect((await install(LATER)).code).toBe(0)
    expect((await mesh('--version')).stdout.trim()).toBe(LATER)
    expect(await state()).toBe(before)
    expect(await calls()).not.toMatch(/(re)?start/)
    await system.shell('echo active >/run/active')
    expect((await install(LATER)).code).toBe(0)
    const made = (await calls()).split('\n').filter((call) => /start|stop/.test(call))
    expect(made).toEqual([expect.stringContaining('restart mesh-up.service')])
    expect(JSON.parse((await mesh('status', '--json')).stdout)).toMatchObject({ role: 'master' })
  })

  it('refuses the state of a later version after a downgrade, and changes nothing of it', async () => {
    await system.shell('cp /var/lib/lab-mesh/format /run/format; sed -i "s/1/2/" /var/lib/lab-mesh/format')
    const before = await state()
    const { code, stderr } = await install(VERSION)
    expect(code).toBe(0)
    expect(stderr).toContain('install the version that was here before; mesh refuses to work until then')
    for (const command of [['status'], ['up'], ['seed', '/srv/model.img']])
      expect(await mesh(...command, '--json')).toMatchObject({
        code: 10,
        stdout: expect.stringContaining('FORMAT_NEWER'),
      })
    expect(await state()).toBe(before)
    await system.shell('cp /run/format /var/lib/lab-mesh/format')
    expect((await install(LATER)).stderr).not.toContain('refuses')
    await calls()
  })

  it('keeps the state when it is removed, and when it is purged without an answer', async () => {
    const before = await state()
    const unit = '[Service]\nExecStart=/usr/bin/mesh restore\n'
    await writeFile(dir('one', 'unit'), unit)
    await system.shell('mkdir -p /etc/systemd/system; cp /mnt/unit /etc/systemd/system/mesh-restore.service')
    const removed = await system.run('dpkg', ['--remove', 'lab-mesh'])
    expect(removed).toMatchObject({ code: 0, stderr: expect.stringContaining('purging the package removes them') })
    expect(await calls()).toContain('stop mesh-up.service')
    expect(await system.shell('ls /usr/lib/lab-mesh /var/cache/lab-mesh /usr/bin/mesh 2>/dev/null || true')).toBe('')
    expect(await state()).toBe(before)
    const purged = await system.run('dpkg', ['--purge', 'lab-mesh'])
    expect(purged).toMatchObject({ code: 0, stderr: expect.stringContaining('/var/lib/lab-mesh with the keys') })
    expect(await state()).toBe(before)
    expect(await system.shell('find /etc/systemd -name "mesh-*"; dpkg-query -W lab-mesh 2>/dev/null || true')).toBe('')
  })

  it('removes the state if somebody has said so', async () => {
    expect((await install(VERSION)).code).toBe(0)
    await system.shell('echo lab-mesh lab-mesh/remove-state boolean true | debconf-set-selections')
    expect((await system.run('dpkg', ['--purge', 'lab-mesh'])).code).toBe(0)
    expect(await system.shell('ls -d /var/lib/lab-mesh 2>/dev/null || true')).toBe('')
    // The answer is not remembered for another time.
    expect(await system.shell('debconf-show lab-mesh')).toBe('')
  })
})
