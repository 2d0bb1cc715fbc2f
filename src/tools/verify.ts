/**
 * The topic against the table, offset by offset: what is missing, what
 * is there twice, what is not in the topic, and what could not be compared. Reads only.
 * Imports: clickhouse/verify, config, kafka, kafka/fetch, model, stores.
 */
import type { NotCompared } from '../clickhouse/verify/content-scan.js';
import { clickHouseOptions } from '../config/adapter-options.js';
import { openProvenanceScan, type Extent, type ProvenanceScan } from '../clickhouse/verify/provenance-scan.js';
import type { CheckedConfig } from '../config/config.js';
import { groupNow } from '../kafka/group-admin.js';
import { LogScan } from '../kafka/fetch/scan.js';
import { lastKnownOffset } from '../model/state.js';
import type { StateAccess } from '../stores/stores.js';
import { look, selectTopics, type PartitionStatus } from './status.js';
import { noDifference } from './offset-runs.js';
import { compareRange, type RangeCompared, type RangeMeans } from './verify-range.js';

export interface VerifyOptions {
  readonly topic?: string | undefined;
  readonly partition?: number | undefined;
  /** Where to begin, in each partition; what the log does not hold any more is left out. */
  readonly fromOffset?: number | undefined;
  /** How many offsets of each kind are named, per partition. @default 5 */
  readonly show?: number | undefined;
  /** Compare also what the rows hold, which reads each record in ClickHouse once more. @default false */
  readonly contents?: boolean | undefined;
}

export interface PartitionVerdict extends RangeCompared {
  readonly topic: string;
  readonly partition: number;
  readonly table: string;
  /** The range that was compared, both ends included; undefined: there was nothing to compare, `why` says why. */
  readonly range: { readonly first: number; readonly last: number } | undefined;
  readonly why?: string;
  /** The log holds nothing that could have been compared. */
  readonly isEmpty: boolean;
  /** All rows that the table has of the partition; undefined: none. */
  readonly stored: Extent | undefined;
  /**
   * Rows of offsets before the range: the log does not hold them any more, or they were left out. They were not
   * compared.
   */
  readonly before: Extent | undefined;
  /**
   * Rows of offsets behind the range that a range in doubt, or a process at work, accounts for. They were not compared.
   */
  readonly unsettled: Extent | undefined;
  /** Rows of offsets behind everything that is settled or in doubt: nothing that is known of has inserted them. */
  readonly unrecorded: Extent | undefined;
  /** The table has rows of offsets that the log has not reached yet: the greatest. Undefined: it has none. */
  readonly beyond: number | undefined;
}

export interface Verdict {
  readonly partitions: readonly PartitionVerdict[];
  /** Columns whose contents were not compared, by table; none where contents were not asked for. */
  readonly notCompared: Readonly<Record<string, readonly NotCompared[]>>;
  /** What to know of the tables to read the result rightly. */
  readonly notes: readonly string[];
}

/**
 * - `clean`: everything that is settled was compared, and every record is in the table as it should be.
 * - `differs`: something was found that should not be, or could not be read.
 * - `incomplete`: nothing was found, and of a partition with records, or of all, nothing could be compared.
 */
export type Outcome = 'clean' | 'differs' | 'incomplete';

/** Compares every selected partition. `access` undefined: the group's committed offsets say how far. */
export async function verify(
  config: CheckedConfig,
  access: StateAccess | undefined,
  options: VerifyOptions,
): Promise<Verdict> {
  const topics = selectTopics(config, options);
  const scans = new Map<string, ProvenanceScan>();
  const log = new LogScan({ ...config.kafka, topics });
  const notCompared: Record<string, readonly NotCompared[]> = {};
  try {
    for (const topic of topics) scans.set(topic, await openProvenanceScan(clickHouseOptions(config), topic));
    // How far each partition is settled is read before the table: what is settled must be there.
    const places = await placesNow(config, access, options);
    const partitions: PartitionVerdict[] = [];
    for (const [topic, scan] of scans) {
      const contents = options.contents === true ? await scan.contents() : undefined;
      if (contents !== undefined) notCompared[scan.table] = contents.notCompared;
      const transform = config.routes.find((route) => route.topic === topic)?.transform;
      const means = { config, access, options, log, scan, transform, contents, show: options.show ?? 5 };
      const ofTopic = places.filter((place) => place.topic === topic);
      for (const seen of await seenOf(means, topic, ofTopic)) partitions.push(await verifyPartition(means, seen));
    }
    return { partitions, notCompared, notes: notesOf([...scans.values()]) };
  } finally {
    for (const scan of scans.values()) scan.close();
    await log.close();
  }
}

type Place = Pick<PartitionStatus, 'topic' | 'partition' | 'logStart' | 'logEnd' | 'committed' | 'stored'>;

async function placesNow(
  config: CheckedConfig,
  access: StateAccess | undefined,
  { topic, partition }: VerifyOptions,
): Promise<readonly Place[]> {
  if (access !== undefined) return (await look(config, access, { topic, partition })).partitions;
  const { partitions } = await groupNow({ ...config.kafka, topics: selectTopics(config, { topic }) });
  return partitions
    .filter((place) => partition === undefined || place.partition === partition)
    .map((place) => ({ ...place, stored: undefined }));
}

interface Means extends RangeMeans {
  readonly config: CheckedConfig;
  readonly access: StateAccess | undefined;
  readonly options: VerifyOptions;
}

