import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Machine } from '../../../node/agent/machine/machine.ts'
import { DEFAULT_PORT } from '../../../protocol/constants.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import type { AgentSite } from '../../boot/build-agent.ts'
import { type ConsoleFont, makeConsoleFont } from '../../boot/console-font.ts'
import type { ServedSite } from '../../boot/serve/serve-agent.ts'
import { BUNDLE } from '../bundle.ts'
import type { ConfigFile } from '../config/config-file.ts'
import { CATALOGUES } from '../screen/catalogue.ts'
import { isWide, textColumns } from '../screen/draw-screen.ts'
import { makeMenuFacts } from './menu-facts.ts'

/** The site that a state directory belongs to. Errors: those of the state directory. */
export async function siteOf(stateDir: string): Promise<AgentSite> {
  const { config, trust } = await Machine.look(stateDir)
  const root = await trust.file('1.root.json')
  if (root === undefined) throw new MeshError('STATE_CORRUPT', `${stateDir} has lost the site’s first root metadata`)
  return { name: config.site, root, rootVersion: trust.view().versions.root }
}

/**
 * What `mesh boot serve` knows of the site: its id, and where its master listens if that is this machine. `listen`: what was said at this call. Errors: those of
 * the state directory.
 */
export async function servedSite(stateDir: string, listen: readonly string[]): Promise<ServedSite> {
  const { config, trust } = await Machine.look(stateDir)
  const places = [listen, config.listen].find((some) => some.length > 0) ?? []
  const ports = places.flatMap((place) => /\/tcp\/(\d+)/.exec(place)?.[1] ?? []).map(Number)
  const masterPorts = config.role === 'master' ? (ports.length > 0 ? [...new Set(ports)] : [DEFAULT_PORT]) : []
  return { siteId: config.siteId, rootVersion: trust.view().versions.root, masterPorts }
}

/**
 * The font that the console needs for the language and the text of a configuration file; undefined if the kernel's own does. Errors:
 * TOOL_MISSING, USAGE.
 */
export async function fontOf(config: ConfigFile | undefined): Promise<ConsoleFont | undefined> {
  const language = config?.values['boot.lang'] ?? 'en'
  const characters = `${config?.values['boot.text'] ?? ''}${JSON.stringify(CATALOGUES[language])}`
  return textColumns(characters) === [...characters].length ? undefined : makeConsoleFont(characters, isWide)
}

/** Folder of the bundle: that of this program, or the one that was built from the sources. */
export function bundleFolder(): string {
  return BUNDLE !== undefined ? import.meta.dirname : join(import.meta.dirname, '../../../dist')
}

/**
 * The facts of the agent’s local menu; undefined if it is to have none. `menuPassword`: a file whose first line is the password, or `-`
 * for the standard input. Errors: USAGE.
 */
export async function menuOf({
  menuPassword,
  menuStart,
}: {
  menuPassword?: string
  menuStart: boolean
}): Promise<string | undefined> {
  if (menuPassword === undefined) {
    if (menuStart) throw new MeshError('USAGE', '--menu-start is about the menu, which needs --menu-password')
    return undefined
  }
  const path = menuPassword === '-' ? '/dev/stdin' : resolve(menuPassword)
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new MeshError('USAGE', `--menu-password ${menuPassword} cannot be read (${errnoOf(cause)})`, { cause })
  })
  return makeMenuFacts(text.split(/\r?\n/)[0] ?? '', menuStart)
}

/** Key and certificate; both are given, or neither. Errors: USAGE. */
export function signingOf({
  signKey,
  signCert,
}: {
  signKey?: string
  signCert?: string
}): { key: string; certificate: string } | undefined {
  if (signKey === undefined && signCert === undefined) return undefined
  if (signKey === undefined || signCert === undefined)
    throw new MeshError('USAGE', 'give --sign-key and --sign-cert, both')
  return { key: resolve(signKey), certificate: resolve(signCert) }
}
