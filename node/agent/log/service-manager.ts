import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { CONTROL_DEADLINE_MS } from '../../control/limits.ts'

/**
 * Tells systemd that this service is ready (sd_notify(3)), if it started this process and wants to know. By its own program,
 * since Node has no Unix datagram sockets; the unit needs NotifyAccess=all.
 */
export async function tellServiceManager(): Promise<void> {
  if (process.env.NOTIFY_SOCKET === undefined) return
  await promisify(execFile)('systemd-notify', ['--ready'], { timeout: CONTROL_DEADLINE_MS })
}
