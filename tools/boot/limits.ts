/** Limits of making the agent. */

/** Longest time of one tool: compressing and writing 100 MB takes a minute on an old machine. */
export const BUILD_TOOL_DEADLINE_MS = 30 * 60 * 1000
/** A tool lists files and libraries, no more. */
export const BUILD_TOOL_OUTPUT_BYTES = 16 * 1024 ** 2
/** zstd's level: 19 is the best that needs no more memory to unpack (a window of 8 MiB) than the kernel gives. */
export const DEFAULT_LEVEL = 19
/** Times of files in what is built, in seconds since 1970: 1980-01-01, the first that FAT knows. */
export const BUILD_EPOCH_SECONDS = 315_532_800
/** GRUB refuses to be larger, since it is loaded below the first MiB of memory. */
export const MAX_BIOS_CORE_BYTES = 480 * 1024
/** Files of an agent: kernel, initramfs, EFI program, image, script, and a few more in time to come. */
export const MAX_AGENT_FILES = 16
/** Glyphs of a font: the kernel's console has nine bits for one. */
export const FONT_GLYPHS = 512
/** Rows of points in a glyph of the console, which is 8 points wide: one byte each. */
export const GLYPH_ROWS = 16
