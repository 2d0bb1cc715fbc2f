/**
 * A look into the table for one batch's range: what is there, what is missing, and what is done where neither can
 * be told. What may be concluded is decided in `evidence.ts`.
 * Imports: clickhouse/client, clickhouse/insert, clickhouse/schema, errors, model, ports.
 */
import { IngestError } from '../../errors.js';
import { countOffsets } from '../../model/batch.js';
import type { InsertBatch, ReadBack } from '../../ports.js';
import { allOffsets, compareRows } from './compare-rows.js';
import { type Evidence, evidenceOf, isSameTable, withoutEvidence, WITNESSES, witnessRange } from './evidence.js';
import type { SinkContext } from '../insert/sink-context.js';
import { quotedTable } from '../client/http.js';
import { ifAllowed } from '../client/if-allowed.js';
import {
  BY_HAND,
  doublingInViews,
  elsewhere,
  partialRecord,
  unreadable,
  viewsUnverifiable,
  type Where,
  whereOf,
} from './look-errors.js';
import { provenanceStatement } from '../schema/provenance-columns.js';
import { HIDDEN, hidesRows, SEES_ALL } from './row-policies.js';
import { parseFingerprint, sameRun, type ServerIdentity } from '../insert/settings.js';
import type { TableName } from '../schema/table.js';
import { findTable } from '../schema/tables.js';
import { readUnknownParts } from './unknown-parts.js';
import type { WatchedTable } from '../schema/watched-table.js';

/**
 * After code 319 the server checks by itself whether it keeps the part or drops it, in about 300 s. Until then the
 * table may show rows, or duplicates, that will disappear.
 */
const UNKNOWN_STATUS_MS = 330_000;

export class RangeLook {
  readonly #context: SinkContext;
  readonly #target: WatchedTable;
  readonly #batch: InsertBatch;
  readonly #token: string | undefined;
  readonly #queryId: string;
  /** What the intent says of the server. */
  readonly recorded: ServerIdentity | undefined;

  constructor(
    context: SinkContext,
    target: WatchedTable,
    batch: InsertBatch,
    { token, queryId }: { readonly token: string | undefined; readonly queryId: string },
  ) {
    this.#context = context;
    this.#target = target;
    this.#batch = batch;
    this.#token = token;
    this.#queryId = queryId;
    this.recorded = batch.intent === undefined ? undefined : parseFingerprint(batch.intent.settings);
    // Another process was told so, by its own clock: of one that is far ahead no more is waited than its server needs.
    const { unknownUntilMs } = batch.intent ?? {};
    if (unknownUntilMs !== undefined) this.#believeFrom(Math.min(unknownUntilMs, context.now() + UNKNOWN_STATUS_MS));
  }

  /** A look can show that rows are there, if not that they are missing. */
  get canShow(): boolean {
    const { kind } = this.#evidence();
    return kind === 'full' || kind === 'witness';
  }

