import { describe, expect, it } from 'vitest'
import type { Operator } from '../../../../node/agent/operate/operator.ts'
import { RollReceipts } from '../../../../node/agent/roll/roll-receipts.ts'
import type { MachineState } from '../../../../protocol/operate-messages.ts'
import type { SignedDocument } from '../../../../protocol/signed-document.ts'
import { grownSigned } from '../../../support/grown-documents.ts'

const { before, after, newer } = grownSigned('receipt')

/** What a roll makes of the receipt with number 1 that the machine tells of. */
async function seen(document: SignedDocument, id = document.by) {
  const ask = async () => [{ id, reply: { receipts: [{ number: 1, document }], more: false } }]
  const receipts = new RollReceipts({ ask } as unknown as Operator)
  await receipts.update(new Map([[id, { lastReceipt: 1 } as MachineState]]))
  return receipts.seen(id)
}

describe('the receipts that a roll goes by', () => {
  it('are read whatever keys a later version has added', async () => {
    const summary = { key: '1', verified: true, reason: '', release: 3, blocks: 9, seconds: 1.5 }
    expect(await seen(before)).toMatchObject(summary)
    expect(await seen(after)).toEqual(await seen(before))
  })

  it('fail the turn of one machine, with the reason, if they have a higher format', async () => {
    expect(await seen(newer)).toMatchObject({
      verified: false,
      reason: "FORMAT_NEWER: update mesh on the operator's machine",
    })
  })

  it('count only if the machine itself has signed them', async () => {
    expect(await seen(before, 'another')).toBeUndefined()
    expect(await seen({ ...newer, signature: before.signature })).toBeUndefined()
  })
})
