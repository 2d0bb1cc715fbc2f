import { describe, expect, test, vi } from 'vitest';
import type { KafkajsBroker, KafkajsBrokerPool, KafkajsRequest } from '../../../src/kafka/connection/broker.js';
import { decodeAnswer } from '../../../src/kafka/fetch/fetch-answer.js';
import { encodeFetchById, fetchFrom } from '../../../src/kafka/fetch/fetch-request.js';
import { AnswerReader, FlexibleWriter, idText } from '../../../src/kafka/connection/protocol.js';
import {
  decodeMetadata,
  encodeMetadataRequest,
  hookMetadata,
  type ClusterMetadata,
} from '../../../src/kafka/connection/metadata.js';

const ID = 'AAECAwQFBgcICQoLDA0ODw';
const ID_HEX = '000102030405060708090a0b0c0d0e0f';
const bytes = (...parts: (string | number)[]) =>
  Buffer.from(
    parts
      .map((part) => (typeof part === 'number' ? part.toString(16).padStart(2, '0') : part))
      .join('')
      .replaceAll(' ', ''),
    'hex',
  );
const text = (value: string) => Buffer.from(value).toString('hex');
const int32 = (value: number) => (value >>> 0).toString(16).padStart(8, '0');
const int64 = (value: number) => BigInt.asUintN(64, BigInt(value)).toString(16).padStart(16, '0');

describe("the protocol's newer encoding", () => {
  test('lengths of more than one byte are read as they were written', () => {
    for (const length of [0, 1, 126, 127, 128, 16_382, 16_383, 3_000_000]) {
      const { buffer } = new FlexibleWriter().string('x'.repeat(length)).tags().encoded();
      expect(new AnswerReader(buffer, true).string()).toHaveLength(length);
    }
  });

  test('tagged fields that a newer broker adds are passed over', () => {
    const reader = new AnswerReader(bytes('02 05 03 aabbcc 07 00', int32(42)), true);
    expect(reader.int32()).toBe(42);
  });

  test('an answer that is cut off is an error, never a number made up', () => {
    const reader = new AnswerReader(bytes('00 0000'), true);
    expect(() => reader.int32()).toThrow(/shorter than it says/);
  });

  test('the id is written as Kafka writes it, and sixteen zeros are none', () => {
    expect(idText(bytes(ID_HEX))).toBe(ID);
    expect(idText(Buffer.alloc(16))).toBeUndefined();
  });
});

describe('metadata with topic ids', () => {
  test('topics are asked for by name, and none is created by asking', () => {
    expect(encodeMetadataRequest(['ab']).buffer.toString('hex')).toBe(
      `00 02 ${'00'.repeat(16)} 03 ${text('ab')} 00 00 00 00 00`.replaceAll(' ', ''),
    );
  });

  const partition = (error: string, leader: number) =>
    `${error} ${int32(0)} ${int32(leader)} ${int32(7)} 02 ${int32(1)} 02 ${int32(1)} 01 00`;
  const topic = (error: string, name: string, id: string, ...partitions: string[]) =>
    `${error} 02 ${text(name)} ${id} 00 ${(partitions.length + 1).toString(16).padStart(2, '0')} ${partitions.join('')} ${int32(-2147483648)} 00`;
  const answer = (...topics: string[]) =>
    bytes(
      `00 ${int32(0)} 02 ${int32(1)} 03 ${text('hh')} ${int32(9092)} 00 00 04 ${text('cid')} ${int32(1)} ${(topics.length + 1).toString(16).padStart(2, '0')} ${topics.join('')} ${int32(0)} 00`,
    );

  test('the answer is taken apart in the right places', () => {
    expect(
      decodeMetadata(answer(topic('0000', 't', ID_HEX, partition('0000', 1)), topic('0003', 'u', '00'.repeat(16)))),
    ).toEqual({
      brokers: [{ nodeId: 1, host: 'hh', port: 9092, rack: null }],
      clusterId: 'cid',
      controllerId: 1,
      topicMetadata: [
        {
          topicErrorCode: 0,
          topic: 't',
          topicId: ID,
          partitionMetadata: [{ partitionErrorCode: 0, partitionId: 0, leader: 1 }],
        },
        { topicErrorCode: 3, topic: 'u', topicId: undefined, partitionMetadata: [] },
      ],
    });
  });

  function asked(newest: number, payload: Buffer): { metadata: Promise<ClusterMetadata>; sent: KafkajsRequest[] } {
    const sent: KafkajsRequest[] = [];
    const connectionPool = {
      send: async (request: KafkajsRequest) => {
        sent.push(request);
        return request.response.parse(await request.response.decode(payload));
      },
    };
    // As kafkajs's: asks by version 6 and fails for all topics when something is wrong with one.
    const broker = {
      connectionPool,
      apiVersions: async () => ({ 3: { maxVersion: newest } }),
      async metadata(this: KafkajsBroker) {
        const theirs = { apiKey: 3, apiVersion: 6, apiName: 'Metadata', encode: vi.fn() };
        const decode = async () => ({
          topicMetadata: [
            { topic: 't', topicErrorCode: 0, partitionMetadata: [{ leader: 1 }] },
            { topic: 'u', topicErrorCode: 3, partitionMetadata: [] },
          ],
        });
        return this.connectionPool.send({
          request: theirs,
          response: { decode, parse: async () => Promise.reject(new Error('one of them is gone')) },
        });
      },
    };
    const pool = { metadata: null, createBroker: () => broker } as unknown as KafkajsBrokerPool;
    hookMetadata(pool);
    return { metadata: pool.createBroker({}).metadata(['t', 'u']) as Promise<ClusterMetadata>, sent };
  }

  test('one topic that is gone and one partition without a leader do not hide the leaders of all the others', async () => {
    const { metadata, sent } = asked(
      12,
      answer(topic('0000', 't', ID_HEX, partition('0005', -1)), topic('0003', 'u', ID_HEX)),
    );
    expect((await metadata).topicMetadata).toMatchObject([
      { topicId: ID, partitionMetadata: [{ leader: -1 }] },
      { topicErrorCode: 3, topicId: undefined },
    ]);
    expect(sent.map(({ request }) => request.apiVersion)).toEqual([10]);
  });

  test('brokers that know no ids are asked as kafkajs asks them', async () => {
    const { metadata, sent } = asked(9, Buffer.alloc(0));
    expect((await metadata).topicMetadata).toMatchObject([
      { topic: 't', topicId: undefined, partitionMetadata: [{ leader: 1 }] },
      { topic: 'u', topicErrorCode: 3 },
    ]);
    expect(sent.map(({ request }) => request.apiVersion)).toEqual([6]);
  });
});

