import { describe, expect, it } from 'vitest'
import { summarise } from '../../tools/test-summary.ts'

const report = { numPassedTests: 10, numFailedTests: 0, numPendingTests: 2, numTodoTests: 1 }

describe('the closing line of npm test', () => {
  it.each([
    ['everything passed', report, [], '10 passed, 0 failed, 3 skipped'],
    ['a test failed', { ...report, numFailedTests: 2 }, ['tests'], '10 passed, 2 failed, 3 skipped'],
    ['a file did not load', report, ['tests'], '10 passed, 1 failed, 3 skipped'],
    ['linter and tests failed', { ...report, numFailedTests: 2 }, ['lint', 'tests'], '10 passed, 3 failed, 3 skipped'],
    ['vitest made no report', undefined, ['tests'], '0 passed, 1 failed, 0 skipped'],
  ])('when %s', (_, given, failed, expected) => expect(summarise(given, failed)).toBe(expected))
})
