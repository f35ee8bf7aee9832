const MAX_PLACE_NAME_CHARACTERS = 128

/** Name of a machine, like a host name: letters, digits, dots, dashes and underscores, at most 63 characters. */
export function isMachineName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)
}

/** Name of a site or a group: what a terminal can show, at most 128 characters. */
export function isPlaceName(text: unknown): text is string {
  return typeof text === 'string' && text.length > 0 && text.length <= MAX_PLACE_NAME_CHARACTERS && !/\p{C}/u.test(text)
}
