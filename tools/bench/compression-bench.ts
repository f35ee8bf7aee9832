import { open } from 'node:fs/promises'
import { CompressedLink } from '../../node/exchange/ask/compressed-link.ts'
import { smallestToPack } from '../../node/exchange/ask/compression-policy.ts'
import { BlockPacker, type CodedBlock } from '../../node/exchange/serve/block-packer.ts'
import { GRANULE_SIZE_BYTES } from '../../protocol/constants.ts'
import { packBlock } from '../../protocol/granules.ts'
import { CODING } from '../../protocol/messages.ts'
import type { Lab } from '../lab/local-lab.ts'
import { Random } from '../lab/random.ts'
import { CONTENTS } from '../netlab/lab-options.ts'
import { modelLayout, randomPieces, writeImage } from '../netlab/model-image.ts'
import { systemPieces } from '../netlab/system-files.ts'
import type { Figure } from './benches.ts'

const MIB = 1024 ** 2
const BLOCK = 65536
const SEED = 1
/** Answers that are made at the same time, as for one client. */
const AT_ONCE = 4
const RATES_MBIT = [5, 20, 100, 1000]
const BYTES_PER_MBIT = 125_000

/** What the answers to one kind of request cost. */
interface Cost {
  readonly seconds: number
  readonly cpuSeconds: number
  readonly plainBytes: number
  readonly wireBytes: number
  readonly answers: readonly { readonly coded: CodedBlock; readonly wanted: number }[]
}

/** What compressing costs and saves for an image of random bytes and one of system files, and when it is chosen. */
export async function benchCompression(lab: Lab, size: number): Promise<Figure[]> {
  const figures: Figure[] = []
  const granules = Math.ceil(size / BLOCK) * (BLOCK / GRANULE_SIZE_BYTES)
  for (const content of CONTENTS) {
    const path = lab.path(`${content}.img`)
    const pieces = content === 'system' ? await systemPieces(granules) : randomPieces(SEED)
    await writeImage(path, modelLayout(granules, new Random(SEED)), pieces)
    figures.push(...(await costsOf(content, path)))
  }
  return figures
}

async function costsOf(content: string, path: string): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const size of [BLOCK, GRANULE_SIZE_BYTES]) {
    const name = `${content}, ${size / 1024} KiB`
    // The first round is not measured: it fills the caches, and V8 compiles the code.
    await answerAll(path, size, 1)
    const plain = await answerAll(path, size, 0)
    const packed = await answerAll(path, size, 1)
    figures.push(costFigure(`${name}: server, plain`, plain), costFigure(`${name}: server, compressed`, packed))
    const begun = performance.now()
    const before = process.cpuUsage()
    const link = new CompressedLink()
    for (const [id, { coded, wanted }] of packed.answers.entries())
      link.arrived({ type: 'block', id, ...coded }, wanted)
    const unpacked = { ...packed, seconds: (performance.now() - begun) / 1000, cpuSeconds: cpuSince(before) }
    figures.push(costFigure(`${name}: client, unpacking`, unpacked))
    if (size === BLOCK) figures.push(...chosen(content, packed, unpacked.seconds))
  }
  return figures
}

/**
 * Answers requests for the whole image, without zeros, in answers of `size` bytes. `from`: as a client asks for
 * compression.
 */
async function answerAll(path: string, size: number, from: number): Promise<Cost> {
  const packer = new BlockPacker()
  const answers: { coded: CodedBlock; wanted: number }[] = []
  let [plainBytes, wireBytes] = [0, 0]
  const file = await open(path)
  try {
    const { size: end } = await file.stat()
    const begun = performance.now()
    const before = process.cpuUsage()
    let at = 0
    const work = async (): Promise<void> => {
      for (let offset = at; offset < end; offset = at) {
        at += size
        const block = Buffer.allocUnsafeSlow(size)
        await file.read(block, 0, size, offset)
        const packed = packBlock(block, undefined)
        if (packed.payload.byteLength === 0) continue
        const coded = await packer.pack(packed, from)
        plainBytes += packed.payload.byteLength
        wireBytes += coded.payload.byteLength
        answers.push({ coded, wanted: size })
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, work))
    return { seconds: (performance.now() - begun) / 1000, cpuSeconds: cpuSince(before), plainBytes, wireBytes, answers }
  } finally {
    await file.close()
  }
}

function costFigure(what: string, { seconds, cpuSeconds, plainBytes, wireBytes }: Cost): Figure {
  const mib = plainBytes / MIB
  return {
    what,
    seconds,
    mibPerSecond: mib / seconds,
    cpuMsPerMib: (cpuSeconds * 1000) / mib,
    wireRatio: wireBytes / plainBytes,
  }
}

/** The policy's choice at some rates, with the costs measured here. The seconds are those of the link alone. */
function chosen(content: string, { plainBytes, wireBytes, answers }: Cost, unpackSeconds: number): Figure[] {
  const coded = answers.map(({ coded }) => coded).filter(({ coding }) => coding === CODING.zstd)
  const packedSeconds = coded.reduce((sum, { packedUs }) => sum + packedUs, 0) / 1e6
  const compressedAny = coded.length > 0
  return RATES_MBIT.map((mbit) => {
    const linkRate = mbit * BYTES_PER_MBIT
    // The client does not know that nothing is compressible. It asks for compression, and the server sends plain.
    const costs = compressedAny
      ? { packRate: plainBytes / packedSeconds, unpackRate: plainBytes / unpackSeconds, ratio: wireBytes / plainBytes }
      : undefined
    const from = costs === undefined ? 0 : smallestToPack({ linkRate, totalRate: linkRate, ...costs })
    const says = (size: number): string => (from > 0 && from <= size ? 'compressed' : 'plain')
    return {
      what: `${content} at ${mbit} Mbit/s: 64 KiB ${says(BLOCK)}, 4 KiB ${says(GRANULE_SIZE_BYTES)}`,
      seconds: (from > 0 && from <= BLOCK ? wireBytes : plainBytes) / linkRate,
      packFrom: from,
    }
  })
}

function cpuSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}
