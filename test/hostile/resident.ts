import { readFile } from 'node:fs/promises'

/** Resident memory now, in MiB (VmRSS of proc_pid_status(5)); 0 if the process is gone. */
export async function residentMib(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024
}
