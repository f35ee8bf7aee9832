import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Stream } from '@libp2p/interface'
import type { FrameStream } from '../../node/net/frame-stream.ts'
import { signAddresses } from '../../protocol/address-record.ts'
import {
  ADDRESS_RECORD_MS,
  EXCHANGE_PROTOCOL,
  JOIN_PROTOCOL,
  MAX_FINDS_PER_MESSAGE,
  MAX_HELD_IMAGES,
  MAX_WANTS_PER_MESSAGE,
  METADATA_PROTOCOL,
  OPERATE_PROTOCOL,
} from '../../protocol/constants.ts'
import { digestOf } from '../../protocol/digest.ts'
import type { PeerAddresses, WantRequest } from '../../protocol/message-parts.ts'
import type { Message } from '../../protocol/messages.ts'
import { RangeSet } from '../../protocol/ranges.ts'
import type { SigningKey } from '../../protocol/signed-document.ts'
import type { HostileMember } from './hostile-member.ts'

/** What one hostile member does to all others. It goes on until its process ends. */
type Attack = (evil: HostileMember) => Promise<void>

const HUGE = { size: 2 ** 44, blockSize: 4096 }

const forEver = async (turn: () => Promise<unknown>, pauseMs = 0): Promise<never> => {
  for (;;) {
    await turn()
    await sleep(pauseMs)
  }
}

/** Answers each request by itself. */
const each =
  (answer: (request: WantRequest, stream: FrameStream) => Promise<void> | void) =>
  async (message: Message, stream: FrameStream): Promise<void> => {
    if (message.type === 'want') for (const request of message.requests) await answer(request, stream)
  }

const block = (id: number, payload: Uint8Array): Message => ({
  type: 'block',
  id,
  zeros: new Uint8Array(),
  payload,
  coding: 0,
  packedUs: 0,
})

/** Right answers to whole blocks; others are missing. */
const serveRight =
  (evil: HostileMember) =>
  async ({ id, index, level, granules }: WantRequest, stream: FrameStream): Promise<void> => {
    if (level > 0 || granules.byteLength > 0) await stream.send({ type: 'missing', ids: [id] })
    else await stream.send(block(id, await evil.block(index)))
  }

/** 16 addresses of a member at which nobody listens. */
function forged(id: string, key: SigningKey, at: number): PeerAddresses {
  const port = (): number => 1024 + randomBytes(2).readUInt16BE() / 2
  const addresses = Array.from({ length: 16 }, () => `/ip4/127.0.0.1/tcp/${Math.floor(port())}`)
  return { id, addresses, record: signAddresses({ addresses, at }, key) }
}

/** Begins something on each connection that goes on beside the requests that come. */
const beside =
  (turn: (stream: FrameStream) => Promise<unknown>, pauseMs = 0) =>
  (stream: FrameStream): void => {
    void forEver(() => turn(stream), pauseMs).catch(() => undefined)
  }

