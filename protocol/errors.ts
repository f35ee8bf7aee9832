/**
 * Everything that can go wrong in the world; bugs are assertions and have no code. Each code has an exit code and a
 * sentence that tells the user what to do. Callers match on `code`, never on the message.
 */

/** Exit codes of the `mesh` command; documented in docs/OPERATIONS.md. */
export const EXIT = {
  ok: 0,
  unexpected: 1,
  usage: 2,
  disk: 3,
  state: 4,
  trust: 5,
  network: 6,
  unavailable: 7,
  mismatch: 8,
  hook: 9,
  newer: 10,
  doubtful: 11,
  removed: 12,
  missing: 13,
  interrupted: 130,
} as const

type ExitCode = (typeof EXIT)[keyof typeof EXIT]

interface Fault {
  readonly exit: ExitCode
  /** What the user can do about it. */
  readonly advice: string
}

const FAULTS = {
  USAGE: { exit: EXIT.usage, advice: 'See `mesh help` or `mesh COMMAND --help`.' },
  NODE_TOO_OLD: {
    exit: EXIT.usage,
    advice:
      'Install the Debian package lab-mesh, which brings its own Node, or a newer Node as `node`; `node --version` says which one that is.',
  },
  CONFIG_INVALID: {
    exit: EXIT.usage,
    advice: 'Correct the file named; `mesh config check FILE` looks at it without doing anything.',
  },
  CONFIG_UNREADABLE: {
    exit: EXIT.usage,
    advice: 'Check the path given by --config or MESH_CONFIG, and that this user may read it.',
  },
  BLOCK_SIZE_INVALID: { exit: EXIT.usage, advice: 'Give a power of two from 4096 to 1048576, for example 65536.' },
  ADDRESS_INVALID: { exit: EXIT.usage, advice: 'Give a multiaddr such as /ip4/0.0.0.0/tcp/7433.' },
  NBD_ADDRESS_INVALID: {
    exit: EXIT.usage,
    advice:
      'To serve, give unix:PATH in a directory that exists, or tcp:HOST:PORT with an address of this machine; to reach a server, nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH.',
  },
  RANGE_INVALID: {
    exit: EXIT.usage,
    advice: 'Give OFFSET:LENGTH in bytes, both multiples of the block size, inside the disk.',
  },

  DISK_MISSING: { exit: EXIT.disk, advice: 'Check the path; `lsblk` lists the disks of this machine.' },
  DISK_UNREADABLE: {
    exit: EXIT.disk,
    advice: 'Run as a user who may read (and for a restore write) the disk, usually root.',
  },
  DISK_READ_ONLY: {
    exit: EXIT.disk,
    advice:
      'Take the write protection away (a switch, `blockdev --setrw`, `mount -o remount,rw`); replace a disk that protects itself: it is worn out.',
  },
  DISK_NOT_A_DISK: { exit: EXIT.disk, advice: 'Give a regular file or a block device.' },
  DISK_EMPTY: { exit: EXIT.disk, advice: 'Give a disk, or an image file with content.' },
  DISK_TOO_SMALL: {
    exit: EXIT.disk,
    advice:
      'Use a disk at least as large as the text says, or make what is to stand on it smaller: the sizes of the layout, or the model’s disk.',
  },
  DISK_SECTORS: {
    exit: EXIT.disk,
    advice:
      'Publish an image that was made on a disk with sectors of that size, or a partition by itself; some drives can be set to other sectors (`nvme format --lbaf`), which empties them.',
  },
  DISK_TOO_LARGE: { exit: EXIT.disk, advice: 'Images are at most 64 TiB; give a smaller partition.' },
  DISK_FOREIGN: {
    exit: EXIT.disk,
    advice:
      'If all that it holds may be destroyed, run `mesh approve NAME --wipe` on the master; else take another disk.',
  },
  DISK_MOUNTED: {
    exit: EXIT.disk,
    advice: 'Unmount it first, or give --force if you are sure of what you do.',
  },
  LOG_PLACE_TAKEN: {
    exit: EXIT.disk,
    advice: 'Give another place with --log; if what it holds is not needed, overwrite its beginning with zeros first.',
  },
  DISK_NOT_OWN: { exit: EXIT.disk, advice: 'Give the disk that `mesh join --disk` was given; `mesh status` shows it.' },
  DISK_OTHER: {
    exit: EXIT.disk,
    advice:
      'Put the right disk back, or give its new path by `mesh restore --disk PATH`. If this disk is to be the machine’s from now on, run `mesh restore --accept-new-disk` once, which overwrites it; on the master `mesh seed DISK --accept-new-disk`.',
  },
  DISK_AMBIGUOUS: {
    exit: EXIT.disk,
    advice:
      'Take one of the disks named out, or name the right one once: `mesh restore --disk PATH --accept-new-disk`.',
  },
  DISK_IO: { exit: EXIT.disk, advice: 'The disk failed; look at `dmesg`, and replace it if it happens again.' },
  DISK_SHRUNK: {
    exit: EXIT.disk,
    advice: 'Let nothing else write to the disk or file meanwhile; put its content back, then run the command again.',
  },
  DISK_CHANGED: {
    exit: EXIT.disk,
    advice:
      'Shut down what writes to it, then run the command again; --force publishes what was read, a state that the disk may never have had.',
  },
  DISK_FULL: {
    exit: EXIT.disk,
    advice: 'Free space on the file system named, then run the command again; it continues.',
  },

  KERNEL_FILES_MISSING: {
    exit: EXIT.disk,
    advice:
      'Mount what is missing, then run the command again: `mount -t proc proc /proc`, `mount -t sysfs sysfs /sys` (in a chroot or a rescue system).',
  },
  TOOL_MISSING: { exit: EXIT.disk, advice: 'Install that package, then run the command again.' },
  SYSTEM_LIMIT: {
    exit: EXIT.disk,
    advice:
      'Nothing is damaged. Raise that limit (`ulimit -n 4096`, `LimitNOFILE=` in a unit), or end other programs, then run the command again.',
  },
  DISK_IN_USE: {
    exit: EXIT.disk,
    advice: 'Stop what uses it (a virtual machine, swap space, a volume, another program), then run the command again.',
  },
  QEMU_FAILED: {
    exit: EXIT.disk,
    advice: 'Look at what QEMU says; the image file can be removed, and is then made anew by `mesh monitor --qemu`.',
  },
  ERA_FAILED: {
    exit: EXIT.disk,
    advice: 'Look at `dmesg`; the kernel must be 5.12 or newer and have dm-era (`modprobe dm-era`).',
  },
  ERA_NAME_TAKEN: { exit: EXIT.disk, advice: 'Give --era another name; `dmsetup ls` shows those in use.' },
  ERA_METADATA_INVALID: {
    exit: EXIT.disk,
    advice: 'Give --era-metadata an empty partition that is large enough, or leave it out.',
  },

  STATE_MISSING: {
    exit: EXIT.state,
    advice: 'Run `mesh join TOKEN --disk DISK` (or `mesh seed DISK` on the master) first.',
  },
  STATE_IN_USE: { exit: EXIT.state, advice: 'Stop that process first, or give another --state directory.' },
  STATE_BUSY: {
    exit: EXIT.state,
    advice:
      'Wait until it has ended, or stop it (run again, it goes on where it was); then run this command again. `mesh status` shows how far it is.',
  },
  STATE_UNWRITABLE: {
    exit: EXIT.state,
    advice:
      'Run as a user who may write there, or give another --state directory. If its file system is read-only, look at `dmesg`, then `mount -o remount,rw`.',
  },
  STATE_UNSAFE: {
    exit: EXIT.state,
    advice:
      'Run as the user that it belongs to. If nobody else can have changed it, give it to this user: `chown -R --no-dereference root DIRECTORY`. Otherwise move it away, and let the machine join again.',
  },
  STATE_CORRUPT: {
    exit: EXIT.state,
    advice:
      'On the master put back a copy of its state directory. On a lab machine move it away and join again with a new token; the disk is scanned, not fetched again.',
  },
  STATE_OTHER_SITE: {
    exit: EXIT.state,
    advice: 'This machine belongs to another site; give another --state directory, or move the old one away.',
  },
  STATE_NOT_MASTER: {
    exit: EXIT.state,
    advice: 'Run this on the master, the machine that publishes with `mesh seed`.',
  },
  STATE_NOT_RUNNING: { exit: EXIT.state, advice: 'Start `mesh seed DISK` or `mesh up` on this machine first.' },

  TOKEN_INVALID: { exit: EXIT.trust, advice: 'Copy the whole token as `mesh invite` printed it.' },
  TOKEN_EXPIRED: { exit: EXIT.trust, advice: 'Ask for a new one: `mesh invite` on the master.' },
  TOKEN_USED_UP: { exit: EXIT.trust, advice: 'Ask for a new one: `mesh invite --uses N` on the master.' },
  TOKEN_REVOKED: {
    exit: EXIT.trust,
    advice: 'The master has taken this invitation back; ask for a new one: `mesh invite` on the master.',
  },
  TOKEN_OTHER_SITE: { exit: EXIT.trust, advice: 'The token is of another site; ask the master of this site for one.' },
  TOKEN_UNKNOWN: { exit: EXIT.trust, advice: 'The master does not know this invitation; ask for a new one.' },
  NAME_TAKEN: { exit: EXIT.trust, advice: 'Give this machine another name with --name.' },
  SITE_FULL: { exit: EXIT.trust, advice: 'Make another site, with a master of its own, for further machines.' },
  CLOCK_WRONG: {
    exit: EXIT.trust,
    advice:
      'Compare the clock of this machine with a watch. If it is wrong, set it (`timedatectl set-time`). If it is right, the clock of the master was ahead: set that one, and ask for a new token.',
  },
  METADATA_EXPIRED: {
    exit: EXIT.trust,
    advice: 'Check the clock of this machine; if it is right, start the master, which renews the metadata.',
  },
  METADATA_INVALID: {
    exit: EXIT.trust,
    advice: 'The peer offers metadata this site did not sign; look at that machine.',
  },
  METADATA_ROLLBACK: {
    exit: EXIT.trust,
    advice: 'A peer offers older metadata than this machine trusts; look at that machine.',
  },
  PASSPHRASE_WRONG: {
    exit: EXIT.trust,
    advice: 'Type it as it was chosen; capitals and spaces count. Without it the file cannot be opened.',
  },
  PASSPHRASE_WEAK: {
    exit: EXIT.usage,
    advice: 'Choose a longer one, such as five words that have nothing to do with each other.',
  },
  SEALED_DAMAGED: { exit: EXIT.trust, advice: 'Take another copy of that file.' },
  METADATA_FORKED: {
    exit: EXIT.trust,
    advice:
      'Two masters sign for this site, made from one copy, or the master was put back from an old copy. Stop one of two for good; on the one that stays run `mesh seed DISK --force` (handbook, “Two masters”).',
  },
  MANIFEST_INVALID: { exit: EXIT.trust, advice: 'Publish the image again on the master.' },
  IMAGE_UNKNOWN: {
    exit: EXIT.trust,
    advice: 'Name one of the images this site publishes, or publish it with `mesh seed DISK --image NAME`.',
  },
  NOT_A_MEMBER: {
    exit: EXIT.trust,
    advice: '`mesh peers` on the master lists the members; a machine becomes one with `mesh join`.',
  },

  ENROLMENT_REFUSED: {
    exit: EXIT.trust,
    advice: 'If it is to be a member after all, run `mesh approve --code CODE` on the master, then this command again.',
  },
  NOT_APPROVED: {
    exit: EXIT.unavailable,
    advice:
      '`mesh machines` on the master lists who waits, `mesh approve NAME` lets it in; then run this command again.',
  },
  NOBODY_WAITS: {
    exit: EXIT.trust,
    advice:
      '`mesh machines` lists who waits, with names and codes; a machine waits as long as `mesh enrol` runs there.',
  },

  MEMBER_REMOVED: {
    exit: EXIT.removed,
    advice:
      'Its key never comes in again. If the machine is to be a member, run `mesh invite` on the master, and `mesh join TOKEN --new-identity` on this machine.',
  },

  SITE_KEY_MISSING: {
    exit: EXIT.trust,
    advice:
      'Give the file of that key by --key FILE; `mesh site show` says which keys each role has, and which are here.',
  },

  GROUP_UNKNOWN: {
    exit: EXIT.usage,
    advice: 'Name a group that machines of this site are in; `mesh peers` lists them, `mesh invite --group` makes one.',
  },
  ROLL_TAKEN: {
    exit: EXIT.state,
    advice:
      '`mesh roll status` shows it; end it by `mesh roll abort`, or go on with it by `mesh roll resume --take-over`.',
  },
  ROLL_UNKNOWN: { exit: EXIT.state, advice: 'Begin one with `mesh roll start --group GROUP`.' },
  NOT_AN_OPERATOR: {
    exit: EXIT.trust,
    advice: 'Do this on the master or an operator’s machine; `mesh invite --role operator` on the master makes one.',
  },
  ROLL_SUPERSEDED: {
    exit: EXIT.trust,
    advice: 'Another roll of this group, or another operator, has taken over; look at what it does.',
  },
  MACHINE_IN_USE: {
    exit: EXIT.unavailable,
    advice: 'Wait until nobody uses it, or say that it is to be reset even so, with a warning.',
  },
  RESET_DISABLED: {
    exit: EXIT.unavailable,
    advice: 'Start `mesh up` there with --reset-command if it is to be reset from afar.',
  },

  PORT_TAKEN: { exit: EXIT.network, advice: 'Stop the program that holds it, or give another address.' },
  PEERS_UNREACHABLE: {
    exit: EXIT.network,
    advice: 'Check the cable and that other machines of this site run `mesh up`.',
  },
  PROTOCOL_VIOLATION: {
    exit: EXIT.network,
    advice: 'The peer speaks the protocol wrongly; update mesh there, or look at that machine.',
  },
  NBD_PROTOCOL: {
    exit: EXIT.network,
    advice: 'The other side speaks the NBD protocol wrongly; check that it is an NBD server or client, and update it.',
  },
  NBD_UNREACHABLE: { exit: EXIT.network, advice: 'Check the address, and that the NBD server runs there.' },
  NBD_UNSUITABLE: {
    exit: EXIT.network,
    advice: 'Serve another export, or change how it is served: what is missing is named.',
  },
  REQUEST_TIMEOUT: { exit: EXIT.network, advice: 'The peer did not answer in time; try again.' },

  BLOCKS_UNAVAILABLE: {
    exit: EXIT.unavailable,
    advice: 'Start more machines of the lab (or the master), then run the command again; it continues.',
  },

  TREE_CORRUPT: {
    exit: EXIT.mismatch,
    advice: 'The stored hash tree is damaged; run `mesh restore`, which fetches it again.',
  },

  HOOK_FAILED: {
    exit: EXIT.hook,
    advice: 'Everything else is done; correct the hook, then run the command again: all hooks run again.',
  },
  HOOK_UNSAFE: {
    exit: EXIT.hook,
    advice:
      'Hooks run as this user: give the file named and the folders above it to root (`chown root`, `chmod go-w`), then run the command again.',
  },

  FORMAT_NEWER: {
    exit: EXIT.newer,
    advice: 'Update mesh on the machine that says so; nothing was changed there.',
  },

  PUBLISH_DOUBTFUL: {
    exit: EXIT.doubtful,
    advice:
      'Check that this is the right disk, in the right state; `mesh seed --dry-run` only looks. If all of it is meant, add --force.',
  },

  LAYOUT_INVALID: {
    exit: EXIT.usage,
    advice: 'Correct what is named, and run `mesh layout set FILE` again on the master.',
  },
  LAYOUT_MISSING: {
    exit: EXIT.trust,
    advice: 'Say how the disks of this site are laid out: `mesh layout set FILE` on the master.',
  },

  LAYOUT_FAILED: {
    exit: EXIT.disk,
    advice:
      'Look at what that program says; start the machine again, which begins anew: nothing on that disk counts yet.',
  },

  BOOT_STATE_MISSING: {
    exit: EXIT.state,
    advice: 'The partition that holds the state must be named lab-state, hold ext4, and be in this computer, once.',
  },
  BOOT_DISK_UNCLEAR: {
    exit: EXIT.disk,
    advice:
      'Name the right one as boot.disk in the configuration file and make the agent anew, or take the others out.',
  },
  BOOT_ESP_MISSING: {
    exit: EXIT.disk,
    advice: 'The partition for the agent must be named lab-esp, hold FAT, and be on the disk of the system.',
  },
  BOOT_ENTRY_FAILED: {
    exit: EXIT.disk,
    advice: 'Make the entry by the firmware’s own setup; the agent also lies where firmware looks by itself.',
  },
  BOOT_NO_SYSTEM: {
    exit: EXIT.disk,
    advice: 'The image must be a file system with /sbin/init: publish one from which a machine has started.',
  },
  BOOT_UNVERIFIED: {
    exit: EXIT.mismatch,
    advice: 'The disk holds what its users left; restart the machine when others of its site can be reached.',
  },
  BOOT_BUILD_FAILED: {
    exit: EXIT.disk,
    advice: 'Look at what that program says; free space if a file system is full, and check the files that were given.',
  },

  BOOT_AGENT_UNFIT: {
    exit: EXIT.usage,
    advice:
      'Make the agent on a machine of this site, `mesh boot build --out DIR`, and give that folder to `mesh boot serve DIR`.',
  },
  BOOT_NETWORK: {
    exit: EXIT.network,
    advice:
      'Connect this machine to the lab’s network and give it an IPv4 address there (`ip address`), or name the right card with --interface.',
  },
  BOOT_SERVE_FAILED: {
    exit: EXIT.network,
    advice:
      'Look at what dnsmasq says; version 2.87 or newer is needed (`dnsmasq --version`). Then run the command again.',
  },
  ROOT_NEEDED: { exit: EXIT.usage, advice: 'Run the command as root, for example with sudo.' },

  UNIT_FOREIGN: {
    exit: EXIT.usage,
    advice: 'It was not written by `mesh install`: move it away, or change it by hand.',
  },

  INTERRUPTED: { exit: EXIT.interrupted, advice: 'Run the command again; it continues.' },
} as const satisfies Record<string, Fault>

