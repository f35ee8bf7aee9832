import { readdir, readFile, readlink } from 'node:fs/promises'
import { basename } from 'node:path'

/** State of a socket that listens, in /proc/net/tcp, and of a datagram socket that is open, in /proc/net/udp. */
const LISTENING = { tcp: '0A', udp: '07' } as const

/**
 * Which process has a port of this machine, as `nginx (process 812)`; undefined where that cannot be seen. Linux only. TCP: who listens.
 */
export async function portHolder(
  port: number,
  { kind = 'tcp', proc = '/proc' }: { readonly kind?: 'tcp' | 'udp'; readonly proc?: string } = {},
): Promise<string | undefined> {
  const tables = await Promise.all([kind, `${kind}6`].map((name) => textOf(`${proc}/net/${name}`)))
  const inodes = new Set(tables.flatMap((table) => inodesOf(table, port, LISTENING[kind])))
  if (inodes.size === 0) return undefined
  for (const pid of await namesIn(proc)) {
    if (!/^\d+$/.test(pid)) continue
    for (const fd of await namesIn(`${proc}/${pid}/fd`)) {
      const target = await readlink(`${proc}/${pid}/fd/${fd}`).catch(() => '')
      if (!inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? '')) continue
      return `${await programOf(`${proc}/${pid}`)} (process ${pid})`
    }
  }
  return undefined
}

/** Name of a program. Node calls its first thread, whose name the kernel takes for that of the process, MainThread. */
async function programOf(process: string): Promise<string> {
  const name = (await textOf(`${process}/comm`)).trim()
  return name === 'MainThread' ? basename(await readlink(`${process}/exe`).catch(() => name)) : name
}

/** Inodes of the sockets of a table that have a port and are in a state. */
function inodesOf(table: string, port: number, wanted: string): string[] {
  return table
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state, , , , , , inode] = line.trim().split(/\s+/)
      return state === wanted && Number.parseInt(local.split(':')[1] ?? '', 16) === port ? [inode ?? ''] : []
    })
}

async function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

async function namesIn(path: string): Promise<string[]> {
  return readdir(path).catch(() => [])
}
