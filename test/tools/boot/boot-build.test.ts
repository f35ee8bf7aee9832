import { execFile } from 'node:child_process'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { efiParts } from '../../../node/agent/boot/efi-parts.ts'
import { makeSnapshot } from '../../../tools/boot/agent-snapshot.ts'
import { GRUB_FOLDER, makeBiosLoader } from '../../../tools/boot/bios-loader.ts'
import { initScript } from '../../../tools/boot/boot-scripts.ts'
import { findKernel } from '../../../tools/boot/build-agent.ts'
import { packagedFile, runBuildTool, whichProgram } from '../../../tools/boot/build-tool.ts'
import { makeEfiImage } from '../../../tools/boot/efi-image.ts'
import { signingOf } from '../../../tools/cli/boot/build-facts.ts'
import { assertMounted } from '../../../tools/cli/boot/state-place.ts'
import { MeshProcess } from '../../../tools/lab/local-lab.ts'
import { NODE_FLAGS } from '../../../tools/lab/node-flags.ts'
import { hasTool } from '../../../tools/lab/run-tool.ts'
import { makeBundle } from '../../../tools/make-bundle.ts'
import { temporaryDirectory } from '../../support/temporary.ts'

const STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub'
const hasStub = (await hasTool('objcopy')) && (await readFile(STUB).catch(() => undefined)) !== undefined
if (!hasStub) console.warn('SKIPPED: needs binutils and systemd-boot-efi')
const hasGrub = (await hasTool('grub-mkimage')) && (await hasTool(`${GRUB_FOLDER}/boot.img`))
if (!hasGrub) console.warn('SKIPPED: needs grub-common and grub-pc-bin')

