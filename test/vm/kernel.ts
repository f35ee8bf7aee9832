import { execFile } from 'node:child_process'
import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { runTool } from '../../tools/lab/run-tool.ts'

const execute = promisify(execFile)

/** Debian's kernel, unpacked and not installed. Downloads the one that linux-image-amd64 stands for, once; it is kept in the user's cache folder. */
export async function fetchKernel(): Promise<KernelFiles> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'lab-mesh-vm')
  await mkdir(cache, { recursive: true })
  const depends = await runTool('apt-cache', ['depends', 'linux-image-amd64'])
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1]
  if (name === undefined) throw new Error(`apt knows no kernel:\n${depends}`)
  const folder = join(cache, name)
  const there = await access(folder).then(
    () => true,
    () => false,
  )
  if (!there) await unpackKernel(name, cache, folder)
  const [version] = await readdir(join(folder, 'lib/modules'))
  return { image: join(folder, 'boot', `vmlinuz-${version}`), modules: join(folder, 'lib/modules', version!) }
}

/** Whole under its name, or not there. */
async function unpackKernel(name: string, cache: string, folder: string): Promise<void> {
  const work = await mkdtemp(join(cache, 'new-'))
  try {
    console.log(`downloading ${name}`)
    await execute('apt-get', ['download', '-q', name], { cwd: work })
    const [file] = await readdir(work)
    await runTool('dpkg-deb', ['--extract', join(work, file!), join(work, 'root')])
    await rename(join(work, 'root'), folder)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
