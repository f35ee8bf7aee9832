import { type NbdProcess, startNbd } from './nbd-process.ts'

/**
 * The block layer of QEMU over a qcow2 file, as a virtual machine has it: what is written to its NBD export `disk` is what
 * the machine writes. Ended by SIGTERM it shuts down in an orderly way. `bitmaps` are published by the export.
 */
export function startMachine(image: string, bitmaps: readonly string[] = []): Promise<NbdProcess> {
  const published = bitmaps.map((name, i) => `,bitmaps.${i}=${name}`).join('')
  return startNbd('qemu-storage-daemon', (socket) => [
    ...['--blockdev', `driver=file,filename=${image.replaceAll(',', ',,')},node-name=file`],
    ...['--blockdev', 'driver=qcow2,file=file,node-name=disk,discard=unmap'],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', `type=nbd,id=export,node-name=disk,name=disk,writable=on${published}`],
  ])
}