  #evidence(): Evidence {
    if (this.#batch.isOffsetReused === true)
      return { kind: 'none', why: 'the partition was started again, so other rows may stand under the same offsets' };
    const evidence = evidenceOf(this.#batch.intent, this.#target.now);
    const fault = this.#target.readBackFault;
    const isOfUse = evidence.kind === 'full' || evidence.kind === 'witness';
    return isOfUse && fault !== undefined ? { kind: 'none', why: fault } : evidence;
  }

  /**
   * `asked`: why before an attempt; undefined: after one. `trusts`: is the token relied on where nothing is shown?
   * Asked once it is known what the table is now.
   */
  async readBack(asked: string | undefined, trusts: () => boolean, signal: AbortSignal): Promise<ReadBack> {
    await this.#target.refresh();
    const { now } = this.#target;
    const mayTrust = trusts();
    const evidence = this.#evidence();
    if (evidence.kind === 'elsewhere') throw elsewhere(evidence.why, this.#where(), this.#target.table);
    if (evidence.kind === 'none') return this.#unproven(asked, mayTrust, evidence.why);
    await this.#refuseWhileRunning(signal);
    // Before the look: a part that is dropped meanwhile is not seen.
    const unknownParts = await readUnknownParts(this.#context.http, this.#target.table, signal);
    const found = compareRows(this.#batch.records, await this.#count(signal));
    const { missing, doubled, partial } = found;
    const isWhole = missing.length === 0 && doubled.length === 0 && partial === undefined;
    // An insert that was answered well since is there, whatever becomes of the one before; without it nothing is sure.
    if (!isWhole || asked !== undefined) this.#refuseWhileUnknown(unknownParts);
    const isHidden =
      doubled.length === 0 && (missing.length > 0 || partial !== undefined) && (await this.#hidesRows(signal));
    if (isHidden) return this.#unproven(asked, mayTrust, HIDDEN);
    if (partial !== undefined) throw partialRecord(partial, this.#where());
    const isBelieved = missing.length === 0 || evidence.kind === 'full' || (await this.#isWitnessed(signal));
    await this.#refuseAltered(now);
    if (!isBelieved)
      return this.#unproven(
        asked,
        mayTrust,
        `${evidence.why}, and no older rows of the partition are seen by its columns`,
      );
    if (asked !== undefined && missing.length < countOffsets(this.#batch.records)) {
      // As the table was seen a moment ago.
      const { views } = this.#target.table;
      if (views.length > 0) return this.#beforeViews(asked, mayTrust, found, views);
    }
    return { missing, doubled };
  }

  /** How many rows the table has of each offset of the range. */
  async #count(signal: AbortSignal): Promise<ReadonlyMap<number, number>> {
    const { afterOffset, lastOffset, records } = this.#batch;
    const first = Math.min(afterOffset + 1, records.at(0)?.offset ?? lastOffset);
    // Two lists instead of a row for each offset: of a batch that would be a hundred thousand objects.
    const rows = await this.#ask<{ offsets: readonly (string | number)[]; counts: readonly (string | number)[] }>(
      (where) =>
        `SELECT groupArray(o) AS offsets, groupArray(n) AS counts FROM (SELECT _offset AS o, count() AS n ${where} GROUP BY o)`,
      { first, last: lastOffset },
      signal,
    );
    const [{ offsets, counts } = { offsets: [], counts: [] }] = rows;
    const found = new Map<number, number>();
    offsets.forEach((offset, i) => found.set(Number(offset), Number(counts[i])));
    return found;
  }

  async #isWitnessed(signal: AbortSignal): Promise<boolean> {
    const { intent } = this.#batch;
    const range = intent === undefined ? undefined : witnessRange(intent);
    if (range === undefined) return false;
    const [row] = await this.#ask<{ offsets: string | number }>(
      (where) => `SELECT uniqExact(_offset) AS offsets ${where}`,
      range,
      signal,
    );
    return Number(row?.offsets ?? 0) >= WITNESSES;
  }

  async #ask<Row>(
    sql: (where: string) => string,
    { first, last }: { readonly first: number; readonly last: number },
    signal: AbortSignal,
  ): Promise<Row[]> {
    const { topic, partition } = this.#batch.assignment;
    const { database, table } = this.#target.table;
    const where = `FROM ${quotedTable(database, table)}
         WHERE _topic = {topic:String} AND _partition = {partition:Int32} AND _offset BETWEEN {first:Int64} AND {last:Int64}`;
    return this.#context.http
      .select<Row>(sql(where), { partition, first, last, topic }, signal)
      .catch((error: unknown) => {
        throw unreadable(error, this.#where());
      });
  }

  #hidesRows(signal: AbortSignal): Promise<boolean> {
    return hidesRows(this.#context.http, this.#target.table, signal).catch((error: unknown) => {
      throw unreadable(error, this.#where());
    });
  }

  async #refuseAltered(before: WatchedTable['now']): Promise<void> {
    await this.#target.refresh();
    if (isSameTable(before, this.#target.now)) return;
    throw new IngestError('KCR_INSERT_RETRIABLE', 'the table was altered while it was looked at', this.#where());
  }

  async #unproven(asked: string | undefined, mayTrust: boolean, why: string): Promise<ReadBack> {
    const isSameRun = asked === undefined && sameRun(this.recorded, await this.#context.identify());
    switch (withoutEvidence(asked === undefined ? 'after' : 'before', { mayTrust, isSameRun })) {
      case 'settle':
        return { missing: [], doubled: [] };
      case 'send':
        return { missing: allOffsets(this.#batch.records), doubled: [], isUnproven: true };
      case 'halt':
        throw asked === undefined ? this.#uncleared(why) : this.#unverifiable(asked, why);
    }
  }

  /** The table's block is written before its views are fed: of a range without a row they have none either. */
  #beforeViews(asked: string, mayTrust: boolean, { missing }: ReadBack, views: readonly TableName[]): ReadBack {
    // The token brings every row to the views, and drops what they have.
    if (mayTrust) return { missing: allOffsets(this.#batch.records), doubled: [], isUnproven: true };
    const offsets = countOffsets(this.#batch.records);
    throw viewsUnverifiable(asked, { present: offsets - missing.length, offsets }, views, this.#where());
  }

  /** The repeated insert has brought every row to the views, also where the table itself took it for a duplicate. */
  async refuseDoublingInViews(missing: readonly number[]): Promise<void> {
    if (missing.length === 0) return;
    const views = await this.views();
    if (views.length === 0) return;
    throw doublingInViews(missing, views, this.#where());
  }

  /** As they are now: one may have been made since the sink was opened. */
  async views(): Promise<readonly TableName[]> {
    const { table } = this.#target;
    return (await findTable(this.#context.http, table))?.views ?? table.views;
  }

  /** For how long it is not known, milliseconds. */
  noteUnknown(): number {
    this.#believeFrom(this.#context.now() + UNKNOWN_STATUS_MS);
    return UNKNOWN_STATUS_MS;
  }

  #believeFrom(atMs: number): void {
    const { unknownUntilMs } = this.#context;
    const nowMs = this.#context.now();
    for (const [token, untilMs] of unknownUntilMs) if (untilMs <= nowMs) unknownUntilMs.delete(token);
    if (this.#token !== undefined && atMs > (unknownUntilMs.get(this.#token) ?? nowMs))
      unknownUntilMs.set(this.#token, atMs);
  }

  #refuseWhileUnknown(unknownParts: number): void {
    if (unknownParts > 0) {
      throw new IngestError(
        'KCR_INSERT_IN_DOUBT',
        `the server does not know yet whether it keeps ${unknownParts} parts of the table, as after code 319: what the table has is believed when it does, within about five minutes`,
        this.#where(),
      );
    }
    const untilMs = this.#context.unknownUntilMs.get(this.#token ?? '') ?? -Infinity;
    if (this.#context.now() >= untilMs) return;
    const until = new Date(untilMs).toISOString();
    throw new IngestError(
      'KCR_INSERT_IN_DOUBT',
      `the server does not know yet whether it keeps an attempt (code 319): what the table has is believed from ${until} on`,
      this.#where(),
    );
  }

  /** An attempt the server is still at would land after we have looked. */
  async #refuseWhileRunning(signal: AbortSignal): Promise<void> {
    if (this.#token === undefined) return;
    if (
      !(await this.#finds(
        'SELECT 1 AS n FROM system.processes WHERE startsWith(query_id, {id:String}) LIMIT 1',
        signal,
      )) &&
      !(await this.#isQueued(signal))
    )
      return;
    throw new IngestError('KCR_INSERT_IN_DOUBT', 'an earlier attempt of this insert is still running', this.#where());
  }

  /** An insert that waits for others may have lost its query (KILL QUERY), and lands all the same. */
  async #isQueued(signal: AbortSignal): Promise<boolean> {
    if (this.#context.asyncInsert === undefined) return false;
    return this.#finds(
      'SELECT 1 AS n FROM system.asynchronous_inserts WHERE arrayExists(one -> startsWith(one, {id:String}), entries.query_id) LIMIT 1',
      signal,
    );
  }

  async #finds(sql: string, signal: AbortSignal): Promise<boolean> {
    return (await ifAllowed(this.#context.http.select<object>(sql, { id: this.#queryId }, signal))).length > 0;
  }

  #where(): Where {
    return whereOf(this.#batch, this.#target.table);
  }

  #unverifiable(asked: string, why: string): IngestError {
    return new IngestError(
      'KCR_READ_BACK',
      `the range is not sent again, since it could double: ${asked}; whether it is in the table cannot be verified: ${why}`,
      {
        ...this.#where(),
        hint: `${BY_HAND}; ${this.#fromNowOn(why)}`,
      },
    );
  }

  /** Without anything to read by only a server that died can have lost what it answered for. */
  #uncleared(why: string): IngestError {
    const { recorded } = this;
    const restarted = recorded?.startedMs !== undefined && this.#context.server.startedMs !== undefined;
    return new IngestError(
      'KCR_READ_BACK',
      `whether the range is in the table cannot be verified: ${why}, and ClickHouse ${restarted ? 'was restarted' : 'may have been restarted'} since the range was recorded`,
      { ...this.#where(), hint: `${BY_HAND}; ${this.#fromNowOn(why)}` },
    );
  }

  #fromNowOn(why: string): string {
    if (why === HIDDEN) return `to have ranges verified: ${SEES_ALL}`;
    const { table } = this.#target;
    if (this.#target.readBackFault === undefined) return 'ranges that are recorded from now on are verified';
    return `to have ranges verified that are recorded from now on: ${provenanceStatement(table) ?? 'put _offset into the sorting key'}`;
  }
}
