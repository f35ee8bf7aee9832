import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ERROR_CODES } from '../protocol/errors.ts'
import { functionsOf } from './support/syntax-tree.ts'

const ROOT = join(import.meta.dirname, '..')

function files(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    return entry.isDirectory() ? files(path) : [path]
  })
}

const sources = ['protocol', 'node', 'tools'].flatMap(files).filter((path) => path.endsWith('.ts'))
const tests = files('test').filter((path) => path.endsWith('.ts'))
const text = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

interface Import {
  readonly from: string
  /** Path from the root, or the package's name. */
  readonly to: string
  readonly typeOnly: boolean
}

function importsOf(path: string): Import[] {
  const found: Import[] = []
  for (const [, type, target] of text(path).matchAll(
    /^(?:import|export)( type)? [^'"]*?from '([^']+)'|^import '([^']+)'/gm,
  )) {
    found.push(describeImport(path, target!, type !== undefined))
  }
  for (const [, target] of text(path).matchAll(/import\('([^']+)'\)/g)) found.push(describeImport(path, target!, false))
  return found
}

function describeImport(from: string, target: string, typeOnly: boolean): Import {
  const to = target.startsWith('.') ? relative(ROOT, resolve(ROOT, dirname(from), target)) : target
  return { from, to, typeOnly }
}

const imports = sources.flatMap(importsOf)

/** What each folder may import of our own, besides itself; type imports count like others. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  'node/disk': ['protocol'],
  'node/state': ['protocol', 'node/disk'],
  'node/hooks': ['protocol'],
  'node/net': ['protocol'],
  'node/roll': ['protocol'],
  'node/control': ['protocol', 'node/state'],
  'node/trust': ['protocol', 'node/state'],
  'node/nbd': ['protocol', 'node/disk', 'node/state'],
  'node/operate': ['protocol', 'node/net'],
  'node/store': ['protocol', 'node/disk', 'node/state'],
  'node/writelog': ['protocol', 'node/disk', 'node/state', 'node/nbd'],
  'node/exchange': ['protocol'],
  'node/exchange/uplink': ['protocol', 'node/exchange'],
  'node/exchange/serve': ['protocol', 'node/exchange', 'node/net', 'node/store'],
  'node/exchange/ask': ['protocol', 'node/exchange', 'node/exchange/uplink', 'node/net'],
  'node/restore': [
    'protocol',
    'node/disk',
    'node/store',
    'node/writelog',
    'node/trust',
    'node/exchange',
    'node/exchange/ask',
  ],
  ...rooms({
    machine: [],
    log: ['machine'],
    mesh: ['machine'],
    receipts: ['machine'],
    offer: ['machine', 'log', 'mesh'],
    answer: ['machine', 'mesh', 'receipts', 'offer'],
    stage: ['machine', 'mesh'],
    release: ['machine', 'mesh', 'receipts', 'answer'],
    lab: ['machine', 'mesh', 'receipts'],
    operate: ['machine', 'mesh', 'receipts', 'offer', 'answer', 'lab'],
    site: ['machine', 'mesh'],
    restore: ['machine', 'log', 'mesh', 'offer', 'receipts', 'answer'],
    boot: ['machine', 'log', 'mesh', 'receipts', 'restore'],
    roll: ['machine', 'operate'],
    run: ['machine', 'log', 'site', 'mesh', 'receipts', 'offer', 'stage', 'release', 'operate', 'answer'],
  }),
  'tools/boot': ['protocol', 'node/state'],
  // It looks at addresses and ports of this machine.
  'tools/boot/serve': ['protocol', 'node/net', 'tools/boot'],
  'tools/cli': ['protocol', 'node/disk', 'node/state', 'node/restore', 'node/roll', 'node/agent/*', 'tools/boot/*'],
  'tools/lab': ['protocol'],
  'tools/demo': ['protocol', 'node/restore', 'tools/cli', 'tools/lab'],
  // Transport and compression are measured alone.
  'tools/bench': [
    'protocol',
    'node/net',
    'node/exchange/*',
    'node/restore',
    'tools',
    'tools/cli',
    'tools/lab',
    'tools/netlab',
  ],
  // The simulation runs the picker, who is dialled, and the steps of a roll, alone.
  'tools/simulate': ['protocol', 'node/net', 'node/exchange/*', 'node/roll', 'tools/cli', 'tools/lab'],
  // The lab moves a member behind the uplink.
  'tools/netlab': [
    'protocol',
    'node/trust',
    'node/restore',
    'node/roll',
    'node/agent/roll',
    'tools',
    'tools/cli',
    'tools/lab',
    'tools/bench',
  ],
  // The crash campaign takes machines apart.
  'tools/crash': [
    'protocol',
    'node/disk',
    'node/store',
    'node/trust',
    'node/writelog',
    'node/restore',
    'node/exchange/ask',
    'tools/cli',
    'tools/lab',
  ],
  // The unit of the package has the priority of serving that the agent has.
  'tools/package': ['protocol', 'node/state', 'node/agent/offer', 'tools', 'tools/cli', 'tools/lab'],
  tools: ['protocol', 'tools/cli', 'tools/lab'],
}

/** The rooms of node/agent: each may use every folder of node/ that is not of the agent, and the rooms that it names. */
function rooms(allowed: Readonly<Record<string, readonly string[]>>): Record<string, readonly string[]> {
  const below = readdirSync(join(ROOT, 'node')).filter((name) => name !== 'agent')
  const things = below.flatMap((name) => [`node/${name}`, `node/${name}/*`])
  return Object.fromEntries(
    Object.entries(allowed).map(([room, others]) => [
      `node/agent/${room}`,
      ['protocol', ...things, ...others.map((other) => `node/agent/${other}`)],
    ]),
  )
}

/** The folder of the table that a path belongs to: the longest that the path begins with. */
function folderOf(path: string): string | undefined {
  for (let folder = dirname(path); folder !== '.'; folder = dirname(folder)) if (folder in ALLOWED) return folder
  return undefined
}

function mayImport(from: string, to: string): boolean {
  const [here, there] = [folderOf(from), folderOf(to)]
  if (here === undefined || there === undefined) return false
  if (here === there) return true
  return ALLOWED[here]!.some((name) =>
    name.endsWith('/*') ? `${there}/`.startsWith(name.slice(0, -1)) : name === there,
  )
}

interface Export {
  readonly path: string
  readonly name: string
  /** A comment stands right above it, or above the constants or overloads that it continues. */
  readonly commented: boolean
}

function exportsOf(path: string): Export[] {
  const lines = text(path).split('\n')
  return lines.flatMap((line, at) => {
    const [, kind, name] =
      /^export (?:abstract )?(?:async )?(function\*?|class|interface|type|const) (\w+)/.exec(line) ?? []
    if (kind === undefined || name === undefined) return []
    const goesOn = kind === 'const' ? /^export const .*[^{[(`]$/ : new RegExp(`^export (async )?function ${name}\\b`)
    let above = at - 1
    while (goesOn.test(lines[above] ?? '')) above--
    return [{ path, name, commented: /\*\/$/.test(lines[above] ?? '') }]
  })
}

/** Names that other files take from a file; of one that is loaded while the program runs every word of who loads it. */
function usedNames(): Map<string, Set<string>> {
  const used = new Map<string, Set<string>>()
  const note = (from: string, target: string, names: readonly string[]): void => {
    const { to } = describeImport(from, target, false)
    const known = used.get(to) ?? new Set()
    used.set(to, known)
    for (const name of names) known.add(name)
  }
  for (const path of [...sources, ...tests]) {
    const code = text(path)
    for (const [, names, target] of code.matchAll(/^(?:import|export)(?: type)? \{([^}]*)\} from '([^']+)'/gm))
      note(
        path,
        target!,
        names!.split(',').map(
          (name) =>
            name
              .trim()
              .replace(/^type /, '')
              .split(' as ')[0]!,
        ),
      )
    for (const [, target] of code.matchAll(/import\('([^']+)'\)/g)) note(path, target!, code.match(/\w+/g) ?? [])
  }
  return used
}

/** The file of each folder that begins with what the folder is and how its parts fit. */
const INTRODUCED = [
  'protocol/constants.ts',
  'node/disk/block-device.ts',
  'node/store/block-source.ts',
  'node/nbd/nbd-server.ts',
  'node/writelog/write-log.ts',
  'node/exchange/ask/swarm.ts',
  'node/exchange/serve/server.ts',
  'node/exchange/uplink/far-side.ts',
  'node/restore/restore.ts',
  'node/trust/trust-store.ts',
  'node/state/state-directory.ts',
  'node/hooks/run-hook.ts',
  'node/control/control-server.ts',
  'node/roll/roll.ts',
  'tools/cli/command-line.ts',
  'tools/bench/bench.ts',
  'tools/crash/crash.ts',
  'tools/netlab/netlab.ts',
  'tools/simulate/simulate.ts',
  'tools/lab/local-lab.ts',
  'tools/boot/build-agent.ts',
  'tools/boot/serve/serve-agent.ts',
  'tools/demo/demo.ts',
  'tools/package/package.ts',
]

/** Functions that are longer than a screen for a reason. */
const LONG_FUNCTIONS: Readonly<Record<string, string>> = {
  'protocol/messages.ts encodeFields': 'one line for each field of each message',
}

const isOurs = (path: string): boolean => /^(protocol|node|tools|test)\//.test(path)

describe('the code keeps its order', () => {
  it('has the files this test is about', () => {
    expect(sources.length).toBeGreaterThan(300)
    expect(imports.filter(({ to }) => isOurs(to)).length).toBeGreaterThan(1000)
  })

  it('imports only from the layers below', () => {
    expect(imports.filter(({ from, to }) => isOurs(to) && !mayImport(from, to))).toEqual([])
  })

  it('has no import cycles, of types either', () => {
    const graph = new Map(
      sources.map((path) => [path, imports.filter((i) => i.from === path && isOurs(i.to)).map((i) => i.to)]),
    )
    const done = new Set<string>()
    const visit = (path: string, trail: readonly string[]): void => {
      expect(trail, `cycle: ${[...trail, path].join(' → ')}`).not.toContain(path)
      if (done.has(path)) return
      for (const next of graph.get(path) ?? []) visit(next, [...trail, path])
      done.add(path)
    }
    for (const path of sources) visit(path, [])
  })

  it('keeps protocol pure and libp2p in node/net, which is loaded lazily', () => {
    const impure = imports.filter(
      ({ from, to }) => from.startsWith('protocol/') && to.startsWith('node:') && !/^node:(crypto|assert)/.test(to),
    )
    expect(impure).toEqual([])
    for (const path of sources.filter((path) => path.startsWith('protocol/'))) {
      expect(text(path), path).not.toMatch(/Date\.now|Math\.random|process\.|randomBytes|setTimeout/)
    }
    // A benchmark compares with libp2p as it comes.
    const knows = (path: string): boolean => path.startsWith('node/net/') || path === 'tools/bench/stock-end.ts'
    const libp2p = imports.filter(({ from, to }) => /libp2p|multiformats/.test(to) && !knows(from))
    expect(libp2p).toEqual([])
    const eager = imports.filter(
      ({ from, to, typeOnly }) =>
        to === 'node/net/host.ts' && !typeOnly && !/import\('(\.\.\/)+(node\/)?net\/host\.ts'\)/.test(text(from)),
    )
    expect(eager).toEqual([])
  })

  it('reads what comes from outside in one way', () => {
    const parsing = sources.filter((path) => /JSON\.parse\(/.test(text(path)))
    expect(parsing).toEqual(['protocol/document.ts'])
  })

  it('has no file nobody imports', () => {
    const entries = [
      'tools/mesh.ts',
      'tools/agent.ts',
      'tools/build.ts',
      'tools/test.ts',
      'tools/demo/demo.ts',
      'tools/bench/bench.ts',
      'tools/bench/transport-peer.ts',
      'tools/crash/crash.ts',
      'tools/crash/crash-worker.ts',
      'tools/crash/kill-victim.ts',
      'tools/simulate/simulate.ts',
      'tools/netlab/netlab.ts',
      'tools/package/package.ts',
      'node/disk/hash-worker.ts',
    ]
    const reached = new Set([...imports, ...tests.flatMap(importsOf)].map(({ to }) => to))
    expect(sources.filter((path) => !reached.has(path) && !entries.includes(path))).toEqual([])
  })

  it('keeps files and lines to a size one can read', () => {
    const long = sources.filter((path) => text(path).split('\n').length > 500)
    expect(long).toEqual([])
  })

  it('has no function over 50 lines', () => {
    const long = functionsOf(sources)
      .filter(({ path, name, lines }) => lines > 50 && !(`${path} ${name}` in LONG_FUNCTIONS))
      .map(({ path, name, lines }) => `${path} ${name}: ${lines} lines`)
    expect(long).toEqual([])
  })

  it('introduces each folder at the head of its main file', () => {
    for (const path of INTRODUCED) {
      const [, folder, rest] = /^\/\*\*\n \* The folder (\S+?)\/? (.*?)\n \*\//s.exec(text(path)) ?? []
      expect(folder, path).toBe(dirname(path))
      const lines = rest!.split('\n').length
      expect(lines, path).toBeGreaterThanOrEqual(3)
      expect(lines, path).toBeLessThanOrEqual(10)
    }
  })

  it('says above every export what it is', () => {
    const found = sources.flatMap(exportsOf).filter(({ commented }) => !commented)
    expect(found.map(({ path, name }) => `${path} ${name}`)).toEqual([])
  })

  it('has no export that nobody imports', () => {
    const used = usedNames()
    const found = sources.flatMap(exportsOf).filter(({ path, name }) => used.get(path)?.has(name) !== true)
    expect(found.map(({ path, name }) => `${path} ${name}`)).toEqual([])
  })

  it('uses no default exports, no any, no skipped tests without a reason', () => {
    for (const path of [...sources, ...tests]) {
      if (path.endsWith('tidy.test.ts')) continue
      expect(text(path), path).not.toMatch(
        /export default|: any\b|as any\b|\.only\(|\bit\.skip\(|\bdescribe\.skip\(|\.todo\(/,
      )
      if (/skipIf\(/.test(text(path))) expect(text(path), path).toMatch(/SKIPPED|console\.(warn|log)|orSkip/)
    }
  })

  it('measures and waits by a clock that nobody sets', () => {
    // What these compare are dates.
    const dates = [
      'node/agent/mesh/join.ts',
      'node/agent/operate/answer-operators.ts',
      'node/agent/release/publish-release.ts',
    ]
    const ours = sources.filter((path) => path.startsWith('node/') && !dates.includes(path))
    const sums = /Date\.now\(\)\s*[-+<>]|[-+<>]=?\s*Date\.now\(\)/
    expect(ours.filter((path) => sums.test(text(path)))).toEqual([])
  })

  it('provokes every error code in some test', () => {
    const all = tests.map(text).join('\n')
    expect(ERROR_CODES.filter((code) => !all.includes(`'${code}'`) && !all.includes(` ${code} `))).toEqual([])
  })

  it('mentions no path of a machine and ships no large file', () => {
    for (const path of [...sources, ...tests, ...files('docs')]) {
      expect(text(path), path).not.toMatch(/\/home\/[a-z]|\/root\/[a-z]/)
      expect(statSync(join(ROOT, path)).size, path).toBeLessThan(200_000)
    }
  })
})
