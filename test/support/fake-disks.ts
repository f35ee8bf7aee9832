import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { DiskPlaces } from '../../node/disk/read-disk.ts'
import { temporaryDirectory } from './temporary.ts'

/** What the kernel and udev show, as files; the test says which. */
export class FakeDisks {
  readonly places: DiskPlaces
  readonly #root: string

  private constructor(root: string) {
    this.#root = root
    this.places = { sys: join(root, 'sys'), udev: join(root, 'udev'), dev: join(root, 'dev') }
  }

  static async make(): Promise<FakeDisks> {
    const fake = new FakeDisks(await temporaryDirectory())
    for (const folder of ['sys/dev/block', 'udev', 'dev']) await mkdir(join(fake.#root, folder), { recursive: true })
    return fake
  }

  /**
   * A block device `name` (of a partition: `sda/sda3`) with the number `major:minor`: files of its folder in /sys, and what udev's
   * database says of it.
   */
  async add(
    name: string,
    number: string,
    files: Readonly<Record<string, string | Uint8Array>> = {},
    udev: readonly string[] = [],
  ): Promise<void> {
    const folder = this.folder(name)
    const all = { dev: `${number}\n`, size: '2048\n', uevent: `DEVNAME=${name.split('/').at(-1)}\n`, ...files }
    for (const [file, content] of Object.entries(all)) {
      await mkdir(dirname(join(folder, file)), { recursive: true })
      await writeFile(join(folder, file), content)
    }
    await symlink(folder, join(this.places.sys, 'dev/block', number))
    if (udev.length > 0) await writeFile(join(this.places.udev, `b${number}`), `${udev.join('\n')}\n`)
  }

  /** `upper` (such as a volume) stands on `lower`. */
  async stack(upper: string, lower: string): Promise<void> {
    const slaves = join(this.folder(upper), 'slaves')
    await mkdir(slaves, { recursive: true })
    await symlink(this.folder(lower), join(slaves, lower.split('/').at(-1)!))
  }

  folder(name: string): string {
    return join(this.#root, 'sys/devices/block', name)
  }
}
