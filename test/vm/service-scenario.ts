import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFile, mkdir, open, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Lab, MeshEvent } from '../../tools/lab/local-lab.ts'
import type { Random } from '../../tools/lab/random.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { dirty } from '../support/fixtures.ts'
import { Container, fetchDebian } from './container.ts'

const BLOCK_BYTES = 64 * 1024
const IMAGE_BYTES = 160 * BLOCK_BYTES
const PACKAGE_PROGRAM = join(import.meta.dirname, '../../tools/package/package.ts')
/** Capabilities of a service of a machine without a monitor: CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE, CAP_SYS_ADMIN, CAP_SYS_BOOT. */
const MOST_RIGHTS = 0x600404
/** What `systemd-analyze security` may say of mesh-up.service. */
const MOST_EXPOSED = 3.0

/**
 * The package in a Debian whose first process is systemd. A machine is installed, joins, is restored by its unit at the start, and serves from within the
 * sandbox of its unit: another machine gets the whole image while the master is off. The master resets it (`mesh roll`), through that sandbox as well. An update
 * starts the service again and keeps the state; taking the package away keeps the keys.
 */
export async function serviceScenario({ lab }: { readonly lab: Lab }, random: Random): Promise<string> {
  const [model, root] = [lab.path('model.img'), lab.path('root')]
  const disk = join(root, 'srv/disk.img')
  await writeFile(model, random.bytes(IMAGE_BYTES))
  await runTool('cp', ['-a', await fetchDebian(), root])
  const packages = await makePackages(lab.path('packages'))
  for (const file of packages) await copyFile(file, join(root, 'root', file.split('/').at(-1)!))
  const names = packages.map((file) => `/root/${file.split('/').at(-1)}`) as [string, string]
  await writeFile(disk, '')
  await runTool('truncate', ['--size', String(IMAGE_BYTES), disk])
  const told: string[] = []
  const seeding = await lab.serve('master', ['seed', model, '--image', 'model'])
  const token = await lab.invite('master')
  let container = await Container.boot(root)
  await install(container, root, names[0], token)
  await assertSame(disk, model, 'the unit restores')
  told.push('installed, joined, restored and serving by its units')
  told.push(await checkSandbox(container))

  // The second machine hears of the first one from the master, which then is off.
  await writeFile(lab.path('pc2.img'), new Uint8Array(IMAGE_BYTES))
  await lab.ok('pc2', ['join', token, '--disk', lab.path('pc2.img'), '--name', 'pc2'])
  const up = await lab.serve('pc2', ['up'])
  await up.when((event) => event.event === 'peer' && event.name === 'pc' && event.up === true)
  await up.stop()
  await seeding.stop()
  const restored = await lab.ok('pc2', ['restore'])
  assert.deepEqual(
    (restored.peers as MeshEvent[]).filter(({ blocks }) => Number(blocks) > 0).map(({ name }) => name),
    ['pc'],
  )
  await assertSame(lab.path('pc2.img'), model, 'the service has served')
  told.push('another machine restored from it alone')

  await lab.serve('master', ['seed', model])
  await lab.ok('master', ['remove', 'pc2'])
  await dirty(disk, [3, 77], random)
  await container.until(async () => (await container.run('mesh', 'status', '--json')).includes('"peers":1'))
  const rolling = lab.run('master', ['roll', 'start', '--group', 'lab', '--holders', '1', '--warning', '1s'])
  // The order to start again comes from a process with few rights.
  await container.ended
  container = await Container.boot(root)
  const rolled = await rolling
  assert.equal(rolled.code, 0, rolled.stdout + rolled.stderr)
  await assertSame(disk, model, 'the start restores')
  told.push('reset by the master, restored at its start')

  const before = await mainProcess(container)
  await container.run('dpkg', '--install', names[1])
  assert.match(await container.run('mesh', '--version'), /^0\.9\.9/)
  await container.until(async () => ![before, '0'].includes(await mainProcess(container)))
  assert.equal(await container.run('systemctl', 'is-active', 'mesh-up.service'), 'active\n')
  await container.run('dpkg', '--remove', 'lab-mesh')
  assert.match(await readFile(join(root, 'var/lib/lab-mesh/machine.json'), 'utf8'), /"name": ?"pc"/)
  told.push('updated: the service runs anew; removed: the keys are kept')
  await container.powerOff()
  return told.join('; ')
}

/** Two versions of the package for this machine. */
async function makePackages(out: string): Promise<string[]> {
  const files: string[] = []
  for (const version of ['0.9.8', '0.9.9']) {
    const folder = join(out, version)
    await mkdir(folder, { recursive: true })
    const made = spawnSync(process.execPath, [PACKAGE_PROGRAM, '--fast', '--version', version, '--out', folder])
    assert.equal(made.status, 0, String(made.stderr))
    files.push(...(await readdir(folder)).filter((name) => name.endsWith('.deb')).map((name) => join(folder, name)))
  }
  return files
}

/** As the handbook says it. */
async function install(container: Container, root: string, file: string, token: string): Promise<void> {
  await container.run('dpkg', '--install', file)
  await mkdir(join(root, 'etc/lab-mesh'), { recursive: true })
  await writeFile(join(root, 'etc/lab-mesh/mesh.toml'), 'listen = ["/ip4/127.0.0.1/tcp/0"]\nmdns = false\n')
  await container.run('mesh', 'join', token, '--disk', '/srv/disk.img', '--name', 'pc')
  await container.run('mesh', 'install')
  await container.run('systemctl', 'daemon-reload')
  await container.run('systemctl', 'enable', 'mesh-restore.service', 'mesh-up.service')
  await container.run('systemctl', 'start', 'mesh-restore.service', 'mesh-up.service')
  await container.until(async () => (await container.asks('mesh', 'status', '--json')).includes('"held":160'))
}

const mainProcess = async (container: Container): Promise<string> =>
  (await container.run('systemctl', 'show', '--property=MainPID', '--value', 'mesh-up.service')).trim()

/** What the kernel and systemd say of the service's rights. */
async function checkSandbox(container: Container): Promise<string> {
  const status = await container.run('cat', `/proc/${await mainProcess(container)}/status`)
  const rights = Number.parseInt(/CapBnd:\s*(\w+)/.exec(status)![1]!, 16)
  assert.equal(rights & ~MOST_RIGHTS, 0, `the service may have the capabilities ${rights.toString(16)}`)
  assert.match(status, /NoNewPrivs:\s*1\b/)
  assert.match(status, /Seccomp:\s*2\b/)
  const said = await container.run('systemd-analyze', 'security', '--no-pager', 'mesh-up.service')
  const exposed = Number(/exposure level for mesh-up\.service: ([\d.]+)/.exec(said)![1])
  assert.ok(exposed <= MOST_EXPOSED, `mesh-up.service is exposed by ${exposed}`)
  return `systemd-analyze security: ${exposed}, capabilities ${rights.toString(16)}`
}

async function assertSame(path: string, model: string, what: string): Promise<void> {
  const [file, other] = [await open(path), await open(model)]
  try {
    assert.ok((await file.readFile()).equals(await other.readFile()), `${what}: the disk is the image`)
  } finally {
    await file.close()
    await other.close()
  }
}
