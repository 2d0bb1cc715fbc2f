/**
 * Can this server, with the rights and limits of this user, keep what was promised? Asks, changes nothing.
 * Imports: clickhouse, clickhouse/client, clickhouse/insert, clickhouse/schema, errors, preflight.
 */
import { hasCode, IngestError } from '../../errors.js';
import { type Finding, ok, refusal, warning } from '../../preflight/finding.js';
import { classifyError, serverReason } from '../client/classify-error.js';
import { asyncInsertFault, isBefore } from '../insert/async-insert.js';
import { type ClickHouseHttp, REQUEST_TIMEOUT_MS } from '../client/http.js';
import { type ClickHouseSinkOptions, COALESCE_BYTES, coalesceMsOf } from '../options.js';
import { insertSettings, limitSettings } from '../insert/settings.js';
import { readServer, type Server } from '../schema/tables.js';
import type { Defaults, Needs } from './context.js';

/** What the tests of this program run against. */
const TESTED = '26.7';
/** Below it the tokens of materialized views, among others, were made in ways that differ from release to release. */
const OLDEST_EXPECTED = [24, 8] as const;
/** The first release that has `insert_deduplication_token`. */
const OLDEST = [22, 1] as const;
/** ClickHouse's own default of `max_partitions_per_insert_block`. */
const USUAL_PARTITIONS = 100;

export async function checkServer(
  http: ClickHouseHttp,
  needs: Needs,
  findings: Finding[],
): Promise<Server | undefined> {
  try {
    const server = await readServer(http);
    findings.push(checkVersion(http.address, server, needs));
    return server;
  } catch (thrown) {
    if (!(thrown instanceof IngestError)) throw thrown;
    const error = await http.explained(thrown);
    const denied =
      error.fields.serverCode === 516 || error.fields.serverCode === 194 || error.fields.serverCode === 'HTTP 401';
    const todo = denied ? 'check username and password' : error.fields.hint;
    findings.push(refusal(error.code, denied ? 'user' : 'server', error.detail, todo));
    return undefined;
  }
}

function checkVersion(address: string, { version }: Server, { delivery }: Needs): Finding {
  const name = `ClickHouse ${version} at ${address}`;
  if (delivery !== 'exactly-once' || !isBefore(version, OLDEST_EXPECTED)) return ok('server', name);
  if (isBefore(version, OLDEST))
    return refusal(
      'KCR_PREFLIGHT',
      'server',
      `${name} does not know dedup tokens`,
      'upgrade the server, or choose at-least-once',
    );
  return warning(
    'server',
    `${name} is older than what exactly-once was thought through for; it was tested with ${TESTED} only`,
    `upgrade the server to ${OLDEST_EXPECTED.join('.')} or later`,
  );
}

/** Below so many Kafka partitions a longer wait on our side makes parts as few, and answers sooner. */
const MANY_KAFKA_PARTITIONS = 20;

export async function checkMode(
  http: ClickHouseHttp,
  options: ClickHouseSinkOptions,
  { kafkaPartitions }: Needs,
  { version }: Server,
): Promise<Finding[]> {
  const coalesceMs = coalesceMsOf(options);
  if (coalesceMs === undefined) return [];
  const what = 'insert mode';
  const fault = asyncInsertFault(version);
  if (fault !== undefined) return [refusal('KCR_PREFLIGHT', what, fault.detail, fault.todo)];
  const bytes = options.coalesceBytes ?? COALESCE_BYTES;
  const detail =
    `coalesced: inserts of up to ${bytes} bytes wait ${coalesceMs} ms at the server for others, for ` +
    'many Kafka partitions with little traffic';
  const threads = await http
    .select<{ value: string }>("SELECT value FROM system.server_settings WHERE name = 'async_insert_threads'")
    .catch(() => []);
  if (Number(threads[0]?.value ?? 1) === 0) {
    return [
      warning(
        what,
        `${detail}; but the server lets none wait (async_insert_threads is 0), and each makes parts of its own`,
        'set async_insert_threads in the server’s configuration',
      ),
    ];
  }
  if (kafkaPartitions === undefined || kafkaPartitions >= MANY_KAFKA_PARTITIONS) return [ok(what, detail)];
  return [
    warning(
      what,
      `${detail}; here there are ${kafkaPartitions}`,
      'take out `insertMode`, and raise batch.maxWaitMs where parts are too many',
    ),
  ];
}

