import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import { type Digest, digestOf } from '../../../protocol/digest.ts'
import { errnoOf, MeshError } from '../../../protocol/errors.ts'
import { action, type Context, withCommonOptions } from '../command.ts'
import { MAX_SITE_FILE_BYTES } from '../limits.ts'
import { parseAddress, parseDuration, parseImage, parseMachine, parseSiteId } from '../parse.ts'

interface Options {
  siteId?: Digest
  siteFile?: string
  master?: string[]
  disk?: string
  name?: string
  image?: string
  wait?: number
  newIdentity: boolean
  force: boolean
}

/** `mesh enrol`: its options, the part of the agent that they call, and how the result is printed. */
export function command(): Command {
  return withCommonOptions(new Command('enrol'))
    .description('ask the master of a site to let this machine in, and wait until somebody has approved it there')
    .option('--site-id <hex>', 'the site, as `mesh machines` on the master shows it', parseSiteId)
    .option('--site-file <file>', 'the site’s first root metadata, 1.root.json, instead of --site-id')
    .option(
      '--master <multiaddr>',
      'where the master is, besides looking for it by multicast DNS (repeatable)',
      (text: string, before: string[] = []) => [...before, parseAddress(text)],
    )
    .option('--disk <disk>', 'block device or file that is to be restored (default: the one it has)')
    .option('--name <name>', 'name to propose (default: its host name, or one made of its network card)', parseMachine)
    .option('--image <name>', 'image it is to have, if the site has several', parseImage)
    .option('--wait <time>', 'how long to wait to be approved (default: for ever)', parseDuration)
    .option('--new-identity', 'ask with a new key: the old one was removed from the site, or copied', false)
    .option('--force', 'accept a disk that is in use', false)
    .addHelpText('after', '\nExample:\n  mesh enrol --site-id 1271915f… --disk /dev/sda3')
    .action(action(run))
}

async function run(context: Context, options: Options): Promise<void> {
  const { enrol } = await import('../../../node/agent/mesh/enrol.ts')
  const { master = [], siteId: _id, siteFile: _file, ...rest } = options
  const siteId = await siteOf(options)
  const enrolled = await enrol({ ...context.agent, ...rest, master, siteId })
  const { site, name, group, image, release, mayWipe } = enrolled
  const wipe = mayWipe ? ' What its disk holds may be wiped.' : ''
  const text = `Enrolled in site ${site} as ${name}, group ${group}; image ${image}, release ${release}.${wipe}`
  context.output.result(
    enrolled,
    `${text}\nNext: \`mesh restore\` brings the disk to the image, \`mesh up\` serves it to the others.`,
  )
}

async function siteOf({ siteId, siteFile }: Options): Promise<Digest> {
  if ((siteId === undefined) === (siteFile === undefined))
    throw new MeshError('USAGE', 'name the site by --site-id or by --site-file')
  if (siteId !== undefined) return siteId
  const bytes = await readFile(siteFile!).catch((cause: unknown) => {
    throw new MeshError('USAGE', `${siteFile} cannot be read (${errnoOf(cause)})`, { cause })
  })
  if (bytes.byteLength > 0 && bytes.byteLength <= MAX_SITE_FILE_BYTES && bytes.includes('"root"'))
    return digestOf(bytes)
  throw new MeshError('USAGE', `${siteFile} is not the root metadata of a site`)
}
