/** A block that GRUB loads and saves variables in is a multiple of this (GNU GRUB Manual, “Environment block”). */
const UNIT_BYTES = 1024
const FIRST_LINE = '# GRUB Environment Block\n'

/** The block with these variables. Values have no line breaks. */
export function grubEnv(values: Readonly<Record<string, string>>): Buffer {
  const lines = Object.entries(values).map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\')}\n`)
  const text = Buffer.from(`${FIRST_LINE}${lines.join('')}`)
  const block = Buffer.alloc(Math.ceil(text.byteLength / UNIT_BYTES) * UNIT_BYTES, '#')
  text.copy(block)
  return block
}
