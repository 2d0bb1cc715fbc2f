// Imports: the cluster and the bytes. A broker's answer to a fetch: it waits for records as long as it was told to, and
// answers at once where there is an error to tell.
import type { Reply, Send } from './answers.js';
import { AnswerWriter, type RequestReader } from './bytes.js';
import type { FetchedBytes } from './topic.js';

const OFFSET_OUT_OF_RANGE = 1;
const UNKNOWN_TOPIC_ID = 100;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
const NOT_LEADER = 6;

interface AskedPartition {
  readonly partition: number;
  readonly offset: number;
  readonly maxBytes: number;
}

interface Fetch {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
  readonly topics: readonly { readonly id: string; readonly partitions: readonly AskedPartition[] }[];
}

interface Found {
  readonly partition: number;
  readonly code: number;
  readonly end: number;
  readonly stable: number;
  readonly start: number;
  readonly bytes: FetchedBytes;
}

const NONE: FetchedBytes = { data: Buffer.alloc(0), aborted: [] };

export function fetch(request: RequestReader, reply: Reply, send: Send): void {
  const asked = decode(request);
  const { clock, cluster, weather, counters } = reply;
  const whole = weather.refusalOfWholeFetch();
  if (whole !== 0) {
    counters.count(`Fetch ${whole} (whole)`);
    return send(
      new AnswerWriter(true)
        .int32(0)
        .int16(whole)
        .int32(0)
        .list([], () => undefined)
        .tags(),
    );
  }
  // One refusal for the request, told at once.
  const refusal = weather.refusalOf('Fetch');
  let isOver = false;
  const endMs = clock.nowMs + asked.maxWaitMs;
  const look = (): void => {
    if (isOver) return;
    const found = asked.topics.map(({ id, partitions }) => ({
      id,
      partitions: partitions.map((each) => lookUp(id, each, refusal, reply)),
    }));
    const isReady = found.some(({ partitions }) =>
      partitions.some(({ code, bytes }) => code !== 0 || bytes.data.length > 0),
    );
    if (!isReady && clock.nowMs < endMs) return;
    isOver = true;
    leave();
    off();
    for (const { partitions } of found)
      for (const { code } of partitions) if (code !== 0) counters.count(`Fetch ${code}`);
    const throttleMs = reply.throttleMs();
    if (throttleMs > 0) {
      counters.count('Fetch throttled');
      reply.mute(throttleMs);
    }
    send(encode(found, asked.maxBytes, throttleMs));
  };
  const leave = cluster.waits(look);
  const off = clock.after(asked.maxWaitMs, undefined, look);
  look();
}

function decode(request: RequestReader): Fetch {
  request.int32();
  const maxWaitMs = request.int32();
  request.int32();
  const maxBytes = request.int32();
  request.int8();
  request.int32();
  request.int32();
  const topics = request.list(() => {
    const id = request.id();
    const partitions = request.list(() => {
      const partition = request.int32();
      request.int32();
      const offset = request.int64();
      request.int32();
      request.int64();
      const each = { partition, offset, maxBytes: request.int32() };
      request.tags();
      return each;
    });
    request.tags();
    return { id, partitions };
  });
  return { maxWaitMs, maxBytes, topics };
}

function lookUp(
  id: string,
  { partition, offset, maxBytes }: AskedPartition,
  refusal: number,
  { cluster, broker }: Reply,
): Found {
  const refused = (code: number): Found => ({ partition, code, end: -1, stable: -1, start: -1, bytes: NONE });
  if (refusal !== 0) return refused(refusal);
  const topic = cluster.topicById(id);
  if (topic === undefined) return refused(UNKNOWN_TOPIC_ID);
  const leader = topic.partitions[partition]?.leader;
  if (leader === undefined) return refused(UNKNOWN_TOPIC_OR_PARTITION);
  if (leader !== broker) return refused(NOT_LEADER);
  const { start, end } = topic.log.ends(partition);
  if (offset < start || offset > end) return refused(OFFSET_OUT_OF_RANGE);
  return {
    partition,
    code: 0,
    end,
    start,
    stable: topic.log.lastStable(partition),
    bytes: topic.log.bytesFrom(partition, offset, maxBytes),
  };
}

function encode(
  found: readonly { readonly id: string; readonly partitions: readonly Found[] }[],
  maxBytes: number,
  throttleMs: number,
): AnswerWriter {
  const body = new AnswerWriter(true).int32(throttleMs).int16(0).int32(0);
  let left = maxBytes;
  let isFirst = true;
  body.list(found, ({ id, partitions }) => {
    body.id(id).list(partitions, ({ partition, code, end, start, stable, bytes }) => {
      // The first one that has something comes whole; the others as far as there is room.
      const isFitting = isFirst || bytes.data.length <= left;
      const { data, aborted } = isFitting ? bytes : NONE;
      if (data.length > 0) isFirst = false;
      left -= data.length;
      body.int32(partition).int16(code).int64(end).int64(stable).int64(start);
      body.list(aborted, ({ producer, first }) => body.int64(producer).int64(first).tags());
      body.int32(-1).data(data).tags();
    });
    body.tags();
  });
  return body.tags();
}
