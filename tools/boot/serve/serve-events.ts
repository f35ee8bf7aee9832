/** How far the start of a machine by network has come. */
export type BootStep =
  /** Its firmware asks who lets it start. */
  | 'asks'
  /** It has fetched its boot program by TFTP. */
  | 'program'
  /** iPXE runs there. */
  | 'ipxe'
  /** It loads the agent. */
  | 'loads'
  /** It has all of the agent. */
  | 'loaded'
  /** It has come no further for a while. */
  | 'stuck'

/** What `mesh boot serve` tells while it runs. */
export type ServeEvent =
  | { readonly type: 'note' | 'warning'; readonly text: string }
  | {
      readonly type: 'boot-serving'
      readonly site: string
      readonly interface: string
      readonly address: string
      /** `proxy` beside the network’s own DHCP server, else the range of addresses that are lent out. */
      readonly dhcp: string
      readonly url: string
      /** Whether machines with Secure Boot start it. */
      readonly signed: boolean
    }
  | {
      readonly type: 'boot-machine'
      /** Null if the machine is not in this network, but behind a router. */
      readonly mac: string | null
      readonly address: string | null
      /** `BIOS`, `UEFI`, `UEFI by HTTP`, or what else it says it is; null if it was not heard. */
      readonly firmware: string | null
      readonly step: BootStep
      /** Since it began to ask. */
      readonly seconds: number
      /** What is wrong with it, and what to do. */
      readonly why?: string
    }

/** Takes such events. */
export type ReportServing = (event: ServeEvent) => void
