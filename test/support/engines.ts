// The families of tables that keep tokens: on the server's own disk, or in Keeper.
import { randomUUID } from 'node:crypto';
import { replicationFaultHere } from '../stack/clickhouse.js';
import { command } from '../stack/clients.js';

export interface EngineFamily {
  readonly name: 'plain' | 'replicated';
  /** The setting that says how many tokens the table keeps. */
  readonly window: 'non_replicated_deduplication_window' | 'replicated_deduplication_window';
  /** What stands behind `ENGINE =`, each time for another table. `keys`: PARTITION BY, ORDER BY; `settings`: more than the window. */
  engine(keys: string, options?: EngineOptions): string;
}

interface EngineOptions {
  /** @default 10000 */
  readonly window?: number;
  readonly settings?: string;
}

const withSettings = (
  family: Pick<EngineFamily, 'window'>,
  keys: string,
  { window = 10_000, settings = '' }: EngineOptions = {},
): string => `${keys} SETTINGS ${family.window} = ${window}${settings === '' ? '' : `, ${settings}`}`;

export const plain: EngineFamily = {
  name: 'plain',
  window: 'non_replicated_deduplication_window',
  engine: (keys, options) => `MergeTree ${withSettings(plain, keys, options)}`,
};

/** One replica, at a path of its own. */
export const replicated: EngineFamily = {
  name: 'replicated',
  window: 'replicated_deduplication_window',
  engine: (keys, options) =>
    `ReplicatedMergeTree('/tables/${randomUUID()}', 'one') ${withSettings(replicated, keys, options)}`,
};

export const families: readonly EngineFamily[] = [plain, replicated];

/** Those that a ClickHouse of the test's own can have; says aloud what it leaves out. */
export function familiesHere(): readonly EngineFamily[] {
  return told(replicationFaultHere());
}

/** Those that the server at `url` can have, whoever started it. */
export async function familiesAt(url: string): Promise<readonly EngineFamily[]> {
  return told(await replicationFault(url));
}

function told(fault: string | undefined): readonly EngineFamily[] {
  if (fault === undefined) return families;
  console.log(`skipped, since there are no replicated tables here: ${fault}`);
  return [plain];
}

/** Why there can be no replicated tables; undefined: one was made and written to. */
async function replicationFault(url: string): Promise<string | undefined> {
  const table = `replicated_${randomUUID().replaceAll('-', '')}`;
  try {
    await command(url, `CREATE TABLE ${table} (n UInt8) ENGINE = ${replicated.engine('ORDER BY n')}`);
    await command(url, `INSERT INTO ${table} VALUES (1)`, { settings: { insert_keeper_max_retries: 3 } });
    return undefined;
  } catch (error) {
    return String(error);
  } finally {
    await command(url, `DROP TABLE IF EXISTS ${table} SYNC`).catch(() => undefined);
  }
}
