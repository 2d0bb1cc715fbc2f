// Answers to Fetch and Metadata, sound and damaged: what the product reads of them against what the protocol says.
import { IngestError } from '../../../src/errors.js';
import { classifyError } from '../../../src/kafka/connection/classify-error.js';
import type { Random } from '../random.js';
import { Reader, Writer } from './kafka-bytes.js';
import type { AnswerSubject } from './subject.js';

const fetchVersions = [4, 5, 7, 10, 11, 13] as const;
const topicNames = ['orders', '', 'é', 'a.b-c_d'] as const;
const ids = [Buffer.alloc(16), Buffer.alloc(16, 1), Buffer.from('0123456789abcdef')] as const;
const nameOfId = (id: string | undefined): string | undefined =>
  id === undefined ? undefined : `topic-${id.slice(0, 4)}`;

export async function brokerFault(
  random: Random,
  subject: AnswerSubject,
): Promise<{ readonly what: string | undefined; readonly bytes: Buffer }> {
  const version = random.pick(fetchVersions);
  const isFetch = random.chance(0.7);
  const name = isFetch ? `Fetch ${version}` : 'Metadata';
  const sound = isFetch ? fetchAnswer(random, version) : metadataAnswer(random);
  const bytes = random.chance(0.15) ? sound : damaged(random, sound);
  const should = await attempt(async () => (isFetch ? readFetch(bytes, version) : readMetadata(bytes)));
  const read = await attempt(() => (isFetch ? subject.fetch(bytes, version, nameOfId) : subject.metadata(bytes)));
  const what = ((): string | undefined => {
    if (read.error !== undefined) {
      if (should.error === undefined && !should.mayBeRefused)
        return `a sound answer to ${name} is refused: ${said(read.error)}`;
      return contained(read.error) ? undefined : `an answer to ${name} ends the source: ${said(read.error)}`;
    }
    if (should.error !== undefined)
      return `an answer to ${name} is read although it is ${should.error instanceof Error ? should.error.message : 'broken'}`;
    return text(read.value) === text(should.value) ? undefined : `an answer to ${name} is read as another one`;
  })();
  return { what, bytes };
}

/** One bad answer must cost a connection, never the source: what is final is a refusal that the broker spelled out. */
function contained(error: unknown): boolean {
  return classifyError(error) !== 'fatal' || (error instanceof IngestError && error.fields.serverCode !== undefined);
}

function said(error: unknown): string {
  return error instanceof Error ? `${error.name} ${error.message}` : JSON.stringify(error);
}

type Attempt = { readonly value: unknown; readonly error: unknown; readonly mayBeRefused: boolean };

/** The oracle's readers give `{ value, mayBeRefused }`, the product's the bare value. */
async function attempt(read: () => Promise<unknown>): Promise<Attempt> {
  try {
    const value = await read();
    return value instanceof Read
      ? { value: value.value, error: undefined, mayBeRefused: value.mayBeRefused }
      : { value, error: undefined, mayBeRefused: false };
  } catch (error) {
    return { value: undefined, error: error ?? 'nothing', mayBeRefused: true };
  }
}

class Read {
  constructor(
    readonly value: unknown,
    /** No sound answer, though it can be read. */
    readonly mayBeRefused: boolean,
  ) {}
}

function text(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? `${inner}n` : inner)) ?? '';
}

function damaged(random: Random, sound: Buffer): Buffer {
  let data = sound;
  for (let left = 1 + random.small(2); left > 0; left--) {
    const at = random.int(data.length + 1);
    const rest = data.subarray(at + 1 + random.small(4));
    const middle = random.pick([
      Buffer.from([(data[at] ?? 0) ^ (1 << random.int(8))]),
      Buffer.from([0xff, 0xff, 0xff, 0x7f]),
      Buffer.alloc(0),
      random.bytes(3),
      Buffer.alloc(6, 0xff),
    ]);
    data = random.chance(0.3)
      ? data.subarray(0, at)
      : Buffer.concat([data.subarray(0, at), middle, random.chance(0.5) ? data.subarray(at + middle.length) : rest]);
  }
  return data;
}

function fetchAnswer(random: Random, version: number): Buffer {
  const isById = version >= 13;
  const writer = new Writer(isById);
  // What kafkajs took for a part of the answer: the tagged fields of the header.
  writer.tags().int32(random.int(100));
  if (version >= 7) writer.int16(random.chance(0.05) ? random.between(-1, 100) : 0).int32(0);
  writer.array(Array.from({ length: random.small(3) }), () => {
    if (isById) writer.raw(random.pick(ids));
    else writer.string(random.pick(topicNames));
    writer.array(Array.from({ length: random.small(3) }), () => fetchedPartition(random, version, writer)).tags();
  });
  return writer.tags(random.chance(0.2) ? [[0, random.bytes(5)]] : []).whole();
}

