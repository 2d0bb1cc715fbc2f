/**
 * Room: everything a configuration names, looked at before a record is taken. Asks the adapters; changes nothing but
 * the state store's probe, which is removed again.
 */
import { limitOf } from '../abort.js';
import { clickHouseOptions, topicsOf } from '../config/adapter-options.js';
import { checkClickHouse } from '../clickhouse/preflight.js';
import type { CheckedConfig } from '../config/config.js';
import { asIngestError, IngestError } from '../errors.js';
import { refusalFrom, type Finding } from './finding.js';
import { groupFindings, standNow, type StandNow } from './group-findings.js';
import { mayCommit } from '../kafka/group/may-commit.js';
import { checkKafka } from '../kafka/preflight.js';
import { classifyError } from '../kafka/connection/classify-error.js';
import { budgetHere, mib } from '../pipeline/memory-budget.js';
import { dataFindings } from '../sample/findings.js';
import { takeSamples } from '../sample/take.js';
import { storeFindings } from '../stores/stores.js';

/** How long the start waits for one answer, or for a group's coordinator. */
export const START_LIMIT_MS = 30_000;

export interface PreflightOptions {
  /** Aborted, what is asked of ClickHouse, and what reads records, fails at once; the rest of Kafka and the state store end by their own limits. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Some records are read and compared with the tables. `judge` refuses a topic of which none can be inserted; `start` leaves
   * that to the run, which halts at the first one and names it, and refuses only what would become rows of nothing but
   * defaults; `skip` reads none. @default 'judge'
   */
  readonly records?: 'judge' | 'start' | 'skip' | undefined;
  /** Ports of one's own take their place: nothing is asked of these. @default none */
  readonly own?: { readonly source: boolean; readonly sink: boolean; readonly store: boolean } | undefined;
}

/** More than so often the budget that suits the memory is told as doubtful: the process may be killed for it. */
const MOST_TIMES = 2;

/** All findings, in the order of the data: Kafka, the group, the records, ClickHouse, the state store. */
export async function preflight(
  config: CheckedConfig,
  { signal, records = 'judge', own }: PreflightOptions = {},
): Promise<readonly Finding[]> {
  const kafka =
    own?.source === true
      ? Promise.resolve<KafkaFindings>({ findings: [], partitions: undefined })
      : kafkaFindings(config);
  const whenKafka = <T>(run: () => Promise<T>): Promise<T | undefined> =>
    kafka.then(({ partitions }) => (partitions === undefined ? undefined : run()));
  const clickHouse =
    own?.sink === true
      ? Promise.resolve<readonly Finding[]>([])
      : kafka.then(({ partitions }) => clickHouseFindings(config, partitions, signal));
  const committing = whenKafka(() => mayCommit({ ...config.kafka, topics: topicsOf(config) }, START_LIMIT_MS));
  const group = whenKafka(() => groupPart(config, committing));
  const data = Promise.all([group, clickHouse]).then(([found, tables]) =>
    recordFindings(config, found?.stand, { tables, records: own?.sink === true ? 'skip' : records, signal }),
  );
  const all = await Promise.all([
    kafka.then(({ findings }) => findings),
    group.then((found) => found?.findings ?? []),
    data,
    clickHouse,
    own?.store === true ? [] : storeFindings(config, committing),
  ]);
  return [...(own?.source === true ? [] : [memoryFinding(config)]), ...all.flat()];
}

function memoryFinding({ kafka }: CheckedConfig): Finding {
  const { bytes, why } = budgetHere(kafka.budgetBytes);
  const suits = budgetHere(undefined);
  const detail = `up to ${mib(bytes)} of records on their way through the process: ${why}`;
  if (bytes <= suits.bytes * MOST_TIMES) return { level: 'ok', what: 'memory', detail };
  return {
    level: 'warning',
    what: 'memory',
    detail: `${detail}; but ${suits.why}`,
    todo: `take out kafka.budgetBytes, which makes it ${mib(suits.bytes)}, or give the process more memory`,
  };
}

interface KafkaFindings {
  readonly findings: readonly Finding[];
  /** Of all topics together: so many may have ranges in doubt in one table at once. Undefined: Kafka did not tell. */
  readonly partitions: number | undefined;
}

