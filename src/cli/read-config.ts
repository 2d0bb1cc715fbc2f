/**
 * A configuration file becomes a checked configuration. What stands in the file is never told.
 * Imports: Node, config, errors.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { checkConfig, type CheckedConfig } from '../config/config.js';
import { BadSyntax, parseJson, parseYaml } from '../config/syntax.js';
import { IngestError } from '../errors.js';

/** @throws `KCR_CONFIG` for a file that cannot be read, is neither JSON nor YAML, or has no default export. */
export async function readConfig(path: string): Promise<CheckedConfig> {
  return checkConfig(await readGiven(path));
}

async function readGiven(path: string): Promise<unknown> {
  switch (extname(path).toLowerCase()) {
    case '.js':
    case '.mjs':
      return importDefault(path);
    case '.yaml':
    case '.yml':
      return parsed(path, parseYaml, 'the file must be YAML');
    default:
      return parsed(
        path,
        parseJson,
        'the file must be JSON; YAML ends in .yaml, and for functions there are ESM files, which end in .mjs',
      );
  }
}

async function parsed(path: string, parse: (text: string) => unknown, hint: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw unusable(
      path,
      error.code === 'ENOENT' ? 'there is no such file' : (error.code ?? 'it cannot be opened'),
      'give the path of a readable JSON, YAML or ESM (.js, .mjs) file',
    );
  });
  try {
    return parse(text);
  } catch (error) {
    throw unusable(path, error instanceof BadSyntax ? error.message : 'it cannot be parsed', hint);
  }
}

let imports = 0;

async function importDefault(path: string): Promise<unknown> {
  const file = resolve(path);
  const url = pathToFileURL(file);
  // Node keeps a module by its address: read again, it needs another one. What it imports stays as it was.
  imports += 1;
  if (imports > 1) url.searchParams.set('read', String(imports));
  const loaded = (await import(url.href).catch(async (error: unknown) => {
    throw unusable(path, await importFault(file, error), 'the file must be an ESM file that can be imported');
  })) as { readonly default?: unknown };
  if (loaded.default !== undefined) return loaded.default;
  throw unusable(path, 'it has no default export', 'write `export default { kafka: …, … }`');
}

/** What Node itself says of a script quotes it; what the script throws, or what is not found, is said for people. */
async function importFault(file: string, thrown: unknown): Promise<string> {
  if (!(thrown instanceof Error)) return 'it throws';
  if (thrown instanceof SyntaxError) return `${await syntaxPlace(file)}: this is not JavaScript`;
  const url = pathToFileURL(file).href;
  const [, line, column] =
    new RegExp(`${url.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}:(\\d+):(\\d+)`).exec(thrown.stack ?? '') ?? [];
  const place = line === undefined ? '' : `line ${line}, column ${column}: `;
  const isOfNode = thrown instanceof ReferenceError || thrown instanceof TypeError || thrown instanceof RangeError;
  return `${place}${isOfNode ? `it throws a ${thrown.name}: a name without quotes, perhaps` : thrown.message}`;
}

const CHECK_LIMIT_MS = 10_000;

/** Node tells where only when it prints the error itself. */
function syntaxPlace(file: string): Promise<string> {
  return new Promise((settle) => {
    execFile(process.execPath, ['--check', file], { timeout: CHECK_LIMIT_MS }, (_error, _stdout, stderr) => {
      const [, line, indent] = /^.*:(\d+)\r?\n.*\n(\s*)\^/.exec(stderr) ?? [];
      settle(
        line === undefined
          ? 'in this file or one that it imports'
          : `line ${line}, column ${(indent ?? '').length + 1}`,
      );
    });
  });
}

function unusable(path: string, reason: string, hint: string): IngestError {
  return new IngestError('KCR_CONFIG', `The configuration ${path} cannot be read: ${reason}`, { hint });
}
