/**
 * Room: one batch on its way into its table. Its bytes are a pure function of its records, so they are made while an
 * insert is sent, not when the batch is frozen: with ClickHouse down, batches wait without a buffer each.
 */
import { randomUUID } from 'node:crypto';
import { Observable } from 'rxjs';
import { hasCode, IngestError } from '../errors.js';
import { countOffsets } from '../model/batch.js';
import { cursorOver } from '../model/packed-records.js';
import type { Records } from '../model/record.js';
import type { FrozenInsert, InsertBatch, InsertResult, ReadBack } from '../ports.js';
import { RowBody } from './body.js';
import { classify, failedInView, rowAtFault, serverReason } from './classify.js';
import { afterRefusal, coalescingFault } from './coalescing.js';
import { RowEncoder } from './encode.js';
import { type Answer, type ClickHouseHttp, ConnectionFailure, quotedTable } from './http.js';
import { type InsertSettings, insertToken, parseFingerprint, queryIdOf, sameRun, type ServerIdentity, type Settings } from './settings.js';
import type { InsertSlots } from './slots.js';
import { findTable, provenanceStatement, type Table, type TableName } from './tables.js';
import { tokenDoubt } from './token-doubt.js';

/** What batches share: the connection and what is known of its other end. */
export interface Way {
  readonly http: ClickHouseHttp;
  readonly settings: InsertSettings;
  readonly slots: InsertSlots;
  /** How inserts are sent that wait for others; undefined in the mode `direct`. */
  readonly coalescing: Coalescing | undefined;
  readonly compress: boolean;
  readonly server: ServerIdentity;
  /** By token: until when the server itself does not know what becomes of an attempt. */
  readonly unknownUntilMs: Map<string, number>;
  now(): number;
  /** An insert went through, over a connection that was there before or over a new one. */
  answered(kept: boolean): void;
  /** Asks the server who it is now. */
  identify(): Promise<ServerIdentity>;
}

export interface Coalescing {
  readonly settings: Settings;
  readonly slots: InsertSlots;
  /** What may have more bytes goes by itself: it makes a part worth having. */
  readonly maxBytes: number;
}

export interface Destination {
  readonly table: Table;
  /** Why a range cannot be read back from it; undefined: it can. */
  readonly readBackFault: string | undefined;
  /** How long after a range was recorded its token is relied on. */
  readonly dedupBudgetMs: number;
}

/**
 * After code 319 the server checks by itself whether it keeps the part or drops it, in about 300 s. Until then the
 * table may show rows that go, and rows twice of which one goes.
 */
const UNKNOWN_STATUS_MS = 330_000;
const UNKNOWN_STATUS_OF_INSERT = 319;

export class FrozenBatch implements FrozenInsert {
  readonly #way: Way;
  readonly #destination: Destination;
  readonly #batch: InsertBatch;
  readonly #encoder: RowEncoder;
  readonly #token: string | undefined;
  readonly #queryId: string;
  /** What the intent says of the server. */
  readonly #recorded: ServerIdentity | undefined;
  /** An attempt of this process or of one before it may have landed. */
  #mayHaveLanded: boolean;
  /** When the table was asked for the range last. */
  #lookedMs: number | undefined;
  /** Waits for no others any more: together with them it was refused. */
  #isAlone = false;

  constructor(way: Way, destination: Destination, batch: InsertBatch) {
    const { topic, partition } = batch.assignment;
    const { table } = destination;
    this.#way = way;
    this.#destination = destination;
    this.#batch = batch;
    this.#encoder = new RowEncoder(table.provenance, topic, partition);
    this.#token = batch.token === undefined ? undefined : this.#tokenAsSent(batch.token);
    this.#queryId = this.#token === undefined ? `kcr-${randomUUID()}` : queryIdOf(this.#token);
    this.#recorded = batch.intent === undefined ? undefined : parseFingerprint(batch.intent.settings);
    this.#mayHaveLanded = batch.replay;
  }

  /**
   * Keeper takes part and token in one step, so a replicated table needs no reading back; unless the server that is
   * asked again is another version, which may make tokens in another way. Without a token nothing was promised.
   */
  get readBackWhenInDoubt(): boolean {
    const { table } = this.#destination;
    const readBackFault = this.#readBackFault;
    const otherVersion = this.#batch.intent !== undefined && this.#recorded?.version !== this.#way.server.version;
    return this.#token !== undefined && (table.family === 'plain' || (otherVersion && readBackFault === undefined));
  }

