import { STATE_LABEL } from '../../protocol/disk-layout.ts'
import { CONSOLE_FONT, WIDE_CHARACTERS } from './console-glyphs.ts'

/** File whose presence and content let `/init` start the system; the last thing that `mesh boot run` writes. */
export const HANDOVER_FILE = '/run/lab-mesh/handover'

/** Pipe through which `/init` says where the state directory is: `mounted DEVICE`, or a reason. */
export const STATE_PIPE = '/run/lab-mesh/state'

/** What that script says of a machine that has no state partition: it is bare. */
export const NO_STATE = `no partition is named ${STATE_LABEL}`

/** What it adds if the file system had to be repaired. */
export const REPAIRED = ', repaired'

/** Script that looks for the state partition and mounts it. */
export const DISKS_PROGRAM = '/lib/mesh/disks'

/** Where the model’s root file system is mounted before it becomes the root. */
export const SYSTEM_ROOT = '/sysroot'

/** The state directory of a machine that the agent starts, before and after the root is switched. */
const AGENT_STATE = '/var/lib/lab-mesh'

/** Folder of the agent’s own files: the site, and the configuration file. */
export const AGENT_CONFIG = '/etc/lab-mesh'

/** File of the agent’s local menu, if the lab has set a password; as `tools/cli/boot/menu-facts.ts` makes it. */
export const MENU_FILE = `${AGENT_CONFIG}/menu`

/** What the agent’s program has in memory when it is loaded; Node starts it from there. */
export const AGENT_SNAPSHOT = '/mesh/agent.snapshot'

/** What the agent puts on a disk for BIOS. */
export const BIOS_LOADER = { code: '/lib/mesh/bios/code.img', core: '/lib/mesh/bios/core.img' } as const

/** Script that brings up the network cards and asks for addresses. */
export const NETWORK_SCRIPT = '/lib/mesh/network'

/**
 * The first process of the agent. It starts Node at once, and loads the drivers of the disks meanwhile. It starts a system only if
 * `mesh boot run` has ended well, has left the handover file, and a file system is mounted. Whatever else happens, it holds.
 */
export function initScript(nodeFlags: readonly string[]): string {
  return `#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ MESH_BOOT=agent
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=755 run /run
mkdir -p /tmp /dev/shm /run/lab-mesh ${AGENT_STATE} ${SYSTEM_ROOT}
mkfifo ${STATE_PIPE}
echo 'mesh: init' >/dev/kmsg
${DISKS_PROGRAM} &
[ ! -e ${CONSOLE_FONT} ] || loadfont <${CONSOLE_FONT} 2>/dev/null || rm ${WIDE_CHARACTERS}
node ${nodeFlags.join(' ')} --snapshot-blob ${AGENT_SNAPSHOT} 2>/run/lab-mesh/errors
code=$?
if [ $code = 0 ] && read -r device < ${HANDOVER_FILE} && grep -q " ${SYSTEM_ROOT} " /proc/mounts; then
  rm ${HANDOVER_FILE}
  # Where the model has the folder the state stays at its path; the kernel writes its log there.
  if [ -d ${SYSTEM_ROOT}${AGENT_STATE} ]; then
    mount --move ${AGENT_STATE} ${SYSTEM_ROOT}${AGENT_STATE}
  else
    mkdir -p /run/lab-mesh/kept && mount --move ${AGENT_STATE} /run/lab-mesh/kept
  fi
  mount --move /run ${SYSTEM_ROOT}/run
  mount --move /dev ${SYSTEM_ROOT}/dev
  mount --move /sys ${SYSTEM_ROOT}/sys
  mount --move /proc ${SYSTEM_ROOT}/proc
  unset MESH_BOOT
  exec switch_root ${SYSTEM_ROOT} /sbin/init
fi
# Nothing below starts a system.
printf '\\n\\nmesh: the agent has ended with code %s; the system is not started.\\n' "$code"
# The kernel's log takes one line at a time, of no more than about 1000 bytes.
while read -r line; do
  printf '%s\\n' "$line"
  printf '%.900s\\n' "$line" >/dev/kmsg
done </run/lab-mesh/errors
while :; do sleep 3600; done
`
}

/**
 * Loads the drivers of what the kernel has found, until the state partition is there, and mounts it. At most 30 s. NVMe, SATA and virtio
 * are looked for first, in the way that takes least time; what else there may be in the way of modprobe.
 */
