import { join } from 'node:path'
import { type Node, SyntaxKind } from 'typescript/unstable/ast'
import { API } from 'typescript/unstable/sync'

const ROOT = join(import.meta.dirname, '../..')

/** A function, method or arrow function of a source file. */
export interface FoundFunction {
  readonly path: string
  /** Its name; for one without a name the name of the nearest one around it, with an arrow behind. */
  readonly name: string
  /** From its first line to its last, without the comment above it. */
  readonly lines: number
}

const FUNCTIONS: ReadonlySet<SyntaxKind> = new Set([
  SyntaxKind.FunctionDeclaration,
  SyntaxKind.FunctionExpression,
  SyntaxKind.ArrowFunction,
  SyntaxKind.MethodDeclaration,
  SyntaxKind.Constructor,
  SyntaxKind.GetAccessor,
  SyntaxKind.SetAccessor,
])

/** Every function of these files (paths from the root), nested ones included. */
export function functionsOf(paths: readonly string[]): FoundFunction[] {
  const api = new API({ cwd: ROOT })
  try {
    const [project] = api.updateSnapshot({ openProjects: ['tsconfig.json'] }).getProjects()
    return paths.flatMap((path) => {
      const file = project?.program.getSourceFile(join(ROOT, path))
      if (file === undefined) throw new Error(`${path} is not part of tsconfig.json`)
      const found: FoundFunction[] = []
      collect(file, path, '', file.text, found)
      return found
    })
  } finally {
    api.close()
  }
}

function collect(node: Node, path: string, around: string, text: string, found: FoundFunction[]): void {
  let name = around
  if (FUNCTIONS.has(node.kind)) {
    const own = (node as Node & { readonly name?: { readonly text?: string } }).name?.text
    name = node.kind === SyntaxKind.Constructor ? 'constructor' : (own ?? `${around} =>`)
    found.push({ path, name, lines: text.slice(node.getStart(), node.end).split('\n').length })
  }
  node.forEachChild((child) => collect(child, path, name, text, found))
}