/** Hostile members that answer, or should. */
const SERVERS: Readonly<Record<string, Attack>> = {
  'claims 64 images of 16 TiB, and flips all their blocks': async (evil) => {
    const roots = Array.from({ length: MAX_HELD_IMAGES - 1 }, () => digestOf(randomBytes(8)))
    const held = [evil.image, ...roots.map((root) => ({ root, ...HUGE }))]
    const all = RangeSet.of(0, HUGE.size / HUGE.blockSize)
    const flip = async (stream: FrameStream): Promise<void> => {
      for (const root of roots) {
        await stream.send({ type: 'have', root, gained: all, lost: RangeSet.empty })
        await stream.send({ type: 'have', root, gained: RangeSet.empty, lost: all })
      }
    }
    await evil.serve(each(serveRight(evil)), { hello: { held }, begin: beside(flip) })
  },
  'says that the image is of 16 TiB': (evil) =>
    evil.serve(each(serveRight(evil)), { hello: { held: [{ ...evil.image, ...HUGE }] } }),
  'never says hello': async (evil) => {
    await evil.host.handle(EXCHANGE_PROTOCOL, () => new Promise(() => undefined))
  },
  'claims everything, and answers nothing': (evil) => evil.serve(() => undefined),
  'claims everything, and says twice a second that nothing is missing': (evil) =>
    evil.serve(() => undefined, { begin: beside((stream) => stream.send({ type: 'missing', ids: [] }), 500) }),
  'is always busy': (evil) =>
    evil.serve(each(({ id }, stream) => stream.send({ type: 'busy', ids: [id], retryAfterMs: 0 }))),
  'is busy for an hour': (evil) =>
    evil.serve(each(({ id }, stream) => stream.send({ type: 'busy', ids: [id], retryAfterMs: 3_600_000 }))),
  'says of each block that it is missing, and then that it is there': (evil) =>
    evil.serve(
      each(async ({ id }, stream) => {
        await stream.send({ type: 'missing', ids: [id] })
        await stream.send(evil.haveAll())
      }),
    ),
  'sends one right block each 1.8 s': async (evil) => {
    const right = serveRight(evil)
    let last: Promise<unknown> = Promise.resolve()
    await evil.serve(
      each((request, stream) => {
        last = last
          .then(() => sleep(1_800))
          .then(() => right(request, stream))
          .catch(() => undefined)
      }),
    )
  },
  'sends wrong bytes': (evil) =>
    evil.serve(each(({ id, size }, stream) => stream.send(block(id, Buffer.alloc(size, 1))))),
  'sends one wrong byte in a hundred blocks': async (evil) => {
    let served = 0
    await evil.serve(
      each(async ({ id, index }, stream) => {
        const content = Buffer.from(await evil.block(index))
        if (++served % 100 === 50) content[9]! ^= 1
        await stream.send(block(id, content))
      }),
    )
  },
  'sends what nobody asked for': (evil) =>
    evil.serve(each(serveRight(evil)), {
      begin: beside(async (stream) => stream.send(block(1_000_000_000, await evil.block(0)))),
    }),
  'says that all is zeros': (evil) =>
    evil.serve(
      each(({ id, size }, stream) =>
        stream.send({ ...block(id, new Uint8Array()), zeros: Buffer.alloc(size / 4096 / 8, 255) } as Message),
      ),
    ),
  'sends blocks that do not unpack': (evil) =>
    evil.serve(each(({ id }, stream) => stream.send({ ...block(id, randomBytes(1000)), coding: 1 } as Message))),
  'tells of 10,000 invented members': (evil) =>
    evil.serve(each(serveRight(evil)), {
      begin: beside(
        (stream) =>
          stream.send({
            type: 'peers',
            peers: Array.from({ length: 100 }, () => ({
              id: `12D3KooW${randomBytes(22).toString('hex')}`,
              addresses: Array.from({ length: 4 }, () => `/ip4/127.0.0.1/tcp/${1024 + randomBytes(2).readUInt16BE()}`),
            })),
          }),
        10,
      ),
    }),
  'tells of members at wrong addresses': (evil) =>
    evil.serve(each(serveRight(evil)), {
      begin: beside(
        (stream) =>
          stream.send({
            type: 'peers',
            peers: evil.machine.trust.view().members.map(({ id }) => ({
              id,
              addresses: Array.from({ length: 16 }, () => `/ip4/127.0.0.1/tcp/${1024 + randomBytes(2).readUInt16BE()}`),
            })),
          }),
        100,
      ),
    }),
  'signs addresses of other members, with its own key': (evil) =>
    evil.serve(each(serveRight(evil)), {
      begin: beside(async (stream) => {
        const key = await evil.machine.key()
        await stream.send({ type: 'peers', peers: evil.others().map((id) => forged(id, key, Date.now())) })
      }, 100),
    }),
  'plays addresses again that members signed weeks ago': async (evil) => {
    const keys = await evil.keysOfOthers()
    const weeksAgo = Date.now() - ADDRESS_RECORD_MS / 2
    await evil.serve(each(serveRight(evil)), {
      begin: beside(
        (stream) =>
          stream.send({ type: 'peers', peers: [...keys].map(([id, key], i) => forged(id, key, weeksAgo + i)) }),
        100,
      ),
    })
  },
  'gains and loses everything, over and over': (evil) =>
    evil.serve(each(serveRight(evil)), {
      begin: beside(async (stream) => {
        const all = RangeSet.of(0, evil.blockCount)
        await stream.send({ type: 'have', root: evil.image.root, gained: RangeSet.empty, lost: all })
        await stream.send(evil.haveAll())
      }),
    }),
  'holds other images each millisecond': (evil) =>
    evil.serve(each(serveRight(evil)), {
      begin: beside(async (stream) => {
        const held = Array.from({ length: 60 }, () => ({ root: digestOf(randomBytes(8)), ...HUGE }))
        await stream.send({ type: 'holds', held: [evil.image, ...held] })
      }, 1),
    }),
  'announces newer metadata, and never sends it': async (evil) => {
    await evil.host.handle(METADATA_PROTOCOL, () => new Promise(() => undefined))
    await evil.serve(each(serveRight(evil)), {
      hello: { metadata: { root: 1, timestamp: 1_000_000 } },
      begin: beside((stream) => stream.send({ type: 'announce', metadata: { root: 1, timestamp: 1_000_001 } }), 10),
    })
  },
  'answers each search that it has all': (evil) =>
    evil.serve(
      async (message, stream) => {
        if (message.type === 'find') {
          const found = Buffer.alloc(Math.ceil(message.payload.byteLength / 32 / 8), 255)
          await stream.send({ type: 'found', id: message.id, found })
        } else if (message.type === 'want')
          await stream.send({ type: 'missing', ids: message.requests.map(({ id }) => id) })
      },
      { hello: { held: [{ root: digestOf(Buffer.from('other')), size: 65536 * 64, blockSize: 65536 }] } },
    ),
  'announces a payload of 4 GiB': (evil) =>
    evil.raw((stream) => sendRaw(stream, Buffer.from([0, 0, 0, 8, 255, 255, 255, 255]))),
  'announces a block, and sends a byte of it a second': (evil) =>
    evil.raw(async (stream, right) => {
      for (const byte of right) {
        sendRaw(stream, Buffer.from([byte]))
        await sleep(1_000)
      }
    }),
  'sends a block 1 KiB a second': (evil) =>
    evil.raw(async (stream, right) => {
      for (let at = 0; at < right.byteLength; at += 1024) {
        sendRaw(stream, right.subarray(at, at + 1024))
        await sleep(1_000)
      }
    }),
  'ends the stream after each hello': async (evil) => {
    await evil.host.handle(EXCHANGE_PROTOCOL, async (stream) => {
      await stream.messages().next()
      await stream.send(evil.hello())
      await stream.send(evil.haveAll())
    })
  },
}

