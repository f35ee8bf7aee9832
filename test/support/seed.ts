/** A seed from MESH_TEST_SEED, or a fresh one; printed so that a failing run can be repeated. */
export function testSeed(name: string): number {
  const seed =
    process.env.MESH_TEST_SEED === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(process.env.MESH_TEST_SEED)
  console.log(`${name}: seed ${seed} (repeat with MESH_TEST_SEED=${seed})`)
  return seed
}
