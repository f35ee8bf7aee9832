import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { isLive } from '../../../node/agent/answer/replies.ts'
import { readLogConfig } from '../../../node/agent/log/log-config.ts'
import { readLogDoubt } from '../../../node/agent/log/log-doubt.ts'
import { readDiskState } from '../../../node/agent/machine/disk-state.ts'
import { runMachineHooks } from '../../../node/agent/machine/hooks.ts'
import { ReceiptArchive } from '../../../node/agent/receipts/receipt-archive.ts'
import { RollFile } from '../../../node/agent/roll/roll-file.ts'
import { callControl } from '../../../node/control/control-client.ts'
import { ControlServer } from '../../../node/control/control-server.ts'
import { RollStore } from '../../../node/operate/roll-store.ts'
import { StateDirectory } from '../../../node/state/state-directory.ts'
import { Stage } from '../../../node/store/stage.ts'
import { INVITATION } from '../../../node/trust/invitations.ts'
import { digestOf, toHex } from '../../../protocol/digest.ts'
import type { DocumentShape } from '../../../protocol/document.ts'
import { isRecord } from '../../../protocol/json-shape.ts'
import type { SignedDocument } from '../../../protocol/signed-document.ts'
import { codeOf } from '../../support/error-code.ts'
import { type GrownDocument, grownSigned, grownText } from '../../support/grown-documents.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const ANY: DocumentShape<Record<string, unknown>> = { name: 'anything', shape: isRecord, fault: 'STATE_CORRUPT' }

async function opened(): Promise<StateDirectory> {
  const state = await StateDirectory.open(join(await temporaryDirectory(), 'state'), { create: true })
  onTestFinished(() => state.close())
  return state
}

/** All that is known of `before` is read of `after`, too; what is newer is refused. */
async function expectGrowth<T>({ before, after, newer }: GrownDocument<T>, read: (it: T) => Promise<unknown>) {
  const known = await read(before)
  expect(known).toBeDefined()
  if (typeof known === 'object') expect(await read(after)).toMatchObject(known as object)
  else expect(await read(after)).toBe(known)
  expect(await codeOf(read(newer))).toBe('FORMAT_NEWER')
}

describe('a file of the version before and of one after', () => {
  it('is machine.json, whose unknown keys stay when it is written again', async () => {
    const state = await opened()
    const path = state.path('machine.json')
    const reopened = async (json: string) => {
      await writeFile(path, json)
      return (await StateDirectory.open(state.directory, { create: false, readOnly: true })).machine
    }
    const golden = grownText('machine.json')
    await expectGrowth(golden, reopened)
    const machine = await reopened(golden.after)
    await state.saveMachine({ ...machine!, image: 'linux' })
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ ...JSON.parse(golden.after), image: 'linux' })
  })

  it.each(['nbd', 'dm-era', 'qemu'])('is the configuration of a write log by %s', async (source) => {
    const { directory } = await opened()
    await mkdir(join(directory, 'write-log'))
    await expectGrowth(grownText(`write-log/config.json of ${source}`), async (json) => {
      await writeFile(join(directory, 'write-log', 'config.json'), json)
      return readLogConfig(directory)
    })
  })

  it('is a value in the database', async () => {
    const state = await opened()
    const put = (shelf: string, key: string, json: string) => state.shelf(shelf, ANY).put(key, JSON.parse(json))
    for (const [kind, shelf, read] of [
      ['state of the disk', 'disk-state', () => readDiskState(state)],
      ['doubt about the write log', 'log-doubt', () => readLogDoubt(state)],
      ['invitation', 'invitations', () => state.shelf('invitations', INVITATION).get('disk')],
    ] as const)
      await expectGrowth(grownText(kind), async (json) => {
        await put(shelf, 'disk', json)
        return read()
      })
    await put('disk-state', 'disk', '{"state":"whole","image":"win","release":-3,"root":""}')
    expect(await codeOf(readDiskState(state))).toBe('STATE_CORRUPT')
  })

  it('is the roll that an operator keeps', async () => {
    const { directory } = await opened()
    const file = new RollFile(directory, 'lab-a')
    const { before } = grownText('roll file')
    await file.write(JSON.parse(before))
    const name = `roll-${toHex(digestOf(Buffer.from('lab-a'))).slice(0, 16)}.json`
    expect(await readFile(join(directory, name), 'utf8')).toBe(before)
    await expectGrowth(grownText('roll file'), async (json) => {
      await writeFile(join(directory, name), json)
      return file.read()
    })
  })

  it('is who holds the directory, and for which receipt hooks have ended: what only helps is done without', async () => {
    const { directory } = await opened()
    const holder = grownText('holder.json')
    const named = async (json: string): Promise<string> => {
      await writeFile(join(directory, 'holder.json'), json.replace('4711', String(process.pid)))
      return StateDirectory.open(directory, { create: false }).then(
        () => '',
        (error: Error) => error.message,
      )
    }
    for (const json of [holder.before, holder.after])
      expect(await named(json)).toBe(`${directory} is in use by mesh up (pid ${process.pid})`)
    expect(await named(holder.newer)).toBe(`${directory} is in use by another mesh process`)

    const receipt = '{"machine":"pc07","image":"win","release":3,"aNewKey":1}'
    const hooks = grownText('hooks.json')
    await writeFile(join(directory, 'last-receipt.json'), receipt)
    const due = async (json: string) => {
      const digest = toHex(digestOf(Buffer.from(receipt)))
      await writeFile(join(directory, 'hooks.json'), json.replace('ab'.repeat(32), digest))
      const hookDirectory = join(directory, 'hooks.d')
      await mkdir(hookDirectory, { recursive: true })
      return runMachineHooks({
        stateDir: directory,
        hooks: { directory: hookDirectory },
        place: { MESH_DEVICE: '/dev/null' },
        flush: async () => undefined,
        signal: new AbortController().signal,
        report: () => undefined,
      })
    }
    for (const json of [hooks.before, hooks.after]) expect(await due(json)).toBeUndefined()
    expect(await due(hooks.newer)).toEqual({ ran: [], failed: [] })
  })

  it('is the stage', async () => {
    const directory = join(await temporaryDirectory(), 'stage')
    const data = Buffer.alloc(4096, 5)
    const digest = digestOf(data)
    const stage = await Stage.open(directory, 4096)
    await stage.add(digest, data)
    await stage.close()
    const path = join(directory, 'index')
    const index = await readFile(path)
    const { before, after, newer } = grownText('stage index')
    expect(index.toString('hex', 0, 64)).toBe(before)
    for (const header of [before, after]) {
      await writeFile(path, Buffer.concat([Buffer.from(header, 'hex'), index.subarray(64)]))
      const again = await Stage.open(directory, 4096)
      expect(await again.read(digest)).toEqual(data)
      await again.close()
    }
    const changed = Buffer.concat([Buffer.from(newer, 'hex'), index.subarray(64)])
    await writeFile(path, changed)
    expect(await codeOf(Stage.open(directory, 4096))).toBe('FORMAT_NEWER')
    expect(await readFile(path)).toEqual(changed)
  })
})

