/**
 * The queue of the simulated server in which inserts wait for others, to be written together, as ClickHouse's
 * asynchronous inserts are. It is in the server's memory: a kill takes what waits. What was measured of the
 * real one is in `docs/guarantees.md`. Imports: errors, ports, rxjs.
 */
import type { SchedulerLike, Subscription } from 'rxjs';
import { IngestError } from '../errors.js';
import type { InsertBatch } from '../ports.js';
import type { Killed } from './faults.js';
import type { Outcome } from './process.js';
import type { Row, SimulatedTable } from './table.js';
import type { InvariantChecker } from './invariant-checker.js';

export interface Waiting {
  readonly batch: InsertBatch;
  readonly rows: readonly Row[];
  readonly token: string;
  readonly killed: Killed;
  /** It reaches the table, or some of it may have. */
  readonly landed: () => void;
  /** Of an insert that was refused with the others: the row at fault, counted from 1 over the rows of all. */
  readonly done: (outcome: Outcome<{ readonly refusedRow: number | undefined }>) => void;
}

export class InsertQueue {
  #waiting: Waiting[] = [];
  #timer: Subscription | undefined;

  constructor(
    private readonly scheduler: SchedulerLike,
    private readonly waitMs: number,
    private readonly table: SimulatedTable,
    private readonly watch: InvariantChecker,
  ) {}

  push(insert: Waiting): void {
    this.#waiting.push(insert);
    if (insert.killed === 'early') {
      this.table.startedMs += 60_000;
      return this.lose();
    }
    this.#timer ??= this.scheduler.schedule(() => this.#write(), this.waitMs);
  }

  has(isIt: (token: string) => boolean): boolean {
    return this.#waiting.some(({ token }) => isIt(token));
  }

  /** The server was killed: what waits was never answered, and never lands. */
  lose(): void {
    for (const { done } of this.#take()) done({ error: broken() });
  }

  #take(): readonly Waiting[] {
    const taken = this.#waiting;
    this.#waiting = [];
    this.#timer?.unsubscribe();
    this.#timer = undefined;
    return taken;
  }

  #write(): void {
    const together = this.#take();
    const killedAt = together.findIndex(({ killed }) => killed !== undefined);
    const isKilled = killedAt >= 0;
    const isTorn = isKilled && this.table.config.family !== 'replicated';
    // A kill in the middle can tear each of those whose tokens were noted.
    if (isTorn) for (const { batch } of together.slice(0, killedAt + 1)) this.watch.torn(batch);
    const refusedRow = this.table.insertTogether(together, {
      nowMs: this.scheduler.now(),
      ...(isTorn ? { dieAtInsert: killedAt } : {}),
    });
    if (refusedRow === undefined) for (const { landed } of together) landed();
    const isBroken = isKilled && refusedRow === undefined;
    for (const { done } of together) done(isBroken ? { error: broken() } : { value: { refusedRow } });
  }
}

function broken(): IngestError {
  return new IngestError('KCR_INSERT_IN_DOUBT', 'the connection broke');
}
