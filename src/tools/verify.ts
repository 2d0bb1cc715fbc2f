/**
 * Room: the topic against the table, offset by offset: what is missing, what is there twice, what is not in the topic.
 * Reads only. What is held at once is bounded: runs of offsets of one window, and the records of one fetch.
 */
import { openProvenanceScan, type ProvenanceScan } from '../clickhouse/provenance-scan.js';
import type { CheckedConfig } from '../config.js';
import { groupNow } from '../kafka/group.js';
import { LogScan } from '../kafka/scan.js';
import type { KafkaRecord } from '../model/record.js';
import type { Transform } from '../../operators/transform-rows.js';
import { clickHouseOptions } from '../preflight.js';
import type { StateAccess } from './access.js';
import { look, selectTopics, type PartitionLook } from './look.js';
import { compareRuns, joinDifferences, noDifference, RunBuilder, type Difference } from './offset-runs.js';

export interface VerifyOptions {
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  /** Where to begin, in each partition; what the log does not hold any more is left out. */
  readonly fromOffset?: number | undefined;
  /** How many offsets of each kind are named, per partition. @default 5 */
  readonly show?: number | undefined;
}

export interface PartitionVerdict extends Difference {
  readonly topic: string;
  readonly partition: number;
  readonly table: string;
  /** The range that was compared, both ends included; undefined: there was nothing to compare, `why` says why. */
  readonly range: { readonly first: number; readonly last: number } | undefined;
  readonly why?: string;
  /** Records that should have a row, or several; of those a transform leaves out none counts. */
  readonly records: number;
  /** Offsets that retention took while they were about to be read. */
  readonly gone: number;
  /** Offsets that the log has and nobody can read, since their record batch is damaged: they were not compared. */
  readonly unreadable: number;
  /** Why, one sentence for each such batch, at most `show`. */
  readonly damages: readonly string[];
  /** The table has rows of offsets that the log has not reached yet: the greatest. Undefined: it has none. */
  readonly beyond: number | undefined;
}

export interface Verdict {
  readonly partitions: readonly PartitionVerdict[];
  /** What to know of the tables to read the result rightly. */
  readonly notes: readonly string[];
}

/** Offsets of one question to the table, and runs of them, at most: what is held at once. */
export const verifyWindow = { offsets: 2_000_000, runs: 200_000 } as const;

/** Compares every selected partition. `access` undefined: the group's committed offsets say how far. */
export async function verify(config: CheckedConfig, access: StateAccess | undefined, options: VerifyOptions): Promise<Verdict> {
  const topics = selectTopics(config, options);
  const scans = new Map<string, ProvenanceScan>();
  const log = new LogScan({ ...config.kafka, topics });
  try {
    for (const topic of topics) scans.set(topic, await openProvenanceScan(clickHouseOptions(config), topic));
    // How far each partition is settled is read before the table: what is settled must be there.
    const places = access === undefined ? await withoutState(config, topics) : (await look(config, access, options)).partitions;
    const partitions: PartitionVerdict[] = [];
    for (const place of places) {
      if (options.partition !== undefined && place.partition !== options.partition) continue;
      const transform = config.routes.find(({ topic }) => topic === place.topic)?.transform;
      partitions.push(await verifyPartition({ config, log, scan: scans.get(place.topic)!, transform, options }, place));
    }
    return { partitions, notes: notesOf([...scans.values()]) };
  } finally {
    for (const scan of scans.values()) scan.close();
    await log.close();
  }
}

type Place = Pick<PartitionLook, 'topic' | 'partition' | 'logStart' | 'logEnd' | 'committed' | 'stored'>;

async function withoutState(config: CheckedConfig, topics: readonly string[]): Promise<readonly Place[]> {
  const { partitions } = await groupNow({ ...config.kafka, topics });
  return partitions.map((place) => ({ ...place, stored: undefined }));
}

interface Means {
  readonly config: CheckedConfig;
  readonly log: LogScan;
  readonly scan: ProvenanceScan;
  readonly transform: Transform | undefined;
  readonly options: VerifyOptions;
}

