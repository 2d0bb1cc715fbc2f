// Answers that are none, from a broker that is none: they end a connection, and nothing else.
import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { containAnswers, OpenRequests } from '../../../src/kafka/connection/answers.js';
import type { KafkajsBroker, KafkajsBrokerPool, KafkajsRequest } from '../../../src/kafka/connection/broker.js';
import { decodeAnswer } from '../../../src/kafka/fetch/fetch-answer.js';
import { sourceSettings } from '../../../src/kafka/options.js';
import { AnswerReader } from '../../../src/kafka/connection/protocol.js';
import { decodeMetadata } from '../../../src/kafka/connection/metadata.js';
import { classifyError } from '../../../src/kafka/connection/classify-error.js';
import { openConnection } from '../../../src/kafka/connection/kafka-connection.js';

function request(apiKey: number, version: number, id: number): Buffer {
  const bytes = Buffer.alloc(14);
  bytes.writeInt32BE(10);
  bytes.writeInt16BE(apiKey, 4);
  bytes.writeInt16BE(version, 6);
  bytes.writeInt32BE(id, 8);
  return bytes;
}

function answer(body: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length);
  return Buffer.concat([length, body]);
}

const idOf = (id: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(id);
  return bytes;
};

describe('D6: which request an answer is to', () => {
  test('D6: none that is open, or too short to say, is wrong; each that is open is right once', () => {
    const requests = new OpenRequests();
    requests.sent(request(3, 1, 7));
    requests.sent(request(1, 11, 8));
    for (let length = 0; length < 4; length++)
      expect(requests.answered(answer(Buffer.alloc(length)))?.message).toMatch(`an answer of ${length} bytes`);
    expect(requests.answered(answer(idOf(9)))?.message).toMatch(/request 9, which was not sent/);
    expect(requests.answered(answer(idOf(8)))).toBeUndefined();
    expect(requests.answered(answer(idOf(7)))).toBeUndefined();
    expect(requests.answered(answer(idOf(7)))?.message).toMatch(/answered already/);
  });

  test('a login whose bytes have no head, as after the oldest handshake, is let through', () => {
    const requests = new OpenRequests();
    requests.sent(request(17, 0, 1));
    expect(requests.answered(answer(idOf(1)))).toBeUndefined();
    expect(requests.answered(answer(Buffer.alloc(0)))).toBeUndefined();
  });
});

describe('D6: lists that are longer than their answer', () => {
  test('D6: are refused before one item is read', () => {
    const reads = vi.fn(() => 1);
    const body = Buffer.alloc(8);
    body.writeInt32BE(2_147_483_647);
    expect(() => new AnswerReader(body, false).array(reads)).toThrow(/list of 2147483647, in 4 bytes/);
    expect(reads).not.toHaveBeenCalled();
    body.writeInt32BE(-2);
    expect(() => new AnswerReader(body, false).array(reads)).toThrow(/length of -2/);
    expect(() => new AnswerReader(body, false).bytes()).toThrow(/length of -2/);
    body.writeInt32BE(4);
    expect(() => new AnswerReader(body, false).array(reads, 3)).toThrow(/list of 4/);
    expect(new AnswerReader(body, false).array(reads)).toHaveLength(4);
  });

  test.each([0, 1])(
    'D6: every answer that is cut, longer or changed is an error of its own or an answer, never more (%d)',
    (which) => {
      const good = which === 0 ? fetchAnswer() : metadataAnswer();
      const decode = (bytes: Buffer) => (which === 0 ? decodeAnswer(bytes, 13, () => 't') : decodeMetadata(bytes));
      expect(() => decode(good)).not.toThrow();
      for (let length = 0; length < good.length; length++)
        expect(() => decode(good.subarray(0, length))).toThrow(RangeError);
      expect(() => decode(Buffer.concat([good, Buffer.alloc(1)]))).toThrow(/1 bytes behind its end/);
      for (let at = 0; at < good.length; at++) {
        for (const flip of [1, 0x80, 0xff]) {
          const bad = Buffer.from(good);
          bad[at]! ^= flip;
          try {
            decode(bad);
          } catch (thrown) {
            expect(thrown instanceof RangeError || classifyError(thrown) === 'transient').toBe(true);
          }
        }
      }
    },
  );
});