function fetchedPartition(random: Random, version: number, writer: Writer): void {
  writer
    .int32(random.int(9))
    .int16(random.chance(0.2) ? random.between(-1, 110) : 0)
    .int64(random.bigint(40))
    .int64(random.bigint(40));
  if (version >= 5) writer.int64(0n);
  const aborted = random.chance(0.3) ? Array.from({ length: random.small(3) }) : null;
  writer.array(aborted, () => writer.int64(random.bigint(64)).int64(random.bigint(40)).tags());
  if (version >= 11) writer.int32(-1);
  writer
    .bytes(random.chance(0.1) ? null : random.bytes(random.small(60)))
    .tags(random.chance(0.1) ? [[1, random.bytes(3)]] : []);
}

function readFetch(bytes: Buffer, version: number): Read {
  const isById = version >= 13;
  const reader = new Reader(bytes, isById);
  reader.tags();
  reader.int32();
  if (version >= 7) {
    const errorCode = reader.int16();
    if (errorCode !== 0) throw new Error('an error of the whole request');
    reader.int32();
  }
  const topics = reader.array(() => {
    const topic = isById ? nameOfId(idOf(reader.raw(16))) : reader.string();
    const partitions = reader.array(() => readPartition(reader, topic ?? '', version));
    reader.tags();
    return topic === undefined ? [] : partitions;
  });
  return new Read(topics.flat(), reader.isOdd || !endsWell(reader));
}

/** Whether the tags at the very end are there, and nothing behind them, makes no difference to what is read. */
function endsWell(reader: Reader, bytesAhead = 0): boolean {
  try {
    reader.raw(bytesAhead);
    reader.tags();
    return reader.left === 0;
  } catch {
    return false;
  }
}

function readPartition(reader: Reader, topic: string, version: number): object {
  const [partition, errorCode, highWatermark] = [reader.int32(), reader.int16(), Number(reader.int64())];
  const stableEnd = Number(reader.int64());
  if (version >= 5) reader.int64();
  const aborted = reader.array(() => {
    const transaction = { producerId: reader.int64(), firstOffset: Number(reader.int64()) };
    reader.tags();
    return transaction;
  });
  if (version >= 11) reader.int32();
  const data = reader.bytes();
  reader.tags();
  return { topic, partition, errorCode, highWatermark, stableEnd, aborted, data };
}

function metadataAnswer(random: Random): Buffer {
  const writer = new Writer(true);
  const numbers = (): number[] => Array.from({ length: random.small(3) }, () => random.int(5));
  const brokers = Array.from({ length: random.small(3) }, (_, id) => id);
  writer.tags().int32(0);
  writer.array(brokers, (id) =>
    writer
      .int32(id)
      .string('host')
      .int32(9092)
      .string(random.chance(0.5) ? null : 'rack')
      .tags(),
  );
  writer.string(random.chance(0.1) ? null : 'cluster').int32(1);
  writer.array(Array.from({ length: random.small(3) }), () => {
    writer
      .int16(random.chance(0.2) ? random.int(40) : 0)
      .string(random.pick(topicNames))
      .raw(random.pick(ids))
      .int8(0);
    writer.array(numbers(), (id) => {
      writer.int16(0).int32(id).int32(random.between(-1, 3)).int32(0);
      for (let lists = 3; lists > 0; lists--) writer.array(numbers(), (node) => writer.int32(node));
      writer.tags();
    });
    writer.int32(0).tags();
  });
  return writer.int32(-2147483648).tags().whole();
}

function readMetadata(bytes: Buffer): Read {
  const reader = new Reader(bytes, true);
  reader.tags();
  reader.int32();
  const brokers = reader.array(() => {
    const broker = {
      nodeId: reader.int32(),
      host: reader.string(),
      port: reader.int32(),
      rack: reader.string() || null,
    };
    reader.tags();
    return broker;
  });
  const [clusterId, controllerId] = [reader.string(), reader.int32()];
  const topicMetadata = reader.array(() => {
    const [topicErrorCode, topic, topicId] = [reader.int16(), reader.string(), idOf(reader.raw(16))];
    reader.int8();
    const partitionMetadata = reader.array(() => {
      const [partitionErrorCode, partitionId, leader] = [reader.int16(), reader.int32(), reader.int32()];
      reader.int32();
      for (let lists = 3; lists > 0; lists--) reader.array(() => reader.int32());
      reader.tags();
      return { partitionErrorCode, partitionId, leader };
    });
    reader.int32();
    reader.tags();
    return { topicErrorCode, topic, topicId, partitionMetadata };
  });
  return new Read({ brokers, clusterId, controllerId, topicMetadata }, reader.isOdd || !endsWell(reader, 4));
}

function idOf(bytes: Buffer): string | undefined {
  return bytes.every((byte) => byte === 0) ? undefined : bytes.toString('base64url');
}