export const DISKS_SCRIPT = `#!/bin/busybox sh
. /lib/mesh/drivers
for file in /sys/bus/pci/devices/*/modalias; do
  read -r alias <"$file" 2>/dev/null || continue
  case "$alias" in
  pci:v00001AF4*) quick virtio_pci ;;
  *bc01sc08*) quick nvme ;;
  *bc01sc06*) quick ahci sd_mod ;;
  esac
done
for file in /sys/bus/virtio/devices/*/modalias; do
  read -r alias <"$file" 2>/dev/null || continue
  case "$alias" in
  virtio:d00000002*) quick virtio_blk ;;
  virtio:d00000008*) quick virtio_scsi sd_mod ;;
  esac
done
quick crc32c_generic ext4 loop dm_era
# A state partition of another site is looked at, and not written: not even its journal is replayed. It stays mounted so, for what is said of it.
is_foreign() {
  mount -t ext4 -o ro,noload "$device" ${AGENT_STATE} 2>/dev/null || return 1
  own=$(sha256sum ${AGENT_CONFIG}/1.root.json)
  case "$(grep -o '"siteId": *"[0-9a-f]*"' ${AGENT_STATE}/machine.json 2>/dev/null)" in
  '' | *"\${own%% *}"*) umount ${AGENT_STATE}; return 1 ;;
  esac
}
# The journal is replayed by mounting. A check takes longer, and is for what the kernel has found wrong, now or before: the second bit of the
# superblock's state.
mount_state() {
  is_foreign && said="mounted $device" && return
  flags=$(od -A n -t u2 -j 1082 -N 2 "$device" 2>/dev/null)
  if [ $((\${flags:-0} & 2)) = 0 ]; then
    said=$(mount -t ext4 -o noatime "$device" ${AGENT_STATE} 2>&1) && said="mounted $device" && return
  fi
  e2fsck -f -p "$device" >/dev/kmsg 2>&1
  [ $? -lt 4 ] || e2fsck -f -y "$device" >/dev/kmsg 2>&1
  said=$(mount -t ext4 -o noatime "$device" ${AGENT_STATE} 2>&1) && said="mounted $device${REPAIRED}"
}
tries=0
read -r begun rest </proc/uptime
now=$begun
while [ $((\${now%.*} - \${begun%.*})) -lt 30 ]; do
  found=$(grep -lx "PARTNAME=${STATE_LABEL}" /sys/class/block/*/uevent 2>/dev/null)
  case "$found" in
  *uevent*uevent*) echo "several partitions are named ${STATE_LABEL}" >${STATE_PIPE}; exit ;;
  *uevent)
    device=/dev/$(basename "$(dirname "$found")")
    mount_state
    echo "$said" >${STATE_PIPE}
    exit
    ;;
  esac
  # The disks that were looked for first may need a moment.
  [ $tries -lt 3 ] || load 'pci:*bc01*' 'pci:*bc0[8C]sc0[35]*' 'virtio:d0000000[28]*' 'usb:*ic0[38]*' 'scsi:*' 'mmc:*' 'hid:*' 'vmbus:*' \
    'pci:v00001AF4*' 'acpi:80860F1*' 'acpi:INT3[34]*' 'acpi:PNP0D40*' 'acpi:AMDI0040*'
  tries=$((tries + 1))
  sleep 0.1
  read -r now rest </proc/uptime
done
echo "${NO_STATE}" >${STATE_PIPE}
`

/** Functions: \`load PATTERN…\` loads what the kernel’s devices ask for, once each; \`quick NAME…\` loads modules by name. */
export const DRIVERS_SCRIPT = `loaded=' '
quick() {
  for name in "$@"; do
    case "$loaded" in *" $name "*) continue ;; esac
    loaded="$loaded$name "
    while read -r path; do insmod "$path" 2>/dev/null; done </lib/mesh/order/$name
  done
}
load() {
  for file in $(find /sys/devices -name modalias); do
    read -r alias <"$file" 2>/dev/null || continue
    case "$loaded" in *" $alias "*) continue ;; esac
    for pattern in "$@"; do
      case "$alias" in
      $pattern)
        loaded="$loaded$alias "
        modprobe -q "$alias" 2>/dev/null
        break
        ;;
      esac
    done
  done
}
`

/** Loads the drivers of the network cards, brings their links up, and asks for addresses until it is ended. */
export const NETWORK_SCRIPT_TEXT = `#!/bin/busybox sh
. /lib/mesh/drivers
ip link set lo up
for pass in 1 2 3; do load 'pci:*bc02*' 'pci:v00001AF4*' 'virtio:d00000001*' 'usb:*' 'vmbus:*'; done
for place in /sys/class/net/*/device; do
  card=$(basename "$(dirname "$place")")
  ip link set "$card" up
  udhcpc -q -f -i "$card" -T 2 -t 20 -A 2 -s /lib/mesh/lease >/dev/null 2>&1 &
done
wait
`

/** What udhcpc calls: sets the address, and keeps the lease for a boot at which nobody answers. */
export const LEASE_SCRIPT = `#!/bin/busybox sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/\${mask:-24}" dev "$interface"
for gateway in $router; do ip route add default via "$gateway" dev "$interface"; break; done
folder=${AGENT_STATE}/boot
mkdir -p $folder
name=$folder/lease-$(tr -d : </sys/class/net/$interface/address)
echo "$ip/\${mask:-24} \${router%% *}" >$name.new && mv $name.new $name
`
