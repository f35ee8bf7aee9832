import { access } from 'node:fs/promises'
import { networkInterfaces } from 'node:os'
import { MAX_MAC_ADDRESSES } from '../../../protocol/constants.ts'

/** MAC addresses of this machine's network cards, by which it can be woken. Cards that are hardware go before bridges and the like. */
export async function macAddresses(): Promise<string[]> {
  const found: { mac: string; isHardware: boolean }[] = []
  for (const [name, addresses = []] of Object.entries(networkInterfaces())) {
    const mac = addresses.find(({ internal }) => !internal)?.mac
    if (mac === undefined || mac === '00:00:00:00:00:00' || found.some((other) => other.mac === mac)) continue
    // Bridges and the like have no device behind them.
    const isHardware = await access(`/sys/class/net/${name}/device`).then(
      () => true,
      () => false,
    )
    found.push({ mac, isHardware })
  }
  const hardware = found.filter(({ isHardware }) => isHardware)
  return (hardware.length > 0 ? hardware : found).slice(0, MAX_MAC_ADDRESSES).map(({ mac }) => mac)
}
