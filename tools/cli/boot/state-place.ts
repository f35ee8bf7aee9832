import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { MeshError } from '../../../protocol/errors.ts'
import { DISKS_PROGRAM, NO_STATE, STATE_PIPE } from '../../boot/boot-scripts.ts'
import { STATE_WAIT_MS } from '../screen/limits.ts'

/** The state partition, which the agent’s script looks for and mounts while Node starts. */
export class StatePlace {
  #looking: Promise<string> | undefined = readFile(STATE_PIPE, 'utf8')
  #isMounted = false
  #isBare = false

  /** No disk of this computer has a state partition, as far as the last look tells. */
  get isBare(): boolean {
    return this.#isBare
  }

  /** Returns what the script said. Looks anew if it was not found before. Errors: BOOT_STATE_MISSING with the reason. */
  async mounted(): Promise<string> {
    if (this.#isMounted) return 'mounted before'
    if (this.#looking === undefined) {
      spawn(DISKS_PROGRAM, { stdio: 'ignore' }).on('error', () => undefined)
      this.#looking = readFile(STATE_PIPE, 'utf8')
    }
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve(''), STATE_WAIT_MS)
    })
    const said = (await Promise.race([this.#looking, late]).finally(() => clearTimeout(timer))).trim()
    if (said !== '') this.#looking = undefined
    this.#isBare = said === NO_STATE
    assertMounted(said)
    this.#isMounted = true
    return said
  }
}

/** Errors: BOOT_STATE_MISSING, unless the script said that it has mounted the state partition. */
export function assertMounted(said: string): void {
  if (said.startsWith('mounted /dev/')) return
  throw new MeshError('BOOT_STATE_MISSING', said === '' ? 'the disks were not looked for in time' : said)
}
