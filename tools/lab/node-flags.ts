/**
 * Flags that `mesh` gives to Node when it starts. `tools/build.ts` writes them into the first line of the bundle, the script
 * `mesh` of package.json repeats them, and units of systemd get those of the process that wrote them. Every Node since 18
 * knows them: a Node that does not know a flag ends with `bad option`, before `mesh` can say what is wrong.
 *
 * `tools/mesh.ts` sets {@link LATE_FLAGS} itself, when it has seen which Node it is. One that stands on the command line is
 * left as it is, so `npm run bench -- restore --flags='--maglev'` measures without `--no-maglev`.
 *
 * What each flag is worth, in `npm run bench -- restore --size 0.25`: processor time and peak memory of a machine that is
 * provisioned, and peak memory of its master. Medians of three runs on two cores that other work kept busy; `--flags`
 * names the flags of a run.
 *
 *                                      machine, s   machine, MiB   master, MiB
 *     all four                               3.20            122           123
 *     without --max-semi-space-size          4.72            153           181
 *     without --heap-growing-percent         4.21            123           144
 *     without --no-maglev                    3.30            128           152
 *     without --invocation-count-…           3.37            120           125
 *     none                                   5.53            144           177
 *
 * - `--max-semi-space-size=1` (MiB): buffers of the network live outside the heap and die young. A small young generation
 *   is collected often, and frees them before V8 asks for a full collection.
 * - `--heap-growing-percent=150`: the heap is mostly code, so it may grow more before all of it is marked again.
 * - `--no-maglev`: a restore of seconds does not get back what V8's middle compiler costs.
 * - `--invocation-count-for-turbofan=12000` says the same of the upper compiler. It shows only where many machines share
 *   the cores: eight restores at once took 9.1 s of processor time instead of 10.2 (docs/decisions/0009).
 */
export const START_FLAGS: readonly string[] = ['--max-semi-space-size=1', '--heap-growing-percent=150']

/** Flags that V8 still takes while it runs. Node 18 knows neither of them, Node 20 not the second. */
export const LATE_FLAGS: readonly string[] = ['--no-maglev', '--invocation-count-for-turbofan=12000']

/** All flags of `mesh`. */
export const NODE_FLAGS: readonly string[] = [...START_FLAGS, ...LATE_FLAGS]
