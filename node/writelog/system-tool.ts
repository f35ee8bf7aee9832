import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { errnoOf, MeshError } from '../../protocol/errors.ts'
import { TOOL_DEADLINE_MS, TOOL_OUTPUT_BYTES } from './limits.ts'

/** Runs a program of the system to its end and returns what it printed. Errors: TOOL_MISSING, ERA_FAILED. */
export type RunTool = (name: string, args: readonly string[]) => Promise<string>

/** Debian packages of the programs that are called. */
const PACKAGES: Readonly<Record<string, string>> = {
  dmsetup: 'dmsetup',
  era_invalidate: 'thin-provisioning-tools',
  era_restore: 'thin-provisioning-tools',
  blockdev: 'util-linux',
  losetup: 'mount',
  sync: 'coreutils',
}

const execute = promisify(execFile)

/** Exists while udev runs (udevadm-control(8)). */
const UDEV = '/run/udev/control'

/**
 * Runs a program as {@link RunTool} says. Early in the boot PATH may lack the folders of the administrator's programs.
 * There may be no udev either, to which Debian's dmsetup leaves the nodes in /dev/mapper.
 */
export const runSystemTool: RunTool = async (name, args) => {
  const env: NodeJS.ProcessEnv = {
    ...process.env,
    LC_ALL: 'C',
    PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`,
  }
  try {
    if (!existsSync(UDEV)) env.DM_DISABLE_UDEV = '1'
    return (await execute(name, args, { env, timeout: TOOL_DEADLINE_MS, maxBuffer: TOOL_OUTPUT_BYTES })).stdout
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT')
      throw new MeshError('TOOL_MISSING', `the program ${name} of the package ${PACKAGES[name] ?? name} is missing`, {
        detail: { program: name },
      })
    const { stderr = '', killed = false } = cause as { stderr?: string; killed?: boolean }
    const said = killed ? `no end within ${TOOL_DEADLINE_MS / 1000} s` : stderr.trim().replaceAll(/\s*\n\s*/g, '; ')
    throw new MeshError('ERA_FAILED', `${name} ${args.join(' ')}: ${said === '' ? 'failed' : said}`, { cause })
  }
}
