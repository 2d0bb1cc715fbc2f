// Fetch sessions (KIP-227) against a broker that remembers as Kafka's does: what is asked for, and what a loss of the session costs.
import { describe, expect, test } from 'vitest';
import type { KafkajsBroker, KafkajsRequest } from '../../../src/kafka/connection/broker.js';
import { fetchFrom } from '../../../src/kafka/fetch/fetch-request.js';
import type { FetchPartition } from '../../../src/kafka/fetch/fetch-partition.js';
import { FetchSession } from '../../../src/kafka/fetch/fetch-session.js';
import { AnswerReader, FlexibleWriter } from '../../../src/kafka/connection/protocol.js';

const idOf = (n: number) => Buffer.from(n.toString(16).padStart(32, '0'), 'hex').toString('base64url');
const at = (partition: number, offset = 0, topic = 1, maxBytes = 100): FetchPartition => ({
  topic: `t${topic}`,
  topicId: idOf(topic),
  partition,
  offset,
  maxBytes,
});

interface Asked {
  readonly id: number;
  readonly epoch: number;
  /** `topic/partition@offset`. */
  readonly partitions: readonly string[];
  readonly forgotten: readonly string[];
}

/** Answers each request with nothing but what the test lays out. */
class SessionBroker {
  readonly asked: Asked[] = [];
  /** Of the next answer. */
  error = 0;
  sessionId = 7;
  tells: readonly { readonly topic: number; readonly partition: number }[] = [];
  isCut = false;
  readonly connection: { chunks: Buffer[]; socket: { destroyed: boolean } } = {
    chunks: [],
    socket: { destroyed: false },
  };
  readonly wire: KafkajsBroker;