describe('a signed document of the version before and of one after', () => {
  it('is kept and passed on as it came: receipts', async () => {
    const archive = new ReceiptArchive(await opened())
    const { before, after } = grownSigned('receipt')
    await archive.add({ id: before.by, name: 'pc1' }, [
      { number: 1, document: before },
      { number: 2, document: after },
    ])
    const { receipts } = await archive.page(before.by, 0)
    expect(receipts.map(({ document }) => document)).toEqual([before, after])
    const [first, second] = await archive.list(() => undefined)
    expect(second).toMatchObject(first!)
  })

  it('is kept and passed on as it came: roll documents', async () => {
    const { before, after, newer } = grownSigned('roll document')
    for (const document of [before, after]) {
      const shelf = new Map<string, SignedDocument>()
      const store = new RollStore({
        shelf: { get: async (group) => shelf.get(group), put: async (group, it) => void shelf.set(group, it) },
        mayOperate: () => true,
        isGroup: () => true,
      })
      expect(await store.put(document)).toEqual({ accepted: true, document })
      expect((await store.get('lab-a'))?.signed).toEqual(document)
      expect(await codeOf(store.put(newer))).toBe('FORMAT_NEWER')
    }
  })
})

describe('the control socket between versions', () => {
  it('understands answers', async () => {
    const { directory } = await opened()
    const answering = async (json: string) => {
      const server = createServer((socket) => socket.once('data', () => socket.end(`${json}\n`)))
      await new Promise<void>((resolve) => server.listen(join(directory, 'control.sock'), resolve))
      try {
        return await callControl(directory, 'live', isLive)
      } finally {
        await new Promise((resolve) => server.close(resolve))
      }
    }
    await expectGrowth(grownText('control answer'), answering)
    const { before, after, newer } = grownText('control answer, error')
    for (const json of [before, after]) expect(await codeOf(answering(json))).toBe('STATE_NOT_MASTER')
    expect(await codeOf(answering(newer))).toBe('FORMAT_NEWER')
    expect(await codeOf(answering('{"result":{"peers":-7}}'))).toBe('PROTOCOL_VIOLATION')
  })

  it('understands requests', async () => {
    const { directory } = await opened()
    const server = await ControlServer.listen(directory, async () => async () => ({}))
    onTestFinished(() => server.close())
    const { before, after, newer } = grownText('control request')
    const asking = (json: string): Promise<string> =>
      new Promise((resolve, reject) => {
        let text = ''
        const socket = connect(join(directory, 'control.sock'), () => socket.write(`${json}\n`))
        socket.on('data', (chunk) => {
          text += chunk.toString()
        })
        socket.on('close', () => resolve(text))
        socket.on('error', reject)
      })
    for (const json of [before, after]) expect(await asking(json)).toBe('{"result":{}}\n')
    expect(JSON.parse(await asking(newer))).toMatchObject({ error: { code: 'FORMAT_NEWER' } })
    expect(JSON.parse(await asking('{"params":{}}'))).toMatchObject({ error: { code: 'USAGE' } })
  })
})
