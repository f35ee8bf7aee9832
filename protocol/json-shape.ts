/** Says whether a value that a stranger sent has the type T. */
export type Check<T> = (value: unknown) => value is T

/** What values of a shape are. */
export type Shaped<S> = { readonly [K in keyof S]: S[K] extends Check<infer T> ? T : never }

/** An object with exactly these keys. */
export function object<S extends Readonly<Record<string, Check<unknown>>>>(shape: S): Check<Shaped<S>> {
  const keys = Object.keys(shape)
  return (value): value is Shaped<S> => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
    const fields = value as Record<string, unknown>
    if (Object.keys(fields).length !== keys.length) return false
    return keys.every((key) => Object.hasOwn(fields, key) && shape[key]!(fields[key]))
  }
}

/** Text of at most so many bytes that is safe to show on a terminal. */
export function text(mostBytes: number): Check<string> {
  const fits = anyText(mostBytes)
  return (value): value is string => fits(value) && !/\p{C}/u.test(value)
}

/** Text of at most so many bytes, of whatever characters. */
export function anyText(mostBytes: number): Check<string> {
  return (value): value is string =>
    typeof value === 'string' && value.length <= mostBytes && Buffer.byteLength(value) <= mostBytes
}

/** A whole number from 0. */
export function natural(most = Number.MAX_SAFE_INTEGER): Check<number> {
  return (value): value is number => Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most
}

export const truth: Check<boolean> = (value): value is boolean => typeof value === 'boolean'

export function literal<const T extends string | boolean>(...values: readonly T[]): Check<T> {
  return (value): value is T => values.some((one) => one === value)
}

export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value): value is T | null => value === null || check(value)
}

export function list<T>(check: Check<T>, most: number): Check<readonly T[]> {
  return (value): value is readonly T[] => Array.isArray(value) && value.length <= most && value.every(check)
}
