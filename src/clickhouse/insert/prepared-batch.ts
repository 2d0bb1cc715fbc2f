/**
 * The transport of one batch: sends what the stage tells it to send, looks where it is told, and reports what the
 * server said. What is known of the attempts, and the last word before something is sent: `range-doubt.ts`. What is
 * done about it: `operators/internal/doubt.ts`.
 *
 * A batch's bytes are a pure function of its records, so they are made while an insert is sent, not when the batch is
 * prepared: with ClickHouse down, batches wait without a buffer each.
 * Imports: Node, clickhouse/client, clickhouse/schema, clickhouse/verify, errors, model, ports, rxjs.
 */
import { randomUUID } from 'node:crypto';
import type { Observable } from 'rxjs';
import { hasCode, IngestError } from '../../errors.js';
import type { Records } from '../../model/record.js';
import type { PreparedInsert, InsertBatch, InsertResult, ReadBack } from '../../ports.js';
import { orAltered } from '../schema/altered-table.js';
import { RowBody } from './body.js';
import { tellOfTimes } from './check-batch.js';
import { abortable } from './abortable.js';
import { afterRefusal, asAfter, asyncInsertFault } from './async-insert.js';
import { RowEncoder } from './encode.js';
import { type Answer, ConnectionFailure } from '../client/answer.js';
import { insertParams } from './insert-statement.js';
import type { AsyncInsert, SinkContext, TargetTable } from './sink-context.js';
import type { Table } from '../schema/table.js';
import { type Where, whereOf } from '../verify/look-errors.js';
import { RangeLook } from '../verify/range-look.js';
import { type KnownNow, RangeDoubt } from './range-doubt.js';
import { brokenOff, isTaken, refusalOf } from './refusals.js';
import { refuseOtherCount } from './row-count.js';
import { OwnToken } from './own-token.js';
import { type InsertSettings, insertToken, queryIdOf } from './settings.js';
import type { InsertSlots } from './slots.js';
import { recordedColumns } from '../schema/watched-table.js';

const UNKNOWN_STATUS_OF_INSERT = 319;
/** Before something is sent a second time the table was asked no longer ago. */
const SEEN_MS = 5_000;

export class PreparedBatch implements PreparedInsert {
  readonly #context: SinkContext;
  readonly #destination: TargetTable;
  readonly #batch: InsertBatch;
  #encoderOf: { readonly table: Table; readonly encoder: RowEncoder } | undefined;
  readonly #token: string | undefined;
  readonly #queryId: string;
  readonly #look: RangeLook;
  readonly #attempts: RangeDoubt;
  readonly #own: OwnToken;
  /** Waits for no others any more: together with them it was refused. */
  #isAlone = false;

  constructor(context: SinkContext, destination: TargetTable, batch: InsertBatch) {
    const { target } = destination;
    this.#context = context;
    this.#destination = destination;
    this.#batch = batch;
    this.#token = batch.token === undefined ? undefined : this.#tokenAsSent(batch.token);
    this.#queryId = this.#token === undefined ? `kcr-${randomUUID()}` : queryIdOf(this.#token);
    this.#look = new RangeLook(context, target, batch, { token: this.#token, queryId: this.#queryId });
    this.#attempts = new RangeDoubt(batch);
    this.#own = new OwnToken(context);
  }

  /**
   * Keeper takes part and token in one step, so a replicated table needs no reading back; unless the server that is
   * asked again is another version, which may make tokens in another context. Without a token nothing was promised.
   */
  get readBackWhenInDoubt(): boolean {
    const { family } = this.#destination.target.now;
    const otherVersion =
      this.#batch.intent !== undefined && this.#look.recorded?.version !== this.#context.server.version;
    return this.#token !== undefined && (family === 'plain' || (otherVersion && this.#look.canShow));
  }

