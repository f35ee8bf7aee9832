import { errnoOf, isMeshError, MeshError } from '../../protocol/errors.ts'

/**
 * That this machine or this process has reached a limit, as SYSTEM_LIMIT naming it: files that may be open at a time (EMFILE of a process,
 * ENFILE of the machine), memory (ENOMEM). Undefined if the error is another one. Such an error says nothing about what was to be opened:
 * no file is damaged because of it. Workers, LevelDB and libuv (`Unknown system error 24`) pass it on as text only. Source: errno(3), getrlimit(2).
 */
export function systemLimit(error: unknown): MeshError | undefined {
  if (isMeshError(error, 'SYSTEM_LIMIT')) return error
  const errno = limitOf(error)
  if (errno === undefined) return undefined
  const texts = {
    EMFILE: `no more files can be opened: this process may have ${openFiles()} open at a time (ulimit -n)`,
    ENFILE: 'no more files can be opened: this machine has as many open as it may (sysctl fs.file-max)',
    ENOMEM: 'this machine has no memory left for this program',
  }
  return new MeshError('SYSTEM_LIMIT', texts[errno], { cause: error })
}

const TEXTS = [
  ['EMFILE', /\bEMFILE\b|Too many open files(?! in system)|system error 24\b/i],
  ['ENFILE', /\bENFILE\b|Too many open files in system|system error 23\b/i],
  ['ENOMEM', /\bENOMEM\b|Cannot allocate memory|system error 12\b/i],
] as const

function limitOf(error: unknown): (typeof TEXTS)[number][0] | undefined {
  const errno = errnoOf(error)
  for (const [name, pattern] of TEXTS) {
    if (errno === name) return name
    for (let at = error; at instanceof Error; at = at.cause) if (pattern.test(at.message)) return name
  }
  return undefined
}

/** The limit of this process. A report asks for it without opening a file. */
function openFiles(): string {
  const { userLimits } = process.report.getReport() as { userLimits?: { open_files?: { soft?: string | number } } }
  return String(userLimits?.open_files?.soft ?? 'no more')
}

/**
 * For a file that may be missing, as after `catch`: returns `value`, whatever went wrong. A limit that was reached is thrown, because then
 * the file may be there. Errors: SYSTEM_LIMIT.
 */
export function unlessLimit<T>(value: T): (error: unknown) => T {
  return (error) => {
    const limit = systemLimit(error)
    if (limit !== undefined) throw limit
    return value
  }
}

/**
 * What `look` finds; undefined if it fails: processes end, files are closed while others look, and those of other users cannot be seen.
 * Errors: SYSTEM_LIMIT.
 */
export function attempt<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    return unlessLimit(undefined)(error)
  }
}
