import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Random } from './random.ts'
import { runTool } from './run-tool.ts'

/** Changes files inside an ext4 image the way a pupil's session does: new files, deleted ones, overwritten ones. */
export async function changeFiles(disk: string, workDir: string, random: Random, signal?: AbortSignal): Promise<void> {
  const homework = join(workDir, `homework-${random.seed}`)
  await writeFile(homework, random.bytes(700 * 1024))
  const listing = await runTool('debugfs', ['-R', 'ls -p /etc', disk], signal)
  const victims = listing
    .split('\n')
    .map((line) => line.split('/'))
    .filter((fields) => fields[2]?.startsWith('100') === true)
    .slice(0, 6)
    .map((fields) => `/etc/${fields[5]}`)
  const commands = [`write ${homework} /homework`, 'mkdir /games', `write ${homework} /games/highscores`]
  for (const [i, victim] of victims.entries()) {
    commands.push(`rm ${victim}`)
    if (i % 2 === 0) commands.push(`write ${homework} ${victim}`)
  }
  const script = join(workDir, `session-${random.seed}.debugfs`)
  await writeFile(script, `${commands.join('\n')}\n`)
  await runTool('debugfs', ['-w', '-f', script, disk], signal)
}

/** Overwrites `count` places of 4 KiB with random bytes. The file system does not know of it. */
export async function scribble(disk: string, size: number, count: number, random: Random): Promise<void> {
  const file = await open(disk, 'r+')
  try {
    for (let i = 0; i < count; i++) {
      const data = random.bytes(Math.min(4096, size))
      await file.write(data, 0, data.byteLength, random.below(Math.max(1, Math.floor(size / 4096))) * 4096)
    }
  } finally {
    await file.close()
  }
}
