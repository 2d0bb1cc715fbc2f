/**
 * Who holds a partition's readers back: open transactions, by their producers and since when. Asks
 * the leaders (Kafka 2.8 and later) and the coordinators (3.0 and later); what no broker tells stays unknown.
 * Imports: kafka/connection, kafka/group.
 */
import type { TopicPartition } from './group/assignor.js';
import { checkedBroker, maxVersion, type KafkajsBroker, type KafkajsCluster } from './connection/broker.js';
import type { GroupPosition } from './group/group-offsets.js';
import { overLane } from './connection/lanes.js';
import { byTopic, entryOf } from './connection/list-offsets.js';
import { AnswerReader, FlexibleWriter, type EncodedRequest } from './connection/protocol.js';
import { knownLeader } from './connection/metadata.js';

export interface OpenTransaction extends TopicPartition {
  /** Its first record: readers of committed records get no further. */
  readonly startOffset: number;
  readonly producerId: string;
  /** Undefined: no coordinator told, or the user may not see it. */
  readonly transactionalId: string | undefined;
  /** When it began, or else when its producer wrote last, milliseconds since the epoch. */
  readonly sinceMs: number | undefined;
}

const API = { describeProducers: 61, describeTransactions: 65, listTransactions: 66 } as const;
/** Of so many partitions at once: a cluster may have thousands. */
export const MOST_TRANSACTIONS = 100;

/**
 * Of the partitions whose readable end lies before the log's end, the oldest one each. Throws nothing: it is told
 * beside other things.
 */
export async function openTransactions(
  cluster: KafkajsCluster,
  positions: readonly GroupPosition[],
): Promise<readonly OpenTransaction[]> {
  const held = positions.filter(({ stableEnd, logEnd }) => stableEnd < logEnd).slice(0, MOST_TRANSACTIONS);
  if (held.length === 0) return [];
  const byLeader = new Map<number, TopicPartition[]>();
  for (const { topic, partition } of held) {
    const leader = knownLeader(cluster, topic, partition);
    if (leader !== undefined) entryOf(byLeader, leader).push({ topic, partition });
  }
  const found = await Promise.all(
    [...byLeader].map(([nodeId, partitions]) =>
      orNone(async () => describeProducers(await brokerOf(cluster, nodeId), partitions)),
    ),
  );
  const oldest = held.flatMap(({ topic, partition }) =>
    found
      .flat()
      .filter((each) => each.topic === topic && each.partition === partition)
      .sort((a, b) => a.startOffset - b.startOffset)
      .slice(0, 1),
  );
  if (oldest.length === 0) return [];
  const named = await transactionsOf(
    cluster,
    oldest.map(({ producerId }) => producerId),
  );
  return oldest.map((each) => {
    const told = named.get(each.producerId);
    return { ...each, transactionalId: told?.transactionalId, sinceMs: told?.startedMs ?? each.sinceMs };
  });
}

interface Named {
  readonly transactionalId: string;
  readonly startedMs: number | undefined;
}

/** By producer id. Each coordinator knows its own. */
async function transactionsOf(
  cluster: KafkajsCluster,
  producerIds: readonly string[],
): Promise<ReadonlyMap<string, Named>> {
  const brokers = cluster.brokerPool.metadata?.brokers ?? [];
  const found = await Promise.all(
    brokers.map(({ nodeId }) =>
      orNone(async () => {
        const broker = await brokerOf(cluster, nodeId);
        const listed = await listTransactions(broker, producerIds);
        const started = new Map(
          listed.length === 0
            ? []
            : await orNone(() =>
                describeTransactions(
                  broker,
                  listed.map(({ transactionalId }) => transactionalId),
                ),
              ),
        );
        return listed.map(({ producerId, transactionalId }): [string, Named] => [
          producerId,
          { transactionalId, startedMs: started.get(transactionalId) },
        ]);
      }),
    ),
  );
  return new Map(found.flat());
}

async function brokerOf(cluster: KafkajsCluster, nodeId: number): Promise<KafkajsBroker> {
  return overLane(checkedBroker(await cluster.findBroker({ nodeId })), 'offsets');
}

async function orNone<T>(ask: () => Promise<readonly T[]>): Promise<readonly T[]> {
  return ask().catch(() => []);
}

async function send<T>(
  broker: KafkajsBroker,
  apiKey: number,
  encode: (writer: FlexibleWriter) => EncodedRequest,
  decode: (reader: AnswerReader) => readonly T[],
): Promise<readonly T[]> {
  if ((await maxVersion(broker, apiKey)) < 0) return [];
  const answer = broker.connectionPool.send({
    request: { apiKey, apiVersion: 0, apiName: `Api${apiKey}`, encode: async () => encode(new FlexibleWriter()) },
    response: { decode: async (payload) => decode(new AnswerReader(payload, true)), parse: async (decoded) => decoded },
  });
  return (await answer) as readonly T[];
}

