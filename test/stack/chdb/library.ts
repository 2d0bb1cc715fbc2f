// The engine that the npm package chdb brings, as a command that serves it over HTTP.
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { graftFor, type Graft } from './grafts.js';

const HOST = fileURLToPath(new URL('host.mjs', import.meta.url));

export interface ChdbCommand {
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
}

/** `needs`: throws where these cannot be grafted in. `wants`: it does without where they cannot. */
export function chdbCommand(
  configFile: string,
  dataDir: string,
  httpPort: number,
  { needs, wants }: Record<'needs' | 'wants', readonly Graft[]>,
): ChdbCommand {
  const library = libchdb();
  const grafts = [...needs, ...wants].flatMap((graft) => {
    const made = graftFor(library, graft);
    if ('library' in made) return [made.library];
    if (needs.includes(graft)) throw new Error(`${graft} cannot be grafted in here: ${made.fault}`);
    return [];
  });
  return {
    command: [
      process.execPath,
      HOST,
      library,
      `--config-file=${configFile}`,
      `--path=${dataDir}`,
      '--log-level=warning',
      '--listen_host=127.0.0.1',
      `--http_port=${httpPort}`,
      // This query never ends, for standard input does not: it keeps the server up.
      '--structure=l String',
      '--input-format=LineAsString',
      '--table=lifeline',
      '--query=SYSTEM START LISTEN HTTP; SELECT count() FROM lifeline FORMAT Null',
    ],
    env: { CHDB_GRAFTS: grafts.join(delimiter) },
  };
}

/** Why this cannot be grafted in here; undefined: it can. */
export function graftFault(graft: Graft): string | undefined {
  const made = graftFor(libchdb(), graft);
  return 'fault' in made ? made.fault : undefined;
}

/** The engine's library, in the platform package that npm has installed with chdb. */
function libchdb(): string {
  const fromHere = createRequire(import.meta.url);
  const fromChdb = createRequire(fromHere.resolve('chdb/package.json'));
  const libc = process.platform === 'linux' ? '-gnu' : '';
  const name = `@chdb/lib-${process.platform}-${process.arch}${libc}`;
  try {
    return join(fromChdb.resolve(`${name}/package.json`), '..', 'libchdb.so');
  } catch (cause) {
    const way = 'put a clickhouse binary on the PATH, or set CLICKHOUSE_URL';
    throw new Error(`No ClickHouse here: the npm package ${name} is not installed; ${way}`, { cause });
  }
}