  constructor() {
    const send = async ({ request, response }: KafkajsRequest) => {
      this.asked.push(read((await request.encode()).buffer));
      if (this.isCut) {
        this.isCut = false;
        throw new Error('the connection broke');
      }
      return response.parse(await response.decode(this.#answer()));
    };
    const connectionPool = { send, getConnection: async () => this.connection };
    this.wire = { connectionPool, apiVersions: async () => ({ 1: { maxVersion: 13 } }) } as unknown as KafkajsBroker;
  }

  #answer(): Buffer {
    const writer = new FlexibleWriter().int32(0);
    writer
      .int8(0)
      .int8(this.error)
      .int32(this.error === 0 ? this.sessionId : 0);
    writer.array(this.error === 0 ? this.tells : [], ({ topic, partition }) => {
      writer.id(idOf(topic)).array([partition], (each) => {
        writer
          .int32(each)
          .int8(0)
          .int8(0)
          .int64(5)
          .int64(5)
          .int64(0)
          .array([], () => undefined)
          .int32(-1)
          .string('')
          .tags();
      });
      writer.tags();
    });
    this.error = 0;
    return writer.tags().encoded().buffer;
  }
}

function read(request: Buffer): Asked {
  const reader = new AnswerReader(request, true);
  for (let i = 0; i < 4; i++) reader.int32();
  reader.int8();
  const [id, epoch] = [reader.int32(), reader.int32()];
  const topics = reader.array(() => {
    const topic = reader.id();
    const partitions = reader.array(() => {
      const partition = reader.int32();
      reader.int32();
      const offset = reader.int64();
      reader.int32();
      reader.int64();
      reader.int32();
      reader.tags();
      return `${nameOf(topic)}/${partition}@${offset}`;
    });
    reader.tags();
    return partitions;
  });
  const forgotten = reader.array(() => {
    const topic = reader.id();
    const partitions = reader.array(() => `${nameOf(topic)}/${reader.int32()}`);
    reader.tags();
    return partitions;
  });
  return { id, epoch, partitions: topics.flat().sort(), forgotten: forgotten.flat().sort() };
}

const nameOf = (topicId: string | undefined) =>
  `t${Number.parseInt(Buffer.from(topicId ?? '', 'base64url').toString('hex'), 16)}`;

function opened() {
  const broker = new SessionBroker();
  const session = new FetchSession();
  const fetch = (...partitions: FetchPartition[]) =>
    fetchFrom(broker.wire, { maxWaitMs: 10, maxBytes: 1000, isolation: 'read_committed', partitions }, session);
  return { broker, fetch };
}

describe('a fetch session', () => {
  test('J1: begins with everything, then names only what is new, what moved and what is no longer wanted', async () => {
    const { broker, fetch } = opened();
    await fetch(at(0), at(1), at(0, 0, 2));
    await fetch(at(0), at(1), at(0, 0, 2));
    await fetch(at(0), at(1, 8), at(3), at(0, 0, 2));
    await fetch(at(0), at(1, 8));
    await fetch(at(0, 0, 1, 50), at(1, 8), at(3));
    expect(broker.asked).toEqual([
      { id: 0, epoch: 0, partitions: ['t1/0@0', 't1/1@0', 't2/0@0'], forgotten: [] },
      { id: 7, epoch: 1, partitions: [], forgotten: [] },
      { id: 7, epoch: 2, partitions: ['t1/1@8', 't1/3@0'], forgotten: [] },
      { id: 7, epoch: 3, partitions: [], forgotten: ['t1/3', 't2/0'] },
      { id: 7, epoch: 4, partitions: ['t1/0@0', 't1/3@0'], forgotten: [] },
    ]);
  });

  test('J1: a partition that left as another one came is forgotten too', async () => {
    const { broker, fetch } = opened();
    await fetch(at(0), at(1));
    await fetch(at(0), at(2));
    expect(broker.asked[1]).toEqual({ id: 7, epoch: 1, partitions: ['t1/2@0'], forgotten: ['t1/1'] });
  });

  test('J1: an answer says whether what it leaves out is as it was, and names topics that this request did not', async () => {
    const { broker, fetch } = opened();
    expect(await fetch(at(0), at(1))).toMatchObject({ hasNewsOnly: false, partitions: [] });
    broker.tells = [{ topic: 1, partition: 1 }];
    expect(await fetch(at(0), at(1))).toMatchObject({
      hasNewsOnly: true,
      partitions: [{ topic: 't1', partition: 1, highWatermark: 5 }],
    });
    broker.tells = [{ topic: 9, partition: 1 }];
    expect(await fetch(at(0), at(1))).toMatchObject({ partitions: [] });
  });

  test.each([
    [70, 0],
    [71, 7],
    [106, 7],
  ])('J8: refused with error %i it begins again at once, with everything', async (error, id) => {
    const { broker, fetch } = opened();
    await fetch(at(0), at(1));
    broker.error = error;
    broker.tells = [{ topic: 1, partition: 0 }];
    expect(await fetch(at(0), at(1))).toMatchObject({ hasNewsOnly: false, partitions: [{ partition: 0 }] });
    await fetch(at(0), at(1));
    expect(broker.asked.slice(1)).toEqual([
      { id: 7, epoch: 1, partitions: [], forgotten: [] },
      { id, epoch: 0, partitions: ['t1/0@0', 't1/1@0'], forgotten: [] },
      { id: 7, epoch: 1, partitions: [], forgotten: [] },
    ]);
  });

  test('J8: refused when everything was asked for it is an error like others: who asks waits before asking again', async () => {
    const { broker, fetch } = opened();
    broker.error = 71;
    await expect(fetch(at(0))).rejects.toMatchObject({ type: 'error 71' });
    expect(broker.asked).toHaveLength(1);
  });

  test('J5: after a fetch whose answer is not known everything is asked for, and the old session ended', async () => {
    const { broker, fetch } = opened();
    await fetch(at(0), at(1));
    broker.isCut = true;
    await expect(fetch(at(0, 3), at(1))).rejects.toThrow('broke');
    await fetch(at(0, 3), at(1));
    expect(broker.asked[2]).toEqual({ id: 7, epoch: 0, partitions: ['t1/0@3', 't1/1@0'], forgotten: [] });
  });

  test('J5: nothing of it is said over another connection', async () => {
    const { broker, fetch } = opened();
    await fetch(at(0));
    broker.connection.socket = { destroyed: false };
    await fetch(at(0));
    broker.connection.socket.destroyed = true;
    await fetch(at(0));
    expect(broker.asked.map(({ id, epoch }) => [id, epoch])).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
  });

  test('J8: where the broker has none, or no more room for it, everything is asked for each time', async () => {
    const { broker, fetch } = opened();
    await fetch(at(0));
    broker.sessionId = 0;
    await fetch(at(0));
    await fetch(at(0));
    expect(broker.asked.map(({ id, epoch, partitions }) => [id, epoch, partitions.length])).toEqual([
      [0, 0, 1],
      [7, 1, 0],
      [0, 0, 1],
    ]);
  });

  test('J8: an answer under another session is not believed', async () => {
    const { broker, fetch } = opened();
    await fetch(at(0));
    broker.sessionId = 8;
    await expect(fetch(at(0))).rejects.toThrow('session 8');
    await fetch(at(0));
    expect(broker.asked[2]).toMatchObject({ id: 7, epoch: 0, partitions: ['t1/0@0'] });
  });

  test('J1: an answer of thousands of partitions is read in several turns of the event loop', async () => {
    const { broker, fetch } = opened();
    const partitions = Array.from({ length: 1000 }, (_, partition) => at(partition));
    const turnsOf = async (count: number) => {
      broker.tells = Array.from({ length: count }, (_, partition) => ({ topic: 1, partition: partition % 1000 }));
      let [turns, isOver] = [0, false];
      const counting = (): void => {
        turns++;
        if (!isOver) setImmediate(counting);
      };
      setImmediate(counting);
      const answer = await fetch(...partitions);
      isOver = true;
      expect(answer.partitions).toHaveLength(count);
      return turns;
    };
    expect(await turnsOf(10)).toBe(0);
    expect(await turnsOf(5000)).toBeGreaterThanOrEqual(5);
  });

  test('without a session nothing is remembered', async () => {
    const broker = new SessionBroker();
    const request = { maxWaitMs: 10, maxBytes: 1000, isolation: 'read_committed', partitions: [at(0)] } as const;
    await fetchFrom(broker.wire, request);
    await fetchFrom(broker.wire, request);
    expect(broker.asked.map(({ id, epoch, partitions }) => [id, epoch, partitions.length])).toEqual([
      [0, -1, 1],
      [0, -1, 1],
    ]);
  });
});
