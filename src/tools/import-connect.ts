/**
 * Taking over from clickhouse-kafka-connect: what its state means in ours, and writing it. The decision is pure.
 *
 * The connector writes BEFORE_PROCESSING with the range, inserts under the token `topic-partition-min-max`, then writes
 * AFTER_PROCESSING. A range that is BEFORE may be in the table or not: it becomes a range in doubt under that very
 * token, so that ClickHouse takes the insert for a repetition if it landed.
 * Imports: Node, clickhouse, clickhouse/verify, config, errors, kafka, model, preflight, stores.
 */
import { hostname } from 'node:os';
import { expectNoRefusal } from '../preflight/finding.js';
import { connectToken, readConnectState, type ConnectRow } from '../clickhouse/connect-state.js';
import { openProvenanceScan } from '../clickhouse/verify/provenance-scan.js';
import { openClickHouseSink } from '../clickhouse/sink.js';
import type { CheckedConfig } from '../config/config.js';
import { IngestError, hasCode } from '../errors.js';
import { groupNow, type GroupNow } from '../kafka/group-admin.js';
import type { PartitionState } from '../model/state.js';
import { clickHouseOptions, topicsOf } from '../config/adapter-options.js';
import { preflight } from '../preflight/preflight.js';
import type { StateAccess } from '../stores/stores.js';
import { isKnown, look, type PipelineStatus, type PartitionStatus } from './status.js';

export interface ImportOptions {
  /** The connector's state table: its option `zkDatabase`. */
  readonly table: string;
  /** @default the configuration's database */
  readonly database?: string | undefined;
  /** The connector's consumer group, `connect-<name of the connector>` unless it was set. */
  readonly group?: string | undefined;
  readonly overwrite: boolean;
}

export interface ImportPlan {
  readonly at: PartitionStatus;
  /** Undefined: the connector has no row of it. */
  readonly row: ConnectRow | undefined;
  /** The state to be written; undefined: the import is refused. */
  readonly after: PartitionState | undefined;
  /** What it means, sentences. */
  readonly words: readonly string[];
  /** Why not, and what to do. */
  readonly refusal: string | undefined;
}

export interface ImportLook {
  readonly plans: readonly ImportPlan[];
  /** Rows of topics that have no route: left alone. */
  readonly ignored: readonly ConnectRow[];
  readonly look: PipelineStatus;
}

/** What the table's own columns say of a range that is BEFORE. */
export type Landed = 'all' | 'none' | 'part' | 'unknown' | 'misleading';

export interface ImportFacts {
  /**
   * As the sink would record them now: the age, the server and its present run are then judged as with an intent of
   * ours. What the connector inserted with, and when, is not known; import's time stands for it.
   */
  readonly tables: readonly string[];
  readonly settings: string;
  readonly nowMs: number;
  /** Of the connector's group; undefined: nothing committed, or the group was not named. */
  readonly committed: number | undefined;
  readonly group: string | undefined;
  readonly landed: Landed;
  readonly overwrite: boolean;
}

const again = 'start the connector until its state is AFTER_PROCESSING, stop it, then import again';

/** What is to become of a partition. */
type Verdict = { readonly after: PartitionState; readonly words: readonly string[] } | { readonly refusal: string };

/** The state that goes on where the connector stopped. */
export function planImport(at: PartitionStatus, row: ConnectRow | undefined, facts: ImportFacts): ImportPlan {
  const verdict = verdictOn(at, row, facts);
  return 'refusal' in verdict
    ? { at, row, after: undefined, words: [], refusal: verdict.refusal }
    : { at, row, ...verdict, refusal: undefined };
}

function verdictOn(at: PartitionStatus, row: ConnectRow | undefined, facts: ImportFacts): Verdict {
  const before = at.stored?.state;
  const ours = before !== undefined && isKnown(before) ? before : undefined;
  if (ours !== undefined && !facts.overwrite)
    return { refusal: 'there is a state of ours already; --overwrite replaces it' };
  const incarnation = ours === undefined ? 0 : ours.incarnation + 1;
  const goOn: GoOn = (settled, words, pending = []) => ({
    after: { settled, pending, incarnation, topicId: undefined },
    words,
  });
  return row === undefined || row.phase === 'NONE' ? unread(at, facts, goOn) : read(at, row, facts, goOn);
}

type GoOn = (settled: number, words: readonly string[], pending?: PartitionState['pending']) => Verdict;

/** The connector has inserted nothing of it. */
function unread({ logStart, logEnd }: PartitionStatus, { committed, group }: ImportFacts, goOn: GoOn): Verdict {
  if (committed !== undefined)
    return goOn(committed - 1, [`goes on at offset ${committed}, which the connector's group has committed`]);
  if (logStart === logEnd) return goOn(logEnd - 1, [`goes on at offset ${logEnd}: the log holds nothing`]);
  const refusal =
    group === undefined
      ? 'the connector has inserted nothing of it; how far it has read its group tells: give --connect-group'
      : 'the connector has inserted nothing of it, and its group has committed nothing; commit where it is to ' +
        `begin (kafka-consumer-groups.sh --reset-offsets --group ${group}), then import`;
  return { refusal };
}

