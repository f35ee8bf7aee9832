import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import type { KernelFiles } from '../../tools/boot/build-agent.ts'
import { runTool } from '../../tools/lab/run-tool.ts'
import { runApt, Unavailable } from './packages.ts'

/** Debian's kernel, unpacked and not installed. Downloads the one that linux-image-amd64 stands for, once; it is kept in the user's cache folder. */
export async function fetchKernel(): Promise<KernelFiles> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'lab-mesh-vm')
  await mkdir(cache, { recursive: true })
  const known = await newestKernel()
  const folder = known === undefined || !existsSync(join(cache, known)) ? await unpackKernel(cache) : join(cache, known)
  const [version] = await readdir(join(folder, 'lib/modules'))
  return { image: join(folder, 'boot', `vmlinuz-${version}`), modules: join(folder, 'lib/modules', version!) }
}

/** What linux-image-amd64 stands for; undefined if apt does not know it, as on a machine whose lists were removed. */
async function newestKernel(): Promise<string | undefined> {
  const depends = await runTool('apt-cache', ['depends', 'linux-image-amd64']).catch(() => '')
  return /Depends: (linux-image-\S+)/.exec(depends)?.[1]
}

/** Downloads and unpacks the newest kernel. Returns its folder, which is whole under its name, or not there. */
async function unpackKernel(cache: string): Promise<string> {
  // Lists that are old name packages that the mirror has no more.
  await runApt(['update', '-q'])
  const name = await newestKernel()
  if (name === undefined)
    throw new Unavailable('no mirror in the lists of apt has the Debian package linux-image-amd64')
  const work = await mkdtemp(join(cache, 'new-'))
  try {
    console.log(`downloading ${name}`)
    await runApt(['download', '-q', name], work)
    const [file] = await readdir(work)
    await runTool('dpkg-deb', ['--extract', join(work, file!), join(work, 'root')])
    await rm(join(cache, name), { recursive: true, force: true })
    await rename(join(work, 'root'), join(cache, name))
    return join(cache, name)
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}
