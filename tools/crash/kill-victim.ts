import { readJson } from '../../protocol/document.ts'
import { isKillTask, runKillTask } from './kill-task.ts'

/** A process that may kill itself. Its only argument is a task, as JSON. */
const verified = await runKillTask(readJson('the task', isKillTask, process.argv[2] ?? ''))
if (verified) process.stdout.write('verified\n')
