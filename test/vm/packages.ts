import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { hasTool } from '../../tools/lab/run-tool.ts'

/** Debian packages of the programs that the slow suite calls, here or in its guests. */
const PACKAGES: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  'apt-get': 'apt',
  'dpkg-deb': 'dpkg',
  busybox: 'busybox-static',
  strip: 'binutils',
  zstd: 'zstd',
  dmsetup: 'dmsetup',
  era_invalidate: 'thin-provisioning-tools',
  losetup: 'mount',
  blockdev: 'util-linux',
  mke2fs: 'e2fsprogs',
  sgdisk: 'gdisk',
  cmp: 'diffutils',
  'mkfs.vfat': 'dosfstools',
  efibootmgr: 'efibootmgr',
  openssl: 'openssl',
  sbsign: 'sbsigntool',
  xorriso: 'xorriso',
  'grub-mkimage': 'grub-common',
  mcopy: 'mtools',
  ntfscp: 'ntfs-3g',
  ip: 'iproute2',
  dnsmasq: 'dnsmasq-base',
  debootstrap: 'debootstrap',
  'systemd-nspawn': 'systemd-container',
  nsenter: 'util-linux',
}
const APT_RETRIES = 3
/** Characters of what apt-get said that are shown if it fails. */
const APT_KEPT = 2000
/** And of files that they read. */
const FILES: Readonly<Record<string, string>> = {
  '/usr/share/OVMF/OVMF_CODE_4M.fd': 'ovmf',
  '/usr/lib/systemd/boot/efi/linuxx64.efi.stub': 'systemd-boot-efi',
  '/usr/lib/grub/i386-pc/boot_hybrid.img': 'grub-pc-bin',
  '/usr/lib/ipxe/snponly.efi': 'ipxe',
  '/usr/lib/ipxe/qemu/pxe-virtio.rom': 'ipxe-qemu',
}

/** A Debian package cannot be had on this machine. */
export class Unavailable extends Error {}

/** Installs what is missing, as root on Debian; elsewhere fails and says what is to be installed. */
export async function installPackages(): Promise<void> {
  const missing = new Set<string>()
  for (const [tool, name] of Object.entries(PACKAGES)) if (!(await hasTool(tool))) missing.add(name)
  for (const [file, name] of Object.entries(FILES)) if (!existsSync(file)) missing.add(name)
  if (missing.size === 0) return
  console.log(`installing ${[...missing].join(', ')}`)
  try {
    await runApt(['update', '-q'])
    await runApt(['install', '-y', '-q', '--no-install-recommends', ...missing])
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error)
    throw new Unavailable(`install these Debian packages first: ${[...missing].join(', ')}\n${said}`, { cause: error })
  }
}

/** Runs apt-get, which tries a mirror that does not answer again. Errors: what it said, at its end. */
export async function runApt(args: readonly string[], cwd?: string): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const child = spawn('apt-get', ['-o', `Acquire::Retries=${APT_RETRIES}`, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env,
    ...(cwd === undefined ? {} : { cwd }),
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => {
      said = `${said}${String(text)}`.slice(-APT_KEPT)
    })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Unavailable(`apt-get ${args.join(' ')} ended with ${code}:\n${said.trim()}`)
}
