import { type Check, natural, object } from '../protocol/json-shape.ts'

/** The part of vitest's JSON report that is used. */
export interface TestReport {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
}

/** The part of Vitest's report that is used here. */
export const isTestReport: Check<TestReport> = object({
  numPassedTests: natural(),
  numFailedTests: natural(),
  numPendingTests: natural(),
  numTodoTests: natural(),
})

/**
 * The closing line of `npm test`. Each step that failed counts as one failure. If the tests failed without a failed
 * test to show for it (a file that does not load, an error outside of any test, no report), that counts as one failure,
 * too.
 */
export function summarise(report: TestReport | undefined, failedSteps: readonly string[]): string {
  const others = failedSteps.filter((step) => step !== 'tests').length
  const unnamed = report === undefined || failedSteps.includes('tests') ? 1 : 0
  const failed = Math.max(report?.numFailedTests ?? 0, unnamed) + others
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0)
  return `${report?.numPassedTests ?? 0} passed, ${failed} failed, ${skipped} skipped`
}
