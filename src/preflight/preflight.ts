/**
 * Everything a configuration names, looked at before a record is taken: in which order, and what waits for what. Each
 * check stands with the adapter that it is about. Changes nothing but the state store's probe, which is removed again.
 * Imports: clickhouse, config, errors, kafka, kafka/connection, kafka/group, pipeline, sample, stores.
 */
import { clickHouseOptions, topicsOf } from '../config/adapter-options.js';
import { checkClickHouse } from '../clickhouse/preflight.js';
import type { CheckedConfig } from '../config/config.js';
import { asIngestError } from '../errors.js';
import { refusalFrom, type Finding } from './finding.js';
import { groupFindings, standNow, type StandNow } from './group-findings.js';
import { mayCommit } from '../kafka/group/may-commit.js';
import { kafkaFindings, type KafkaFindings } from '../kafka/preflight.js';
import { classifyError } from '../kafka/connection/classify-error.js';
import { memoryFinding } from '../pipeline/memory-budget.js';
import { recordFindings, type RecordsWanted } from '../sample/record-findings.js';
import { storeFindings } from '../stores/stores.js';

/** How long the start waits for one answer, or for a group's coordinator. */
export const START_LIMIT_MS = 30_000;

export interface PreflightOptions {
  /**
   * Aborted, what is asked of ClickHouse, and what reads records, fails at once; the rest of Kafka and the state store
   * end by their own limits.
   */
  readonly signal?: AbortSignal | undefined;
  /**
   * Some records are read and compared with the tables. `judge` refuses a topic of which none can be inserted; `start`
   * leaves that to the run, which halts at the first one and names it, and refuses only what would become rows of
   * nothing but defaults; `skip` reads none. @default 'judge'
   */
  readonly records?: RecordsWanted | undefined;
  /** Ports of one's own take their place: nothing is asked of these. @default none */
  readonly own?: { readonly source: boolean; readonly sink: boolean; readonly store: boolean } | undefined;
}

/** All findings, in the order of the data: Kafka, the group, the records, ClickHouse, the state store. */
export async function preflight(
  config: CheckedConfig,
  { signal, records = 'judge', own }: PreflightOptions = {},
): Promise<readonly Finding[]> {
  const kafka =
    own?.source === true
      ? Promise.resolve<KafkaFindings>({ findings: [], partitions: undefined })
      : kafkaFindings({ ...config.kafka, topics: topicsOf(config) });
  const whenKafka = <T>(run: () => Promise<T>): Promise<T | undefined> =>
    kafka.then(({ partitions }) => (partitions === undefined ? undefined : run()));
  const clickHouse =
    own?.sink === true
      ? Promise.resolve<readonly Finding[]>([])
      : kafka.then(({ partitions }) => clickHouseFindings(config, partitions, signal));
  const committing = whenKafka(() => mayCommit({ ...config.kafka, topics: topicsOf(config) }, START_LIMIT_MS));
  const group = whenKafka(() => groupPart(config, committing));
  const data = Promise.all([group, clickHouse]).then(([found, tables]) =>
    recordFindings(config, found?.stand?.partitions, {
      tables,
      records: own?.sink === true ? 'skip' : records,
      limitMs: START_LIMIT_MS,
      signal,
    }),
  );
  const all = await Promise.all([
    kafka.then(({ findings }) => findings),
    group.then((found) => found?.findings ?? []),
    data,
    clickHouse,
    own?.store === true ? [] : storeFindings(config, committing),
  ]);
  return [...(own?.source === true ? [] : [memoryFinding(config.kafka.budgetBytes)]), ...all.flat()];
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