describe('a fetch by topic id', () => {
  const request = {
    maxWaitMs: 250,
    maxBytes: 1000,
    isolation: 'read_committed',
    partitions: [{ topic: 't', topicId: ID, partition: 3, offset: 70, maxBytes: 500 }],
  } as const;

  test('asks for the id and never for the name', () => {
    const expected = `00 ${int32(-1)} ${int32(250)} ${int32(1)} ${int32(1000)} 01 ${int32(0)} ${int32(-1)}
      02 ${ID_HEX} 02 ${int32(3)} ${int32(-1)} ${int64(70)} ${int32(-1)} ${int64(-1)} ${int32(500)} 00 00 01 01 00`;
    expect(encodeFetchById(request).buffer.toString('hex')).toBe(expected.replace(/\s/g, ''));
  });

  const partition = (error: string, data: string) =>
    `${int32(3)} ${error} ${int64(70)} ${int64(65)} ${int64(0)} 02 ${int64(9)} ${int64(60)} 00 ${int32(-1)} ${data} 00`;
  const answer = (id: string, error = '0000', data = '04 616263') =>
    bytes(`00 ${int32(0)} 0000 ${int32(0)} 02 ${id} 02 ${partition(error, data)} 00 00`);

  test('its answer is taken apart in the right places', () => {
    const named = (id: string | undefined) => (id === ID ? 't' : undefined);
    expect(decodeAnswer(answer(ID_HEX), 13, named)).toEqual([
      {
        topic: 't',
        partition: 3,
        errorCode: 0,
        highWatermark: 70,
        stableEnd: 65,
        aborted: [{ producerId: 9n, firstOffset: 60 }],
        data: Buffer.from('abc'),
      },
    ]);
    expect(decodeAnswer(answer(ID_HEX, '0064', '00'), 13, named)).toMatchObject([
      { errorCode: 100, data: Buffer.alloc(0) },
    ]);
  });

  test('records of an id that nobody asked for are not taken for those of the name', () => {
    expect(decodeAnswer(answer('ff'.repeat(16)), 13, (id) => (id === ID ? 't' : undefined))).toEqual([]);
  });

  test('each broker is asked in the newest way that it speaks by itself, while they are upgraded one by one', async () => {
    const sent: number[] = [];
    const brokerOf = (maxVersion: number) => {
      const send = async ({ request: { apiVersion } }: KafkajsRequest) => (
        sent.push(apiVersion),
        { partitions: [], throttleMs: 0 }
      );
      const fetch = async function (this: KafkajsBroker) {
        return this.connectionPool.send({
          request: { apiKey: 1, apiVersion: 11, apiName: 'Fetch', encode: vi.fn() },
          response: { decode: vi.fn(), parse: vi.fn() },
        });
      };
      return {
        connectionPool: { send, getConnection: async () => ({ chunks: [], send }) },
        apiVersions: async () => ({ 1: { maxVersion } }),
        fetch,
      } as unknown as KafkajsBroker;
    };
    await fetchFrom(brokerOf(17), request);
    await fetchFrom(brokerOf(12), request);
    await fetchFrom(brokerOf(17), {
      ...request,
      partitions: request.partitions.map((each) => ({ ...each, topicId: undefined })),
    });
    expect(sent).toEqual([13, 11, 11]);
  });
});
