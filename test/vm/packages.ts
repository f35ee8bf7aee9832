import { spawnSync } from 'node:child_process'
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
  ip: 'iproute2',
  dnsmasq: 'dnsmasq-base',
}
/** And of files that they read. */
const FILES: Readonly<Record<string, string>> = {
  '/usr/share/OVMF/OVMF_CODE_4M.fd': 'ovmf',
  '/usr/lib/systemd/boot/efi/linuxx64.efi.stub': 'systemd-boot-efi',
  '/usr/lib/grub/i386-pc/boot_hybrid.img': 'grub-pc-bin',
  '/usr/lib/ipxe/snponly.efi': 'ipxe',
  '/usr/lib/ipxe/qemu/pxe-virtio.rom': 'ipxe-qemu',
}

/** Installs what is missing, as root on Debian; elsewhere fails and says what is to be installed. */
export async function installPackages(): Promise<void> {
  const missing: string[] = []
  for (const [tool, name] of Object.entries(PACKAGES)) if (!(await hasTool(tool))) missing.push(name)
  for (const [file, name] of Object.entries(FILES)) if (!existsSync(file)) missing.push(name)
  if (missing.length === 0) return
  console.log(`installing ${missing.join(', ')}`)
  spawnSync('apt-get', ['update', '-q'], { stdio: 'ignore' })
  const { status } = spawnSync('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...missing], {
    stdio: 'ignore',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
  if (status !== 0) throw new Error(`install these Debian packages first: ${missing.join(', ')}`)
}
