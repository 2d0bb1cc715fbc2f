import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { createClient } from '../../../src/kafka/connection/client.js';
import { decodeAnswer } from '../../../src/kafka/fetch/fetch-answer.js';
import { sourceSettings, type KafkaSourceOptions } from '../../../src/kafka/options.js';
import { kafkaSource } from '../../../src/kafka/source.js';
import {
  commitOutcome,
  isLoginFailure,
  isTimeout,
  kafkaError,
  kafkaType,
  classifyError,
} from '../../../src/kafka/connection/classify-error.js';
import { checkedBroker, checkedCluster } from '../../../src/kafka/connection/broker.js';
import { checkVersion, openConnection } from '../../../src/kafka/connection/kafka-connection.js';

const options: KafkaSourceOptions = { brokers: ['127.0.0.1:1'], groupId: 'g', topics: ['t'] };

describe('what lies beneath kafkajs', () => {
  test('another version of kafkajs is refused before a record is taken', () => {
    expect(() => checkVersion('2.2.4')).not.toThrow();
    expect(() => checkVersion('2.2.5')).toThrow(expect.objectContaining({ code: 'KCR_KAFKAJS_HOOKS' }));
  });

  test('a kafkajs without the parts that are used is refused', () => {
    const { cluster } = openConnection(sourceSettings(options));
    expect(() => checkedCluster(cluster)).not.toThrow();
    expect(() => checkedCluster(undefined)).toThrow(/Cluster lacks connect/);
    expect(() => checkedBroker({ fetch: () => undefined })).toThrow(
      expect.objectContaining({ code: 'KCR_KAFKAJS_HOOKS' }),
    );
  });

  test('a partition does not halt for good because every broker lost one answer', async () => {
    const { cluster } = openConnection(sourceSettings(options));
    // As kafkajs leaves it when each broker's answer was lost.
    Object.assign(cluster.brokerPool, {
      refreshMetadataIfNecessary: async () => undefined,
      withBroker: async () => null,
    });
    const thrown: unknown = await cluster.metadata({ topics: [] }).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(Error);
    expect(classifyError(thrown)).toBe('transient');
  });

  test('a fetch answer of every version is taken apart in the right places', () => {
    for (let version = 4; version <= 11; version++) {
      const [fetched] = decodeAnswer(answer(version), version);
      expect(fetched).toMatchObject({
        topic: 't',
        partition: 3,
        errorCode: 0,
        highWatermark: 70,
        aborted: [{ producerId: 9n, firstOffset: 60 }],
        data: Buffer.from('abc'),
      });
    }
  });
});

describe('a client that has ended', () => {
  test('leaves no connection open that was being made, or is made after: a process can end', async () => {
    const accepted: Socket[] = [];
    const server = createServer((socket) => void accepted.push(socket.on('error', () => undefined).resume())).listen(
      0,
      '127.0.0.1',
    );
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const client = createClient(
      sourceSettings({ ...options, brokers: [`127.0.0.1:${(server.address() as AddressInfo).port}`] }),
    );
    const connecting = client.kafka
      .admin()
      .connect()
      .catch((thrown: unknown) => thrown);
    client.end();
    // As what kafkajs tries by itself.
    const later = client.kafka
      .admin()
      .connect()
      .catch((thrown: unknown) => thrown);
    expect([await connecting, await later]).toEqual([expect.any(Error), expect.any(Error)]);
    await vi.waitUntil(() => accepted.every(({ closed }) => closed), { timeout: 20_000 });
  });
});

