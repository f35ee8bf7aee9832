import type { MeshError } from '../../protocol/errors.ts'

/** How an error is told to people: what happened, then what to do. */
export function errorLines({ message, advice }: MeshError): string {
  return `mesh: ${message}\n      ${advice}\n`
}

/** How an error is told to programs: one line, the last one that a command prints. */
export function errorJson({ code, message, advice, detail }: MeshError): string {
  return `${JSON.stringify({ event: 'error', code, message, advice, detail })}\n`
}
