import { readFile } from 'node:fs/promises'
import { errnoOf, MeshError } from '../../protocol/errors.ts'

/** Control-C and Control-D, as a terminal in raw mode passes them on. */
const INTERRUPTS = ['\u0003', '\u0004']
const RUBOUTS = ['\u007f', '\b']

/**
 * The passphrase for `what`: the first line of a file, or what is typed at the terminal, which shows nothing of it. `isNew`: it is
 * typed twice. Errors: USAGE if there is neither a file nor a terminal, INTERRUPTED.
 */
export async function askPassphrase(
  what: string,
  { file, isNew = false }: { readonly file?: string | undefined; readonly isNew?: boolean },
): Promise<string> {
  if (file !== undefined) return firstLine(file)
  if (!process.stdin.isTTY)
    throw new MeshError(
      'USAGE',
      `the passphrase ${what} is needed: start this on a terminal, or give --passphrase-file FILE`,
    )
  const typed = await typeHidden(`Passphrase ${what}: `)
  if (!isNew || typed === (await typeHidden('The same once more: '))) return typed
  throw new MeshError('USAGE', 'the two passphrases differ')
}

async function firstLine(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new MeshError('USAGE', `${file} cannot be read (${errnoOf(cause)})`, { cause })
  })
  return text.split(/\r?\n/, 1)[0] ?? ''
}

function typeHidden(prompt: string): Promise<string> {
  const { stdin, stderr } = process
  stderr.write(prompt)
  stdin.setRawMode(true)
  stdin.setEncoding('utf8')
  stdin.resume()
  return new Promise<string>((resolve, reject) => {
    let typed: string[] = []
    const end = (): void => {
      stdin.off('data', take)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write('\n')
    }
    const take = (chunk: string): void => {
      for (const key of chunk) {
        if (INTERRUPTS.includes(key)) {
          end()
          reject(new MeshError('INTERRUPTED', 'no passphrase was given'))
          return
        }
        if (key === '\r' || key === '\n') {
          end()
          resolve(typed.join(''))
          return
        }
        typed = RUBOUTS.includes(key) ? typed.slice(0, -1) : [...typed, key]
      }
    }
    stdin.on('data', take)
  })
}
