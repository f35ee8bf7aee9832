import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { orSkip } from '../../support/real-devices.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const MESH = join(import.meta.dirname, '../../../tools/mesh.ts')
/** Takes nothing of this machine: its console is a file, its kernel’s log too, and the folder of the agent’s files is empty. */
const AGENT = `set -e
mount -t tmpfs run /run
mkdir /run/lab-mesh
[ ! -d /etc/lab-mesh ] || mount -t tmpfs etc /etc/lab-mesh
mount --bind "$WORK/active" /sys/class/tty/console/active
mount --bind "$WORK/kmsg" /dev/kmsg
mkfifo /run/lab-mesh/state
echo 'mounted /dev/none' >/run/lab-mesh/state &
exec "$NODE" "$MESH" boot run --state "$WORK/state"`

it('shows on the screen that the agent has lost the root of its site', { timeout: 120_000 }, async (context) => {
  await orSkip(context, 'unshare', ['--mount', '--fork', 'true'])
  const work = await temporaryDirectory()
  const screen = join(work, 'screen')
  for (const [name, content] of Object.entries({ active: `..${screen}\n`, kmsg: '', screen: '' }))
    await writeFile(join(work, name), content)
  const env = { ...process.env, MESH_BOOT: 'agent', WORK: work, NODE: process.execPath, MESH }
  const args = ['--mount', '--propagation', 'private', 'sh', '-c', AGENT]
  const agent = spawn('unshare', args, { env, stdio: ['ignore', 'ignore', 'pipe'], detached: true })
  const ended = once(agent, 'exit')
  onTestFinished(async () => {
    // With what waits for somebody to read the pipe.
    process.kill(-agent.pid!, 'SIGKILL')
    await ended
  })
  let said = ''
  agent.stderr.on('data', (data: Buffer) => {
    said += data
  })
  await expect
    .poll(() => (agent.exitCode === null ? readFile(screen, 'utf8') : `ended: ${said}`), { timeout: 90_000 })
    .toMatch(/Code: BOOT_AGENT_UNFIT|ended/)
  expect(await readFile(screen, 'utf8')).toContain('This computer cannot start now.')
  expect(await readFile(join(work, 'kmsg'), 'utf8')).toContain('the agent is damaged: /etc/lab-mesh/1.root.json')
})
