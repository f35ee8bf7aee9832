import { spawn } from 'node:child_process'
import { onTestFinished, vi } from 'vitest'

/** Opens a pseudo terminal, names it, and passes bytes between it and the pipes of this program. */
const PROGRAM = `
import os, pty, select, sys
near, far = pty.openpty()
os.write(1, (os.ttyname(far) + "\\n").encode())
while True:
    for source in select.select([0, near], [], [])[0]:
        data = os.read(source, 4096)
        if not data: sys.exit()
        os.write(near if source == 0 else 1, data)
`

/** A console with somebody at it. */
export interface PseudoTerminal {
  /** Where a program opens it. */
  readonly path: string
  readonly type: (text: string) => void
  /** What was written to it since it was opened. */
  readonly shown: () => string
  /** Waits until something has been written behind `from`. */
  readonly shows: (text: string | RegExp, from?: number) => Promise<void>
}

/** A pseudo terminal, until the test ends. */
export async function openPseudoTerminal(): Promise<PseudoTerminal> {
  const child = spawn('python3', ['-u', '-c', PROGRAM], { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill())
  let out = ''
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString('utf8')
  })
  await vi.waitFor(() => {
    if (!out.includes('\n')) throw new Error('no terminal yet')
  }, 60_000)
  const path = out.slice(0, out.indexOf('\n'))
  const begin = path.length + 1
  const shown = (): string => out.slice(begin)
  return {
    path,
    type: (text) => void child.stdin.write(text),
    shown,
    shows: (text, from = 0) =>
      vi.waitFor(
        () => {
          const seen = shown().slice(from)
          if (typeof text === 'string' ? !seen.includes(text) : !text.test(seen))
            throw new Error(`${String(text)} was not shown, but: ${seen}`)
        },
        { timeout: 60_000, interval: 20 },
      ),
  }
}
