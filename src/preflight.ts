/**
 * Room: everything a configuration names, looked at before a record is taken. Asks the adapters; changes nothing but
 * the state store's probe, which is removed again.
 */
import { addressOf } from './clickhouse/client/connection.js';
import { checkClickHouse, type Finding } from './clickhouse/preflight.js';
import type { ClickHouseSinkOptions } from './clickhouse/options.js';
import type { CheckedConfig } from './config.js';
import { IngestError, asIngestError } from './errors.js';
import { withAdmin } from './kafka/admin.js';
import { insist } from './kafka/insist.js';
import { groupNow } from './kafka/group.js';
import { Membership } from './kafka/membership.js';
import { clientSettings, sourceSettings } from './kafka/options.js';
import { checkKafka } from './kafka/preflight.js';
import { kafkaError, kafkaType, troubleOf } from './kafka/trouble.js';
import { openWire } from './kafka/wire.js';
import { budgetHere, mib } from './memory-budget.js';
import { checkKafkaStore } from './state/kafka.js';
import { checkKeeperMap, type KeeperMapStoreConfig } from './state/keeper-map.js';
import { checkKeeper } from './state/keeper.js';

/** How long the start waits for one answer, or for a group's coordinator. */
const START_LIMIT_MS = 30_000;

export interface PreflightOptions {
  /** Aborted, what is asked of ClickHouse fails at once; Kafka and the state store end by their own limits. */
  readonly signal?: AbortSignal | undefined;
}

/** More than so often the budget that suits the memory is told as doubtful: the process may be killed for it. */
const MOST_TIMES = 2;

/** All findings, in the order of the data: Kafka, ClickHouse, the state store. */
export async function preflight(config: CheckedConfig, { signal }: PreflightOptions = {}): Promise<readonly Finding[]> {
  const kafka = kafkaFindings(config);
  const clickHouse = kafka.then(({ partitions }) => clickHouseFindings(config, partitions, signal));
  const committing = kafka.then(({ partitions }) => (partitions === undefined ? undefined : mayCommit(config)));
  const group = kafka.then(async ({ partitions }) => (partitions === undefined ? [] : [await groupFinding(config, committing)]));
  const all = await Promise.all([kafka.then(({ findings }) => findings), group, clickHouse, storeFindings(config, committing)]);
  return [memoryFinding(config), ...all.flat()];
}

function memoryFinding({ kafka }: CheckedConfig): Finding {
  const { bytes, why } = budgetHere(kafka.budgetBytes);
  const suits = budgetHere(undefined);
  const detail = `up to ${mib(bytes)} of records on their way through the process: ${why}`;
  if (bytes <= suits.bytes * MOST_TIMES) return { level: 'ok', what: 'memory', detail };
  return { level: 'warning', what: 'memory', detail: `${detail}; but ${suits.why}`, todo: `take out kafka.budgetBytes, which makes it ${mib(suits.bytes)}, or give the process more memory` };
}

/** As the ClickHouse adapter takes them. */
export function clickHouseOptions({ clickhouse, routes }: CheckedConfig): ClickHouseSinkOptions {
  const { settings, ...server } = clickhouse;
  return { ...server, routes, ...(settings === undefined ? {} : { clickhouseSettings: settings }) };
}

type KeeperMapState = Extract<CheckedConfig['state'], { store: 'keeper-map' }>;

/** The store's table is in the ClickHouse that the rows go to. */
export function keeperMapConfig({ clickhouse }: CheckedConfig, state: KeeperMapState): KeeperMapStoreConfig {
  const { store: _store, ...own } = state;
  return { ...addressOf(clickhouse), ...own };
}

export const topicsOf = ({ routes }: CheckedConfig): readonly string[] => routes.map(({ topic }) => topic);

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
      ...topics.map(({ topic, partitions }): Finding => ({ level: 'ok', what: `topic ${topic}`, detail: `${partitions} partitions` })),
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
async function groupFinding(config: CheckedConfig, committing: Promise<void>): Promise<Finding> {
  const { groupId, fromBeginning = false } = config.kafka;
  const what = `group ${groupId}`;
  try {
    await committing;
    const { members, partitions } = await groupNow({ ...config.kafka, topics: topicsOf(config) });
    const known = partitions.filter(({ committed }) => committed !== undefined);
    const outside = known.find(({ committed = 0, logStart, logEnd }) => committed < logStart || committed > logEnd);
    if (outside !== undefined) {
      const { topic, partition, committed, logStart, logEnd } = outside;
      const detail = `its offset ${committed} of ${topic}/${partition} is outside of the log, which holds ${logStart} to ${logEnd - 1}`;
      return { level: 'warning', what, detail, todo: 'exactly-once goes by its state: see "state show"; else look at onGap and onReset' };
    }
    const lag = known.reduce((sum, { committed = 0, logEnd }) => sum + logEnd - committed, 0);
    const begins = known.length === partitions.length ? '' : `; the others begin at the ${fromBeginning ? 'beginning' : 'end'} of their logs`;
    return { level: 'ok', what, detail: `${members.length} members, ${known.length} of ${partitions.length} partitions have an offset, ${lag} offsets behind${begins}` };
  } catch (thrown) {
    const { detail, fields } = asIngestError(thrown, 'KCR_KAFKA', 'the group could not be looked at');
    if (troubleOf(fields.cause ?? thrown) === 'fatal') return refusalFrom(what, thrown);
    return { level: 'warning', what, detail, ...(fields.hint === undefined ? {} : { todo: fields.hint }) };
  }
}

