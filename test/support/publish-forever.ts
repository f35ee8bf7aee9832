import { makeManifest, makeSite } from './site.ts'

/** Child process of the crash test: publishes release after release and prints each when it is durable. */
const { signer, trust } = await makeSite(process.argv[2] ?? '')
for (;;) {
  const release = (trust.view().newest('win')?.release ?? 0) + 1
  await signer.publish(makeManifest({ release }))
  process.stdout.write(`${release}\n`)
}
