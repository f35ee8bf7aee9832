import { parentPort } from 'node:worker_threads'
import type { HashRequest } from './hash-messages.ts'
import { RunHasher } from './run-hasher.ts'

/** A thread of a HashPool. */
const hasher = new RunHasher()

parentPort?.on('message', (request: HashRequest | { ended: number }) => {
  if ('ended' in request) {
    hasher.release(request.ended)
    return
  }
  const reply = hasher.hash(request)
  const parts = 'failure' in reply ? [] : [reply.digests, ...(reply.anchors === undefined ? [] : [reply.anchors])]
  parentPort?.postMessage(
    reply,
    parts.map(({ buffer }) => buffer as ArrayBuffer),
  )
})
