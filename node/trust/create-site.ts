import { access, copyFile, mkdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Root, Snapshot, Targets, Timestamp } from '@tufjs/models'
import { Delegations } from '@tufjs/models/dist/delegations.js'
import { DelegatedRole, Role } from '@tufjs/models/dist/role.js'
import { MeshError } from '../../protocol/errors.ts'
import { fsyncDirectory } from '../state/atomic-file.ts'
import { currentGeneration, nextGeneration } from './generations.ts'
import { loadOrCreateKey } from './machine-key.ts'
import { encodeMembers, type Member } from './members.ts'
import { addTarget, base, writeRole } from './sign-role.ts'
import { SITE_ROLES, type SiteKey, SiteKeys, type SiteRole, siteKeyOf } from './site-keys.ts'
import { loadView, MEMBERS_ROLE, MEMBERS_TARGET } from './trusted-view.ts'

/**
 * Creates a site: one key for each role, and metadata that names `master` as its first member. An attempt that was cut
 * short is completed or begun again. A site that exists is left as it is. Errors: STATE_CORRUPT if there are keys
 * without metadata, because other metadata signed by them would be taken for the site's; STATE_NOT_MASTER if there is
 * metadata without keys.
 */
export async function createSite(options: {
  keysDir: string
  trustDir: string
  master: Member
  now?: number
}): Promise<void> {
  const { keysDir, trustDir, master, now = Date.now() } = options
  // The directory of the keys gets its name last, so that under this name the keys always belong to metadata.
  const newKeysDir = `${keysDir}.new`
  if ((await currentGeneration(trustDir)) === undefined) {
    if (await exists(keysDir)) {
      const why = `${keysDir} holds the keys of a site whose metadata is gone from ${trustDir}; put that back from a copy`
      throw new MeshError('STATE_CORRUPT', why, { detail: { path: trustDir } })
    }
    await rm(newKeysDir, { recursive: true, force: true })
    await mkdir(newKeysDir, { recursive: true, mode: 0o700 })
    await signFirst(trustDir, await makeKeys(newKeysDir), master, now)
  }
  if (!(await exists(keysDir)) && (await exists(newKeysDir))) {
    await rename(newKeysDir, keysDir)
    await fsyncDirectory(dirname(keysDir))
  }
  const keys = await SiteKeys.load(keysDir)
  if (keys.isEmpty) throw new MeshError('STATE_NOT_MASTER', 'this machine does not have the keys of the site')
}

async function makeKeys(keysDir: string): Promise<Record<SiteRole, SiteKey>> {
  const entries: [SiteRole, SiteKey][] = []
  for (const role of SITE_ROLES) entries.push([role, siteKeyOf(await loadOrCreateKey(join(keysDir, `${role}.pem`)))])
  return Object.fromEntries(entries) as Record<SiteRole, SiteKey>
}

/** Version 1 of every role. */
async function signFirst(trustDir: string, own: Record<SiteRole, SiteKey>, master: Member, now: number): Promise<void> {
  await nextGeneration(trustDir, async (scratch) => {
    const topLevel = ['root', 'targets', 'snapshot', 'timestamp'] as const
    const roles = Object.fromEntries(
      topLevel.map((name) => [name, new Role({ keyIDs: [own[name].key.keyID], threshold: 1 })]),
    )
    const keys = Object.fromEntries(topLevel.map((name) => [own[name].key.keyID, own[name].key]))
    const root = new Root({ ...base('root', 1, now), keys, roles, consistentSnapshot: true })
    await writeRole(scratch, 'root', root, [own.root])
    await copyFile(join(scratch, 'root.json'), join(scratch, '1.root.json'))

    const memberKey = own.members.key
    const delegated = new DelegatedRole({
      name: MEMBERS_ROLE,
      keyIDs: [memberKey.keyID],
      threshold: 1,
      terminating: true,
      paths: [MEMBERS_TARGET],
    })
    const delegations = new Delegations({
      keys: { [memberKey.keyID]: memberKey },
      roles: { [MEMBERS_ROLE]: delegated },
    })
    const targets = new Targets({ ...base('targets', 1, now), targets: {}, delegations })
    const list = await addTarget(scratch, MEMBERS_TARGET, encodeMembers([master]))
    const members = new Targets({ ...base(MEMBERS_ROLE, 1, now), targets: { [MEMBERS_TARGET]: list } })
    const meta = {
      'targets.json': await writeRole(scratch, 'targets', targets, [own.targets]),
      'members.json': await writeRole(scratch, MEMBERS_ROLE, members, [own.members]),
    }
    const snapshot = new Snapshot({ ...base('snapshot', 1, now), meta })
    const snapshotMeta = await writeRole(scratch, 'snapshot', snapshot, [own.snapshot])
    const timestamp = new Timestamp({ ...base('timestamp', 1, now), snapshotMeta })
    await writeRole(scratch, 'timestamp', timestamp, [own.timestamp])
    return loadView(scratch)
  })
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