interface Seen {
  readonly place: Place;
  /** What the table has of the partition. */
  readonly extent: Extent | undefined;
  /** Where the partition stood when the table had been looked into. */
  readonly later: Place;
}

/**
 * What the table has of each partition, and then where they stand: rows that a process inserts at this moment were
 * recorded before, so the states are read again behind them. Of all together: each time takes a few requests.
 */
async function seenOf(means: Means, topic: string, places: readonly Place[]): Promise<readonly Seen[]> {
  const { config, access, scan, options } = means;
  const extents: (Extent | undefined)[] = [];
  for (const { partition } of places) extents.push(await scan.extent(partition));
  const isBehind = places.some((place, i) => (extents[i]?.last ?? -1) > boundsOf(place, options, extents[i]).last);
  const now = isBehind ? await placesNow(config, access, { ...options, topic }) : places;
  const later = new Map(now.map((place) => [place.partition, place]));
  return places.map((place, i) => ({ place, extent: extents[i], later: later.get(place.partition) ?? place }));
}

async function verifyPartition(means: Means, seen: Seen): Promise<PartitionVerdict> {
  const { scan } = means;
  const { place, extent } = seen;
  const { topic, partition, logStart, logEnd } = place;
  const { first, last } = boundsOf(place, means.options, extent);
  const isEmpty = logStart >= logEnd;
  const verdict = {
    topic,
    partition,
    table: scan.table,
    isEmpty,
    stored: extent,
    ...nothingCompared,
    ...(await aroundOf(means, seen, { first, last })),
  };
  if (last < first) return { ...verdict, range: undefined, why: whyNothing(place, first, last) };
  return { ...verdict, range: { first, last }, ...(await compareRange(means, { topic, partition, first, last })) };
}

const nothingCompared = { ...noDifference, records: 0, gone: 0, unreadable: 0, damages: [], contents: undefined };

/**
 * From where the log begins, or the first owner began: a record that has no row may be the very first one. Rows that
 * the table has from before that are compared, too.
 */
function boundsOf(
  { logStart, logEnd, committed, stored }: Place,
  { fromOffset }: VerifyOptions,
  extent: Extent | undefined,
): { readonly first: number; readonly last: number } {
  const settled = stored === undefined ? (committed ?? 0) - 1 : (stored.state.settled ?? -1);
  const began = Math.min(stored?.state.began ?? logStart, extent?.first ?? Infinity);
  return { first: Math.max(logStart, fromOffset ?? began), last: Math.min(settled, logEnd - 1) };
}

function whyNothing({ logStart }: Place, first: number, last: number): string {
  if (last < 0) return 'nothing is settled';
  return first === logStart ? 'retention took all that is settled' : `nothing is settled from ${first} on`;
}

type Around = Pick<PartitionVerdict, 'before' | 'unsettled' | 'unrecorded' | 'beyond'>;

/** Rows of offsets that are not compared. */
async function aroundOf(
  { config, access, scan }: Means,
  { place: { partition }, extent, later }: Seen,
  { first, last }: { readonly first: number; readonly last: number },
): Promise<Around> {
  if (extent === undefined)
    return { before: undefined, unsettled: undefined, unrecorded: undefined, beyond: undefined };
  const { logEnd } = later;
  const known = Math.max(last, knownOf(config, access, later));
  const rows = async (from: number, to: number): Promise<Extent | undefined> =>
    from > to || from > extent.last ? undefined : scan.within(partition, from, to);
  return {
    before:
      extent.first < first
        ? await scan.within(partition, Number.MIN_SAFE_INTEGER, Math.min(first - 1, extent.last))
        : undefined,
    unsettled: await rows(last + 1, Math.min(known, logEnd - 1)),
    unrecorded: await rows(Math.max(known, last) + 1, Math.min(extent.last, logEnd - 1)),
    beyond: extent.last >= logEnd ? extent.last : undefined,
  };
}

/**
 * The last offset of which rows may be there. Without a state inserts come before anybody writes down that they did;
 * at-most-once commits first.
 */
function knownOf({ delivery }: CheckedConfig, access: StateAccess | undefined, { committed, stored }: Place): number {
  if (access === undefined && delivery !== 'at-most-once') return Infinity;
  return stored === undefined ? (committed ?? 0) - 1 : (lastKnownOffset(stored.state) ?? -1);
}

function notesOf(scans: readonly ProvenanceScan[]): readonly string[] {
  const collapsing = new Map(scans.filter(({ collapses }) => collapses).map(({ table, engine }) => [table, engine]));
  return [...collapsing].map(
    ([table, engine]) =>
      `${table} is a ${engine}: its merges take doubled rows away, so what is doubled here may be gone after the ` +
      'next merge (FINAL is not used), and a SELECT without FINAL sees it until then',
  );
}

export function outcomeOf({ partitions }: Verdict): Outcome {
  if (!partitions.every(isClean)) return 'differs';
  const records = partitions.reduce((sum, each) => sum + each.records, 0);
  return records === 0 || partitions.some(({ range, isEmpty }) => range === undefined && !isEmpty)
    ? 'incomplete'
    : 'clean';
}

function isClean({
  missing,
  doubled,
  unexpected,
  unreadable,
  beyond,
  unrecorded,
  contents,
}: PartitionVerdict): boolean {
  const counts =
    missing.count +
    doubled.count +
    unexpected.count +
    unreadable +
    (contents?.differing.count ?? 0) +
    (contents?.unread.count ?? 0);
  return counts === 0 && beyond === undefined && unrecorded === undefined;
}
