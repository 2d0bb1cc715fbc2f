// The source while servers and networks fail: nothing is lost or doubled, and it comes back by itself.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Partitioners, type Producer } from 'kafkajs';
import { EMPTY, of, type Subscription, tap } from 'rxjs';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { atMostOnce } from '../../src/pipeline/at-most-once.js';
import { checkKafka } from '../../src/kafka/preflight.js';
import { kafkaSource, type KafkaSourceOptions } from '../../src/kafka/source.js';
import type { Assignment } from '../../src/model/record.js';
import type { PreparingSink, PreparedInsert, InsertBatch, RecordSource } from '../../src/ports.js';
import { createTopic, kafkaClient, withAdmin } from '../stack/clients.js';
import type { ServerProcess } from '../stack/process.js';
import { type ProxiedBroker, startProxiedBroker } from '../support/proxied-broker.js';
import type { TcpProxy } from '../support/tcp-proxy.js';
import { send as produce } from './send.js';
import { Watch, type Behaviour } from './watch.js';

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => i + from);
const QUICK = {
  heartbeatIntervalMs: 500,
  sessionTimeoutMs: 10_000,
  rebalanceTimeoutMs: 20_000,
  requestTimeoutMs: 2000,
  connectTimeoutMs: 1000,
} as const;

let broker: ProxiedBroker | undefined;
let server: ServerProcess;
let proxy: TcpProxy;
/** Past the proxy: for the test's own clients. */
let direct: string[];

beforeAll(async () => {
  // Cleaning at once, for the compacted topic.
  broker = await startProxiedBroker('faults', { 'log.cleaner.backoff.ms': '100', 'log.cleaner.enable': 'true' });
  ({ server, proxy, direct } = broker);
});

afterAll(() => broker?.stop());

async function newTopic(partitions = 1, config: Record<string, string> = {}): Promise<string> {
  const topic = `faults-${randomUUID()}`;
  // A broker that was just thawed or started knows of new topics late.
  await vi.waitFor(() => createTopic(direct, topic, { partitions, config }).catch(ignoreExisting), {
    timeout: 20_000,
    interval: 200,
  });
  return topic;
}

function ignoreExisting(error: unknown): void {
  if (!String(error).includes('already exists')) throw error;
}

function watch(topic: string, options: Partial<KafkaSourceOptions> = {}, behaviour: Behaviour = {}): Watch {
  const watching = new Watch(
    { brokers: [proxy.address], topics: [topic], groupId: topic, fromBeginning: true, ...QUICK, ...options },
    behaviour,
  );
  onTestFinished(() => {
    proxy.heal();
    watching.unsubscribe();
    expect(watching.breaches).toEqual([]);
  });
  return watching;
}

async function producerOf(): Promise<Producer> {
  const producer = kafkaClient(direct).producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
  });
  await producer.connect();
  onTestFinished(() => producer.disconnect());
  return producer;
}

async function committed(topic: string): Promise<string[]> {
  const [offsets] = await withAdmin(direct, (admin) => admin.fetchOffsets({ groupId: topic, topics: [topic] }));
  return (offsets?.partitions ?? []).sort((a, b) => a.partition - b.partition).map(({ offset }) => offset);
}

/** Each offset once, in each partition. */
function expectAllOnce(watching: Watch, partitions: number, each: number): void {
  for (const partition of numbers(partitions)) {
    const offsets = watching.chunks
      .filter(({ assignment }) => assignment.partition === partition)
      .flatMap(({ records }) => records.map(({ offset }) => offset));
    expect(offsets).toEqual(numbers(each));
  }
}