/** Hostile members that ask. */
const CLIENTS: Readonly<Record<string, Attack>> = {
  'asks for all it may, and never reads': (evil) =>
    asking(evil, async (stream) => {
      for (let id = 1; ; id += 64) {
        await stream.send({ type: 'want', requests: evil.wants(id, 64), packFrom: 0 })
        await sleep(1)
      }
    }),
  'asks far beyond its credit': (evil) =>
    asking(evil, async (stream, messages) => {
      void (async () => {
        for await (const _ of messages);
      })().catch(() => undefined)
      for (let id = 1; ; id += MAX_WANTS_PER_MESSAGE)
        await stream.send({ type: 'want', requests: evil.wants(id, MAX_WANTS_PER_MESSAGE), packFrom: 0 })
    }),
  'asks on 300 streams, and reads none': (evil) =>
    asking(
      evil,
      async (stream) => {
        await stream.send({ type: 'want', requests: evil.wants(1, 128), packFrom: 0 })
        await new Promise(() => undefined)
      },
      300,
    ),
  'searches without end': (evil) =>
    asking(evil, async (stream, messages) => {
      for (let id = 1; ; id++) {
        await stream.send({ type: 'find', id, payload: randomBytes(32 * MAX_FINDS_PER_MESSAGE) })
        await messages.next()
      }
    }),
  'claims to fetch everything over the uplink': (evil) =>
    asking(evil, async (stream) => {
      const claimed = RangeSet.of(0, evil.blockCount)
      await forEver(() => stream.send({ type: 'fetching', root: evil.image.root, level: 0, claimed, over: false }), 100)
    }),
  'reads the metadata again and again': async (evil) => {
    evil.attack(METADATA_PROTOCOL, async (open) => {
      await Promise.all(
        Array.from({ length: 32 }, async () => {
          await forEver(async () => {
            const stream = await open()
            for (let i = 0; i < 1000; i++) await stream.send({ type: 'file-request', name: 'targets.json' } as Message)
          })
        }),
      )
    })
  },
  'tries to join with one token after the other': async (evil) => {
    evil.attack(JOIN_PROTOCOL, async (open) => {
      await forEver(async () => {
        const stream = await open()
        for (let i = 0; i < 100; i++)
          await stream.send({
            type: 'join-request',
            siteId: evil.machine.trust.siteId,
            secret: randomBytes(16),
            name: `x${i}`,
            mac: [],
          })
        stream.abort(new Error('next'))
      })
    })
  },
  'has a good token, and asks under names that are taken': async (evil) => {
    const { siteId, secret } = evil.token
    void forEver(() =>
      evil
        .asStranger(JOIN_PROTOCOL, async (stream) => {
          const replies = stream.messages()
          for (const name of ['master', 'good', 'GOOD', 'Master'])
            for (const check of [true, false]) {
              await stream.send({ type: 'join-request', siteId, secret, name, mac: [], check })
              await replies.next()
            }
        })
        .catch(() => undefined),
    )
  },
  'opens streams of every protocol, and says nothing': async (evil) => {
    for (const protocol of [EXCHANGE_PROTOCOL, METADATA_PROTOCOL, JOIN_PROTOCOL, OPERATE_PROTOCOL])
      evil.attack(protocol, (open) => forEver(() => open().catch(() => sleep(10))))
  },
  'has 300 connections to everybody': async (evil) => {
    void (async () => {
      for (let i = 0; i < 300; i++) await evil.another()
    })()
  },
  'breaks the protocol 171 times': async (evil) => {
    evil.attack(EXCHANGE_PROTOCOL, async (open) => {
      for (let i = 0; i < 171; i++) {
        const stream = await open()
        await stream.send(evil.hello())
        await stream.send({ type: 'missing', ids: [1] })
        await sleep(10)
      }
    })
  },
  'asks for everything, and calls it back': (evil) =>
    asking(evil, async (stream) => {
      for (let id = 1; ; id += 64) {
        await stream.send({ type: 'want', requests: evil.wants(id, 64), packFrom: 0 })
        await stream.send({ type: 'cancel', ids: Array.from({ length: 64 }, (_, i) => id + i) })
      }
    }),
  'asks for everything, and ends each stream at once': (evil) =>
    Promise.resolve(
      evil.attack(EXCHANGE_PROTOCOL, (open) =>
        forEver(async () => {
          const { stream } = await evil.asClient(open)
          for (let id = 1; id < 1000; id += 64)
            await stream.send({ type: 'want', requests: evil.wants(id, 64), packFrom: 0 })
          stream.abort(new Error('called back'))
        }),
      ),
    ),
  'lets 300 strangers connect, and say nothing': async (evil) => {
    void (async () => {
      for (let i = 0; i < 300; i++) await evil.stranger()
    })()
  },
}

/** Bytes that are no message. */
function sendRaw(stream: Stream, bytes: Uint8Array): void {
  if (stream.writeStatus === 'writable') stream.send(bytes)
}

async function asking(
  evil: HostileMember,
  use: (stream: FrameStream, messages: AsyncGenerator<Message>) => Promise<unknown>,
  streams = 1,
): Promise<void> {
  evil.attack(EXCHANGE_PROTOCOL, async (open) => {
    await Promise.all(
      Array.from({ length: streams }, async () => {
        const { stream, messages } = await evil.asClient(open)
        await use(stream, messages)
      }),
    )
  })
}

/** Every kind of attack, by what it does. Those of the first group disturb a restore, those of the second whoever serves. */
export const ATTACKS: Readonly<Record<string, Attack>> = { ...SERVERS, ...CLIENTS }