  tokenDoubt(nowMs: number): string | undefined {
    const { intent } = this.#batch;
    if (intent === undefined || this.#token === undefined) return undefined;
    const { server, settings } = this.#way;
    return tokenDoubt(intent, { budgetMs: this.#destination.dedupBudgetMs, server, settings: settings.fingerprint }, nowMs);
  }

  get #readBackFault(): string | undefined {
    if (this.#batch.isAnew === true) return 'the partition was begun anew, so other rows may stand under the same offsets';
    return this.#destination.readBackFault;
  }

  insert(): Observable<InsertResult> {
    return abortable((signal) => this.#insert(signal));
  }

  readBack(doubt?: string): Observable<ReadBack> {
    return abortable((signal) => this.#readBack(doubt, signal));
  }

  fill(missing: readonly number[]): Observable<InsertResult> {
    return abortable((signal) => this.#fill(missing, signal));
  }

  release(): void {
    // The bytes live in a slot only while an attempt is on its way.
  }

  async #insert(signal: AbortSignal): Promise<InsertResult> {
    // A connection that broke may have been the server's upgrade, after which it may make its tokens in another way.
    if (this.#mayHaveLanded && this.#batch.intent !== undefined) await this.#way.identify();
    return this.#send(this.#batch.records, this.#token, this.#queryId, signal);
  }

  async #readBack(doubt: string | undefined, signal: AbortSignal): Promise<ReadBack> {
    const fault = this.#readBackFault;
    if (fault !== undefined && doubt !== undefined) throw this.#unverifiable(doubt, fault);
    if (fault !== undefined) return this.#clearDoubt(fault);
    await this.#refuseWhileRunning(signal);
    const askedMs = this.#way.now();
    const { missing, doubled, partial } = compare(this.#batch.records, await this.#look(signal));
    const isWhole = missing.length === 0 && doubled.length === 0 && partial === undefined;
    // An insert that was answered well since is there, whatever becomes of the one before; without it nothing is sure.
    if (!isWhole || doubt !== undefined) this.#refuseWhileUnknown();
    if (partial !== undefined) {
      throw new IngestError('KCR_READ_BACK', `of one record ${partial.rows} of ${partial.expected} rows are in the table, and which ones cannot be told`, {
        ...this.#where(),
        offset: partial.offset,
        hint: 'delete the rows of this offset by hand; the rest is then done by itself',
      });
    }
    if (doubt !== undefined) await this.#refuseUnknownViews(doubt, missing);
    this.#lookedMs = askedMs;
    return { missing, doubled };
  }

  /** How many rows the table has of each offset of the range. */
  async #look(signal: AbortSignal): Promise<ReadonlyMap<number, number>> {
    const { table } = this.#destination;
    const { assignment, afterOffset, lastOffset, records } = this.#batch;
    const first = Math.min(afterOffset + 1, records.at(0)?.offset ?? lastOffset);
    const topic = table.provenance.topic ? { clause: ' AND _topic = {topic:String}', values: { topic: assignment.topic } } : { clause: '', values: {} };
    const rows = await this.#way.http
      .select<{ offsets: readonly (string | number)[]; counts: readonly (string | number)[] }>(
        // Two lists instead of a row for each offset: of a batch that would be a hundred thousand objects.
        `SELECT groupArray(o) AS offsets, groupArray(n) AS counts FROM (SELECT _offset AS o, count() AS n FROM ${quotedTable(table.database, table.table)}
         WHERE _partition = {partition:Int32} AND _offset BETWEEN {first:Int64} AND {last:Int64}${topic.clause}
         GROUP BY o)`,
        { partition: assignment.partition, first, last: lastOffset, ...topic.values },
        signal,
      )
      .catch((error: unknown) => {
        throw this.#unreadable(error);
      });
    const [{ offsets, counts } = { offsets: [], counts: [] }] = rows;
    const found = new Map<number, number>();
    offsets.forEach((offset, i) => found.set(Number(offset), Number(counts[i])));
    return found;
  }

  #unreadable(error: unknown): unknown {
    if (!(error instanceof IngestError) || error.retryable) return error;
    const { serverCode } = error.fields;
    return new IngestError('KCR_READ_BACK', `the range could not be read back: ${error.message}`, {
      ...this.#where(),
      serverCode,
      hint: serverCode === 497 ? 'GRANT SELECT on the table to the user' : undefined,
      cause: error,
    });
  }

  #unverifiable(doubt: string, fault: string): IngestError {
    const statement = provenanceStatement(this.#destination.table) ?? 'put _offset into the sorting key';
    return new IngestError('KCR_READ_BACK', `the range is not sent again, since it could double: ${doubt}; whether it is in the table cannot be verified: ${fault}`, {
      ...this.#where(),
      hint: `look the range up by hand, then set what is settled with "kafka-clickhouse-rx state reset"; to have it verified from now on: ${statement}`,
    });
  }

  /** The table's block is written before its views are fed: of a range without a row they have none either. */
  async #refuseUnknownViews(doubt: string, missing: readonly number[]): Promise<void> {
    const offsets = countOffsets(this.#batch.records);
    if (missing.length === offsets) return;
    const views = await this.#views();
    if (views.length === 0) return;
    const present = offsets - missing.length;
    throw new IngestError(
      'KCR_READ_BACK',
      `the range is not sent again, since it could double: ${doubt}; of its ${offsets} offsets ${present} are in the table, and whether the materialized views ${nameAll(views)} have them cannot be verified`,
      {
        ...this.#where(),
        hint: 'compare what the views wrote with the range, mend it by hand, then set what is settled with "kafka-clickhouse-rx state reset"',
      },
    );
  }

  /** As they are now: one may have been made since the sink was opened. */
  async #views(): Promise<readonly TableName[]> {
    const { table } = this.#destination;
    return (await findTable(this.#way.http, table))?.views ?? table.views;
  }

  #refuseWhileUnknown(): void {
    const untilMs = this.#way.unknownUntilMs.get(this.#token ?? '') ?? -Infinity;
    if (this.#way.now() >= untilMs) return;
    const until = new Date(untilMs).toISOString();
    throw new IngestError('KCR_INSERT_IN_DOUBT', `the server does not know yet whether it keeps an attempt (code 319): what the table has is believed from ${until} on`, this.#where());
  }

  /** Kept beside the sink, since the range may be frozen anew meanwhile. */
  #noteUnknown(): void {
    const { unknownUntilMs } = this.#way;
    const nowMs = this.#way.now();
    for (const [token, untilMs] of unknownUntilMs) if (untilMs <= nowMs) unknownUntilMs.delete(token);
    if (this.#token !== undefined) unknownUntilMs.set(this.#token, nowMs + UNKNOWN_STATUS_MS);
  }

  /** Without columns to read by: only a server that died can have lost what it answered for. */
  async #clearDoubt(fault: string): Promise<ReadBack> {
    const now = await this.#way.identify();
    const recorded = this.#recorded;
    if (sameRun(recorded, now)) return { missing: [], doubled: [] };
    const { table } = this.#destination;
    const restarted = recorded?.startedMs !== undefined && now.startedMs !== undefined;
    throw new IngestError(
      'KCR_READ_BACK',
      `whether the range is in the table cannot be verified: ${fault}, and ClickHouse ${restarted ? 'was restarted' : 'may have been restarted'} since the range was recorded`,
      {
        ...this.#where(),
        hint: `look the range up by hand; to have it verified from now on: ${provenanceStatement(table) ?? 'put _offset into the sorting key'}`,
      },
    );
  }

  /** An attempt the server is still at would land after we have looked. */
  async #refuseWhileRunning(signal: AbortSignal): Promise<void> {
    if (this.#token === undefined) return;
    const running = await this.#way.http
      .select<{ id: string }>('SELECT query_id AS id FROM system.processes WHERE startsWith(query_id, {id:String}) LIMIT 1', { id: this.#queryId }, signal)
      .catch((error: unknown) => {
        if (error instanceof IngestError && error.retryable) throw error;
        return []; // A user who may not see system.processes.
      });
    if (running.length === 0 && !(await this.#isQueued(signal))) return;
    throw new IngestError('KCR_INSERT_IN_DOUBT', 'an earlier attempt of this insert is still running', this.#where());
  }

  /** An insert that waits for others may have lost its query (KILL QUERY), and lands all the same. */
  async #isQueued(signal: AbortSignal): Promise<boolean> {
    if (this.#way.coalescing === undefined) return false;
    const queued = await this.#way.http
      .select<{ n: number }>('SELECT 1 AS n FROM system.asynchronous_inserts WHERE arrayExists(one -> startsWith(one, {id:String}), entries.query_id) LIMIT 1', { id: this.#queryId }, signal)
      .catch((error: unknown) => {
        if (error instanceof IngestError && error.retryable) throw error;
        return []; // A user who may not see it.
      });
    return queued.length > 0;
  }

  async #fill(missing: readonly number[], signal: AbortSignal): Promise<InsertResult> {
    await this.#refuseDoublingInViews(missing);
    const { token, records } = this.#batch;
    const wanted = new Set(missing);
    const fillToken = token === undefined ? undefined : this.#tokenAsSent(`${token}:fill1`);
    return this.#send(records.filter(({ offset }) => wanted.has(offset)), fillToken, `${this.#queryId}-fill1`, signal);
  }

  /** The repeated insert has brought every row to the views, also where the table itself took it for a duplicate. */
  async #refuseDoublingInViews(missing: readonly number[]): Promise<void> {
    if (missing.length === 0) return;
    const views = await this.#views();
    if (views.length === 0) return;
    throw new IngestError('KCR_READ_BACK', `${missing.length} offsets are missing, but inserting them would double them in the materialized views ${nameAll(views)}`, {
      ...this.#where(),
      offset: missing[0],
      hint: 'insert them into a copy of the table and ATTACH PARTITION … FROM it, which does not feed views; then start again',
    });
  }

  async #send(records: Records, token: string | undefined, queryId: string, signal: AbortSignal): Promise<InsertResult> {
    if (records.length === 0) return { rows: 0, bytes: 0 };
    const { settings, slots } = this.#way;
    const alone = () => this.#exchange(records, slots, this.#params(token, queryId, settings), signal);
    const coalescing = this.#coalescing(records, token);
    if (coalescing === undefined) return alone();
    try {
      return await this.#exchange(records, coalescing.slots, this.#params(token, queryId, { ...settings, deduplicated: coalescing.settings }), signal);
    } catch (error) {
      const then = afterRefusal(error);
      if (then !== 'stay') this.#isAlone = true;
      if (then !== 'ask alone') throw error;
      return alone();
    }
  }

  #coalescing(records: Records, token: string | undefined): Coalescing | undefined {
    const { coalescing, server } = this.#way;
    if (coalescing === undefined || token === undefined || this.#isAlone) return undefined;
    // It may have been exchanged for an older one since the start.
    if (coalescingFault(server.version) !== undefined) return undefined;
    return this.#encoder.fit(records, coalescing.maxBytes) ? coalescing : undefined;
  }

  async #exchange(records: Records, slots: InsertSlots, params: Record<string, string>, signal: AbortSignal): Promise<InsertResult> {
    const slot = await slots.take(signal);
    let bodyFree: Promise<void> = Promise.resolve();
    try {
      signal.throwIfAborted();
      this.#refuseUnasked();
      const body = new RowBody(this.#encoder.rows(records), slot.pieces);
      const exchange = this.#way.http.send({ params, body, gzip: this.#way.compress, signal });
      bodyFree = exchange.bodyFree;
      const answer = await exchange.answer;
      if (answer.status !== 200 || answer.code !== undefined || answer.text !== '') throw this.#refused(answer, records);
      this.#way.answered(answer.kept);
      return { rows: records.length, bytes: exchange.sentBytes() };
    } catch (error) {
      const failure = error instanceof ConnectionFailure ? this.#broken(error) : error;
      if (hasCode(failure, 'KCR_INSERT_IN_DOUBT')) this.#mayHaveLanded = true;
      throw failure;
    } finally {
      void bodyFree.then(() => slot.free());
    }
  }

  /**
   * The last moment. Since the caller asked for a doubt there was a wait for a slot, and perhaps a process that was
   * frozen: what it missed meanwhile (another owner's insert of this range) the server may have forgotten already.
   */
  #refuseUnasked(): void {
    const nowMs = this.#way.now();
    const doubt = this.tokenDoubt(nowMs);
    if (doubt === undefined) return;
    if (this.#lookedMs !== undefined && nowMs - this.#lookedMs <= this.#destination.dedupBudgetMs) return;
    throw new IngestError('KCR_INSERT_RETRIABLE', `not sent before the table was asked: ${doubt}`, this.#where());
  }

  /** Another program's token is sent as it stands: with anything added it would be another one. */
  #tokenAsSent(token: string): string {
    const { database, table } = this.#destination.table;
    return this.#batch.intent?.token === undefined ? insertToken(token, database, table) : token;
  }

  #params(token: string | undefined, queryId: string, settings: Pick<InsertSettings, 'deduplicated' | 'plain'>): Record<string, string> {
    const { database, table } = this.#destination.table;
    return {
      query: `INSERT INTO ${quotedTable(database, table)} FORMAT JSONEachRow`,
      query_id: queryId,
      ...(token === undefined ? settings.plain : { ...settings.deduplicated, insert_deduplication_token: token }),
    };
  }

  #where(): { topic: string; partition: number; first: number; last: number; table: string } {
    const { assignment, afterOffset, lastOffset } = this.#batch;
    const { database, table } = this.#destination.table;
    return { topic: assignment.topic, partition: assignment.partition, first: afterOffset + 1, last: lastOffset, table: `${database}.${table}` };
  }

  #broken(failure: ConnectionFailure): IngestError {
    const inDoubt = classify({ kind: 'network', phase: failure.phase }) === 'in-doubt';
    return new IngestError(
      inDoubt ? 'KCR_INSERT_IN_DOUBT' : 'KCR_INSERT_RETRIABLE',
      inDoubt ? `the connection failed after the insert was sent: ${failure.message}` : `ClickHouse cannot be reached: ${failure.message}`,
      { ...this.#where(), cause: failure },
    );
  }

  #refused({ status, code, text }: Answer, records: Records): IngestError {
    const reason = serverReason(text) || `HTTP status ${status} without a reason`;
    const fields = { ...this.#where(), serverCode: code ?? `HTTP ${status}` };
    if (code === UNKNOWN_STATUS_OF_INSERT) this.#noteUnknown();
    switch (classify({ kind: 'answer', status, code, text })) {
      case 'retriable':
        return new IngestError('KCR_INSERT_RETRIABLE', reason, fields);
      case 'in-doubt':
        return new IngestError('KCR_INSERT_IN_DOUBT', reason, {
          ...fields,
          hint: failedInView(text) ? 'mend the materialized view; the same insert then completes it' : undefined,
        });
      case 'schema':
        return new IngestError('KCR_SCHEMA', reason, { ...fields, hint: 'change the table or the route; nothing of the batch is lost' });
      case 'fatal':
        return new IngestError('KCR_INSERT_FATAL', reason, { ...fields, hint: fatalHint(code) });
      case 'poison':
        return this.#poisoned(code, text, reason, records);
    }
  }

  #poisoned(code: number | undefined, text: string, reason: string, records: Records): IngestError {
    const { topic, partition, first, last, table } = this.#where();
    const row = rowAtFault(code, text);
    const offset = row === undefined || row < 1 ? undefined : records.at(row - 1)?.offset;
    const place = offset === undefined ? { first, last } : { offset };
    return new IngestError('KCR_POISON', reason, { topic, partition, ...place, table, serverCode: code, hint: poisonHint(text) });
  }
}

interface Comparison extends ReadBack {
  /** The first offset of which some rows are there and some are not. */
  readonly partial: { readonly offset: number; readonly rows: number; readonly expected: number } | undefined;
}

/** Every offset of the batch against the rows the table has of it; a transform may have made several of one. */
function compare(records: Records, found: ReadonlyMap<number, number>): Comparison {
  const missing: number[] = [];
  const doubled: number[] = [];
  let partial: Comparison['partial'];
  const cursor = cursorOver(records);
  for (let isMore = cursor.next(); isMore; ) {
    const { offset } = cursor;
    let expected = 0;
    for (; isMore && cursor.offset === offset; isMore = cursor.next()) expected++;
    const rows = found.get(offset) ?? 0;
    if (rows > 0 && rows < expected) partial ??= { offset, rows, expected };
    if (rows === 0) missing.push(offset);
    if (rows > expected) doubled.push(offset);
  }
  return { missing, doubled, partial };
}

function nameAll(tables: readonly TableName[]): string {
  return tables.map(({ database, table }) => `${database}.${table}`).join(', ');
}

function fatalHint(code: number | undefined): string | undefined {
  if (code === 252) return 'the batch spreads over too many ClickHouse partitions: coarsen PARTITION BY, make batches smaller, or raise max_partitions_per_insert_block';
  if (code === 497) return 'GRANT INSERT on the table to the user';
  if (code === 516 || code === 194) return 'check username and password';
  if (code === 164 || code === 452) return 'the user’s profile forbids a setting that exactly-once needs';
  return code === undefined ? 'the answer is not ClickHouse’s own: check the url, and the proxies on the way' : undefined;
}

function poisonHint(text: string): string | undefined {
  const field = /Duplicate field found while parsing JSONEachRow format: (_(?:topic|partition|offset|timestamp|key|headers))\b/.exec(text)?.[1];
  if (field === undefined) return undefined;
  return `the value has a field ${field} of its own, which the table's provenance column takes: rename it with a transform, or drop the column`;
}

/** A promise as a cold Observable: every subscription runs it anew, unsubscribing aborts it. */
function abortable<T>(run: (signal: AbortSignal) => Promise<T>): Observable<T> {
  return new Observable<T>((subscriber) => {
    const abort = new AbortController();
    run(abort.signal).then(
      (value) => {
        subscriber.next(value);
        subscriber.complete();
      },
      (error: unknown) => subscriber.error(error),
    );
    return () => abort.abort();
  });
}