async function kafkaFindings(config: CheckedConfig): Promise<KafkaFindings> {
  try {
    const { clusterId, topics } = await checkKafka({ ...config.kafka, topics: topicsOf(config) });
    const findings: Finding[] = [
      { level: 'ok', what: 'Kafka', detail: `cluster ${clusterId} at ${config.kafka.brokers.join(', ')}` },
      ...topics.map(({ topic, partitions }): Finding => ({
        level: 'ok',
        what: `topic ${topic}`,
        detail: `${partitions} partitions`,
      })),
    ];
    return { findings, partitions: topics.reduce((sum, { partitions }) => sum + partitions, 0) };
  } catch (thrown) {
    return { findings: [refusalFrom('Kafka', thrown)], partitions: undefined };
  }
}

/**
 * The group as it stands, and whether this user may commit for it. What cannot be seen within the ten seconds of such a
 * question is a warning: the join will tell.
 */
async function groupPart(
  config: CheckedConfig,
  committing: Promise<void | undefined>,
): Promise<{ readonly findings: readonly Finding[]; readonly stand?: StandNow }> {
  const what = `group ${config.kafka.groupId}`;
  try {
    await committing;
    const stand = await standNow(config);
    return { findings: groupFindings(config, stand), stand };
  } catch (thrown) {
    const { detail, fields } = asIngestError(thrown, 'KCR_KAFKA', 'the group could not be looked at');
    if (classifyError(fields.cause ?? thrown) === 'fatal') return { findings: [refusalFrom(what, thrown)] };
    return {
      findings: [{ level: 'warning', what, detail, ...(fields.hint === undefined ? {} : { todo: fields.hint }) }],
    };
  }
}

/** A look that fails refuses nothing: the records can be read later. */
async function recordFindings(
  config: CheckedConfig,
  stand: StandNow | undefined,
  {
    tables,
    records,
    signal,
  }: {
    readonly tables: readonly Finding[];
    readonly records: NonNullable<PreflightOptions['records']>;
    readonly signal: AbortSignal | undefined;
  },
): Promise<readonly Finding[]> {
  // Without the server or its tables there is nothing to compare with, and that is told.
  if (records === 'skip' || stand === undefined || tables[0]?.level === 'refusal') return [];
  const limit = limitOf(
    START_LIMIT_MS,
    () =>
      new IngestError(
        'KCR_CLICKHOUSE_UNREACHABLE',
        `reading some and comparing them with their tables took more than ${START_LIMIT_MS / 1000} s`,
      ),
    signal,
  );
  try {
    const samples = await takeSamples(
      { ...config.kafka, topics: topicsOf(config) },
      stand.partitions.map((each) => ({ ...each, next: each.resume ?? each.logStart })),
      limit.signal,
    );
    const transforms = new Map(config.routes.map(({ topic, transform }) => [topic, transform]));
    const { onPoison, onTombstone = onPoison === 'exclude' ? 'skip' : 'halt' } = config;
    const topicsWithRecords = new Set(
      stand.partitions.filter(({ logStart, stableEnd }) => stableEnd > logStart).map(({ topic }) => topic),
    );
    const findings = await dataFindings(
      { clickHouse: clickHouseOptions(config), transforms, onPoison, onTombstone, topicsWithRecords },
      samples,
      limit.signal,
    );
    if (records === 'judge') return findings;
    return findings.map(({ code, ...finding }) =>
      code === 'KCR_POISON' ? { ...finding, level: 'warning' } : code === undefined ? finding : { code, ...finding },
    );
  } catch (thrown) {
    return [
      {
        level: 'warning',
        what: 'records',
        detail: `they could not be looked at: ${asIngestError(thrown, 'KCR_KAFKA', 'reading some failed').detail}`,
      },
    ];
  } finally {
    limit.clear();
  }
}

async function clickHouseFindings(
  config: CheckedConfig,
  kafkaPartitions: number | undefined,
  signal: AbortSignal | undefined,
): Promise<readonly Finding[]> {
  const { delivery, maxPending, batch } = config;
  try {
    const needs = {
      delivery,
      maxPending,
      ...(batch.maxWaitMs === undefined ? {} : { batchMaxWaitMs: batch.maxWaitMs }),
      ...(kafkaPartitions === undefined ? {} : { kafkaPartitions }),
    };
    const queryTimeoutMs = Math.min(config.clickhouse.requestTimeoutMs ?? START_LIMIT_MS, START_LIMIT_MS);
    return await checkClickHouse({ ...clickHouseOptions(config), queryTimeoutMs, starting: signal }, needs);
  } catch (thrown) {
    return [refusalFrom('ClickHouse', thrown)];
  }
}
