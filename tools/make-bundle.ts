import crypto from 'node:crypto'
import { cp, rm } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import { join } from 'node:path'
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild'
import type { BundleFacts } from './cli/bundle.ts'
import { VERSION } from './cli/version.ts'

const ROOT = join(import.meta.dirname, '..')

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

/**
 * In the agent Node's cryptography is loaded when a part of it is used. A thread begins with what Node has loaded when the agent is built, and Node 24 aborts
 * when such a thread loads its cryptography once more.
 */
const laterCrypto: Plugin = {
  name: 'crypto',
  setup: ({ onLoad }) => {
    onLoad({ filter: /^(node:)?crypto$/, namespace: 'builtin' }, () => {
      const parts = Object.getOwnPropertyNames(crypto)
      const getters = parts.map((name) => `get ${name}() { return process.getBuiltinModule('node:crypto').${name} }`)
      return { contents: `module.exports = { ${getters.join(', ')} }`, loader: 'js' }
    })
  },
}

/** Loads the native addon from beside the bundle; its package would look for one that fits the machine. */
const addonBeside: Plugin = {
  name: 'addon',
  setup: ({ onLoad }) => {
    onLoad({ filter: /[/]classic-level[/]binding[.]js$/ }, () => ({
      contents: `module.exports = require('./${ADDON}')`,
      loader: 'js',
    }))
  },
}

/** The same for the agent, which was started before: only Node’s own modules can be required in what was then put aside. */
const addonOfAgent: Plugin = {
  name: 'addon',
  setup: ({ onLoad }) => {
    onLoad({ filter: /[/]classic-level[/]binding[.]js$/ }, () => ({
      contents: `let addon
        const load = () => { const it = { exports: {} }; process.dlopen(it, '${AGENT_FOLDER}/${ADDON}'); return it.exports }
        module.exports = new Proxy({}, { get: (_, name) => (addon ??= load())[name] })`,
      loader: 'js',
    }))
  },
}

const ADDON = 'classic-level.node'
/** Where the agent’s program is in the agent. */
const AGENT_FOLDER = '/mesh'

/** What a bundle is made for. */
interface BundleOptions {
  /** Where the files go; what was there is removed. */
  readonly directory: string
  /** Native addon that is put beside the bundle. Otherwise the package `classic-level` is looked up when it is needed. */
  readonly addon?: string
  readonly facts?: Partial<BundleFacts>
}

/** Names what the build knows of a bundle, as `tools/cli/bundle.ts` reads it. */
const namesOf = (facts: BundleFacts): Record<string, string> =>
  Object.fromEntries(
    Object.entries(facts).map(([name, value]) => [`BUNDLED_${name.toUpperCase()}`, JSON.stringify(value)]),
  )

/**
 * Bundles what runs in the agent (`tools/boot`) into the folder `agent`. Each program is one file, as CommonJS, which Node starts
 * soonest. The addon is put beside it when an agent is made.
 */
async function bundleAgent(directory: string): Promise<void> {
  await build({
    absWorkingDir: ROOT,
    plugins: [laterCrypto, builtins, addonOfAgent],
    entryPoints: ['tools/agent.ts', 'node/disk/hash-worker.ts'],
    outdir: join(directory, 'agent'),
    entryNames: '[name]',
    minify: true,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node24',
    define: {
      ...namesOf({ version: VERSION }),
      'import.meta.url': JSON.stringify(`file://${AGENT_FOLDER}/agent.js`),
      'import.meta.dirname': JSON.stringify(AGENT_FOLDER),
    },
    logLevel: 'warning',
  })
}

/** The command’s own code stands beside the file that is run by its name, which first says how it is to be compiled. */
const programBeside: Plugin = {
  name: 'program',
  setup: ({ onResolve }) => {
    onResolve({ filter: /[/]command-line[.]ts$/ }, () => ({ path: './program.js', external: true }))
  },
}

/**
 * Bundles the command, because start-up counts at every boot: `mesh.js`, which is run by its name, loads `program.js`, which is all
 * the code. One file is found, read and linked sooner than a hundred. What is imported dynamically, such as libp2p, runs only when it is
 * needed, and V8 compiles it only then. The file of the hash threads stands beside the others, the agent’s program below. The same
 * sources make the same bytes. Returns which files went into the program.
 */
export async function makeBundle({ directory, addon, facts = {} }: BundleOptions): Promise<Metafile> {
  const plugins = [builtins, ...(addon === undefined ? [] : [addonBeside])]
  const options: BuildOptions = {
    absWorkingDir: ROOT,
    plugins,
    outdir: directory,
    minifyWhitespace: true,
    minifySyntax: true,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    // A native addon is looked up beside its own package.json.
    external: addon === undefined ? ['classic-level'] : [`./${ADDON}`],
    define: namesOf({ version: VERSION, ...facts }),
    // CommonJS dependencies call require for Node's own modules.
    banner: {
      js: "import { createRequire as makeRequire } from 'node:module'\nconst require = makeRequire(import.meta.url)",
    },
    logLevel: 'warning',
  }
  await rm(directory, { recursive: true, force: true })
  await build({ ...options, plugins: [programBeside, ...plugins], entryPoints: { mesh: 'tools/mesh.ts' } })
  const entryPoints = { program: 'tools/cli/command-line.ts', 'hash-worker': 'node/disk/hash-worker.ts' }
  const { metafile } = await build({ ...options, entryPoints, metafile: true })
  await bundleAgent(directory)
  if (addon !== undefined) await cp(addon, join(directory, ADDON))
  return metafile
}
