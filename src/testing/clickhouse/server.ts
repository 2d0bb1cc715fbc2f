/**
 * A simulated ClickHouse: what it does with the requests that reach it, in virtual time. Its table, the queue of
 * inserts that wait for others, its kills and starts. Imports: rxjs, testing.
 */
import type { SchedulerLike, Subscription } from 'rxjs';
import type { Killed } from '../faults.js';
import type { Outcome } from '../process.js';
import type { Block, Row, SimulatedTable } from '../table.js';
import { deathBy, refusalAt, rowsIn, success, Work, type Refuses } from './inserts.js';
import { answerTo, TABLE, type Asked } from './questions.js';
import { Broken, exception, UnknownStatement, type Insert, type Request, type Response } from './requests.js';
import type { ServerFault } from './server-faults.js';
import { Effective, type Settings } from './settings.js';

export interface ServerConfig {
  /** The settings of the user's profile, which a request may override. @default none */
  readonly profile?: Settings;
  /** Between two blocks of one insert, milliseconds. @default 0 */
  readonly blockMs?: number;
  /** Between a kill and the next start, milliseconds. @default 20 */
  readonly restartMs?: number;
  /** How the server refuses a row: with its number, as a constraint does, or without a number. @default 'row' */
  readonly refuses?: Refuses;
}

/** Told what becomes of inserts, by the token that they were sent with. */
export interface ServerWatch {
  arrived(token: string, rows: number, blockRows: number): void;
  /** It was not refused. */
  landed(token: string): void;
  /** All of its blocks are there for good, and the token is known for each of them. */
  took(token: string): void;
  torn(token: string): void;
}

type Done = (outcome: Outcome<Response>) => void;

/** An insert that the server is at. */
interface Running {
  readonly queryId: string;
  readonly done: Done;
  timer: Subscription | undefined;
}

/** An insert that waits for others. */
interface Waiting extends Running {
  readonly token: string;
  readonly rows: readonly Row[];
  readonly killed: Killed;
}

/** The server checks by itself whether it keeps a part of which Keeper has not told. */
const CHECK_MS = 300_000;
const QUERY_IS_RUNNING = 216;

export class SimulatedClickHouse {
  startedMs = -1_000_000;
  /** What no server would have been sent, and what no row may say. */
  readonly oddities: string[] = [];
  readonly #running = new Set<Running>();
  #waiting: Waiting[] = [];
  #flush: Subscription | undefined;
  #unknownParts = 0;
  #downUntilMs = -Infinity;

  constructor(
    private readonly scheduler: SchedulerLike,
    readonly table: SimulatedTable,
    private readonly watch: ServerWatch,
    private readonly config: ServerConfig = {},
  ) {}

  /** Nobody can connect for so long; it is not started again. */
  down(ms: number): void {
    this.#downUntilMs = this.#nowMs() + ms;
  }

