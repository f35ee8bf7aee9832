import { describe, expect, it } from 'vitest'
import { byteOffset } from '../../protocol/units.ts'
import { Power, PowerCut } from '../../tools/crash/power.ts'
import { PowerCutDevice } from '../../tools/crash/power-cut-device.ts'
import { Random } from '../../tools/lab/random.ts'

const SECTOR = 512
const SECTORS = 64
const TRIES = 60

/** What the first byte of each sector may be after a cut, over many cuts of the same doings. */
async function outcomes(
  act: (disk: PowerCutDevice, power: Power) => Promise<void>,
  options: { operations?: number; torn?: boolean } = {},
): Promise<{ seen: Set<number>[]; mixed: number }> {
  const seen = Array.from({ length: SECTORS }, () => new Set<number>())
  let mixed = 0
  for (let seed = 0; seed < TRIES; seed++) {
    const random = new Random(seed)
    const power = new Power(random, options.operations ?? Number.POSITIVE_INFINITY)
    const disk = new PowerCutDevice('disk', Buffer.alloc(SECTORS * SECTOR), power)
    await act(disk, power)
    power.cut('over')
    const found = disk.afterCut(random, options)
    for (let i = 0; i < SECTORS; i++) {
      const sector = found.subarray(i * SECTOR, (i + 1) * SECTOR)
      seen[i]!.add(sector[0]!)
      if (sector.some((byte) => byte !== sector[0])) mixed++
    }
  }
  return { seen, mixed }
}

const fill = (byte: number, sectors = SECTORS): Buffer => Buffer.alloc(sectors * SECTOR, byte)
const start = byteOffset(0)
const all = (set: number[]): Set<number>[] => Array.from({ length: SECTORS }, () => new Set(set))

describe('the disk whose power is cut', () => {
  it('keeps what was flushed, and any sectors of what was not, whole', async () => {
    const { seen, mixed } = await outcomes(async (disk) => {
      await disk.write(start, fill(1))
      await disk.flush()
      await disk.write(start, fill(2))
      await disk.write(start, fill(3))
    })
    expect(seen).toEqual(all([1, 2, 3]))
    expect(mixed).toBe(0)
  })

  it('drops all of it at times, and keeps all of it at others', async () => {
    const shares: number[] = []
    for (let seed = 0; seed < TRIES; seed++) {
      const power = new Power(new Random(seed), Number.POSITIVE_INFINITY)
      const disk = new PowerCutDevice('disk', fill(0), power)
      await disk.write(start, fill(1))
      power.cut('over')
      const found = disk.afterCut(new Random(seed))
      shares.push(found.reduce((sum, byte) => sum + byte, 0) / found.byteLength)
    }
    expect(shares).toContain(0)
    expect(shares).toContain(1)
    expect(shares.some((share) => share > 0.3 && share < 0.7)).toBe(true)
  })

  it('makes durable with a flush only what was written before it began', async () => {
    const { seen } = await outcomes(async (disk) => {
      await disk.write(start, fill(1))
      const flushed = disk.flush()
      // Under way while the flush is, or done before it ends.
      await Promise.all([disk.write(start, fill(2)), flushed])
    })
    expect(seen).toEqual(all([1, 2]))
  })

  it('never goes back behind a flush, however many overlap', async () => {
    const { seen } = await outcomes(async (disk) => {
      await disk.write(start, fill(1))
      const first = disk.flush()
      await disk.write(start, fill(2))
      await Promise.all([first, disk.flush()])
      await disk.flush()
    })
    expect(seen).toEqual(all([2]))
  })

  it('shows a reader what was written last, and leaves that after a flush', async () => {
    const { seen } = await outcomes(async (disk) => {
      await Promise.all([disk.write(start, fill(1)), disk.write(start, fill(2))])
      const read = Buffer.alloc(SECTOR)
      await disk.read(start, read)
      await disk.flush()
      expect(disk.durable[0]).toBe(read[0])
    })
    for (const values of seen) expect(values.size).toBeLessThanOrEqual(2)
  })

  it('may have done what was cut off, and does nothing that is begun after', async () => {
    const { seen } = await outcomes(
      async (disk) => {
        await disk.write(start, fill(1))
        await expect(disk.write(start, fill(2))).rejects.toBeInstanceOf(PowerCut)
        await expect(disk.write(start, fill(3))).rejects.toBeInstanceOf(PowerCut)
        await expect(disk.flush()).rejects.toBeInstanceOf(PowerCut)
        await expect(disk.read(start, fill(0))).rejects.toBeInstanceOf(PowerCut)
      },
      { operations: 1 },
    )
    expect(seen).toEqual(all([0, 1, 2]))
  })

  it('tears a sector now and then where that is asked for', async () => {
    const { mixed } = await outcomes((disk) => disk.write(start, fill(1)), { torn: true })
    expect(mixed).toBeGreaterThan(0)
    expect(mixed).toBeLessThan((TRIES * SECTORS) / 20)
  })

  it('goes off in the activity that is aimed at, and says what was cut', async () => {
    const power = new Power(new Random(1), Number.POSITIVE_INFINITY, 'clear')
    const disk = new PowerCutDevice('log', fill(0), power)
    power.activity = 'restore'
    for (let i = 0; i < 50; i++) await disk.flush()
    power.activity = 'clear'
    const doing = async (): Promise<void> => {
      for (let i = 0; i < 50; i++) await disk.flush()
    }
    await expect(doing()).rejects.toBeInstanceOf(PowerCut)
    expect(power.cutDuring).toBe('clear: log flush')
  })
})
