import { type KillTask, runKillTask } from './kill-task.ts'

/** A process that may kill itself. Its only argument is a task, as JSON. */
const verified = await runKillTask(JSON.parse(process.argv[2] ?? '') as KillTask)
if (verified) process.stdout.write('verified\n')
