/**
 * One range of a partition's log against the table: how many rows each offset has, and
 * perhaps whether they hold what the records say. What is held at once is bounded.
 * Imports: clickhouse/verify, kafka/fetch, kernel, model, operators/between.
 */
import { rowsOfRecord, type Transform } from '../../operators/between/transform-rows.js';
import type { ContentDifference, ContentScan, Unread } from '../clickhouse/verify/content-scan.js';
import type { ProvenanceScan } from '../clickhouse/verify/provenance-scan.js';
import type { LogScan, ScannedChunk } from '../kafka/fetch/scan.js';
import { valueFault } from '../kernel/index.js';
import type { KafkaRecord } from '../model/record.js';
import { compareRuns, joinDifferences, noDifference, RunBuilder, type Difference } from './offset-runs.js';

/** Offsets of one question to the table, and runs of them, at most: what is held at once. */
export const verifyWindow = { offsets: 2_000_000, runs: 200_000 } as const;
/** Records whose contents are compared in one question, and their bytes. */
const CONTENTS = { records: 10_000, bytes: 2 * 1024 * 1024 } as const;

export interface RangeMeans {
  readonly log: LogScan;
  readonly scan: ProvenanceScan;
  readonly transform: Transform | undefined;
  /** Undefined: contents are not compared. */
  readonly contents: ContentScan | undefined;
  /** How many of each kind are named. */
  readonly show: number;
}

export interface ContentsCompared {
  /** Records whose rows were compared; a record without a row is none of them. */
  readonly records: number;
  /** Offsets that have a row which says something else than the record. */
  readonly differing: { readonly count: number; readonly first: readonly ContentDifference[] };
  /** Records that ClickHouse cannot read with the table's present columns. */
  readonly unread: { readonly count: number; readonly first: readonly Unread[] };
}

export interface RangeCompared extends Difference {
  /** Records that should have a row, or several; of those a transform leaves out none counts. */
  readonly records: number;
  /** Offsets that retention took while they were about to be read. */
  readonly gone: number;
  /** Offsets that the log has and nobody can read, since their record batch is damaged: they were not compared. */
  readonly unreadable: number;
  /** Why, one sentence for each such batch, at most `show`. */
  readonly damages: readonly string[];
  /** Undefined: it was not asked for. */
  readonly contents: ContentsCompared | undefined;
}

export async function compareRange(means: RangeMeans, range: Parameters<LogScan['read']>[0]): Promise<RangeCompared> {
  const comparison = new RangeComparison(means, range);
  for await (const chunk of means.log.read(range)) await comparison.add(chunk);
  return comparison.end();
}

class RangeComparison {
  readonly #means: RangeMeans;
  readonly #range: { readonly topic: string; readonly partition: number };
  readonly #expected = new RunBuilder();
  readonly #damages: string[] = [];
  readonly #contents: ContentsComparison | undefined;
  #total: Difference = noDifference;
  #records = 0;
  #gone = 0;
  #unreadable = 0;
  #windowFirst: number;
  #last: number;

  constructor(
    means: RangeMeans,
    range: { readonly topic: string; readonly partition: number; readonly first: number },
  ) {
    this.#means = means;
    this.#range = range;
    this.#windowFirst = range.first;
    this.#last = range.first - 1;
    this.#contents =
      means.contents === undefined ? undefined : new ContentsComparison(means.contents, range.partition, means.show);
  }

  async add(chunk: ScannedChunk): Promise<void> {
    if (chunk.isGone || chunk.unreadable !== undefined) {
      await this.#compare();
      const offsets = chunk.last - chunk.first + 1;
      if (chunk.isGone) this.#gone += offsets;
      else this.#unreadable += offsets;
      if (chunk.unreadable !== undefined && this.#damages.length < this.#means.show)
        this.#damages.push(chunk.unreadable);
      this.#windowFirst = chunk.last + 1;
    }
    for (const record of chunk.records) {
      const { count, rows } = rowsOf(record, this.#means.transform, this.#range);
      if (count > 0) this.#records += 1;
      this.#expected.add(record.offset, count);
      await this.#contents?.add(rows);
    }
    this.#last = chunk.last;
    if (this.#last - this.#windowFirst >= verifyWindow.offsets || this.#expected.length >= verifyWindow.runs)
      await this.#compare();
  }

  async end(): Promise<RangeCompared> {
    await this.#compare();
    const contents = await this.#contents?.end();
    return {
      ...this.#total,
      records: this.#records,
      gone: this.#gone,
      unreadable: this.#unreadable,
      damages: this.#damages,
      contents,
    };
  }

  async #compare(): Promise<void> {
    const { scan, show } = this.#means;
    const expected = this.#expected.take();
    if (this.#last >= this.#windowFirst) {
      const found = await scan.runs(this.#range.partition, this.#windowFirst, this.#last);
      this.#total = joinDifferences(this.#total, compareRuns(expected, found, show), show);
    }
    this.#windowFirst = this.#last + 1;
  }
}

/** Rows wait here until there are enough of them for a question. */
class ContentsComparison {
  readonly #scan: ContentScan;
  readonly #partition: number;
  readonly #show: number;
  #waiting: KafkaRecord[] = [];
  #bytes = 0;
  #records = 0;
  #differing: ContentsCompared['differing'] = { count: 0, first: [] };
  #unread: ContentsCompared['unread'] = { count: 0, first: [] };

  constructor(scan: ContentScan, partition: number, show: number) {
    this.#scan = scan;
    this.#partition = partition;
    this.#show = show;
  }

  async add(rows: readonly KafkaRecord[]): Promise<void> {
    // What is no JSON object was never inserted: that it has no row is told already.
    const readable = rows.filter(({ value }) => value !== null && valueFault(value) === undefined);
    if (readable.length === 0) return;
    this.#records += 1;
    this.#waiting.push(...readable);
    for (const { value } of readable) this.#bytes += value?.length ?? 0;
    if (this.#waiting.length >= CONTENTS.records || this.#bytes >= CONTENTS.bytes) await this.#ask();
  }

  async end(): Promise<ContentsCompared> {
    await this.#ask();
    return { records: this.#records, differing: this.#differing, unread: this.#unread };
  }

  async #ask(): Promise<void> {
    const waiting = this.#waiting;
    [this.#waiting, this.#bytes] = [[], 0];
    const found = await this.#scan.differing(this.#partition, waiting, this.#show);
    this.#differing = joined(this.#differing, found, this.#show);
    this.#unread = joined(this.#unread, found.unread, this.#show);
  }
}

function joined<T>(a: { readonly count: number; readonly first: readonly T[] }, b: typeof a, show: number): typeof a {
  return { count: a.count + b.count, first: [...a.first, ...b.first].slice(0, show) };
}

/**
 * One a record, or as many as the transform makes of it. One that it throws at was never inserted: it counts as
 * missing.
 */
function rowsOf(
  record: KafkaRecord,
  transform: Transform | undefined,
  { topic, partition }: { readonly topic: string; readonly partition: number },
): { readonly count: number; readonly rows: readonly KafkaRecord[] } {
  if (transform === undefined) return { count: 1, rows: [record] };
  try {
    const rows = rowsOfRecord(transform, record, {
      topic,
      partition,
      assignmentId: 0,
      generation: 0,
      startOffset: record.offset,
    });
    return { count: rows.length, rows };
  } catch {
    return { count: 1, rows: [] };
  }
}