describe('making the agent', () => {
  it('names the Debian package of what is missing', async () => {
    await expect(whichProgram('no-such-program')).rejects.toMatchObject({ code: 'TOOL_MISSING' })
    await expect(packagedFile('/no/stub', 'systemd-boot-efi')).rejects.toThrow(/the Debian package systemd-boot-efi/)
  })

  it('says what a program said that failed', async () => {
    const failing = runBuildTool('ls', ['/no/such/file'])
    await expect(failing).rejects.toMatchObject({
      code: 'BOOT_BUILD_FAILED',
      message: expect.stringMatching(/No such file/),
    })
  })

  it('looks for the modules beside the kernel', async () => {
    const root = await temporaryDirectory()
    const [image, modules] = [join(root, 'boot/vmlinuz-6.1.0-x'), join(root, 'lib/modules/6.1.0-x')]
    await mkdir(join(root, 'boot'))
    await writeFile(image, 'kernel')
    await expect(findKernel({ kernel: image })).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/--modules$/),
    })
    await mkdir(modules, { recursive: true })
    expect(await findKernel({ kernel: image })).toEqual({ image, modules })
  })

  it('keeps the loaded program, from which Node starts without it', async () => {
    const work = await temporaryDirectory()
    const [bundle, snapshot] = [join(work, 'dist'), join(work, 'snapshot')]
    await makeBundle({ directory: bundle })
    await makeSnapshot(snapshot, bundle, NODE_FLAGS)
    await rm(bundle, { recursive: true })
    const env = { ...process.env, MESH_BOOT: '' }
    const started = promisify(execFile)(process.execPath, [...NODE_FLAGS, '--snapshot-blob', snapshot], { env })
    await expect(started).rejects.toMatchObject({ code: 2, stderr: expect.stringMatching(/is for the agent/) })
  })

  it('signs with key and certificate, or not at all', () => {
    expect(signingOf({})).toBeUndefined()
    expect(signingOf({ signKey: '/k', signCert: '/c' })).toEqual({ key: '/k', certificate: '/c' })
    expect(() => signingOf({ signKey: '/k' })).toThrow(/both/)
  })

  it.skipIf(!hasStub)('puts kernel, initramfs and command line into one EFI program, the same each time', async () => {
    const work = await temporaryDirectory()
    const [kernel, initramfs] = [join(work, 'kernel'), join(work, 'initramfs')]
    await writeFile(kernel, 'the kernel')
    await writeFile(initramfs, Buffer.alloc(10_000, 'i'))
    const parts = { kernel, initramfs, commandLine: 'quiet x=1', release: 'ID=mesh-agent\n' }
    const made: Buffer[] = []
    for (const name of ['one.efi', 'other.efi']) {
      await makeEfiImage(join(work, name), parts, { work, signing: undefined })
      made.push(await readFile(join(work, name)))
    }
    expect(made[0]!.equals(made[1]!)).toBe(true)
    for (const [section, content] of [
      ['.linux', 'the kernel'],
      ['.cmdline', 'quiet x=1\0'],
    ] as const) {
      const out = join(work, section)
      await promisify(execFile)('objcopy', ['-O', 'binary', `--only-section=${section}`, join(work, 'one.efi'), out])
      expect((await readFile(out, 'utf8')).slice(0, content.length)).toBe(content)
    }
    const found = (await efiParts(join(work, 'one.efi')))!
    expect(found).toMatchObject({ linux: { size: 10 }, initrd: { size: 10_000 }, commandLine: 'quiet x=1' })
    // GRUB reads whole sectors.
    expect([found.linux.offset % 512, found.initrd.offset % 512]).toEqual([0, 0])
    const { offset, size } = found.initrd
    expect(made[0]!.subarray(offset, offset + size).equals(await readFile(initramfs))).toBe(true)
    await writeFile(join(work, 'cut.efi'), made[0]!.subarray(0, offset + size - 1))
    for (const name of ['cut.efi', 'kernel', 'cmdline']) expect(await efiParts(join(work, name))).toBeUndefined()
  })

  it.skipIf(!hasGrub)('makes a loader for BIOS that knows its place, the same each time', async () => {
    const [one, other] = [await temporaryDirectory(), await temporaryDirectory()]
    const { code, core } = await makeBiosLoader(one)
    expect(code.byteLength).toBe(440)
    // Sectors of 512 bytes: the first one loads that at 64 KiB, which loads the next ones.
    expect([code.readBigUInt64LE(0x5c), core.readBigUInt64LE(0x1f4)]).toEqual([128n, 129n])
    expect(core.readUInt16LE(0x1fc)).toBe(Math.ceil(core.byteLength / 512) - 1)
    const again = await makeBiosLoader(other)
    expect([again.code.equals(code), again.core.equals(core)]).toEqual([true, true])
  })

  it('is refused with a wrong level, and outside of the agent nothing runs', async () => {
    const level = await new MeshProcess(['boot', 'build', '--level', '20']).exited
    expect([level.code, level.stderr]).toEqual([2, expect.stringMatching(/from 1 to 19/)])
    const run = await new MeshProcess(['boot', 'run']).exited
    expect([run.code, run.stderr]).toEqual([2, expect.stringMatching(/is for the agent/)])
  })
})

describe('the agent fails closed', () => {
  it('goes on with a mounted state partition only', () => {
    expect(() => assertMounted('mounted /dev/sda2')).not.toThrow()
    for (const said of ['', 'no partition is named lab-state', 'mount: bad superblock'])
      expect(() => assertMounted(said)).toThrow(expect.objectContaining({ code: 'BOOT_STATE_MISSING' }))
  })

  it('switches the root in one place, behind exit code, handover file and mount', () => {
    const script = initScript(['--max-semi-space-size=1'])
    const switches = script.split('\n').filter((line) => /switch_root|kexec/.test(line))
    expect(switches).toHaveLength(1)
    const guard = script.slice(0, script.indexOf('exec switch_root'))
    expect(guard).toMatch(
      /if \[ \$code = 0 \] && read -r device < \S+handover && grep -q " \/sysroot " \/proc\/mounts; then/,
    )
    expect(script.trimEnd().split('\n').at(-1)).toBe('while :; do sleep 3600; done')
  })
})
