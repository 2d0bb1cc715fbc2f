// Imports: the cluster and the bytes. A broker's answer to a fetch: it waits for records as long as it was told to, and
// answers at once where there is an error to tell.
import type { Reply, Send } from './answers.js';
import { AnswerWriter, type RequestReader } from './bytes.js';
import type { Remembered, SessionAsked } from './fetch-sessions.js';
import type { FetchedBytes } from './topic.js';

const OFFSET_OUT_OF_RANGE = 1;
const UNKNOWN_TOPIC_ID = 100;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
const NOT_LEADER = 6;

interface Fetch extends SessionAsked {
  readonly maxWaitMs: number;
  readonly maxBytes: number;
}

interface Found {
  readonly asked: Remembered;
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
    return send(refusal(whole));
  }
  const { fetchSessions } = cluster.broker(reply.broker);
  const opened = fetchSessions.open(asked, clock.nowMs);
  if (!('session' in opened)) {
    counters.count(`Fetch ${opened.code} (session)`);
    return send(refusal(opened.code));
  }
  const { session, isIncremental, partitions } = opened;
  counters.count(
    isIncremental ? 'fetches in a session' : session === 0 ? 'fetches without a session' : 'fetch sessions',
  );
  // One refusal for the request, told at once.
  const refused = weather.refusalOf('Fetch');
  let isOver = false;
  const endMs = clock.nowMs + asked.maxWaitMs;
  const look = (): void => {
    if (isOver) return;
    const found = partitions.map((each) => lookUp(each, refused, reply));
    const isReady = found.some(({ code, bytes }) => code !== 0 || bytes.data.length > 0);
    if (!isReady && clock.nowMs < endMs) return;
    isOver = true;
    leave();
    off();
    for (const { code } of found) if (code !== 0) counters.count(`Fetch ${code}`);
    const throttleMs = reply.throttleMs();
    if (throttleMs > 0) {
      counters.count('Fetch throttled');
      reply.mute(throttleMs);
    }
    const fitting = fit(found, asked.maxBytes);
    for (const { asked: each, bytes } of fitting) if (bytes.data.length > 0) fetchSessions.answered(session, each);
    const told = isIncremental
      ? fitting.filter(
          ({ asked: { toldEnd }, code, end, bytes }) => code !== 0 || bytes.data.length > 0 || toldEnd !== end,
        )
      : fitting;
    for (const { asked: each, code, end } of told) each.toldEnd = code === 0 ? end : -1;
    send(encode(told, session, throttleMs));
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
  const [sessionId, epoch] = [request.int32(), request.int32()];
  const topics = request.list(() => {
    const id = request.id();
    const partitions = request.list(() => {
      const partition = request.int32();
      request.int32();
      const offset = request.int64();
      request.int32();
      request.int64();
      const each = { id, partition, offset, maxBytes: request.int32() };
      request.tags();
      return each;
    });
    request.tags();
    return partitions;
  });
  const forgotten = request.list(() => {
    const id = request.id();
    const partitions = request.list(() => ({ id, partition: request.int32() }));
    request.tags();
    return partitions;
  });
  return { maxWaitMs, maxBytes, sessionId, epoch, partitions: topics.flat(), forgotten: forgotten.flat() };
}

function refusal(code: number): AnswerWriter {
  return new AnswerWriter(true)
    .int32(0)
    .int16(code)
    .int32(0)
    .list([], () => undefined)
    .tags();
}

function lookUp(asked: Remembered, refusal: number, { cluster, broker }: Reply): Found {
  const { id, partition, offset, maxBytes } = asked;
  const refused = (code: number): Found => ({ asked, code, end: -1, stable: -1, start: -1, bytes: NONE });
  if (refusal !== 0) return refused(refusal);
  const topic = cluster.topicById(id);
  if (topic === undefined) return refused(UNKNOWN_TOPIC_ID);
  const leader = topic.partitions[partition]?.leader;
  if (leader === undefined) return refused(UNKNOWN_TOPIC_OR_PARTITION);
  if (leader !== broker) return refused(NOT_LEADER);
  const { start, end } = topic.log.ends(partition);
  if (offset < start || offset > end) return refused(OFFSET_OUT_OF_RANGE);
  return {
    asked,
    code: 0,
    end,
    start,
    stable: topic.log.lastStable(partition),
    bytes: topic.log.bytesFrom(partition, offset, maxBytes),
  };
}

/** The first one that has something comes whole; the others as far as there is room. */
function fit(found: readonly Found[], maxBytes: number): Found[] {
  let left = maxBytes;
  let isFirst = true;
  return found.map((each) => {
    const isFitting = isFirst || each.bytes.data.length <= left;
    if (!isFitting) return { ...each, bytes: NONE };
    if (each.bytes.data.length > 0) isFirst = false;
    left -= each.bytes.data.length;
    return each;
  });
}

function encode(told: readonly Found[], session: number, throttleMs: number): AnswerWriter {
  const body = new AnswerWriter(true).int32(throttleMs).int16(0).int32(session);
  body.list(told, ({ asked: { id, partition }, code, end, start, stable, bytes: { data, aborted } }) => {
    body.id(id).list([partition], () => {
      body.int32(partition).int16(code).int64(end).int64(stable).int64(start);
      body.list(aborted, ({ producer, first }) => body.int64(producer).int64(first).tags());
      body.int32(-1).data(data).tags();
    });
    body.tags();
  });
  return body.tags();
}
