// The producer of the chaos run: goes on all the time, at a bounded rate. Plain idempotent records, transactions of two
// producers that interleave and of which some are aborted, and a compacted topic whose keys repeat; some records of each
// are tombstones. It remembers of each record whether it was committed, aborted, or sent without a clear answer.
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Partitioners, type Message, type Producer, type TopicMessages } from 'kafkajs';
import { createTopic, kafkaClient } from '../../test/stack/clients.js';
import type { Draw } from './draw.js';

export const topics = {
  plain: { topic: 'chaos', partitions: 4 },
  compacted: { topic: 'chaos_compacted', partitions: 2 },
} as const;

interface Topic {
  readonly topic: string;
  readonly partitions: number;
}

/** A record's fate, as far as its producer knows. */
export type Fate = 'committed' | 'aborted' | 'unknown';

const keys = 60;
const shareAborted = 0.3;
const shareOfTombstones = 0.05;
const lastWordsWithinMs = 60_000;

/** The broker is made to look for what can be cleaned often; see `createTopics`. */
export const kafkaProperties = {
  'log.cleaner.backoff.ms': '1000',
  'log.cleaner.threads': '1',
  'transaction.abort.timed.out.transaction.cleanup.interval.ms': '1000',
};

export async function createTopics(brokers: readonly string[]): Promise<void> {
  await created(brokers, topics.plain.topic, { partitions: topics.plain.partitions });
  await created(brokers, topics.compacted.topic, {
    partitions: topics.compacted.partitions,
    // A segment is closed after some seconds, and cleaned when a twentieth of it is out of date.
    config: {
      'cleanup.policy': 'compact',
      'segment.ms': '4000',
      'min.cleanable.dirty.ratio': '0.05',
      'min.compaction.lag.ms': '0',
      'delete.retention.ms': '100',
    },
  });
}

/** kafkajs gives up when a broker under load does not know its new topic yet; created it is all the same. */
async function created(
  brokers: readonly string[],
  topic: string,
  options: Parameters<typeof createTopic>[2],
): Promise<void> {
  for (let attemptsLeft = 5; ; attemptsLeft--) {
    try {
      return await createTopic(brokers, topic, options);
    } catch (error) {
      if (attemptsLeft <= 1) throw error;
      await sleep(500);
    }
  }
}

/** What the record with this number says; nobody else needs to remember it. */
export function valueOf(id: number): string {
  const pad = createHash('md5')
    .update(`${id}`)
    .digest('hex')
    .repeat(1 + (id % 4));
  return JSON.stringify({ id, pad });
}

export class Traffic {
  /** By record number, for each topic; a number is used once. */
  readonly fates = new Map<string, Map<number, Fate>>(
    Object.values(topics).map(({ topic }) => [topic, new Map<number, Fate>()]),
  );
  /** The numbers of those without a value. */
  readonly tombstones = new Set<number>();
  readonly transactions = { committed: 0, aborted: 0, unknown: 0 };
  #nextId = 1;
  #isStopping = false;
  readonly #running: Promise<void>[];

  constructor(
    private readonly brokers: readonly string[],
    private readonly draw: Draw,
    private readonly ratePerSecond: number,
  ) {
    this.#running = [
      this.#goOn(undefined, (producer) => this.#sendPlain(producer)),
      ...['chaos-a', 'chaos-b'].map((id) => this.#goOn(id, (producer) => this.#sendTransaction(producer))),
    ];
  }