describe('a broker', () => {
  test('that is killed and started again is waited for: the same assignment goes on where it was', async () => {
    const topic = await newTopic(4);
    const producer = await producerOf();
    const send = (from: number) =>
      producer.send({ topic, messages: numbers(400, from).map((i) => ({ value: `${i}`, partition: i % 4 })) });
    await send(0);
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 400);
    await server.kill();
    const commit = watching.commit(watching.owned[2]!, 50);
    await sleep(1500);
    await server.start();
    await commit;
    await send(400);
    await watching.until(({ records }) => records.length === 800);
    expectAllOnce(watching, 4, 200);
    expect(watching.of('assigned')).toHaveLength(4);
    expect(await committed(topic)).toEqual(['0', '0', '50', '0']);
    expect(watching.lines.join()).toMatch(/no heartbeat|a fetch failed/);
  });

  test('that was never there at the start is waited for', async () => {
    const topic = await newTopic();
    await produce(direct, topic, ['a']);
    proxy.down();
    const watching = watch(topic);
    await sleep(2000);
    expect(watching.error).toBeUndefined();
    proxy.heal();
    await watching.until(({ records }) => records.length === 1);
  });

  test('that falls silent is not listened to for ever: its connections are reopened', async () => {
    const topic = await newTopic();
    await produce(direct, topic, ['a']);
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 1);
    // The network swallows what goes over the present connections, now and for ever; they look well.
    proxy.holdRequests();
    await produce(direct, topic, ['b']);
    await watching.until(({ records }) => records.length === 2);
    await watching.commit(watching.owned[0]!, 2);
    expect(await committed(topic)).toEqual(['2']);
    expect(watching.of('assigned')).toHaveLength(1);
  });

  test('that is frozen and goes on has lost nothing', async () => {
    const topic = await newTopic(2);
    await produce(
      direct,
      topic,
      numbers(10).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 10);
    server.prepare();
    await sleep(4000);
    server.thaw();
    await produce(
      direct,
      topic,
      numbers(10, 10).map((i) => ({ value: `${i}`, partition: i % 2 })),
    );
    await watching.until(({ records }) => records.length >= 20);
    if (watching.of('assigned').length === 2) expectAllOnce(watching, 2, 10);
  });

  test('that cannot be reached does not keep an unsubscribed program alive, nor a drained one waiting', async () => {
    const topic = await newTopic();
    const watching = watch(
      topic,
      { drainTimeoutMs: 1000, requestTimeoutMs: 60_000 },
      { onRevoked: ({ assignment, release }, self) => void self.commit(assignment, 1).then(release, release) },
    );
    await watching.until(({ owned }) => owned.length === 1);
    proxy.pause();
    watching.source.drain();
    // Long before the request is given up.
    await watching.until(({ isComplete }) => isComplete, 20_000);
    expect(watching.of('lost')).toHaveLength(1);
  });
});

describe('a network', () => {
  test('that breaks again and again loses no record and doubles none', async () => {
    const topic = await newTopic(2);
    const producer = await producerOf();
    // On a busy machine no heartbeat may get through between two cuts.
    const watching = watch(topic, { maxBytesPerPartition: 4000, sessionTimeoutMs: 60_000 });
    let isOver = false;
    const cutting = (async () => {
      while (!isOver) {
        await sleep(150);
        proxy.cut();
      }
    })();
    for (let at = 0; at < 2000; at += 100) {
      await producer.send({
        topic,
        messages: numbers(100, at).map((i) => ({ value: `${i} ${'x'.repeat(100)}`, partition: i % 2 })),
      });
      await sleep(100);
    }
    isOver = true;
    await cutting;
    await watching.until(({ records }) => records.length >= 2000);
    expectAllOnce(watching, 2, 1000);
  });

  test('that loses the reply to a commit does not make it fail: it is made again', async () => {
    const topic = await newTopic();
    await produce(direct, topic, ['a', 'b']);
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 2);
    proxy.dropReplies();
    const commit = watching.commit(watching.owned[0]!, 2);
    await vi.waitFor(async () => expect(await committed(topic)).toEqual(['2']), { timeout: 30_000, interval: 50 });
    proxy.heal();
    proxy.cut();
    await commit;
    expect(await committed(topic)).toEqual(['2']);
  });
});