describe("kafkajs's errors", () => {
  const wrapped = (type: string) =>
    Object.assign(new Error('x'), { name: 'KafkaJSNonRetriableError', cause: Object.assign(new Error('y'), { type }) });

  test('a fence is known as one, however deep it is wrapped', () => {
    for (const type of ['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'FENCED_INSTANCE_ID'])
      expect(classifyError(wrapped(type))).toBe('fenced');
    expect(classifyError(wrapped('REBALANCE_IN_PROGRESS'))).toBe('rebalance');
    expect(classifyError(wrapped('NOT_COORDINATOR_FOR_GROUP'))).toBe('coordinator');
    expect(kafkaType(wrapped('UNKNOWN_MEMBER_ID'))).toBe('UNKNOWN_MEMBER_ID');
  });

  test('what no retry mends does not hang for ever, and what a retry mends does not end the program', () => {
    expect(classifyError(wrapped('GROUP_AUTHORIZATION_FAILED'))).toBe('fatal');
    expect(classifyError(new TypeError('a defect'))).toBe('fatal');
    expect(classifyError(Object.assign(new Error('x'), { code: 'SELF_SIGNED_CERT_IN_CHAIN' }))).toBe('fatal');
    expect(classifyError(Object.assign(new Error('x'), { name: 'KafkaJSConnectionError', code: 'ECONNREFUSED' }))).toBe(
      'transient',
    );
    expect(classifyError(wrapped('A_TYPE_OF_TOMORROW'))).toBe('transient');
    expect(isTimeout(Object.assign(new Error('x'), { name: 'KafkaJSRequestTimeoutError' }))).toBe(true);
  });

  test('a commit that may still take effect later is never called undone', () => {
    const outcome = (type: string, isSent = true) => commitOutcome(wrapped(type), isSent);
    const broken = (name: string) => Object.assign(new Error('x'), { name });
    for (const unknown of [
      'GROUP_COORDINATOR_NOT_AVAILABLE',
      'REQUEST_TIMED_OUT',
      'UNKNOWN',
      'NOT_ENOUGH_REPLICAS',
      'A_TYPE_OF_TOMORROW',
    ])
      expect(outcome(unknown)).toBe('unknown');
    for (const name of ['KafkaJSRequestTimeoutError', 'KafkaJSConnectionClosedError', 'KafkaJSConnectionError']) {
      expect(commitOutcome(broken(name), true)).toBe('unknown');
      expect(commitOutcome(broken(name), false)).toBe('before');
    }
    for (const before of ['NOT_COORDINATOR_FOR_GROUP', 'GROUP_LOAD_IN_PROGRESS'])
      expect(outcome(before)).toBe('before');
    for (const over of ['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID']) expect(outcome(over)).toBe('fenced');
    expect(outcome('OFFSET_METADATA_TOO_LARGE')).toBe('tooLarge');
    expect(outcome('GROUP_AUTHORIZATION_FAILED')).toBe('refused');
    expect(outcome('SASL_AUTHENTICATION_FAILED', false)).toBe('refused');
  });

  test('a refused login is called that, with what to do', () => {
    const thrown = Object.assign(new Error('bad password'), { name: 'KafkaJSSASLAuthenticationError' });
    expect(isLoginFailure(thrown)).toBe(true);
    expect(classifyError(thrown)).toBe('fatal');
    expect(kafkaError(thrown, 'Connecting').message).toMatch(/Connecting failed: bad password.*check sasl\.mechanism/);
  });
});

describe('options', () => {
  test('nonsense is refused at once, saying what was expected and what came', () => {
    const refused = (more: Partial<KafkaSourceOptions>, message: RegExp) =>
      expect(() => kafkaSource({ ...options, ...more })).toThrow(message);
    refused({ brokers: [] }, /`brokers` to be a list of one or more "host:port", got \[\]/);
    refused({ brokers: ['localhost'] }, /"host:port" in each place, got "localhost"/);
    refused({ groupId: '' }, /`groupId`/);
    refused({ topics: ['a b'] }, /`topics` to be Kafka topic names, got "a b"/);
    refused({ onReset: 'begin' as 'halt' }, /`onReset` to be "halt" or "restart", got "begin"/);
    refused({ maxWaitMs: 0 }, /`maxWaitMs` to be a positive integer/);
    refused({ heartbeatIntervalMs: 20_000 }, /half of sessionTimeoutMs \(30000\), got 20000/);
    refused({ drainTimeoutMs: 60_000 }, /`drainTimeoutMs`.*rebalanceTimeoutMs \(60000\)/);
  });

  test('the drain never outlasts the rebalance, or others would take over what is still being flushed', () => {
    expect(sourceSettings(options).drainTimeoutMs).toBe(20_000);
    expect(sourceSettings({ ...options, rebalanceTimeoutMs: 10_000 }).drainTimeoutMs).toBe(5000);
  });
});

function answer(version: number): Buffer {
  const parts: Buffer[] = [];
  const int = (bytes: 2 | 4, value: number) => {
    const data = Buffer.alloc(bytes);
    data.writeIntBE(value, 0, bytes);
    parts.push(data);
  };
  const long = (value: bigint) => {
    const data = Buffer.alloc(8);
    data.writeBigInt64BE(value);
    parts.push(data);
  };
  int(4, 0);
  if (version >= 7) {
    int(2, 0);
    int(4, 0);
  }
  int(4, 1);
  int(2, 1);
  parts.push(Buffer.from('t'));
  int(4, 1);
  int(4, 3);
  int(2, 0);
  long(70n);
  long(65n);
  if (version >= 5) long(0n);
  int(4, 1);
  long(9n);
  long(60n);
  if (version >= 11) int(4, -1);
  int(4, 3);
  parts.push(Buffer.from('abc'));
  return Buffer.concat(parts);
}
