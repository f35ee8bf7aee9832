import { readdir, readFile, readlink } from 'node:fs/promises'

/** State of a socket that listens, in /proc/net/tcp. */
const LISTENING = '0A'

/** Which process listens on a TCP port of this machine, as `nginx (process 812)`; undefined where that cannot be seen. Linux only. */
export async function portHolder(port: number, proc = '/proc'): Promise<string | undefined> {
  const tables = await Promise.all(['tcp', 'tcp6'].map((name) => textOf(`${proc}/net/${name}`)))
  const inodes = new Set(tables.flatMap((table) => inodesOf(table, port)))
  if (inodes.size === 0) return undefined
  for (const pid of await namesIn(proc)) {
    if (!/^\d+$/.test(pid)) continue
    for (const fd of await namesIn(`${proc}/${pid}/fd`)) {
      const target = await readlink(`${proc}/${pid}/fd/${fd}`).catch(() => '')
      if (!inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? '')) continue
      const name = (await textOf(`${proc}/${pid}/comm`)).trim()
      return `${name} (process ${pid})`
    }
  }
  return undefined
}

/** Inodes of the sockets of a table that listen on a port. */
function inodesOf(table: string, port: number): string[] {
  return table
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state, , , , , , inode] = line.trim().split(/\s+/)
      return state === LISTENING && Number.parseInt(local.split(':')[1] ?? '', 16) === port ? [inode ?? ''] : []
    })
}

async function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

async function namesIn(path: string): Promise<string[]> {
  return readdir(path).catch(() => [])
}
