import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Metafile } from 'esbuild'
import { readJson } from '../../protocol/document.ts'
import { object, optional, text } from '../../protocol/json-shape.ts'

const ROOT = join(import.meta.dirname, '../..')
const MAX_FIELD_BYTES = 1000
const LEVELDB = 'node_modules/classic-level/deps/leveldb/leveldb-1.20'
const SNAPPY = 'node_modules/classic-level/deps/snappy/snappy'
const isPackage = object({ version: text(MAX_FIELD_BYTES), license: optional(text(MAX_FIELD_BYTES)) })

/**
 * The file copyright of a package (Debian Policy 12.5): the licences of this project, of Node, and of every package of npm of
 * which anything is in the bundle. `nodeLicence` is Node's file, which has those of its own parts.
 */
export async function copyright(bundle: Metafile, node: { version: string; licence: string }): Promise<string> {
  const packages = new Set(['node_modules/classic-level'])
  for (const path of Object.keys(bundle.inputs)) {
    const [, found] = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path) ?? []
    if (found !== undefined) packages.add(found)
  }
  const parts = [
    'lab-mesh: the lab restore mesh, bundled with Node.js and packages of npm.\n',
    part('The lab restore mesh', await readFile(join(ROOT, 'LICENSE'), 'utf8')),
    ...(await Promise.all([...packages].sort().map(packagePart))),
    part('LevelDB, in classic-level', await readFile(join(ROOT, LEVELDB, 'LICENSE'), 'utf8')),
    part('Snappy, in classic-level', await readFile(join(ROOT, SNAPPY, 'COPYING'), 'utf8')),
    part(`Node.js ${node.version}`, await readFile(node.licence, 'utf8')),
  ]
  return parts.join('\n')
}

async function packagePart(path: string): Promise<string> {
  const { version, license } = readJson(path, isPackage, await readFile(join(ROOT, path, 'package.json')))
  const files = (await readdir(join(ROOT, path))).filter((name) => /^(licen[cs]e|copying|notice)/i.test(name)).sort()
  const texts = await Promise.all(files.map((name) => readFile(join(ROOT, path, name), 'utf8')))
  const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
  return part(`${name} ${version}, licence ${license ?? 'as below'}`, texts.join('\n'))
}

function part(heading: string, licence: string): string {
  return `${'-'.repeat(78)}\n${heading}\n${'-'.repeat(78)}\n\n${licence.trim()}\n`
}
