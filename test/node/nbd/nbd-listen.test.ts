import { createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { listenAt } from '../../../node/nbd/nbd-listen.ts'

describe('an address that an NBD server is to listen on', () => {
  it('is refused with its length if it is longer than the path of a socket may be', async () => {
    const unix = `/tmp/${'x'.repeat(110)}`
    await expect(listenAt(createServer(), { unix })).rejects.toMatchObject({
      code: 'NBD_ADDRESS_INVALID',
      message: `${unix} has 115 bytes, and the path of a socket may have 107`,
    })
  })
})
