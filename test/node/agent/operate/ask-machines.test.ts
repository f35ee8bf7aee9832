import { describe, expect, it } from 'vitest'
import { AskMachines } from '../../../../node/agent/operate/ask-machines.ts'
import { MeshError } from '../../../../protocol/errors.ts'

const LONG_MS = 600_000
const machine = {
  config: { id: 'office', name: 'office' },
  isOperator: () => true,
} as unknown as ConstructorParameters<typeof AskMachines>[0]

/** A node that connects to pc1 after some looks, and writes down whether it was connected when a stream was asked for. */
class ConnectingNode {
  readonly openedWhenConnected: boolean[] = []
  looks = 0
  readonly #after: number

  constructor(after: number) {
    this.#after = after
  }

  connectedMembers(): { id: string; name: string }[] {
    this.looks++
    return this.looks > this.#after ? [{ id: 'pc1', name: 'pc1' }] : []
  }

  onPeer(): void {
    // Nobody goes.
  }

  async open(): Promise<never> {
    this.openedWhenConnected.push(this.looks > this.#after)
    throw new MeshError('PEERS_UNREACHABLE', 'this test has no streams')
  }
}

describe('asking machines', () => {
  it('waits for those that a node that was just started has not reached yet', async () => {
    const node = new ConnectingNode(3)
    await new AskMachines(machine, node, LONG_MS).ask(['pc1'], { op: 'state' })
    expect(node.openedWhenConnected).toEqual([true])
  })

  it('takes for off whom a node that has run for a while does not reach', async () => {
    const node = new ConnectingNode(Number.POSITIVE_INFINITY)
    const [answer] = await new AskMachines(machine, node, 0).ask(['pc1'], { op: 'state' })
    expect(answer).toMatchObject({ id: 'pc1', error: { code: 'PEERS_UNREACHABLE' } })
    expect(node.looks).toBe(0)
  })

  it('does not keep a node that stops waiting', async () => {
    const node = new ConnectingNode(Number.POSITIVE_INFINITY)
    const machines = new AskMachines(machine, node, LONG_MS)
    const asked = machines.ask(['pc1'], { op: 'state' })
    machines.close()
    expect(await asked).toMatchObject([{ id: 'pc1', error: { code: 'PEERS_UNREACHABLE' } }])
  })
})