  /** For the table as it was seen last, not as it was when the batch was prepared. */
  get #encoder(): RowEncoder {
    const { table } = this.#destination.target;
    if (this.#encoderOf?.table !== table) {
      const {
        assignment: { topic, partition },
        intent,
      } = this.#batch;
      this.#encoderOf = {
        table,
        encoder: new RowEncoder(recordedColumns(table.provenance, intent?.written?.columns), topic, partition),
      };
    }
    return this.#encoderOf.encoder;
  }

  tokenDoubt(nowMs: number): string | undefined {
    return this.#attempts.why(this.#known, nowMs)?.why;
  }

  get #known(): KnownNow {
    const { server, settings } = this.#context;
    const { dedupBudgetMs, target } = this.#destination;
    return { budgetMs: dedupBudgetMs, server, settings: settings.fingerprint, table: target.now };
  }

  insert(): Observable<InsertResult> {
    return abortable((signal) => this.#insert(signal));
  }

  readBack(doubt?: string): Observable<ReadBack> {
    return abortable((signal) => this.#readBack(doubt, signal));
  }

  insertMissing(missing: readonly number[]): Observable<InsertResult> {
    return abortable((signal) => this.#insertOnly(missing, { token: this.#token, queryId: this.#queryId }, signal));
  }

  fill(missing: readonly number[]): Observable<InsertResult> {
    const { token } = this.#batch;
    const fill = {
      token: token === undefined ? undefined : this.#tokenAsSent(`${token}:fill1`),
      queryId: `${this.#queryId}-fill1`,
    };
    return abortable((signal) => this.#insertOnly(missing, fill, signal));
  }

  release(): void {
    // The bytes live in a slot only while an attempt is on its way.
  }

  async #readBack(asked: string | undefined, signal: AbortSignal): Promise<ReadBack> {
    const atMs = this.#context.now();
    const trusts = this.#attempts.trusting(asked, this.#known, atMs);
    const found = await this.#look.readBack(asked, () => trusts(this.#known, this.#context.now()), signal);
    this.#attempts.noteLook(atMs, this.#destination.target.now);
    return found;
  }

  async #insert(signal: AbortSignal): Promise<InsertResult> {
    await this.#identifyAgain();
    if (this.#token !== undefined) return this.#send(this.#batch.records, this.#token, this.#queryId, signal);
    const own = this.#destination.target.now.keepsTokens
      ? await this.#own.take(this.#attempts.mayHaveLanded)
      : undefined;
    const result = await this.#send(this.#batch.records, own, this.#queryId, signal);
    const why = this.#attempts.mayHaveLanded && own !== undefined ? await this.#own.fault() : undefined;
    if (why !== undefined) throw new IngestError('KCR_INSERT_IN_DOUBT', why, this.#where());
    return result;
  }

  /**
   * Before anything is sent a second time. A connection that broke may have been the server's upgrade, after which it
   * may make its tokens in another context; and the table may have been altered since.
   */
  async #identifyAgain(): Promise<void> {
    if (!this.#attempts.mayHaveLanded || this.#batch.intent === undefined) return;
    await Promise.all([this.#context.identify(), this.#destination.target.refresh()]);
  }

  async #insertOnly(
    missing: readonly number[],
    { token, queryId }: { readonly token: string | undefined; readonly queryId: string },
    signal: AbortSignal,
  ): Promise<InsertResult> {
    await this.#identifyAgain();
    await this.#look.refuseDoublingInViews(missing);
    const wanted = new Set(missing);
    // With others it could be lost by what happens to them, and there is no second fill.
    this.#isAlone = true;
    return this.#send(
      this.#batch.records.filter(({ offset }) => wanted.has(offset)),
      token,
      queryId,
      signal,
    );
  }

  async #send(
    records: Records,
    token: string | undefined,
    queryId: string,
    signal: AbortSignal,
  ): Promise<InsertResult> {
    if (records.length === 0) return { rows: 0, bytes: 0 };
    const { settings, slots } = this.#context;
    const alone = async (): Promise<InsertResult> => {
      const { target } = this.#destination;
      const { table } = target;
      try {
        const result = await this.#exchange(records, slots, this.#params(token, queryId, settings), signal);
        target.took(table);
        return result;
      } catch (error) {
        const asking = { http: this.#context.http, target, settings: settings.plain, signal };
        throw hasCode(error, 'KCR_POISON')
          ? await orAltered(error, asking, { records, sentInto: table, where: this.#where() })
          : error;
      }
    };
    const asyncInsert = this.#asyncInsert(records);
    if (asyncInsert === undefined) return alone();
    try {
      return await this.#exchange(
        records,
        asyncInsert.slots,
        this.#params(token, queryId, { ...settings, deduplicated: asyncInsert.settings }),
        signal,
      );
    } catch (error) {
      const then = afterRefusal(error);
      if (then !== 'stay') this.#isAlone = true;
      if (then !== 'ask alone') throw error;
      return alone().catch((thrown: unknown) => {
        throw asAfter(error, thrown);
      });
    }
  }

  #asyncInsert(records: Records): AsyncInsert | undefined {
    const { asyncInsert, server } = this.#context;
    if (asyncInsert === undefined || this.#token === undefined || this.#isAlone) return undefined;
    // It may have been exchanged for an older one since the start.
    if (asyncInsertFault(server.version) !== undefined) return undefined;
    return this.#encoder.fit(records, asyncInsert.maxBytes) ? asyncInsert : undefined;
  }

  async #exchange(
    records: Records,
    slots: InsertSlots,
    params: Record<string, string>,
    signal: AbortSignal,
  ): Promise<InsertResult> {
    const slot = await slots.take(signal);
    let bodyFree: Promise<void> = Promise.resolve();
    try {
      signal.throwIfAborted();
      await this.#lookAgain();
      this.#refuseUnasked();
      const body = new RowBody(this.#encoder.rows(records), slot.pieces);
      const exchange = this.#context.http.send({ params, body, encoding: this.#context.encoding, signal });
      bodyFree = exchange.bodyFree;
      const answer = await exchange.answer;
      if (!isTaken(answer)) throw this.#refused(answer, records);
      this.#context.answered(answer.kept);
      const { table } = this.#destination.target;
      await refuseOtherCount(answer.readRows, records.length, this.#where(), {
        table,
        known: table.views,
        look: () => this.#look.views(),
      });
      if (table.provenance.timestamp === 'time') tellOfTimes(this.#batch, records, this.#context.onEvent);
      return { rows: records.length, bytes: exchange.sentBytes() };
    } catch (error) {
      const failure = error instanceof ConnectionFailure ? brokenOff(error, this.#where()) : error;
      this.#attempts.noteFailure(failure);
      throw failure;
    } finally {
      void bodyFree.then(() => slot.free());
    }
  }

  /** What came into the table meanwhile may have pushed the token out of its window. */
  async #lookAgain(): Promise<void> {
    if (!this.#attempts.mayHaveLanded || this.#batch.intent === undefined) return;
    const { target } = this.#destination;
    const isOld = (): boolean => this.#context.now() - target.askedMs > SEEN_MS;
    if (isOld()) await target.refresh();
    if (isOld())
      throw new IngestError('KCR_INSERT_RETRIABLE', 'not sent: what is known of the table is too old', this.#where());
  }

  /** What was missed meanwhile (another owner's insert of this range) the server may have forgotten already. */
  #refuseUnasked(): void {
    const why = this.#attempts.lastWord(this.#known, this.#context.now());
    if (why !== undefined) throw new IngestError('KCR_INSERT_RETRIABLE', why, this.#where());
  }

  /** Another program's token is sent as it stands: with anything added it would be another one. */
  #tokenAsSent(token: string): string {
    const { database, table } = this.#destination.target.table;
    return this.#batch.intent?.token === undefined ? insertToken(token, database, table) : token;
  }

  #params(
    token: string | undefined,
    queryId: string,
    settings: Pick<InsertSettings, 'deduplicated' | 'plain'>,
  ): Record<string, string> {
    return {
      ...insertParams(this.#destination.target.table),
      query_id: queryId,
      ...(token === undefined ? settings.plain : { ...settings.deduplicated, insert_deduplication_token: token }),
    };
  }

  #refused(answer: Answer, records: Records): IngestError {
    const unknownForMs = answer.code === UNKNOWN_STATUS_OF_INSERT ? this.#look.noteUnknown() : undefined;
    const isInParts = this.#destination.target.table.partitionKey !== '';
    return refusalOf(answer, { records, where: this.#where(), isInParts, unknownForMs });
  }

  #where(): Where {
    return whereOf(this.#batch, this.#destination.target.table);
  }
}
