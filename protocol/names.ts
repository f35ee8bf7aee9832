const MAX_PLACE_NAME_CHARACTERS = 128

/** Name of a machine, like a host name: letters, digits, dots, dashes and underscores, at most 63 characters. */
export function isMachineName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)
}

/** Name of a site or a group: what a terminal can show, at most 128 characters. */
export function isPlaceName(text: unknown): text is string {
  return typeof text === 'string' && text.length > 0 && text.length <= MAX_PLACE_NAME_CHARACTERS && !/\p{C}/u.test(text)
}

/**
 * Whether two names mean the same machine, group or site to people: `pc07` and `PC07` do, and `Süd` however its `ü` is coded
 * (Unicode normal form C, small letters). Host names do not tell capitals apart either.
 */
export function sameName(a: string, b: string): boolean {
  return folded(a) === folded(b)
}

/** The one of `known` that is spelled like `name`, else one that means the same ({@link sameName}), else undefined. */
export function findName<T>(known: readonly T[], name: string, nameOf: (one: T) => string): T | undefined {
  return known.find((one) => nameOf(one) === name) ?? known.find((one) => sameName(nameOf(one), name))
}

function folded(name: string): string {
  return name.normalize('NFC').toLowerCase()
}