  /** As by SIGKILL, and a start: every request that it is at breaks. */
  kill(): void {
    const { restartMs = 20 } = this.config;
    const broken = [...this.#running, ...this.#waiting];
    for (const running of this.#running) this.#ended(running);
    this.table.busy -= this.#waiting.length;
    this.#waiting = [];
    this.#flush?.unsubscribe();
    this.#flush = undefined;
    this.startedMs = this.#nowMs() + restartMs;
    this.down(restartMs);
    for (const { done } of broken) done({ error: new Broken('sent') });
  }

  /** A request reaches it. */
  receive(
    request: Request,
    done: Done,
    { killed, fault }: { readonly killed?: Killed; readonly fault?: ServerFault | undefined } = {},
  ): void {
    if (this.#nowMs() < this.#downUntilMs) return done({ error: new Broken('connecting') });
    if (fault?.kind === 'balancer') return done({ value: { status: 200, headers: {}, text: '' } });
    if (fault?.kind === 'page')
      return done({ value: { status: fault.status, headers: {}, text: '<html><body>gateway</body></html>' } });
    if (request.kind === 'insert') return this.#insert(request, done, killed, fault);
    if (fault?.kind === 'answer') return done({ value: exception(fault.code, request.queryId) });
    if (fault?.kind === 'die' || killed !== undefined) {
      this.kill();
      return done({ error: new Broken('sent') });
    }
    try {
      const answer = answerTo(this.#asked(), request);
      if (fault?.kind === 'slow') this.scheduler.schedule(() => done({ value: answer }), fault.ms);
      else done({ value: answer });
    } catch (error) {
      if (!(error instanceof UnknownStatement)) throw error;
      this.oddities.push(error.message);
      done({ value: exception(62, request.queryId) });
    }
  }

  #asked(): Asked {
    return {
      table: this.table,
      profile: this.config.profile ?? {},
      nowMs: this.#nowMs(),
      startedMs: this.startedMs,
      version: '26.7.2.1',
      unknownParts: this.#unknownParts,
      running: [...this.#running].map(({ queryId }) => queryId),
      queued: this.#waiting.map(({ queryId }) => queryId),
    };
  }

  #insert(insert: Insert, done: Done, killed: Killed, fault: ServerFault | undefined): void {
    const { queryId, settings } = insert;
    const answer = (response: Response) => done({ value: response });
    const [, database, name] = /^INSERT INTO `([^`]+)`\.`([^`]+)` FORMAT JSONEachRow$/.exec(insert.text) ?? [];
    if (database !== 'default' || name !== TABLE) {
      this.oddities.push(`the simulated server does not know: ${insert.text}`);
      return answer(exception(62, queryId));
    }
    const isAtIt = [...this.#running, ...this.#waiting].some((one) => one.queryId === queryId);
    if (isAtIt) return answer(exception(QUERY_IS_RUNNING, queryId));
    if (this.table.definition.isGone) return answer(exception(60, queryId));
    if (fault?.kind === 'answer' && fault.landed === 'nothing') return answer(exception(fault.code, queryId));
    const effective = new Effective(this.config.profile ?? {}, settings);
    const rows = this.#rowsOf(insert, effective);
    const token = effective.keepsTokens ? settings['insert_deduplication_token'] : undefined;
    if (token !== undefined) this.watch.arrived(token, rows.length, effective.blockRows);
    if (effective.text('async_insert') === '1' && token !== undefined)
      return this.#wait({ queryId, token, rows, killed, done, timer: undefined }, effective);
    const refused = rows.findIndex((row) => this.table.isPoison(row));
    if (refused >= 0) return answer(this.#refusal(queryId, refused + 1));
    if (effective.breaksOff && fault?.kind === 'slow') return answer(this.#success(queryId, 0));
    const work = new Work(this.table.blocksOf(rows, effective.blockRows), token, {
      killed,
      fault,
      isPlain: this.table.config.family !== 'replicated',
      feedsViewsAgain: effective.text('deduplicate_blocks_in_dependent_materialized_views') !== '1',
    });
    this.#begin({ queryId, done, timer: undefined }, work, rows.length);
  }

  #begin(running: Running, work: Work, rows: number): void {
    this.#running.add(running);
    this.table.busy += 1;
    const { fault } = work.how;
    if (fault?.kind === 'slow')
      running.timer = this.scheduler.schedule(() => this.#next(running, work, rows), fault.ms);
    else this.#next(running, work, rows);
  }

  /** The next block, or the end. */
  #next(running: Running, work: Work, rows: number): void {
    const { killed, fault, isPlain, feedsViewsAgain } = work.how;
    const { token } = work;
    const dies = deathBy(killed) ?? (fault?.kind === 'die' ? fault : undefined);
    const block = work.blocks[work.done];
    const isStopped = fault?.kind === 'answer' && fault.landed === 'first' && work.done >= 1;
    if (dies !== undefined && (work.done >= dies.afterBlocks || block === undefined)) {
      if (dies.isTorn && isPlain && block !== undefined) {
        if (token !== undefined) this.watch.torn(token);
        this.table.land(block, token, { nowMs: this.#nowMs(), isTorn: true });
      }
      return this.kill();
    }
    if (block !== undefined && !isStopped) {
      const isUnknown =
        fault?.kind === 'unknown part' &&
        !isPlain &&
        this.table.views.size === 0 &&
        !(token !== undefined && this.table.knownBlocks().includes(`${token}|${block[0]}`));
      if (isUnknown) this.#landUnknown(block, token, fault.isKept);
      else this.table.land(block, token, { nowMs: this.#nowMs(), feedsViewsAgain });
      work.done += 1;
      if (work.done < work.blocks.length) {
        const { blockMs = 0 } = this.config;
        if (blockMs > 0) running.timer = this.scheduler.schedule(() => this.#next(running, work, rows), blockMs);
        else this.#next(running, work, rows);
        return;
      }
    }
    this.#ended(running);
    const isDropped = fault?.kind === 'unknown part' && !isPlain && !fault.isKept;
    if (token !== undefined && !isStopped) this.watch.landed(token);
    if (token !== undefined && !isStopped && !isDropped) this.watch.took(token);
    if (fault?.kind === 'answer') return running.done({ value: exception(fault.code, running.queryId) });
    if (fault?.kind === 'unknown part' && !isPlain) return running.done({ value: exception(319, running.queryId) });
    running.done({ value: this.#success(running.queryId, rows) });
  }

  #landUnknown(block: Block, token: string | undefined, isKept: boolean): void {
    this.#unknownParts += 1;
    this.table.busy += 1;
    this.table.land(block, isKept ? token : undefined, { nowMs: this.#nowMs() });
    this.scheduler.schedule(() => {
      this.#unknownParts -= 1;
      this.table.busy -= 1;
      if (!isKept) this.table.drop(block);
    }, CHECK_MS);
  }

  #ended(running: Running): void {
    if (!this.#running.delete(running)) return;
    this.table.busy -= 1;
    running.timer?.unsubscribe();
  }

  #wait(insert: Waiting, effective: Effective): void {
    this.#waiting.push(insert);
    this.table.busy += 1;
    if (insert.killed === 'early') return this.kill();
    this.#flush ??= this.scheduler.schedule(() => this.#write(), effective.number('async_insert_busy_timeout_max_ms'));
    if (effective.text('wait_for_async_insert') !== '1')
      insert.done({ value: this.#success(insert.queryId, insert.rows.length) });
  }

  /** What waits, as one block for each ClickHouse partition. */
  #write(): void {
    const together = this.#waiting;
    this.table.busy -= together.length;
    this.#waiting = [];
    this.#flush = undefined;
    const killedAt = together.findIndex(({ killed }) => killed !== undefined);
    const isPlain = this.table.config.family !== 'replicated';
    const isTorn = killedAt >= 0 && isPlain;
    if (isTorn) for (const { token } of together.slice(0, killedAt + 1)) this.watch.torn(token);
    const refusedRow = this.table.insertTogether(together, {
      nowMs: this.#nowMs(),
      ...(isTorn ? { dieAtInsert: killedAt } : {}),
    });
    if (killedAt >= 0 && refusedRow === undefined) {
      this.kill();
      for (const { done } of together) done({ error: new Broken('sent') });
      return;
    }
    for (const { queryId, token, rows, done } of together) {
      if (refusedRow === undefined) {
        this.watch.landed(token);
        this.watch.took(token);
      }
      done({
        value: refusedRow === undefined ? this.#success(queryId, rows.length) : this.#refusal(queryId, refusedRow),
      });
    }
  }

  #rowsOf({ body }: Insert, effective: Effective): readonly Row[] {
    const { hasTopic = true } = this.table.config;
    const rows = rowsIn(body, hasTopic, (oddity) => this.oddities.push(oddity));
    const allowed = effective.number('input_format_allow_errors_num');
    return allowed > 0 ? rows.filter((row) => !this.table.isPoison(row)) : rows;
  }

  #refusal(queryId: string, row: number): Response {
    return refusalAt(this.config.refuses ?? 'row', queryId, row);
  }

  #success(queryId: string, rows: number): Response {
    return success(queryId, rows, this.table.views.size);
  }

  #nowMs(): number {
    return this.scheduler.now();
  }
}