/** The connector's last range is settled or in doubt. */
function read({ logStart, logEnd }: PartitionStatus, row: ConnectRow, facts: ImportFacts, goOn: GoOn): Verdict {
  const { first, last, phase } = row;
  if (last >= logEnd) {
    return {
      refusal:
        `the connector was at offset ${last}, the log ends at ${logEnd}: this is another topic than the ` +
        `connector's, or it was recreated`,
    };
  }
  const gap = last + 1 < logStart ? [`offsets ${last + 1}-${logStart - 1} are gone by retention; see onGap`] : [];
  if (phase === 'AFTER_PROCESSING') return goOn(last, [`settled up to ${last}; goes on at ${last + 1}`, ...gap]);
  if (facts.landed === 'all')
    return goOn(last, [`${first}-${last} was in doubt, and the table has all of it: settled up to ${last}`, ...gap]);
  if (facts.landed === 'misleading') {
    return {
      refusal:
        `${first}-${last} is in doubt, and the connector did not fill the columns _partition and _offset ` +
        `that the table has: what landed would be taken for missing; ${again}`,
    };
  }
  const { nowMs: atMs, settings, tables, landed } = facts;
  const token = connectToken(row);
  const known = { none: ', and the table has none of it', part: ', and the table has a part of it', unknown: '' }[
    landed
  ];
  const replayed = `${first}-${last} is in doubt${known}: it is inserted again under the connector's token ${token}`;
  const lost = `the log begins at ${logStart}: what of the range is before it cannot be inserted again`;
  const intent = { first, last, rows: last - first + 1, atMs, settings, tables, excluded: [], token };
  return goOn(first - 1, first < logStart ? [replayed, lost] : [replayed], [intent]);
}

/** Reads everything, changes nothing. @throws what cannot be overcome by looking at single partitions. */
export async function lookAtConnect(
  config: CheckedConfig,
  access: StateAccess,
  options: ImportOptions,
  nowMs: number,
): Promise<ImportLook> {
  expectNoRefusal(await preflight(config, { records: 'skip' }));
  const { table, database = config.clickhouse.database, group, overwrite } = options;
  const connection = clickHouseOptions(config);
  const connect = await readConnectState(connection, { database, table });
  const committed =
    group === undefined
      ? []
      : stopped(await groupNow({ ...config.kafka, groupId: group, topics: topicsOf(config) }), group);
  const found = await look(config, access);
  const sink = await openClickHouseSink(connection);
  try {
    const plans: ImportPlan[] = [];
    for (const at of found.partitions) {
      const isSame = (each: { readonly topic: string; readonly partition: number }) =>
        each.topic === at.topic && each.partition === at.partition;
      const row = connect.find(isSame);
      const facts = {
        ...sink.describe(at.topic),
        nowMs,
        overwrite,
        group,
        committed: committed.find(isSame)?.committed,
      };
      plans.push(
        planImport(at, row, {
          ...facts,
          landed: row?.phase === 'BEFORE_PROCESSING' ? await landed(config, row) : 'unknown',
        }),
      );
    }
    return { plans, ignored: ignoredRows(config, connect, found), look: found };
  } finally {
    await sink.close();
  }
}

function ignoredRows(
  config: CheckedConfig,
  rows: readonly ConnectRow[],
  { partitions }: PipelineStatus,
): readonly ConnectRow[] {
  const topics = topicsOf(config);
  const stray = rows.find(
    (row) =>
      topics.includes(row.topic) && !partitions.some((at) => at.topic === row.topic && at.partition === row.partition),
  );
  if (stray !== undefined) {
    throw new IngestError(
      'KCR_TOPIC_RESET',
      'The connector has a state of a partition that the topic does not have: it was recreated with fewer',
      {
        topic: stray.topic,
        partition: stray.partition,
        hint: 'delete that row of the connector’s table if it is of a topic that is gone',
      },
    );
  }
  return rows.filter((row) => !topics.includes(row.topic));
}

/** @throws `KCR_KAFKA` while the group has members: the connector runs, and would go on inserting. */
function stopped({ members, partitions }: GroupNow, groupId: string): GroupNow['partitions'] {
  if (members.length === 0) return partitions;
  throw new IngestError(
    'KCR_KAFKA',
    `The connector still runs: its group ${groupId} has ` +
      `${members.length === 1 ? 'a member' : `${members.length} members`} ` +
      `(${members.slice(0, 3).join(', ')})`,
    {
      hint: 'stop the connector (PUT /connectors/<name>/stop, or delete it), wait until its group is empty, then import',
    },
  );
}

/** Asks the table, where it has columns to ask by: rows of the connector may have been inserted without them. */
async function landed(config: CheckedConfig, { topic, partition, first, last }: ConnectRow): Promise<Landed> {
  const scan = await openProvenanceScan(clickHouseOptions(config), topic).catch((thrown: unknown) => {
    if (hasCode(thrown, 'KCR_TABLE_UNSUITABLE')) return undefined;
    throw thrown;
  });
  if (scan === undefined) return 'unknown';
  try {
    const extent = await scan.extent(partition);
    // A column that was added later is 0 in every row that was there before.
    if (extent === undefined || extent.last === 0) return 'misleading';
    const runs = await scan.runs(partition, first, last);
    const offsets = runs.reduce((sum, run) => sum + run.last - run.first + 1, 0);
    return offsets === 0 ? 'none' : offsets === last - first + 1 ? 'all' : 'part';
  } finally {
    scan.close();
  }
}

/** @throws `KCR_STATE_INVALID` when a partition got a state of ours since it was looked at. */
export async function applyImport(
  access: StateAccess,
  plans: readonly ImportPlan[],
  overwrite: boolean,
): Promise<void> {
  for (const { at, after } of plans) {
    if (after === undefined) continue;
    await access.replace(at, `${hostname()}:${process.pid}:import-connect`, (found) => {
      if (!isKnown(found) || overwrite)
        return { ...after, incarnation: isKnown(found) ? found.incarnation + 1 : after.incarnation };
      throw new IngestError('KCR_STATE_INVALID', 'The partition has got a state of ours meanwhile', {
        topic: at.topic,
        partition: at.partition,
        hint: 'a process of this group runs: stop it, then import with --overwrite if its state is to be replaced',
      });
    });
  }
}