describe('D6: what is thrown at an answer', () => {
  const brokerOf = (pool: Partial<KafkajsBroker['connectionPool']>) => {
    const destroyed: unknown[] = [];
    const broker = {
      connectionPool: {
        host: 'h',
        port: 1,
        getConnection: async () => ({
          chunks: [],
          send: async () => undefined,
          socket: { destroy: (error: unknown) => destroyed.push(error) },
        }),
        ...pool,
      },
    } as unknown as KafkajsBroker;
    const told: string[] = [];
    const brokers = { metadata: null, createBroker: () => broker } as KafkajsBrokerPool;
    containAnswers(brokers, (_level, message) => told.push(message));
    return { broker: brokers.createBroker({}), destroyed, told };
  };
  const kafka = (decode: () => unknown, parse = async (decoded: unknown) => decoded) =>
    ({
      request: { apiKey: 3, apiVersion: 1, apiName: 'Metadata', encode: async () => undefined },
      response: { decode: async () => decode(), parse },
    }) as unknown as KafkajsRequest;
  const send = async ({ response }: KafkajsRequest) => response.parse(await response.decode(Buffer.alloc(0)));

  test("D6: ends its connection and is tried again, whether kafkajs's decoder or ours threw it: it ended the whole source", async () => {
    const { broker, destroyed, told } = brokerOf({ send });
    for (const thrown of [new RangeError('out of range'), new TypeError('not a function')]) {
      const error = await broker.connectionPool
        .send(
          kafka(() => {
            throw thrown;
          }),
        )
        .catch((caught: unknown) => caught);
      expect(classifyError(error)).toBe('transient');
      expect(String(error)).toMatch(/an answer to Metadata cannot be read/);
    }
    const parsed = await broker.connectionPool
      .send(
        kafka(
          () => 1,
          async () => {
            throw new TypeError('x');
          },
        ),
      )
      .catch((caught: unknown) => caught);
    expect(classifyError(parsed)).toBe('transient');
    await vi.waitUntil(() => destroyed.length === 3);
    expect(told).toEqual(['an answer cannot be read, reopening the connection']);
  });

  test('what Kafka itself says stays what it is', async () => {
    const { broker, destroyed } = brokerOf({ send });
    const said = Object.assign(new Error('no'), { name: 'KafkaJSProtocolError', type: 'GROUP_AUTHORIZATION_FAILED' });
    await expect(
      broker.connectionPool.send(
        kafka(() => {
          throw said;
        }),
      ),
    ).rejects.toBe(said);
    expect(destroyed).toEqual([]);
  });

  test('D6: a broker that wants silence for weeks is believed for seconds', async () => {
    const { broker } = brokerOf({ send });
    expect(await broker.connectionPool.send(kafka(() => ({ clientSideThrottleTime: 2_147_483_647 })))).toEqual({
      clientSideThrottleTime: 30_000,
    });
  });
});

describe('D6: a server that answers with bytes that are no answer', () => {
  test.each([
    ['no bytes', Buffer.alloc(4)],
    ['one byte', answer(Buffer.alloc(1))],
    ['three bytes', answer(Buffer.alloc(3))],
    ["another request's number", answer(Buffer.alloc(40, 9))],
    ['nothing behind the number', answer(Buffer.alloc(4))],
    ['a list without its items', answer(Buffer.concat([Buffer.alloc(6), Buffer.from([0x7f, 0xff, 0xff, 0xff])]))],
  ])('D6: %s: what asked fails, the connection is reopened, and no exception is left to nobody', async (_, bytes) => {
    let connections = 0;
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      connections++;
      sockets.add(socket.on('error', () => undefined));
      socket.on('data', () => socket.write(bytes));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const uncaught: unknown[] = [];
    const note = (thrown: unknown): void => void uncaught.push(thrown);
    process.on('uncaughtExceptionMonitor', note).on('unhandledRejection', note);
    const client = openConnection(
      sourceSettings({
        brokers: [`127.0.0.1:${(server.address() as AddressInfo).port}`],
        groupId: 'g',
        topics: ['t'],
        requestTimeoutMs: 500,
      }),
    );
    onTestFinished(() => {
      client.end();
      sockets.forEach((socket) => socket.destroy());
      server.close();
      process.off('uncaughtExceptionMonitor', note).off('unhandledRejection', note);
    });
    for (let tries = 0; tries < 2; tries++) {
      const thrown = await client.cluster.connect().catch((caught: unknown) => caught);
      expect(thrown).toBeInstanceOf(Error);
      expect(classifyError(thrown)).toBe('transient');
    }
    expect(connections).toBeGreaterThan(1);
    expect(connections).toBeLessThan(20);
    expect(uncaught).toEqual([]);
  });
});

function bytesOf(...parts: readonly (readonly ['int8' | 'int16' | 'int32' | 'int64', number] | Buffer)[]): Buffer {
  return Buffer.concat(
    parts.map((part) => {
      if (Buffer.isBuffer(part)) return part;
      const [kind, value] = part;
      const bytes = Buffer.alloc({ int8: 1, int16: 2, int32: 4, int64: 8 }[kind]);
      if (kind === 'int64') bytes.writeBigInt64BE(BigInt(value));
      else bytes.writeIntBE(value, 0, bytes.length);
      return bytes;
    }),
  );
}

const count = (items: number) => Buffer.from([items + 1]);
const noTags = Buffer.from([0]);
const text = (value: string) => Buffer.concat([count(value.length), Buffer.from(value)]);

/** https://kafka.apache.org/protocol#The_Messages_Fetch, version 13: one partition with one aborted transaction. */
function fetchAnswer(): Buffer {
  return bytesOf(
    noTags,
    ['int32', 0],
    ['int16', 0],
    ['int32', 0],
    count(1),
    Buffer.alloc(16, 1),
    count(1),
    ['int32', 0],
    ['int16', 0],
    ['int64', 10],
    ['int64', 10],
    ['int64', 0],
    count(1),
    ['int64', 7],
    ['int64', 3],
    noTags,
    ['int32', -1],
    text('abc'),
    noTags,
    noTags,
    noTags,
  );
}

/** https://kafka.apache.org/protocol#The_Messages_Metadata, version 10: one broker, one topic of one partition. */
function metadataAnswer(): Buffer {
  const replicas = [count(1), ['int32', 1]] as const;
  return bytesOf(
    noTags,
    ['int32', 0],
    count(1),
    ['int32', 1],
    text('h'),
    ['int32', 9092],
    Buffer.from([0]),
    noTags,
    text('c'),
    ['int32', 1],
    count(1),
    ['int16', 0],
    text('t'),
    Buffer.alloc(16, 1),
    ['int8', 0],
    count(1),
    ['int16', 0],
    ['int32', 0],
    ['int32', 1],
    ['int32', 0],
    ...replicas,
    ...replicas,
    count(0),
    noTags,
    ['int32', 0],
    noTags,
    ['int32', 0],
    noTags,
  );
}
