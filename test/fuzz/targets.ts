import { FILE_TARGETS } from './file-targets.ts'
import { METADATA_TARGETS } from './metadata-targets.ts'
import { NBD_TARGETS } from './nbd-targets.ts'
import { STATE_TARGETS } from './state-targets.ts'
import type { Target } from './target.ts'
import { WIRE_TARGETS } from './wire-targets.ts'

/** Every decoder that is tried. */
export const TARGETS: readonly Target[] = [
  ...WIRE_TARGETS,
  ...FILE_TARGETS,
  ...STATE_TARGETS,
  ...METADATA_TARGETS,
  ...NBD_TARGETS,
]
