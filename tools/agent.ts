import { startupSnapshot } from 'node:v8'
import { runCommandLine } from './cli/command-line.ts'

/**
 * The program of the agent (`tools/boot`): `mesh boot run`, and nothing else. It is loaded when the agent is built, and what it has in
 * memory then is what starts at each boot: Node need not read, compile and link it there. So no module of it may ask for anything about
 * the machine, the time or chance while it is loaded. What is not named here is loaded when it is needed.
 */
void Promise.all([import('./cli/commands/boot.ts'), import('./cli/boot/run-agent.ts')]).then(() =>
  startupSnapshot.setDeserializeMainFunction(() => void runCommandLine(['boot', 'run']).then(() => process.exit())),
)
