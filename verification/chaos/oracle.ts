// The judge of the chaos run. Reads the topics with Kafka's own Java client, whose reading of transactions owes nothing to
// ours, checks that against what the producer knows, and compares the table with it, row by row, by place and contents.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { InsertMode } from '../../src/clickhouse/insert/settings.js';
import { command, query } from '../../test/stack/clients.js';
import { jars, java } from '../../test/stack/jars.js';
import type { EngineFamily } from '../../test/support/engines.js';
import { topics, valueOf, type Traffic } from './traffic.js';

/**
 * One of the kind that servers have as a rule. The development server's own, `default`, does not tell when a table was
 * altered, so that every range in doubt would be looked for in the table before it is sent again.
 */
export const database = 'chaos_tables';
export const table = 'chaos';
/** As statements name it. */
export const qualifiedTable = `${database}.${table}`;

/** Inserts that are written together spread over several ClickHouse partitions, of which a kill may take some. */
export async function createTable(url: string, family: EngineFamily, insertMode: InsertMode): Promise<void> {
  await command(url, `CREATE DATABASE ${database} ENGINE = Atomic`);
  await command(
    url,
    `CREATE TABLE ${qualifiedTable} (id UInt64, pad String, _topic LowCardinality(String), _partition UInt32, _offset UInt64, _key String)
     ENGINE = ${family.engine(`${insertMode === 'coalesced' ? 'PARTITION BY id % 3 ' : ''}ORDER BY (_topic, _partition, _offset)`)}`,
  );
}

interface LogRecord {
  /** By which its producer remembers it. */
  readonly id: number;
  readonly key: string;
  /** Undefined: a tombstone. */
  readonly value: string | undefined;
}

/** By `topic/partition`, then by offset. */
export type Log = ReadonlyMap<string, ReadonlyMap<number, LogRecord>>;

export interface Verdict {
  /** Records with a value that the topics hold for a reader of committed ones. */
  readonly produced: number;
  /** Those without one: none may have a row. */
  readonly tombstones: number;
  readonly rows: number;
  /** Rows of records that compaction has taken meanwhile. */
  readonly compactedAway: number;
  /** Each list as `topic/partition@offset`. */
  readonly missing: readonly string[];
  readonly doubled: readonly string[];
  /** Rows with other contents than the record, rows of tombstones, and rows of no record at all. */
  readonly wrong: readonly string[];
}

/** The topics, once no transaction is open any more. */
export async function readLog(brokers: readonly string[], limitMs = 60_000): Promise<Log> {
  const classpath = join(await jars('kafka'), '*');
  const program = fileURLToPath(new URL('ReadCommitted.java', import.meta.url));
  const names = Object.values(topics).map(({ topic }) => topic);
  for (const endMs = performance.now() + limitMs; ; await sleep(1000)) {
    const args = [
      '-XX:+UseSerialGC',
      '-XX:TieredStopAtLevel=1',
      '-Dorg.slf4j.simpleLogger.defaultLogLevel=error',
      '-cp',
      classpath,
      program,
      brokers.join(','),
      ...names,
    ];
    const { stdout } = await promisify(execFile)(java(), args, { maxBuffer: 2 ** 30, timeout: 180_000 });
    const lines = stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split('\t'));
    const open = lines.filter(([kind, , , stable, high]) => kind === 'E' && stable !== high);
    if (open.length === 0) return logOf(lines);
    if (performance.now() > endMs) throw new Error(`transactions stay open: ${JSON.stringify(open)}`);
  }
}

function logOf(lines: readonly string[][]): Log {
  const log = new Map<string, Map<number, LogRecord>>();
  for (const [kind, topic, partition, offset, key, id, value] of lines) {
    const place = `${topic}/${partition}`;
    if (!log.has(place)) log.set(place, new Map());
    if (kind !== 'E') log.get(place)!.set(Number(offset), { id: Number(id), key: key!, value });
  }
  return log;
}

/** Of records that a producer was told are aborted: a request that came late joins its next transaction (KIP-890). */
const mostContradictions = 3;

/**
 * What Kafka holds against what the producer was answered. A committed record that is not there means that nothing can be
 * judged by this reading, and so do many aborted ones that are; a few are told, and the log counts.
 */