async function verifyPartition(means: Means, place: Place): Promise<PartitionVerdict> {
  const { scan, options } = means;
  const { topic, partition, logStart, logEnd } = place;
  const extent = await scan.extent(partition);
  const verdict = { topic, partition, table: scan.table, records: 0, gone: 0, unreadable: 0, damages: [], ...noDifference, beyond: await beyondOf(means, place, extent?.last) };
  const last = place.stored === undefined ? (place.committed ?? 0) - 1 : (place.stored.state.settled ?? -1);
  if (last < 0) return { ...verdict, range: undefined, why: 'nothing is settled' };
  const first = Math.max(logStart, options.fromOffset ?? extent?.first ?? logStart);
  if (first > last) return { ...verdict, range: undefined, why: first === logStart ? 'retention took all that is settled' : `nothing is settled from ${first} on` };
  const range = { topic, partition, first, last: Math.min(last, logEnd - 1) };
  return { ...verdict, range: { first, last: range.last }, ...(await compareRange(means, range)) };
}

/** A process that runs may have inserted since the log's end was read: then it is read again. */
async function beyondOf({ config, scan }: Means, { topic, partition, logEnd }: Place, greatest: number | undefined): Promise<number | undefined> {
  if (greatest === undefined || greatest < logEnd) return undefined;
  const extent = await scan.extent(partition);
  const { partitions } = await groupNow({ ...config.kafka, topics: [topic] });
  const endNow = partitions.find((each) => each.partition === partition)?.logEnd ?? logEnd;
  return extent !== undefined && extent.last >= endNow ? extent.last : undefined;
}

type Compared = Difference & Pick<PartitionVerdict, 'records' | 'gone' | 'unreadable' | 'damages'>;

async function compareRange({ log, scan, transform, options }: Means, range: Parameters<LogScan['read']>[0]): Promise<Compared> {
  const { show = 5 } = options;
  const { partition } = range;
  const expected = new RunBuilder();
  let total: Difference = noDifference;
  const damages: string[] = [];
  let [records, gone, unreadable, windowFirst, last] = [0, 0, 0, range.first, range.first - 1];
  const compare = async (): Promise<void> => {
    if (last >= windowFirst) total = joinDifferences(total, compareRuns(expected.take(), await scan.runs(partition, windowFirst, last), show), show);
    windowFirst = last + 1;
  };
  for await (const chunk of log.read(range)) {
    if (chunk.isGone || chunk.unreadable !== undefined) {
      await compare();
      if (chunk.isGone) gone += chunk.last - chunk.first + 1;
      else unreadable += chunk.last - chunk.first + 1;
      if (chunk.unreadable !== undefined && damages.length < show) damages.push(chunk.unreadable);
      windowFirst = chunk.last + 1;
    }
    for (const record of chunk.records) {
      const rows = rowsOf(record, transform, range);
      if (rows > 0) records += 1;
      expected.add(record.offset, rows);
    }
    last = chunk.last;
    if (last - windowFirst >= verifyWindow.offsets || expected.length >= verifyWindow.runs) await compare();
  }
  await compare();
  return { ...total, records, gone, unreadable, damages };
}

/** One a record, or as many as the transform makes of it. One that it throws at was never inserted: it counts as missing. */
function rowsOf(record: KafkaRecord, transform: Transform | undefined, { topic, partition }: { readonly topic: string; readonly partition: number }): number {
  if (transform === undefined) return 1;
  try {
    const made = transform(record, { topic, partition, epoch: 0, generation: 0, startOffset: record.offset });
    if (made === null || made === undefined) return 0;
    return Array.isArray(made) ? made.length : 1;
  } catch {
    return 1;
  }
}

function notesOf(scans: readonly ProvenanceScan[]): readonly string[] {
  const collapsing = new Map(scans.filter(({ collapses }) => collapses).map(({ table, engine }) => [table, engine]));
  return [...collapsing].map(
    ([table, engine]) =>
      `${table} is a ${engine}: its merges take doubled rows away, so what is doubled here may be gone after the next merge (FINAL is not used), and a SELECT without FINAL sees it until then`,
  );
}

export function isClean({ partitions }: Verdict): boolean {
  return partitions.every(({ missing, doubled, unexpected, beyond, unreadable }) => missing.count + doubled.count + unexpected.count + unreadable === 0 && beyond === undefined);
}
