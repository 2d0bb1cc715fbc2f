/**
 * What the simulated sink and its looks share. Imports: clickhouse/insert, clickhouse/verify, errors, model.
 */
import type { ServerIdentity } from '../clickhouse/insert/settings.js';
import type { TableNow } from '../clickhouse/verify/evidence.js';
import { IngestError } from '../errors.js';
import type { Intent } from '../model/state.js';
import type { InvariantChecker } from './invariant-checker.js';
import type { InsertQueue } from './queue.js';
import type { SimulatedTable } from './table.js';

export interface SinkSurroundings {
  readonly table: SimulatedTable;
  readonly watch: InvariantChecker;
  nowMs(): number;
  isTableDown(): boolean;
  /** Whatever is inserted is refused, by a code that nobody knows. */
  isTableRefusing(): boolean;
  /** A request with this token was sent and has not taken effect yet. */
  isRunning(token: string): boolean;
  readonly queue: InsertQueue;
}

/** What a broken sink does not mind when it looks: which columns were written, or which table it is. */
export type Ignored = 'columns' | 'table';

/** How the inserts of a process are sent. */
export interface Sending {
  /** Rows of a block that the table makes of them. */
  readonly blockRows: number;
  /** They wait for others. */
  readonly asyncInserts: boolean;
  /** What several were refused for together is taken for what is wrong with each. */
  readonly isCredulous: boolean;
  readonly ignores: Ignored | undefined;
}

export const settings = 'pinned';
/** Looked up when it is asked for. */
export const serverOf = (table: SimulatedTable): ServerIdentity => ({
  version: 'simulated',
  get startedMs() {
    return table.startedMs;
  },
});

/** The table as one takes it for that does not mind which it is. */
export function overlooking(
  now: TableNow,
  { written }: Pick<Intent, 'written'>,
  ignores: Ignored | undefined,
): TableNow {
  return ignores === 'table' && written?.id !== undefined ? { ...now, id: written.id } : now;
}

export function unreachable(): IngestError {
  return new IngestError('KCR_CLICKHOUSE_UNREACHABLE', 'the server is down');
}
