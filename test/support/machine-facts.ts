import type { MachineFacts } from '../../protocol/enrol-messages.ts'

/** What a machine with one network card and a blank disk says of itself. */
export function factsOf(name: string, over: Partial<MachineFacts> = {}): MachineFacts {
  return {
    name,
    mac: ['02:00:5e:10:00:01'],
    model: 'Dell Inc. OptiPlex 7010',
    serial: '4XK9TQ1',
    memory: 8 * 1024 ** 3,
    disks: [{ name: 'sda', size: 256_060_514_304, model: 'SAMSUNG MZ7LN256' }],
    disk: '/dev/sda3',
    holds: '',
    ...over,
  }
}