type Producer = Omit<OpenTransaction, 'transactionalId'>;

/** https://kafka.apache.org/protocol#The_Messages_DescribeProducers, version 0. */
function describeProducers(broker: KafkajsBroker, partitions: readonly TopicPartition[]): Promise<readonly Producer[]> {
  const encode = (writer: FlexibleWriter): EncodedRequest =>
    writer
      .array(byTopic(partitions), ({ topic, partitions: list }) =>
        writer
          .string(topic)
          .array(list, (partition) => writer.int32(partition))
          .tags(),
      )
      .tags()
      .encoded();
  return send(broker, API.describeProducers, encode, decodeProducers);
}

/** Producers with an open transaction only. */
export function decodeProducers(reader: AnswerReader): readonly Producer[] {
  reader.int32(); // throttle time
  const topics = reader.array(() => {
    const topic = reader.string();
    const partitions = reader.array(() => {
      const partition = reader.int32();
      reader.int16(); // error: then there is no producer in the list
      reader.string();
      const producers = reader.array(() => decodeProducer(reader, { topic, partition }));
      reader.tags();
      return producers;
    });
    reader.tags();
    return partitions.flat();
  });
  reader.tags();
  reader.end();
  return topics.flat().filter(({ startOffset }) => startOffset >= 0);
}

function decodeProducer(reader: AnswerReader, where: TopicPartition): Producer {
  const producerId = String(reader.bigint64());
  reader.int32(); // epoch
  reader.int32(); // last sequence
  const lastMs = reader.int64();
  reader.int32(); // coordinator epoch
  const startOffset = reader.int64();
  reader.tags();
  return { ...where, producerId, startOffset, sinceMs: lastMs < 0 ? undefined : lastMs };
}

/** https://kafka.apache.org/protocol#The_Messages_ListTransactions, version 0. */
async function listTransactions(
  broker: KafkajsBroker,
  producerIds: readonly string[],
): Promise<readonly { readonly producerId: string; readonly transactionalId: string }[]> {
  const encode = (writer: FlexibleWriter): EncodedRequest =>
    writer
      .array([], () => undefined)
      .array(producerIds, (id) => writer.int64(Number(id)))
      .tags()
      .encoded();
  return send(broker, API.listTransactions, encode, (reader) => {
    reader.int32();
    reader.int16();
    reader.array(() => reader.string());
    return reader.array(() => {
      const transactionalId = reader.string();
      const producerId = String(reader.bigint64());
      reader.string(); // state
      reader.tags();
      return { producerId, transactionalId };
    });
  });
}

/** https://kafka.apache.org/protocol#The_Messages_DescribeTransactions, version 0. When each began, by its id. */
async function describeTransactions(
  broker: KafkajsBroker,
  ids: readonly string[],
): Promise<readonly [string, number | undefined][]> {
  const encode = (writer: FlexibleWriter): EncodedRequest =>
    writer
      .array(ids, (id) => writer.string(id))
      .tags()
      .encoded();
  return send(broker, API.describeTransactions, encode, (reader) => {
    reader.int32();
    return reader.array((): [string, number | undefined] => {
      reader.int16();
      const transactionalId = reader.string();
      reader.string();
      reader.int32();
      const startedMs = reader.int64();
      reader.bigint64();
      reader.int16();
      reader.array(() => {
        reader.string();
        reader.array(() => reader.int32());
        reader.tags();
      });
      reader.tags();
      return [transactionalId, startedMs < 0 ? undefined : startedMs];
    });
  });
}

/** To be read after "held back by". `nowMs`: since the epoch. */
export function transactionText(
  { producerId, transactionalId, startOffset, sinceMs }: OpenTransaction,
  nowMs: number,
): string {
  const who =
    transactionalId === undefined
      ? `producer ${producerId}`
      : `the producer with the transactional.id ${transactionalId} (producer ${producerId})`;
  const since =
    sinceMs === undefined
      ? ''
      : `, since ${new Date(sinceMs).toISOString()} (${Math.max(0, Math.round((nowMs - sinceMs) / 1000))} s)`;
  return `an open transaction of ${who} from offset ${startOffset}${since}`;
}

/** What to do about one that stays. */
export function transactionTodo({ topic, partition, startOffset }: OpenTransaction, broker: string): string {
  return (
    `if its producer is gone for good: kafka-transactions.sh --bootstrap-server ${broker} abort --topic ` +
    `${topic} --partition ${partition} --start-offset ${startOffset}; else it ends with its ` +
    'producer, or after transaction.timeout.ms'
  );
}
