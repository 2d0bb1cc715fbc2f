/**
 * What a configuration's strings refer to: `${NAME}`, `${NAME:-default}`, `${file:/path}`; `$${` stands
 * for `${` itself. No message holds a value. Imports: nothing.
 */

export interface World {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The text of a file. Throws as Node's `readFileSync`. */
  readonly readFile: (path: string) => string;
}

/** What cannot be filled in, and what to do about it. */
export class BadReference extends Error {
  override readonly name = 'BadReference';
  constructor(
    what: string,
    readonly hint: string,
  ) {
    super(what);
  }
}

const MAX_FILE_BYTES = 1_048_576;

const reference = /\$\$\{|\$\{file:((?:[^{}]|\$\{[^{}]*\})+)\}|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{/g;

export function hasReference(text: string): boolean {
  return text.includes('${');
}

/** @throws `BadReference` */
export function filledIn(text: string, world: World): string {
  // What is filled in is not looked at again: a password may hold any character.
  return text.replace(reference, (match: string, path?: string, name?: string, otherwise?: string) => {
    if (match === '$${') return '${';
    if (path !== undefined) return secret(filledIn(path, world), world);
    if (name !== undefined) return variable(name, otherwise, world);
    throw new BadReference(
      'a ${ that begins nothing that is known',
      'write ${NAME}, ${NAME:-default} or ${file:/path}; $${ where ${ itself is meant',
    );
  });
}

function variable(name: string, otherwise: string | undefined, { environment }: World): string {
  const found = environment[name];
  // As in a shell: with a default, empty is as good as not there.
  if (otherwise !== undefined && (found === undefined || found === '')) return otherwise;
  if (found !== undefined) return found;
  throw new BadReference(
    `the environment has no variable ${name}`,
    `set ${name}, write \${${name}:-default}, or write the value itself`,
  );
}

/** Without the line feed that editors and `echo` put at the end. */
function secret(path: string, { readFile }: World): string {
  let text: string;
  try {
    text = readFile(path);
  } catch (thrown) {
    throw new BadReference(
      `the file ${path} cannot be read (${(thrown as NodeJS.ErrnoException).code ?? 'error'})`,
      'check that it is mounted and that this user may read it',
    );
  }
  if (text.length > MAX_FILE_BYTES)
    throw new BadReference(`the file ${path} is larger than 1 MiB`, 'name the file that holds the value alone');
  return text.replace(/^\uFEFF/, '').replace(/\r?\n$/, '');
}