/** The code of a fault, such as `DISK_IO`. */
export type ErrorCode = keyof typeof FAULTS
/** All codes, in the order of the table above. */
export const ERROR_CODES = Object.keys(FAULTS) as readonly ErrorCode[]

/** Facts about one failure, for programs (`--json`) and for tests: block indices, offsets, peers, paths. */
type ErrorDetail = Readonly<Record<string, string | number | readonly (string | number)[]>>

/** A fault of the world: says what happened to what, carries what to do next. */
export class MeshError extends Error {
  override readonly name = 'MeshError'
  readonly code: ErrorCode
  readonly detail: ErrorDetail

  constructor(code: ErrorCode, message: string, options: { detail?: ErrorDetail; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.detail = options.detail ?? {}
  }

  /** What the user can do about it, as one sentence. */
  get advice(): string {
    return FAULTS[this.code].advice
  }

  get exitCode(): ExitCode {
    return FAULTS[this.code].exit
  }
}

/** Whether `error` is a MeshError with one of `codes` (any code if none is given). */
export function isMeshError(error: unknown, ...codes: ErrorCode[]): error is MeshError {
  return error instanceof MeshError && (codes.length === 0 || codes.includes(error.code))
}

/** The errno name of a system error (`ENOENT`), looked for along the causes. */
export function errnoOf(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    if ('code' in at && typeof at.code === 'string' && /^E[A-Z0-9]+$/.test(at.code)) return at.code
  }
  return undefined
}
