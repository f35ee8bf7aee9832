import { runCommandLine } from './cli/command-line.ts'

/**
 * The program of the agent (`tools/boot`): `mesh boot run`, and nothing else. It is bundled into one file, because reading and linking
 * the hundred files of the whole command takes longer than Node's own start.
 */
void runCommandLine(['boot', 'run']).then(() => process.exit())