/** What the server allows an insert of this user; a setting of one's own comes before the profile's. */
export async function checkLimits(
  http: ClickHouseHttp,
  { clickhouseSettings = {}, requestTimeoutMs = REQUEST_TIMEOUT_MS }: ClickHouseSinkOptions,
  { partitionsPerBatch = 1 }: Needs,
): Promise<Finding[]> {
  const names = ['max_execution_time', 'max_partitions_per_insert_block', 'throw_on_max_partitions_per_insert_block'];
  const rows = await http.select<{ name: string; value: string; readonly: number }>(
    `SELECT name, value, readonly FROM system.settings WHERE name IN ('${names.join("', '")}')`,
  );
  // One of the profile's own is lifted for inserts where the user may change it.
  const ofInserts = ({ name, value, readonly }: (typeof rows)[number]): string =>
    limitSettings.includes(name) && !readonly ? '0' : value;
  const limits = new Map(rows.map((row) => [row.name, Number(clickhouseSettings[row.name] ?? ofInserts(row))]));
  const seconds = limits.get('max_execution_time') ?? 0;
  const throws = limits.get('throw_on_max_partitions_per_insert_block') !== 0;
  const partitions = throws ? (limits.get('max_partitions_per_insert_block') ?? 0) : 0;
  const findings: Finding[] = [];
  if (seconds > 0 && seconds * 1000 < requestTimeoutMs) {
    const detail = `max_execution_time is ${seconds} s: an insert that takes longer is ended and made again, for ever`;
    findings.push(
      warning(
        'limits of the user',
        detail,
        'set max_execution_time to 0 in the settings of the inserts, or let the user change it',
      ),
    );
  }
  const raise = (to: number): string => `set max_partitions_per_insert_block to ${to} in the settings of the inserts`;
  if (partitions > 0 && partitions < partitionsPerBatch) {
    const detail =
      `max_partitions_per_insert_block is ${partitions}, but a batch may spread over ` +
      `${partitionsPerBatch} ClickHouse partitions: it is refused as a whole`;
    findings.push(refusal('KCR_PREFLIGHT', 'limits of the user', detail, raise(partitionsPerBatch)));
  } else if (partitions > 0 && partitions < USUAL_PARTITIONS) {
    const detail =
      `max_partitions_per_insert_block is ${partitions}: a batch that spreads over more ClickHouse ` +
      'partitions is refused as a whole, and its Kafka partition halts';
    findings.push(warning('limits of the user', detail, raise(USUAL_PARTITIONS)));
  }
  if (findings.length > 0) return findings;
  const parts = partitions === 0 ? 'any number of' : `up to ${partitions}`;
  return [
    ok(
      'limits of the user',
      `inserts of ${seconds === 0 ? 'any length' : `up to ${seconds} s`}, over ${parts} ClickHouse partitions each`,
    ),
  ];
}

/** The server itself is asked: only it knows what the user's profile allows. */
export async function checkSettings(
  http: ClickHouseHttp,
  options: ClickHouseSinkOptions,
  { delivery }: Needs,
  server: Server,
): Promise<Finding> {
  const { deduplicated, plain, asyncInsert } = insertSettings(
    options.clickhouseSettings ?? {},
    server.knownSettings,
    coalesceMsOf(options),
  );
  const params = delivery === 'exactly-once' ? (asyncInsert ?? deduplicated) : plain;
  const answer = await http.attempt('SELECT 1 FORMAT Null', params);
  if (answer === undefined) return ok('insert settings', 'the server accepts those every insert is pinned to');
  const reason = serverReason(answer.text);
  if (answer.code === 115) {
    return refusal(
      'KCR_CONFIG',
      'insert settings',
      reason,
      'take it out of `clickhouseSettings`, or upgrade the server',
    );
  }
  const passing = ['retriable', 'in-doubt'].includes(classifyError({ kind: 'answer', status: 500, ...answer }));
  return refusal(
    passing ? 'KCR_CLICKHOUSE_UNREACHABLE' : 'KCR_PREFLIGHT',
    'insert settings',
    `the server refuses a setting every insert is pinned to: ${reason}`,
    'allow the user to change it (profile, readonly, constraints)',
  );
}

export async function readDefaults(http: ClickHouseHttp, findings: Finding[]): Promise<Defaults> {
  const read = async (system: string): Promise<ReadonlyMap<string, number>> => {
    const rows = await http.select<{ name: string; value: string }>(
      `SELECT name, value FROM system.${system} WHERE name LIKE '%dedup%window%'`,
    );
    return new Map(rows.map(({ name, value }) => [name, Number(value)]));
  };
  try {
    const plain = await read('merge_tree_settings');
    const replicated = await read('replicated_merge_tree_settings');
    return {
      window: plain.get('non_replicated_deduplication_window'),
      replicatedWindow: replicated.get('replicated_deduplication_window'),
      replicatedSeconds: replicated.get('replicated_deduplication_window_seconds'),
    };
  } catch (error) {
    if (!hasCode(error, 'KCR_PREFLIGHT')) throw error;
    const todo =
      'GRANT SELECT ON system.merge_tree_settings, SELECT ON system.replicated_merge_tree_settings, or state the ' +
      'window in the table’s own SETTINGS';
    findings.push(warning('server defaults', `the server’s own dedup window cannot be seen: ${error.detail}`, todo));
    return { window: undefined, replicatedWindow: undefined, replicatedSeconds: undefined };
  }
}