describe('commits', () => {
  test('that had to wait go out in their order: an earlier one does not overwrite a later one', async () => {
    const topic = await newTopic();
    await produce(direct, topic, numbers(20).map(String));
    const watching = watch(topic);
    await watching.until(({ records }) => records.length === 20);
    proxy.down();
    const commits: Promise<void>[] = [];
    for (const next of numbers(20, 1)) {
      commits.push(watching.commit(watching.owned[0]!, next));
      await sleep(20);
    }
    proxy.heal();
    await Promise.all(commits);
    expect(await committed(topic)).toEqual(['20']);
  });
});

describe('a commit in one attempt, for a state that is kept beside the offset', () => {
  test('that hangs in the network is never called undone: the member joins again, and the late copy does not overwrite what came after', async () => {
    const topic = await newTopic(2);
    const released: (() => void)[] = [];
    const behaviour: Behaviour = { onRevoked: ({ release }) => void released.push(release) };
    const members = [watch(topic, {}, behaviour), watch(topic, {}, behaviour)];
    const releaseAll = setInterval(() => released.splice(0).forEach((release) => release()), 700);
    onTestFinished(() => clearInterval(releaseAll));
    await vi.waitUntil(() => members.every(({ owned }) => owned.length === 1), { timeout: 20_000 });
    // The group's leader gets a new generation whenever it joins; another member only when it asks for one.
    const joins = (member: Watch) => member.log.filter(({ message }) => message === 'joined the group');
    const follower = members.find((member) => joins(member).at(-1)?.fields['leader'] === false)!;
    const [old] = follower.owned;
    await follower.commitOnce(old!, 3, 'first');
    proxy.holdRequests();
    await expect(follower.commitOnce(old!, 5, 'doubtful')).rejects.toMatchObject({
      code: 'KCR_FENCED',
      message: expect.stringContaining('not known') as string,
    });
    expect(proxy.heldBytes).toBeGreaterThan(0);
    await expect(follower.commitOnce(old!, 6, 'still the old assignment')).rejects.toMatchObject({
      code: 'KCR_FENCED',
    });
    const next = () =>
      members.flatMap((member) =>
        member.owned
          .filter(({ partition, generation }) => partition === old!.partition && generation > old!.generation)
          .map((assignment) => ({ member, assignment })),
      )[0];
    await vi.waitUntil(() => next() !== undefined, { timeout: 30_000 });
    const { member, assignment } = next()!;
    expect(await member.committed(assignment)).toMatchObject({ next: 3, metadata: 'first' });
    await member.commitOnce(assignment, 9, 'later');
    proxy.releaseRequests();
    await sleep(1500);
    expect(await member.committed(assignment)).toMatchObject({ next: 9, metadata: 'later' });
  });

  test('that never left may be made again under the same assignment', async () => {
    const topic = await newTopic();
    const watching = watch(topic);
    await watching.until(({ owned }) => owned.length === 1);
    const [assignment] = watching.owned;
    proxy.refuse();
    // Several turns, in which the client hears that its connections are gone: after a stall timers come before sockets.
    for (let turn = 0; turn < 10; turn++) await sleep(30);
    await expect(watching.commitOnce(assignment!, 5, 'state')).rejects.toMatchObject({
      code: 'KCR_KAFKA_UNREACHABLE',
      retryable: true,
    });
    proxy.heal();
    await vi.waitFor(() => watching.commitOnce(assignment!, 5, 'state'), { timeout: 10_000, interval: 100 });
    expect(await watching.committed(assignment!)).toMatchObject({ next: 5, metadata: 'state' });
    expect(watching.of('assigned')).toHaveLength(1);
  });

  test('that is too large says so, and the member stays', async () => {
    const topic = await newTopic();
    const watching = watch(topic);
    await watching.until(({ owned }) => owned.length === 1);
    await expect(watching.commitOnce(watching.owned[0]!, 5, 'x'.repeat(4097))).rejects.toMatchObject({
      code: 'KCR_STORE',
      retryable: false,
    });
    await watching.commitOnce(watching.owned[0]!, 5, 'x'.repeat(4096));
    expect(watching.of('assigned')).toHaveLength(1);
  });
});

