import { randomBytes } from 'node:crypto'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { openDevice } from '../../../node/disk/file-device.ts'
import { NbdClient } from '../../../node/nbd/nbd-client.ts'
import type { Extent } from '../../../node/nbd/nbd-export.ts'
import { NbdServer } from '../../../node/nbd/nbd-server.ts'
import { DurableBitmap, logFileSize } from '../../../node/writelog/durable-bitmap.ts'
import { openLogStorage } from '../../../node/writelog/log-storage.ts'
import { DIRTY_CONTEXT, LoggedDisk } from '../../../node/writelog/logged-disk.ts'
import { RangeSet } from '../../../protocol/ranges.ts'
import { codeOf } from '../../support/error-code.ts'
import { imaginedDisk } from '../../support/log-disk.ts'
import { nbdkit } from '../../support/nbd-process.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const SIZE = 4 * 1024 ** 2
const RELEASE = { release: 3, root: new Uint8Array(32).fill(7) }

describe('a disk whose writes are logged on another machine', () => {
  it('is written only as long as the log can be', async () => {
    const directory = await temporaryDirectory()
    const [disk, log] = [`${directory}/disk`, `${directory}/log`]
    const content = randomBytes(SIZE)
    await writeFile(disk, content)
    await writeFile(log, '')
    await truncate(log, logFileSize(SIZE))
    const keeper = await nbdkit('file', log)
    const { storage } = await openLogStorage(keeper.uri(), logFileSize(SIZE))
    onTestFinished(() => storage.close())
    const bitmap = new DurableBitmap({ storage, disk: imaginedDisk(SIZE), source: 'nbd', release: RELEASE })
    await bitmap.open()
    await bitmap.reset(RangeSet.empty)
    const device = await openDevice(disk, { writable: true })
    onTestFinished(() => device.close())
    const served = new LoggedDisk({ name: 'disk', device, log: bitmap, readOnly: false })
    const server = await NbdServer.listen({ host: '127.0.0.1', port: 0 }, { exports: [served] })
    const uri = `${server.uri}/disk`
    const client = await NbdClient.connect(uri, { contexts: [DIRTY_CONTEXT] })

    const data = randomBytes(5000)
    await client.write(8192, data)
    data.copy(content, 8192)
    const extents: Extent[] = []
    for await (const { length, flags } of client.blockStatus(DIRTY_CONTEXT, 0, SIZE)) extents.push({ length, flags })
    expect(extents).toEqual([
      { length: 8192, flags: 0 },
      { length: 8192, flags: 1 },
      { length: SIZE - 16384, flags: 0 },
    ])

    await keeper.end('SIGKILL')
    // Also the second time, when the mark is there in memory.
    for (let i = 0; i < 2; i++) expect(await codeOf(client.write(1024 ** 2, randomBytes(5000)))).toBe('DISK_IO')
    expect(await codeOf(client.write(1024 ** 2, randomBytes(5000)))).toBe('DISK_IO')
    expect((await readFile(disk)).equals(content)).toBe(true)
    await client.close()
    await server.close()
    expect(await codeOf(NbdClient.connect(uri))).toBe('NBD_UNREACHABLE')
  })
})
