import { chmod, readFile, rm, writeFile } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import { join } from 'node:path'
import { type BuildOptions, build, type Plugin } from 'esbuild'
import { VERSION } from './cli/version.ts'
import { NODE_FLAGS } from './lab/node-flags.ts'

/**
 * Bundles the command, because start-up counts at every boot. Code that is imported dynamically lies in files of its
 * own, so that libp2p is not even read unless the network is needed. The file of the hash threads stands beside the
 * others.
 */
/**
 * Imports Node's own modules as objects whose parts are looked up when they are used. Imported as ES modules, all their
 * parts would be made at once, streams and sockets among them.
 */
const builtins: Plugin = {
  name: 'builtins',
  setup: ({ onResolve, onLoad }) => {
    onResolve({ filter: /./ }, ({ path }) => (isBuiltin(path) ? { path, namespace: 'builtin' } : undefined))
    onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)})`,
      loader: 'js',
    }))
  },
}

const options: BuildOptions = {
  plugins: [builtins],
  entryPoints: ['tools/mesh.ts', 'node/disk/hash-worker.ts'],
  outdir: 'dist',
  entryNames: '[name]',
  chunkNames: '[name]-[hash]',
  splitting: true,
  minifyWhitespace: true,
  minifySyntax: true,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node24',
  // A native addon is looked up beside its own package.json.
  external: ['classic-level'],
  define: { BUNDLED_VERSION: JSON.stringify(VERSION) },
  // CommonJS dependencies call require for Node's own modules.
  banner: {
    js: "import { createRequire as makeRequire } from 'node:module'\nconst require = makeRequire(import.meta.url)",
  },
  logLevel: 'warning',
}

process.chdir(join(import.meta.dirname, '..'))
await rm('dist', { recursive: true, force: true })
await build(options)
// Only the command is run by its name; the other files are loaded by it.
await writeFile(
  'dist/mesh.js',
  `#!/usr/bin/env -S node ${NODE_FLAGS.join(' ')}\n${await readFile('dist/mesh.js', 'utf8')}`,
)
await chmod('dist/mesh.js', 0o755)