  /**
   * Ends what is under way; of every transaction it is then known, or will be soon, how it ended. Each partition ends
   * with a record that has a value: once its row is there, what came before has been through a worker, tombstones too.
   */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.all(this.#running);
    const endMs = performance.now() + lastWordsWithinMs;
    let isSaid = false;
    await this.#goOn(
      undefined,
      async (producer) => {
        await this.#sendApart(
          producer,
          Object.values(topics).map((to) => this.#lastWords(to)),
          'committed',
        );
        isSaid = true;
      },
      () => isSaid || performance.now() > endMs,
    );
  }

  /** A producer that is made again whenever something went wrong with the last one. */
  async #goOn(
    transactionalId: string | undefined,
    send: (producer: Producer) => Promise<void>,
    isOver = (): boolean => this.#isStopping,
  ): Promise<void> {
    while (!isOver()) {
      const producer = kafkaClient(this.brokers, {
        retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 8 },
        requestTimeout: 5000,
      }).producer({
        createPartitioner: Partitioners.DefaultPartitioner,
        idempotent: true,
        maxInFlightRequests: 1,
        ...(transactionalId === undefined ? {} : { transactionalId, transactionTimeout: 10_000 }),
      });
      try {
        await producer.connect();
        while (!isOver()) await send(producer);
      } catch {
        await sleep(300);
      }
      await Promise.race([producer.disconnect().catch(() => undefined), sleep(2000, undefined, { ref: false })]);
    }
  }

  async #sendPlain(producer: Producer): Promise<void> {
    const everyMs = 200;
    const { plain, compacted } = topics;
    const batches = [
      this.#batch(plain, (this.ratePerSecond * 0.4 * everyMs) / 1000),
      this.#batch(compacted, (this.ratePerSecond * 0.25 * everyMs) / 1000),
    ];
    const beganMs = performance.now();
    await this.#sendApart(producer, batches, 'committed');
    await sleep(Math.max(0, everyMs - (performance.now() - beganMs)));
  }

  /**
   * One partition after the other: in a call that goes to several leaders kafkajs takes a partition for sent, and does not
   * send it, when its leader moves to a broker that has answered for others already. `fate`: of what was answered well.
   */
  async #sendApart(to: Pick<Producer, 'send'>, batches: readonly TopicMessages[], fate?: Fate): Promise<void> {
    for (const { topic, messages } of batches) {
      for (const partition of new Set(messages.map((message) => message.partition))) {
        const part = messages.filter((message) => message.partition === partition);
        await to.send({ topic, messages: part, acks: -1 });
        if (fate !== undefined) this.#settle([{ topic, messages: part }], fate);
      }
    }
  }

  /** Two or three sends with pauses in between, in which the other one sends. */
  async #sendTransaction(producer: Producer): Promise<void> {
    const batches: TopicMessages[] = [];
    const transaction = await producer.transaction();
    let outcome: Fate = 'unknown';
    try {
      for (let sends = this.draw.between(1, 3); sends > 0; sends--) {
        const to = this.draw.share() < 0.25 ? topics.compacted : topics.plain;
        const batch = this.#batch(to, (this.ratePerSecond * 0.175) / 6);
        batches.push(batch);
        await this.#sendApart(transaction, [batch]);
        await sleep(this.draw.between(20, 150));
      }
      const isAborted = this.draw.share() < shareAborted;
      await (isAborted ? transaction.abort() : transaction.commit());
      outcome = isAborted ? 'aborted' : 'committed';
    } finally {
      this.transactions[outcome]++;
      this.#settle(batches, outcome);
    }
  }

  #batch({ topic, partitions }: Topic, count: number): TopicMessages {
    const messages = Array.from({ length: Math.max(1, Math.round(count)) }, () =>
      this.#message(topic, this.draw.between(0, partitions - 1), this.draw.share() < shareOfTombstones),
    );
    return { topic, messages };
  }

  #lastWords({ topic, partitions }: Topic): TopicMessages {
    return {
      topic,
      messages: Array.from({ length: partitions }, (_, partition) => this.#message(topic, partition, false)),
    };
  }

  #message(topic: string, partition: number, isTombstone: boolean): Message {
    const id = this.#nextId++;
    this.fates.get(topic)!.set(id, 'unknown');
    if (isTombstone) this.tombstones.add(id);
    return {
      key: `key-${this.draw.between(1, keys)}`,
      value: isTombstone ? null : valueOf(id),
      partition,
      headers: { id: `${id}` },
    };
  }

  #settle(batches: readonly TopicMessages[], fate: Fate): void {
    for (const { topic, messages } of batches) {
      for (const { headers } of messages) this.fates.get(topic)!.set(Number(headers!.id), fate);
    }
  }
}
