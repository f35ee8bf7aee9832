/**
 * Loaded before the agent's program (`node --import`): prints, as a JSON list, what the program asks the machine while it is loaded,
 * and ends where the snapshot would be taken. What is asked then is frozen, and true on the machine that builds the agent only.
 */
type Owner = Record<string, unknown>

const asked = new Set<string>()
const program = process.argv[1]!
const builtin = (name: string): Owner => process.getBuiltinModule(name) as Owner
// Made now, so that only who asks for it is noted.
const { stdout, stderr } = process

/** Node itself asks, too; counted is what the program does, directly or not. */
function note(what: string): void {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 100
  const isProgram = new Error('where').stack?.includes(program)
  Error.stackTraceLimit = stackTraceLimit
  if (isProgram === true) asked.add(what)
}

function trap(owner: Owner, path: string, names: RegExp = /./): void {
  for (const [name, { value, writable }] of Object.entries(Object.getOwnPropertyDescriptors(owner))) {
    if (typeof value !== 'function' || writable !== true || !names.test(name)) continue
    owner[name] = new Proxy(value, {
      apply(target, self, args) {
        note(`${path}.${name}`)
        return Reflect.apply(target, self, args)
      },
      construct(target, args, newTarget) {
        note(`${path}.${name}`)
        return Reflect.construct(target, args, newTarget) as object
      },
    })
  }
}

for (const name of [
  'fs',
  'fs/promises',
  'os',
  'net',
  'dgram',
  'dns',
  'dns/promises',
  'child_process',
  'worker_threads',
])
  trap(builtin(name), name)
trap(builtin('crypto'), 'crypto', /^(random|generate|getRandom)/)
trap(Object.getPrototypeOf(globalThis.crypto) as Owner, 'crypto')
trap(Object.getPrototypeOf(performance) as Owner, 'performance')
trap(process as unknown as Owner, 'process', /^(?!getBuiltinModule$)/)
trap(Math as unknown as Owner, 'Math', /^random$/)
trap(Date as unknown as Owner, 'Date', /^now$/)
globalThis.Date = new Proxy(Date, {
  construct(target, args, newTarget) {
    if (args.length === 0) note('new Date')
    return Reflect.construct(target, args, newTarget) as object
  },
})
process.env = new Proxy(process.env, {
  get(target, name) {
    note(`process.env.${String(name)}`)
    return Reflect.get(target, name) as string | undefined
  },
  has(target, name) {
    note(`process.env.${String(name)}`)
    return Reflect.has(target, name)
  },
  ownKeys(target) {
    note('process.env')
    return Reflect.ownKeys(target)
  },
})
for (const [name, value] of Object.entries({ pid: process.pid, ppid: process.ppid, stdout, stderr })) {
  const get = (): unknown => {
    note(`process.${name}`)
    return value
  }
  Object.defineProperty(process, name, { configurable: true, get })
}

builtin('v8').startupSnapshot = {
  setDeserializeMainFunction: () => {
    stdout.write(`${JSON.stringify([...asked].toSorted())}\n`, () => process.exit(0))
  },
}
