// A Kafka made of answers, for the fetcher: one broker, in whatever time the test has.
import { expect } from 'vitest';
import type { IngestError } from '../../src/errors.js';
import type { KafkajsRequest } from '../../src/kafka/connection/broker.js';
import type { FetchedPartition } from '../../src/kafka/fetch/fetch-answer.js';
import type { FetchAnswer } from '../../src/kafka/fetch/fetch-request.js';
import { Fetcher } from '../../src/kafka/fetch/fetcher.js';
import { sourceSettings, type KafkaSourceOptions } from '../../src/kafka/options.js';
import type { Reset } from '../../src/kafka/group/start-offsets.js';
import { newAssignedPartition, type AssignedPartition } from '../../src/kafka/group/assigned-partition.js';
import { Generation } from '../../src/kafka/group/generation.js';
import type { KafkaConnection } from '../../src/kafka/connection/kafka-connection.js';
import { Credits } from '../../src/model/credits.js';
import type { Chunk } from '../../src/model/record.js';

/** One broker that leads every partition of topic `t`. */
export class FakeKafka {
  /** The error of each fetch of the partition, or records. */
  readonly answers = new Map<number, number | Buffer>();
  /** Partitions that are given the same answer each time. */
  readonly lasting = new Set<number>();
  /** How long the broker waits before it answers, milliseconds. */
  answersAfterMs = 50;
  /** Connections for fetches that were given up. */
  renewed = 0;
  readonly logged: string[] = [];
  topicId = 'id-1';
  topicError = 0;
  isSilent = false;
  log = { start: 0, end: 100 };
  fetches = 0;
  /** Under which it answers partitions only that have something; 0: all are answered. */
  sessionId = 0;
  refreshes = 0;
  readonly events: { kind: string; partition: number; what?: unknown }[] = [];
  readonly chunks: Chunk[] = [];
  readonly allAssigned: AssignedPartition[];
  readonly credits: Credits;
  readonly errors: IngestError[] = [];
  readonly fetcher: Fetcher;
  #told: unknown = { topicMetadata: [] };

  constructor(partitions: number, options: Partial<KafkaSourceOptions> = {}) {
    const settings = sourceSettings({
      brokers: ['127.0.0.1:1'],
      groupId: 'g',
      topics: ['t'],
      log: (_level, message) => this.logged.push(message),
      ...options,
    });
    const credits = (this.credits = new Credits(settings.budgetBytes));
    this.tell(Math.max(2, partitions));
    const tell = (kind: string, { assignment: { partition } }: AssignedPartition, what: unknown) =>
      this.events.push({ kind, partition, what });
    const ports = {
      kafka: this.#kafka(partitions),
      settings,
      credits,
      deliver: (_: AssignedPartition, chunk: Chunk) => this.chunks.push(chunk),
      failed: (assigned: AssignedPartition, error: IngestError) => {
        assigned.halted = true;
        this.errors.push(error);
        tell('failed', assigned, error.code);
      },
      reset: (assigned: AssignedPartition, reset: Reset) => {
        assigned.state = 'ended';
        tell('reset', assigned, reset);
      },
      fail: (error: IngestError) => this.events.push({ kind: 'all failed', partition: -1, what: error.code }),
    };
    this.fetcher = new Fetcher(ports, new AbortController().signal);
    const generation = new Generation({ memberId: 'm', generationId: 1, isLeader: true, partitions: [] });
    this.allAssigned = Array.from({ length: partitions }, (_, partition) => {
      credits.open(partition);
      return newAssignedPartition(
        { topic: 't', topicId: 'id-1', partition, assignmentId: partition, generation: 1, startOffset: 10 },
        generation,
        10,
      );
    });
    this.fetcher.serve(this.allAssigned);
  }

