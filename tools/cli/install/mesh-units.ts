import { parseRollWindows } from '../../../node/roll/window.ts'
import { calendarOf } from '../../../protocol/day-window.ts'
import { escapePath, execLine, pathWord, plainText, type UnitFile, unit } from './unit-text.ts'

/** Who keeps the write log, if one is kept. */
export type UnitMonitor = { readonly nbd: string } | { readonly era: string }

/** The facts that units are made of. All paths are absolute. */
export interface UnitFacts {
  /** Program and first arguments that run `mesh`. */
  readonly program: readonly string[]
  readonly state: string
  /** Whether the configuration file names the state directory. */
  readonly stateInFile: boolean
  /** Configuration file that the commands read. */
  readonly config?: string
  /** Managed disk. A machine without one, such as an operator's, restores nothing. */
  readonly disk?: string
  readonly monitor?: UnitMonitor
  /** Whether hooks run. Hooks may want anything of the system. */
  readonly hooks: boolean
  /** Priority of serving, as nice(1) counts. */
  readonly nice: number
  /** Set if the machine starts the rolls of its group. */
  readonly roll?: { readonly group: string; readonly window: string }
}

/** Every name that one of our units can have. Units that are no longer wanted are removed by it. */
export const UNIT_NAMES = [
  'mesh-restore.service',
  'mesh-monitor.service',
  'mesh-up.service',
  'mesh-roll.service',
  'mesh-roll.timer',
] as const

/** Exit code 9 means that hooks failed; the disk is right all the same. */
const HOOKS_ARE_NO_REASON = 'SuccessExitStatus=9'

/** The units of one machine. */
export function meshUnits(facts: UnitFacts): UnitFile[] {
  return [
    ...(facts.disk === undefined ? [] : [restoreUnit(facts, facts.disk)]),
    ...(facts.disk === undefined || facts.monitor === undefined ? [] : [monitorUnit(facts, facts.disk, facts.monitor)]),
    upUnit(facts),
    ...(facts.roll === undefined ? [] : rollUnits(facts, facts.roll)),
  ]
}

function command({ program, state, stateInFile, config }: UnitFacts, ...args: string[]): string {
  const from = [...(config === undefined ? [] : ['--config', config]), ...(stateInFile ? [] : ['--state', state])]
  return `ExecStart=${execLine([...program, ...args, ...from])}`
}

/**
 * Units that use a block device: mounts and checks of file systems wait for them (systemd.special(7)). An image file
 * has none.
 */
function usersOf(device: string): { readonly target?: string; readonly all: string } {
  if (!device.startsWith('/dev/')) return { all: '' }
  const name = escapePath(device)
  return { target: `blockdev@${name}.target`, all: `blockdev@${name}.target systemd-fsck@${name}.service` }
}

function restoreUnit(facts: UnitFacts, disk: string): UnitFile {
  const { state, hooks } = facts
  const users = usersOf(disk)
  const wants = ['network-online.target', users.target].filter((one) => one !== undefined).join(' ')
  const image = users.target === undefined
  return unit(
    'mesh-restore.service',
    'For a disk that is not the root file system. If it is in /etc/fstab, by the same path as here, give it the options\n_netdev,x-systemd.requires=mesh-restore.service so that it is mounted only after a restore that succeeded.',
    {
      Unit: [
        `Description=Restore ${plainText(disk)} to the model image`,
        `RequiresMountsFor=${pathWord(state)}${image ? ` ${pathWord(disk)}` : ''}`,
        `Wants=${wants}`,
        'After=local-fs.target network-online.target',
        image
          ? 'Before=remote-fs.target libvirtd.service libvirt-guests.service'
          : `Before=${users.all} remote-fs-pre.target remote-fs.target`,
      ],
      // Hooks run with this unit, and may want to change anything.
      Service: [...restoreService(facts), ...(hooks ? [] : HARDENING)],
      Install: ['WantedBy=multi-user.target', 'RequiredBy=remote-fs.target'],
    },
  )
}

function restoreService(facts: UnitFacts): string[] {
  return [
    'Type=oneshot',
    'RemainAfterExit=yes',
    command(facts, 'restore'),
    HOOKS_ARE_NO_REASON,
    // Provisioning a lab takes as long as it takes. Without peers the command ends by itself.
    'TimeoutStartSec=infinity',
    'StandardOutput=journal+console',
  ]
}

