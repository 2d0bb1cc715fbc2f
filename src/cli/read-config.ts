/**
 * Room: a configuration file becomes a checked configuration.
 */
import { readFile } from 'node:fs/promises';
import { extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { checkConfig, type CheckedConfig } from '../config.js';
import { IngestError } from '../errors.js';

/** @throws `KCR_CONFIG` for a file that cannot be read, is not JSON, or has no default export. */
export async function readConfig(path: string): Promise<CheckedConfig> {
  const given = ['.js', '.mjs'].includes(extname(path)) ? await importDefault(path) : await readJson(path);
  return checkConfig(given);
}

async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw unusable(path, error, 'give the path of a readable JSON or ESM (.js, .mjs) file');
  });
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw unusable(path, error, 'the file must be JSON; for functions use an ESM file that ends in .mjs');
  }
}

async function importDefault(path: string): Promise<unknown> {
  const loaded = (await import(pathToFileURL(resolve(path)).href).catch((error: unknown) => {
    throw unusable(path, error, 'the file must be an ESM file that can be imported');
  })) as { readonly default?: unknown };
  if (loaded.default !== undefined) return loaded.default;
  throw unusable(path, 'it has no default export', 'write `export default { kafka: …, … }`');
}

function unusable(path: string, cause: unknown, hint: string): IngestError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new IngestError('KCR_CONFIG', `The configuration ${path} cannot be read: ${reason}`, { hint, cause });
}
