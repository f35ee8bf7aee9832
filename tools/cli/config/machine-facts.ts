/** What a machine is or has set up, which no option says at each call. */
interface MachineFact {
  readonly name: string
  readonly value: string | readonly string[]
  /** Where it stands: `machine.json`, `write-log/config.json`, or the `signed list` of members. */
  readonly from: string
}

/**
 * All that a state directory remembers of its machine besides settings: who it is, what its disk is known by, its other disks, its
 * write log. Empty if there is no machine yet. Takes no lock. Errors: those of the state directory.
 */
export async function machineFacts(stateDir: string): Promise<MachineFact[]> {
  const { rememberedMachine } = await import('../../../node/agent/machine/remembered-machine.ts')
  const machine = await rememberedMachine(stateDir)
  if (machine === undefined) return []
  const [{ Machine }, { readLogConfig }, { describeDisk }] = await Promise.all([
    import('../../../node/agent/machine/machine.ts'),
    import('../../../node/agent/log/log-config.ts'),
    import('../../../node/disk/known-disk.ts'),
  ])
  const { name, role, id, siteId, disk, diskIdentity, beside = [] } = machine
  const member = (await Machine.look(stateDir)).trust.view().memberById(id)
  const log = await readLogConfig(stateDir)
  const facts: [string, string | readonly string[] | undefined, string][] = [
    ['name', name, 'machine.json'],
    ['role', member?.role ?? role, member === undefined ? 'machine.json' : 'signed list'],
    ['group', member?.group, 'signed list'],
    ['peer id', id, 'machine.json'],
    ['site id', siteId, 'machine.json'],
    ['disk is', diskIdentity && describeDisk(disk ?? 'no path', diskIdentity), 'machine.json'],
    ['link to disk', diskIdentity?.link, 'machine.json'],
    ['beside', beside.length > 0 ? beside : undefined, 'machine.json'],
    ['write log', log && `by ${log.source}, at ${log.storage}`, 'write-log/config.json'],
  ]
  return facts.flatMap(([what, value, from]) => (value === undefined ? [] : [{ name: what, value, from }]))
}