export function checkLog(log: Log, { fates }: Traffic): readonly string[] {
  const contradicted: string[] = [];
  for (const [topic, fateOf] of fates) {
    const held = new Set<number>();
    for (const [place, records] of log) {
      if (place.startsWith(`${topic}/`)) for (const { id } of records.values()) held.add(id);
    }
    const isCompacted = topic === topics.compacted.topic;
    for (const [id, fate] of fateOf) {
      if (fate === 'aborted' && held.has(id))
        contradicted.push(`${topic}: record ${id} was aborted, and Kafka gives it`);
      if (fate === 'committed' && !isCompacted && !held.has(id))
        throw new Error(`${topic}: record ${id} was committed, and Kafka has lost it`);
    }
  }
  if (contradicted.length > mostContradictions) throw new Error(`${contradicted.length} of them: ${contradicted[0]}`);
  return contradicted;
}

/** Waits until the table has the last record of each partition; false when it has not in time. */
export async function isCaughtUp(url: string, log: Log, limitMs: number): Promise<boolean> {
  // The log is read in order, so its greatest offset comes last.
  const lastOf = [...log].map(([place, records]) => [place, [...records.keys()].at(-1) ?? -1] as const);
  for (const endMs = performance.now() + limitMs; performance.now() < endMs; await sleep(500)) {
    const rows = await query<{ place: string; last: number }>(
      url,
      `SELECT concat(_topic, '/', toString(_partition)) AS place, max(_offset) AS last FROM ${qualifiedTable} GROUP BY place`,
    );
    const reached = new Map(rows.map(({ place, last }) => [place, last]));
    if (lastOf.every(([place, last]) => (reached.get(place) ?? -1) >= last)) return true;
  }
  return false;
}

/**
 * Parts of which ClickHouse itself does not know whether it keeps them, as after code 319: until it has looked, within five
 * minutes or when it is started again, their rows are there beside those of the attempt that was repeated.
 */
export async function partsUnknown(url: string): Promise<number> {
  const [row] = await query<{ parts: number }>(
    url,
    `SELECT sum(parts_to_check) AS parts FROM system.replicas WHERE table = '${table}'`,
  );
  return row?.parts ?? 0;
}

export async function judge(url: string, log: Log, traffic: Traffic): Promise<Verdict> {
  const text = await command(
    url,
    `SELECT _topic, _partition, _offset, id, pad, _key FROM ${qualifiedTable} ORDER BY _topic, _partition, _offset FORMAT TabSeparated`,
  );
  return compare(text.split('\n').filter(Boolean), log, traffic);
}

type Witness = Pick<Traffic, 'fates' | 'tombstones'>;

/** Of rows as `topic, partition, offset, id, pad, key` between tabs. */
export function compare(rows: readonly string[], log: Log, witness: Witness): Verdict {
  const seen = new Map([...log.keys()].map((place) => [place, new Set<number>()]));
  const found = { rows: 0, compactedAway: 0, doubled: [] as string[], wrong: [] as string[] };
  for (const line of rows) {
    const [topic, partition, offsetText, id, pad, key] = line.split('\t') as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const [place, offset] = [`${topic}/${partition}`, Number(offsetText)];
    const at = `${place}@${offset}`;
    found.rows++;
    const offsets = seen.get(place);
    if (offsets?.has(offset)) found.doubled.push(at);
    offsets?.add(offset);
    const record = log.get(place)?.get(offset);
    const value = JSON.stringify({ id: Number(id), pad });
    if (record !== undefined) {
      if (record.value !== value || record.key !== key) found.wrong.push(at);
    } else if (topic === topics.compacted.topic && isOfRecord(Number(id), value, witness)) {
      found.compactedAway++;
    } else found.wrong.push(at);
  }
  const due = [...log].flatMap(([place, records]) =>
    [...records].filter(([, { value }]) => value !== undefined).map(([offset]) => ({ place, offset })),
  );
  const missing = due
    .filter(({ place, offset }) => !seen.get(place)!.has(offset))
    .map(({ place, offset }) => `${place}@${offset}`);
  const held = [...log.values()].reduce((sum, { size }) => sum + size, 0);
  return { produced: due.length, tombstones: held - due.length, missing, ...found };
}

/** Did the compacted topic have a record that says this, for all that its producer knows? A tombstone says nothing. */
function isOfRecord(id: number, value: string, { fates, tombstones }: Witness): boolean {
  return (
    (fates.get(topics.compacted.topic)?.get(id) ?? 'aborted') !== 'aborted' &&
    !tombstones.has(id) &&
    value === valueOf(id)
  );
}