describe('an at-most-once pipeline, when one of its commits hangs in the network while later ones are made', () => {
  /** A table that does no more than to say which offsets it was given. */
  function takingSink(taken: number[]): PreparingSink {
    const prepare = ({ records }: InsertBatch): PreparedInsert => ({
      insert: () =>
        of({ rows: records.length, bytes: 0 }).pipe(tap(() => taken.push(...records.map(({ offset }) => offset)))),
      tokenDoubt: () => undefined,
      readBackWhenInDoubt: false,
      insertMissing: () => EMPTY,
      readBack: () => EMPTY,
      fill: () => EMPTY,
      release: () => undefined,
    });
    return { prepare, describe: () => ({ tables: [], settings: '' }), close: async () => undefined };
  }

  /** `held`: requests hang from before its so-manieth commit on. `isAgain`: as a source would that commits until it is told. */
  function start(topic: string, taken: number[], { held = Infinity, isAgain = false } = {}): Subscription {
    const kafka = kafkaSource({
      brokers: [proxy.address],
      topics: [topic],
      groupId: topic,
      fromBeginning: true,
      ...QUICK,
    });
    let commits = 0;
    const commitOnce = (assignment: Assignment, next: number) => {
      if (++commits === held) proxy.holdRequests();
      return isAgain ? kafka.commit(assignment, next) : kafka.commitOnce(assignment, next);
    };
    const source: RecordSource = { ...kafka, commitOnce };
    const pipeline = atMostOnce(source, takingSink(taken), { batch: { count: 10, maxWaitMs: 50 } });
    const subscription = pipeline.subscribe();
    onTestFinished(() => {
      proxy.heal();
      subscription.unsubscribe();
    });
    return subscription;
  }

  /** What two processes took, one after the other: the copy that hung arrives between them. */
  async function takenByTwo(isAgain: boolean): Promise<{ readonly doubled: number[]; readonly fourth: number[] }> {
    const topic = await newTopic();
    await produce(direct, topic, numbers(100).map(String));
    const taken: number[] = [];
    const first = start(topic, taken, { held: 4, isAgain });
    await vi.waitUntil(() => taken.includes(99), { timeout: 60_000 });
    await vi.waitUntil(async () => (await committed(topic))[0] === '100', { timeout: 20_000 });
    expect(proxy.heldBytes).toBeGreaterThan(0);
    proxy.releaseRequests();
    await (isAgain ? vi.waitUntil(async () => (await committed(topic))[0] === '40', { timeout: 20_000 }) : sleep(1500));
    first.unsubscribe();
    start(topic, taken);
    await produce(direct, topic, ['the last']);
    await vi.waitUntil(() => taken.includes(100), { timeout: 60_000 });
    return {
      doubled: taken.filter((offset, at) => taken.indexOf(offset) < at),
      fourth: taken.filter((offset) => offset >= 30 && offset < 40),
    };
  }

  test('nothing is taken twice, and what was not committed is not lost', async () => {
    expect(await takenByTwo(false)).toEqual({ doubled: [], fourth: numbers(10, 30) });
  });

  test('a commit that is made again does double: the test above can fail', async () => {
    expect((await takenByTwo(true)).doubled).toEqual(numbers(60, 40));
  });
});

