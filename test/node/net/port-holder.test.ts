import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { describe, expect, it, onTestFinished } from 'vitest'
import { portHolder } from '../../../node/net/port-holder.ts'

const hasIpv6 = networkInterfaces().lo?.some(({ address }) => address === '::1') === true
if (!hasIpv6) console.warn('SKIPPED: a port of IPv6, which this machine does not have')

describe('portHolder', () => {
  it.each(hasIpv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1'])(
    'names who listens on a port of %s, and nobody where nobody does',
    async (host) => {
      const server = createServer().listen(0, host)
      onTestFinished(() => void server.close())
      await once(server, 'listening')
      const address = server.address()
      const port = typeof address === 'object' && address !== null ? address.port : 0
      expect(await portHolder(port)).toMatch(new RegExp(`^\\S.* \\(process ${process.pid}\\)$`))
      expect(await portHolder(port)).not.toMatch(/^MainThread/)
      expect(await portHolder(port, { kind: 'udp' })).toBeUndefined()
      server.close()
      await once(server, 'close')
      expect(await portHolder(port)).toBeUndefined()
      expect(await portHolder(port, { proc: '/nowhere' })).toBeUndefined()
    },
  )

  it('names who has a port of UDP', async () => {
    const socket = createSocket('udp4').bind(0, '127.0.0.1')
    onTestFinished(() => void socket.close())
    await once(socket, 'listening')
    const { port } = socket.address()
    expect(await portHolder(port, { kind: 'udp' })).toMatch(new RegExp(`^\\S.* \\(process ${process.pid}\\)$`))
  })
})
