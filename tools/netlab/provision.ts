import { publisherOf } from './lab-options.ts'
import { blankDisks, enrol, type Prepared, type Scenario } from './prepare.ts'

/** Machines that joined and have never held anything. */
export async function provision(prepared: Prepared): Promise<Scenario> {
  const { lab, options, machines } = prepared
  await blankDisks(prepared)
  await enrol(lab, publisherOf(options), machines)
  return { target: lab.path('model.img'), release: 1 }
}