describe('a log that was truncated while it was read', () => {
  test('fails where nobody decides, starts again at its end, or is given to the claim: the lost offsets are never taken for read', async () => {
    const topic = await newTopic();
    await produce(direct, topic, numbers(10).map(String));
    const halting = watch(topic, { groupId: `${topic}-halt` });
    const restarting = watch(topic, { groupId: `${topic}-restart`, onReset: 'restart' });
    const claiming = watch(topic, { groupId: `${topic}-claim`, stateDecides: true });
    const all = [halting, restarting, claiming];
    for (const watching of all) await watching.until(({ records }) => records.length === 10);
    // As after an unclean election: the topic is the same, and its log is shorter than what was read of it.
    await server.stop();
    rmSync(join(server.dataDir, `${topic}-0`), { recursive: true });
    await server.start();
    await halting.until((self) => self.of('failed').length === 1);
    expect(halting.of('failed')[0]?.error).toMatchObject({
      code: 'KCR_TOPIC_RESET',
      message: expect.stringContaining('Offset 10 is beyond the log, which begins at 0 and ends at 0') as string,
    });
    for (const [watching, startOffset] of [
      [restarting, 0],
      [claiming, 10],
    ] as const) {
      await watching.until((self) => self.of('assigned').length >= 2 && self.owned.length === 1, 30_000);
      const { topicId } = watching.of('assigned')[0]!.assignment;
      expect(watching.owned[0]).toMatchObject({ startOffset, topicId });
    }
    expect(await claiming.logEnds(claiming.owned[0]!)).toEqual({ start: 0, end: 0 });
    await claiming.seek(claiming.owned[0]!, 0);
    await produce(direct, topic, ['new']);
    for (const watching of [restarting, claiming]) {
      await watching.until(({ records }) => records.length === 11);
      expect(watching.values.at(-1)).toBe('new');
    }
    expect(halting.records).toHaveLength(10);
  });
});

describe('a compacted topic', () => {
  test('is read to its end, also where compaction left nothing: the lag reaches zero', async () => {
    const topic = await newTopic(1, {
      'cleanup.policy': 'compact',
      'segment.ms': '100',
      'min.cleanable.dirty.ratio': '0.001',
      'max.compaction.lag.ms': '100',
      'delete.retention.ms': '0',
    });
    const producer = await producerOf();
    for (let round = 0; round < 30; round++) {
      await producer.send({ topic, messages: numbers(10).map((key) => ({ key: `${key}`, value: `round ${round}` })) });
      await sleep(30);
    }
    const early = watch(topic, { groupId: `${topic}-probe` });
    await early.until(({ chunks }) => chunks.at(-1)?.lastOffset === 299);
    let count = 300;
    for (const deadline = Date.now() + 40_000; count > 100 && Date.now() < deadline; await sleep(500)) {
      await producer.send({ topic, messages: [{ key: 'tick', value: 'tick' }] });
      const probe = watch(topic, { groupId: `${topic}-${randomUUID()}` });
      await probe.until(({ chunks }) => (chunks.at(-1)?.lastOffset ?? 0) >= 299);
      count = probe.records.length;
      probe.unsubscribe();
    }
    expect(count).toBeLessThanOrEqual(100);
    const watching = watch(topic);
    await watching.until(
      ({ chunks }) => chunks.length > 0 && chunks.at(-1)!.lastOffset + 1 === chunks.at(-1)!.highWatermark,
    );
    // Each key's last value is there.
    const last = new Map(watching.records.map(({ key, value }) => [key?.toString(), value?.toString()]));
    for (const key of numbers(10)) expect(last.get(`${key}`)).toBe('round 29');
  });
});

describe('the process', () => {
  test('ends by itself when the source was drained or unsubscribed: nothing is left open', async () => {
    const topic = await newTopic();
    for (const how of ['drain', 'unsubscribe']) {
      const program = fileURLToPath(new URL('./program.ts', import.meta.url));
      const child = spawn(process.execPath, ['--import', 'tsx', program, proxy.address, topic, how], {
        stdio: 'inherit',
      });
      const code = await Promise.race([
        new Promise((resolve) => child.once('exit', resolve)),
        sleep(15_000, 'still running'),
      ]);
      child.kill('SIGKILL');
      expect(code).toBe(0);
    }
  });
});

describe('preflight', () => {
  test('does not hang on a broker that is frozen', async () => {
    server.prepare();
    onTestFinished(() => server.thaw());
    const checking = checkKafka({ brokers: direct, topics: ['t'] });
    // It says so after ten seconds; a machine that is busy needs some more.
    await expect(Promise.race([checking, sleep(40_000, 'still waiting')])).rejects.toMatchObject({
      code: 'KCR_KAFKA_UNREACHABLE',
    });
  });
});
