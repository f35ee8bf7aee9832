/** Says whether a value that a stranger sent has the type T. */
export type Check<T> = ((value: unknown) => value is T) & Parts

/** What a check looks at inside of a value, so that {@link wrongPart} can name what is wrong. */
interface Parts {
  readonly keys?: Readonly<Record<string, Check<unknown>>>
  readonly item?: Check<unknown>
}

/** A key that may be absent, for example because it came later than others. */
type Optional<T> = Check<T> & { readonly optional: true }

type Shape = Readonly<Record<string, Check<unknown>>>
type Of<C> = C extends (value: unknown) => value is infer T ? T : never

/** What values of a shape are. */
export type Shaped<S> = {
  readonly [K in keyof S as S[K] extends Optional<unknown> ? never : K]: Of<S[K]>
} & {
  readonly [K in keyof S as S[K] extends Optional<unknown> ? K : never]?: Of<S[K]>
}

/** An object with these keys. Others are skipped, so that a later version may add some (docs/PROTOCOL.md, "How documents grow"). */
export function object<const S extends Shape>(shape: S): Check<Shaped<S>> {
  const check = (value: unknown): value is Shaped<S> => isRecord(value) && wrongKey(shape, value) === undefined
  return Object.assign(check, { keys: shape })
}

/** A key that may be left out. A key that is there must pass `check`. */
export function optional<T>(check: Check<T>): Optional<T> {
  const same = (value: unknown): value is T => check(value)
  return Object.assign(same, partsOf(check), { optional: true as const })
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

/** A finite number. */
export const real: Check<number> = (value): value is number => Number.isFinite(value)

/** `true` or `false`. */
export const truth: Check<boolean> = (value): value is boolean => typeof value === 'boolean'

/** Any object, whatever its keys. */
export const isRecord: Check<Record<string, unknown>> = (value): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A moment in UTC as `Date` writes it: `2026-11-01T22:00:00.000Z`. */
export const time: Check<string> = (value): value is string => {
  const ms = typeof value === 'string' ? Date.parse(value) : Number.NaN
  return !Number.isNaN(ms) && new Date(ms).toISOString() === value
}

/** One of these values. */
export function literal<const T extends string | boolean>(...values: readonly T[]): Check<T> {
  return (value): value is T => values.some((one) => one === value)
}

/** What passes `check`, or null. */
export function nullable<T>(check: Check<T>): Check<T | null> {
  const orNull = (value: unknown): value is T | null => value === null || check(value)
  return Object.assign(orNull, partsOf(check))
}

/** An array of at most `most` elements that all pass `check`. */
export function list<T>(check: Check<T>, most: number): Check<readonly T[]> {
  const all = (value: unknown): value is readonly T[] =>
    Array.isArray(value) && value.length <= most && value.every(check)
  return Object.assign(all, { item: check })
}

/** A value that has one of two shapes. */
export function either<A, B>(a: Check<A>, b: Check<B>): Check<A | B> {
  return (value): value is A | B => a(value) || b(value)
}

/** A value that passes a check of which more is asked. */
export function which<T, U extends T = T>(check: Check<T>, isSo: (value: T) => boolean): Check<U> {
  const both = (value: unknown): value is U => check(value) && isSo(value)
  return Object.assign(both, partsOf(check))
}

/** The first part of a value that does not pass its check, such as `members[3].name`; '' if it is the value itself. */
export function wrongPart(check: Check<unknown>, value: unknown): string {
  const { keys, item } = check
  if (keys !== undefined && isRecord(value)) {
    const key = wrongKey(keys, value)
    return key === undefined ? '' : joined(key, wrongPart(keys[key]!, value[key]))
  }
  if (item !== undefined && Array.isArray(value)) {
    const index = value.findIndex((one) => !item(one))
    return index === -1 ? '' : joined(`[${index}]`, wrongPart(item, value[index]))
  }
  return ''
}

function joined(part: string, inner: string): string {
  return inner === '' || inner.startsWith('[') ? part + inner : `${part}.${inner}`
}

function wrongKey(shape: Shape, value: Record<string, unknown>): string | undefined {
  return Object.keys(shape).find((key) => {
    const check = shape[key]!
    return Object.hasOwn(value, key) ? !check(value[key]) : !('optional' in check)
  })
}

function partsOf({ keys, item }: Check<unknown>): Parts {
  return { ...(keys === undefined ? {} : { keys }), ...(item === undefined ? {} : { item }) }
}