function monitorUnit(facts: UnitFacts, disk: string, monitor: UnitMonitor): UnitFile {
  const { state } = facts
  const place = 'era' in monitor ? usersOf(`/dev/mapper/${monitor.era}`) : { all: '' }
  const service =
    'era' in monitor
      ? ['Type=oneshot', 'RemainAfterExit=yes', command(facts, 'monitor', '--era', monitor.era)]
      : [
          // The monitor is ready when its hooks have ended. It says so by systemd-notify.
          'Type=notify',
          'NotifyAccess=all',
          command(facts, 'monitor', '--nbd', monitor.nbd),
          'Restart=on-failure',
          'RestartSec=2',
          'RuntimeDirectory=lab-mesh',
        ]
  return unit(
    'mesh-monitor.service',
    'Logs what is written to the disk, from after the restore on; runs the hooks. What uses the disk comes after it: with --era\n/dev/mapper/NAME in /etc/fstab, with the options _netdev,x-systemd.requires=mesh-monitor.service.',
    {
      Unit: [
        `Description=Log what is written to ${plainText(disk)} for the next restore`,
        `RequiresMountsFor=${pathWord(state)}`,
        place.target === undefined ? undefined : `Wants=${place.target}`,
        'Requires=mesh-restore.service',
        'After=mesh-restore.service',
        place.all === '' ? 'Before=remote-fs.target libvirtd.service' : `Before=${place.all} remote-fs.target`,
      ],
      Service: [...service, HOOKS_ARE_NO_REASON, 'TimeoutStartSec=infinity'],
      Install: ['WantedBy=multi-user.target'],
    },
  )
}

function upUnit(facts: UnitFacts): UnitFile {
  const { state, nice } = facts
  return unit('mesh-up.service', 'Serves this machine’s image to the others.', {
    Unit: [
      'Description=Serve the model image to the other machines of the lab',
      `RequiresMountsFor=${pathWord(state)}`,
      `ConditionPathExists=${plainText(`${state}/machine.json`)}`,
      'Wants=network-online.target',
      'After=network-online.target mesh-restore.service mesh-monitor.service',
    ],
    Service: [
      'Type=exec',
      command(facts, 'up'),
      'Restart=on-failure',
      'RestartSec=5',
      // A second try does not mend a wrong option or configuration, does not make this version read what a later one wrote, and
      // makes no member of a machine that was removed.
      'RestartPreventExitStatus=2 10 12',
      `Nice=${nice}`,
      'IOSchedulingClass=best-effort',
      'IOSchedulingPriority=7',
      ...upSandbox(facts),
    ],
    Install: ['WantedBy=multi-user.target'],
  })
}

/**
 * Takes away rights that no command of ours needs. MemoryDenyWriteExecute= is left out, because Node compiles while it
 * runs. ProtectClock= and other limits on devices are left out, because disks, logs on partitions and device mapper are
 * opened. ProtectSystem=strict and ProtectHome= are left out, because image files, qcow2 files and logs may be
 * anywhere.
 */
const HARDENING = [
  'ProtectSystem=full',
  'PrivateTmp=yes',
  'ProtectKernelTunables=yes',
  'ProtectControlGroups=yes',
  'NoNewPrivileges=yes',
  'RestrictRealtime=yes',
  'RestrictSUIDSGID=yes',
  'LockPersonality=yes',
  'RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK',
]

/**
 * What `mesh up` may do besides: it reads disks and writes to its state directory. It runs as root, since the state directory is
 * root's: `mesh restore` uses it, too. Of root's rights few are left. CAP_DAC_READ_SEARCH reads image files of other users, CAP_SYS_BOOT is for commands that
 * reset the machine, CAP_SYS_ADMIN asks dm-era. The group tty writes warnings on the terminals of users. A state directory that names no monitor
 * may get one by hand.
 */
function upSandbox({ state, monitor }: UnitFacts): string[] {
  const asksEra = monitor === undefined || 'era' in monitor
  const rights = ['CAP_DAC_READ_SEARCH', 'CAP_NET_BIND_SERVICE', 'CAP_SYS_BOOT', ...(asksEra ? ['CAP_SYS_ADMIN'] : [])]
  return [
    ...HARDENING.filter((line) => !line.startsWith('ProtectSystem=')),
    'ProtectSystem=strict',
    'ProtectHome=read-only',
    `ReadWritePaths=-${pathWord(state)} -/run`,
    'PrivateMounts=yes',
    `CapabilityBoundingSet=${rights.join(' ')}`,
    'SupplementaryGroups=tty',
    'ProtectKernelModules=yes',
    'ProtectKernelLogs=yes',
    'ProtectHostname=yes',
    'RestrictNamespaces=yes',
    'KeyringMode=private',
    'UMask=0077',
    'SystemCallArchitectures=native',
    'SystemCallFilter=@system-service',
    'SystemCallFilter=~@privileged',
    'SystemCallErrorNumber=EPERM',
  ]
}

function rollUnits(facts: UnitFacts, { group, window }: NonNullable<UnitFacts['roll']>): UnitFile[] {
  return [
    unit('mesh-roll.service', 'Resets the group in waves; one that was cut off is continued by `mesh roll resume`.', {
      Unit: [
        `Description=Reset the machines of ${plainText(group)} in waves`,
        `RequiresMountsFor=${pathWord(facts.state)}`,
        'Wants=network-online.target',
        'After=network-online.target mesh-up.service',
      ],
      Service: ['Type=exec', command(facts, 'roll', 'start', '--group', group)],
    }),
    unit('mesh-roll.timer', `At the beginning of ${window}.`, {
      Unit: [`Description=When the machines of ${plainText(group)} are reset`],
      // Persistent= is left out: a night that was missed is not made up for by day.
      Timer: [...parseRollWindows(window).map((one) => `OnCalendar=${calendarOf(one)}`), 'AccuracySec=1s'],
      Install: ['WantedBy=timers.target'],
    }),
  ]
}
