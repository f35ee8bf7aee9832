/** Limits of what protects the keys of a site. */

/**
 * What scrypt costs for a new sealed file (RFC 7914): N = 2^17, r = 8, p = 1. One guess takes 128 MiB and about half a second of one
 * core. Files with other numbers are read if N is between 2^14 and 2^20 (1 GiB).
 */
export const SCRYPT_COST = 2 ** 17
export const SCRYPT_COSTS = [2 ** 14, 2 ** 20] as const
export const SCRYPT_BLOCK_SIZE = 8
/** Bytes of salt (RFC 7914), and of what AES-256-GCM takes and adds (NIST SP 800-38D). */
export const SALT_BYTES = 16
export const SEAL_KEY_BYTES = 32
export const NONCE_BYTES = 12
export const TAG_BYTES = 16
/** Bytes by which a wrong passphrase is told from a damaged file. They cost a guesser as much as the seal itself. */
export const PROOF_BYTES = 16
/** Bytes of a sealed file: the metadata of 4096 members and 10,000 releases are 20 MiB. */
export const MAX_SEALED_BYTES = 128 * 1024 * 1024
/** Characters of a passphrase: four words of a list, or twelve random letters. */
export const MIN_PASSPHRASE_CHARACTERS = 12
/** Keys of one role: people who each have one. */
export const MAX_ROLE_KEYS = 16
/** Versions that a master skips when another one has signed with its keys: more than the other one can have signed meanwhile. */
export const FORK_STEP = 1000
/** Bytes of the number that a master signs with, so that another one made from its copy is noticed. */
export const TERM_BYTES = 16
