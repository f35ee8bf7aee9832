import { describe, expect, it } from 'vitest'
import { debianChangelog } from '../../../tools/package/debian-changelog.ts'
import { packageFacts } from '../../../tools/package/package-facts.ts'

const ENV = { SOURCE_DATE_EPOCH: '1796046511', DEBFULLNAME: 'A B', DEBEMAIL: 'a@b.example' }

describe('facts of a package', () => {
  it('come from the environment where it says them', async () => {
    const facts = await packageFacts('1.0.0-beta.1-2', ENV)
    expect(facts).toMatchObject({ epoch: 1796046511, maintainer: 'A B <a@b.example>', version: '1.0.0-beta.1-2' })
    // For dpkg 1.0.0~beta.1 is older than 1.0.0.
    expect(facts.debianVersion).toBe('1.0.0~beta.1.2')
  })

  it.each(['1 0', 'v1', '', '1/2'])('refuses %j as a version', async (version) => {
    await expect(packageFacts(version, ENV)).rejects.toMatchObject({ code: 'USAGE' })
  })

  it('refuses a time that is none', async () => {
    const env = { ...ENV, SOURCE_DATE_EPOCH: 'today' }
    await expect(packageFacts('1.0.0', env)).rejects.toMatchObject({ code: 'USAGE' })
  })
})

describe('the changelog of Debian', () => {
  it('has one entry for each version, the newest first', async () => {
    const changelog = `# Changelog

## Unreleased

### Added

- **New.** A thing that needs so many words to be told that they do not fit into one line.

### Fixed

- Another
  of two lines.

## 0.1.0 - 2026-11-29

- The first.
`
    const facts = { ...(await packageFacts('0.2.0', ENV)), changelog }
    expect(debianChangelog(facts)).toBe(`lab-mesh (0.2.0) unstable; urgency=medium

  * New. A thing that needs so many words to be told that they do not fit into
    one line.
  * Another of two lines.

 -- A B <a@b.example>  Mon, 30 Nov 2026 13:48:31 +0000

lab-mesh (0.1.0) unstable; urgency=medium

  * The first.

 -- A B <a@b.example>  Sun, 29 Nov 2026 00:00:00 +0000
`)
    // Before its number is raised, a package has the number of the last release.
    expect(debianChangelog({ ...facts, debianVersion: '0.1.0' }).match(/^lab-mesh/gm)).toHaveLength(1)
    expect(debianChangelog({ ...facts, debianVersion: '0.1.0' })).toContain('* The first.')
  })
})
