import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { errnoOf, MeshError } from '../../protocol/errors.ts'

/** Debian packages of the programs that demo and tests call, and of files that tests need, by their paths. */
export const PACKAGES: Readonly<Record<string, string>> = {
  mke2fs: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  veritysetup: 'cryptsetup-bin',
  losetup: 'mount',
  dmsetup: 'dmsetup',
  sgdisk: 'gdisk',
  ip: 'iproute2',
  tc: 'iproute2',
  setpriv: 'util-linux',
  faketime: 'faketime',
  'mkfs.btrfs': 'btrfs-progs',
  'mkfs.xfs': 'xfsprogs',
  'mkfs.fat': 'dosfstools',
  'fsck.fat': 'dosfstools',
  mcopy: 'mtools',
  efibootmgr: 'efibootmgr',
  'mkfs.exfat': 'exfatprogs',
  mkntfs: 'ntfs-3g',
  mkswap: 'util-linux',
  cryptsetup: 'cryptsetup-bin',
  sfdisk: 'fdisk',
  blkid: 'util-linux',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  nbdsh: 'python3-libnbd',
  nbdkit: 'nbdkit',
  fio: 'fio',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  'systemd-socket-activate': 'systemd',
  'systemd-analyze': 'systemd',
  'systemd-escape': 'systemd',
  era_restore: 'thin-provisioning-tools',
  'dpkg-deb': 'dpkg',
  zstd: 'zstd',
  lintian: 'lintian',
  'x86_64-linux-gnu-strip': 'binutils-x86-64-linux-gnu',
  'x86_64-linux-gnu-readelf': 'binutils-x86-64-linux-gnu',
  'aarch64-linux-gnu-strip': 'binutils-aarch64-linux-gnu',
  'aarch64-linux-gnu-readelf': 'binutils-aarch64-linux-gnu',
  'qemu-aarch64-static': 'qemu-user-static',
  '/usr/aarch64-linux-gnu/lib/libstdc++.so.6': 'libstdc++6-arm64-cross',
  '/usr/aarch64-linux-gnu/lib/libatomic.so.1': 'libatomic1-arm64-cross',
  man: 'man-db',
  bash: 'bash',
  zsh: 'zsh',
  fish: 'fish',
  objcopy: 'binutils',
  'grub-mkimage': 'grub-common',
  '/usr/lib/grub/i386-pc/boot.img': 'grub-pc-bin',
  dnsmasq: 'dnsmasq-base',
  curl: 'curl',
  nft: 'nftables',
  '/usr/lib/ipxe/snponly.efi': 'ipxe',
  '/usr/share/unifont/unifont.hex': 'unifont',
}

const execute = promisify(execFile)
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` }

/**
 * Runs a program to its end and returns what it printed. Throws when it is missing (naming its package) or fails.
 * `signal` ends the program; the call returns only when it is gone.
 */
export async function runTool(name: string, args: readonly string[], signal?: AbortSignal): Promise<string> {
  signal?.throwIfAborted()
  const running = execute(name, args, { env, maxBuffer: 64 * 1024 ** 2, ...(signal === undefined ? {} : { signal }) })
  try {
    return (await running).stdout
  } catch (error) {
    const { child } = running
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    if (errnoOf(error) === 'ENOENT') {
      throw new MeshError('USAGE', `the program ${name} is missing: install the package ${PACKAGES[name] ?? name}`)
    }
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${name} ${args.join(' ')} failed:\n${stdout}${stderr}`, { cause: error })
  }
}

/** Whether a program is installed, or a file is there. */
export async function hasTool(name: string): Promise<boolean> {
  return execute('sh', ['-c', `command -v ${name} || test -f ${name}`], { env, cwd: '/' }).then(
    () => true,
    () => false,
  )
}