  /** What the next refresh of the metadata brings. */
  tell(partitions = 2): void {
    const partitionMetadata =
      this.topicError === 0
        ? Array.from({ length: partitions }, (_, partitionId) => ({ partitionErrorCode: 0, partitionId, leader: 1 }))
        : [];
    this.#told = {
      topicMetadata: [
        {
          topic: 't',
          topicErrorCode: this.topicError,
          topicId: this.topicError === 0 ? this.topicId : undefined,
          partitionMetadata,
        },
      ],
    };
  }

  #kafka(partitions: number): KafkaConnection {
    const nothing = async () => undefined;
    const names = [
      'isConnected',
      'metadata',
      'findGroupCoordinator',
      'joinGroup',
      'syncGroup',
      'heartbeat',
      'leaveGroup',
      'offsetCommit',
      'offsetFetch',
      'fetch',
    ];
    const connection = { chunks: [], send: nothing, socket: { destroy: () => this.renewed++ } };
    const broker = {
      ...Object.fromEntries(names.map((name) => [name, nothing])),
      apiVersions: async () => ({ 1: { maxVersion: 13 } }),
      connectionPool: {
        host: 'h',
        port: 1,
        getConnection: async () => connection,
        send: (request: KafkajsRequest) => this.#answer(request, partitions),
      },
      listOffsets: async ({
        topics: [first],
      }: {
        topics: { partitions: { partition: number; timestamp: string }[] }[];
      }) => ({
        responses: [
          {
            topic: 't',
            partitions: first!.partitions.map(({ partition, timestamp }) => ({
              partition,
              offset: String(timestamp === '-2' ? this.log.start : this.log.end),
            })),
          },
        ],
      }),
    };
    const told = (): unknown => this.#told;
    const brokerPool = {
      get metadata() {
        return told();
      },
    };
    const refreshMetadata = async () => {
      if (this.isSilent) throw new Error('no broker answers');
      this.refreshes++;
      this.tell(partitions);
    };
    const findTopicPartitionMetadata = () =>
      (this.#told as { topicMetadata: { partitionMetadata: unknown[] }[] }).topicMetadata[0]!.partitionMetadata;
    return {
      cluster: { brokerPool, refreshMetadata, findTopicPartitionMetadata, findBroker: async () => broker },
      cut: () => undefined,
    } as unknown as KafkaConnection;
  }

  /** The next fetch is refused as a whole with this error of Kafka's; 0: none. */
  refusal = 0;
  /** What the broker says of its quota. */
  throttleMs = 0;
  /** Until when it reads nothing, on the clock of `performance.now()`. */
  #mutedUntilMs = 0;
  /** Fetches that lay unread while the broker was mute. */
  tooEarly = 0;

  async #answer({ request }: KafkajsRequest, count: number): Promise<FetchAnswer> {
    expect(request.apiVersion).toBe(13);
    this.fetches++;
    await new Promise((resolve) => setTimeout(resolve, this.answersAfterMs));
    if (performance.now() < this.#mutedUntilMs) this.tooEarly++;
    const { throttleMs, refusal } = this;
    this.#mutedUntilMs = performance.now() + throttleMs;
    this.refusal = 0;
    if (refusal !== 0) throw Object.assign(new Error('the broker refused a fetch'), { type: `error ${refusal}` });
    const answered = Array.from({ length: count }, (_, partition): FetchedPartition => {
      const answer = this.answers.get(partition) ?? 0;
      const [errorCode, data] = typeof answer === 'number' ? [answer, Buffer.alloc(0)] : [0, answer];
      if (errorCode === 0 && !this.lasting.has(partition)) this.answers.delete(partition);
      return { topic: 't', partition, errorCode, highWatermark: 100, stableEnd: 100, aborted: [], data };
    });
    const { sessionId } = this;
    const hasNews = ({ errorCode, data }: FetchedPartition): boolean => errorCode !== 0 || data.length > 0;
    return Object.assign(
      { throttleMs, partitions: sessionId === 0 ? answered : answered.filter(hasNews) },
      { sessionId },
    );
  }

  get kinds(): string[] {
    return this.events.map(
      ({ kind, partition, what }) => `${kind} ${partition}: ${typeof what === 'string' ? what : (what as Reset).kind}`,
    );
  }
}