async function clickHouseFindings(config: CheckedConfig, kafkaPartitions: number | undefined, signal: AbortSignal | undefined): Promise<readonly Finding[]> {
  const { delivery, maxPending, batch } = config;
  try {
    const needs = { delivery, maxPending, ...(batch.maxWaitMs === undefined ? {} : { batchMaxWaitMs: batch.maxWaitMs }), ...(kafkaPartitions === undefined ? {} : { kafkaPartitions }) };
    const queryTimeoutMs = Math.min(config.clickhouse.requestTimeoutMs ?? START_LIMIT_MS, START_LIMIT_MS);
    return await checkClickHouse({ ...clickHouseOptions(config), queryTimeoutMs, starting: signal }, needs);
  } catch (thrown) {
    return [refusalFrom('ClickHouse', thrown)];
  }
}

async function storeFindings(config: CheckedConfig, committing: Promise<void>): Promise<readonly Finding[]> {
  const { delivery, state } = config;
  if (delivery !== 'exactly-once' || state === undefined) return [];
  if (state.store === 'memory') {
    const detail = 'in memory: what is in doubt is forgotten with the process, and rows may double after a crash';
    return [{ level: 'warning', what: 'state store', detail, todo: 'use "keeper"' }];
  }
  try {
    if (state.store === 'kafka') return await kafkaStoreFindings(config, committing);
    if (state.store === 'keeper-map') {
      const { server, table } = await checkKeeperMap(keeperMapConfig(config, state));
      return [{ level: 'ok', what: 'state store', detail: `KeeperMap table ${table} at ${server}, writable` }];
    }
    const { server, path } = await checkKeeper(state);
    return [{ level: 'ok', what: 'state store', detail: `Keeper at ${server}, writable under ${path}` }];
  } catch (thrown) {
    return [refusalFrom('state store', thrown)];
  }
}

async function kafkaStoreFindings(config: CheckedConfig, committing: Promise<void>): Promise<readonly Finding[]> {
  const { groupId: group } = config.kafka;
  const what = 'state store';
  const topics = topicsOf(config);
  await committing;
  const found = await withAdmin(
    clientSettings(config.kafka),
    'Reading the offsets of the group',
    async (admin, cluster) => {
      // All at once: kafkajs would ask for the metadata of one topic after the other.
      await cluster.addMultipleTargetTopics(topics);
      return checkKafkaStore({
        describeCluster: () => admin.describeCluster(),
        // A coordinator that loads, as the first of a cluster does, is waited for.
        fetchOffsets: (of) => insist(() => admin.fetchOffsets(of), START_LIMIT_MS),
        describeConfigs: (of) => admin.describeConfigs(of),
      }, { group, topics });
    },
    START_LIMIT_MS,
  );
  const { partitions, kept, metadataMaxBytes, retentionMinutes } = found;
  const days = retentionMinutes === undefined ? '' : `; forgotten ${retentionMinutes / 1440} days after the last member has left`;
  const detail = `beside the offsets of the group ${group}, ${kept} of ${partitions} partitions have a state${days}`;
  if (metadataMaxBytes !== undefined) return [{ level: 'ok', what, detail }];
  return [{ level: 'warning', what, detail: `${detail}; the brokers do not tell how much they keep`, todo: 'see that offset.metadata.max.bytes is at least 4096, and allow DESCRIBE_CONFIGS on the cluster' }];
}

/**
 * As a member that no group has, for a partition that no topic has: refused, and what for tells whether this user may
 * commit. Kafka looks at rights first, then whether it knows the partition, then at the group.
 */
const nobody = { memberId: 'preflight', groupGenerationId: 0x7fffffff };
const nowhere = { partition: 0x7fffffff, offset: '0', metadata: null };

/** Waits for the coordinator, which a cluster's first group does not have yet, or which loads. */
async function mayCommit(config: CheckedConfig): Promise<void> {
  const topics = topicsOf(config);
  const settings = sourceSettings({ ...config.kafka, topics });
  const wire = openWire(settings);
  const membership = new Membership(wire, settings);
  const endMs = performance.now() + START_LIMIT_MS;
  const isRefused = async (topic: string): Promise<boolean> => {
    try {
      await membership.ask((coordinator) => coordinator.offsetCommit({ ...nobody, groupId: settings.groupId, topics: [{ topic, partitions: [nowhere] }] }));
    } catch (thrown) {
      if (troubleOf(thrown) === 'fenced' || kafkaType(thrown) === 'UNKNOWN_TOPIC_OR_PARTITION') return true;
      // A coordinator that was just made is not there yet.
      if (troubleOf(thrown) !== 'fatal' && performance.now() < endMs) return false;
      const { detail, fields } = kafkaError(thrown, `Committing offsets of the topic ${topic}`);
      throw new IngestError('KCR_KAFKA', detail, { hint: fields.hint ?? 'no broker coordinates the group yet: look at the brokers', cause: thrown });
    }
    throw new IngestError('KCR_PREFLIGHT', `The brokers took a commit of a member that the group ${settings.groupId} does not have: generations are no fence there`, {
      hint: 'this is not how Kafka behaves; use the store "keeper" or "keeper-map"',
    });
  };
  try {
    await wire.cluster.connect();
    // One at a time: kafkajs tells of the first refusal only.
    for (const topic of topics) while (!(await isRefused(topic))) await new Promise((resolve) => setTimeout(resolve, 200));
  } finally {
    await wire.cluster.disconnect().catch(() => undefined);
    wire.end();
  }
}

function refusalFrom(what: string, thrown: unknown): Finding {
  const { code, detail, fields } = asIngestError(thrown, 'KCR_PREFLIGHT', 'the check failed');
  return { level: 'refusal', code, what, detail, ...(fields.hint === undefined ? {} : { todo: fields.hint }) };
}
