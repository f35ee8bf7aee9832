import { chmod, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type BuildOptions, build } from 'esbuild'
import { VERSION } from './version.ts'

/**
 * Bundles the command into one file, since start-up counts at every boot; dynamic imports stay lazy inside it, so libp2p
 * is evaluated only when the network is needed. The hash threads have a file of their own beside it.
 */
const common: BuildOptions = {
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node24',
  // A native addon that is looked up beside its own package.json.
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
await build({ ...common, entryPoints: ['tools/mesh.ts'], outfile: 'dist/mesh.js' })
await build({ ...common, entryPoints: ['node/disk/hash-worker.ts'], outfile: 'dist/hash-worker.js' })
await chmod('dist/mesh.js', 0o755)
