// ClickHouse is killed for a while in the middle of a backlog: does the ingester's memory stay flat, does it stay a member
// of its group, and does it catch up by itself? Used by `npm run bench:outage` and by its short test.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { createTopic, query, withAdmin } from '../stack/clients.js';
import type { Stack } from '../stack/stack.js';
import { createTable, produceEvents } from './event-producer.js';
import { exactness, untilComplete, type Exactness } from './exactness.js';
import { Ingester, until } from './ingester.js';

export interface OutageConfig {
  readonly rows: number;
  readonly outageMs: number;
  /** The ingester's session time-out; shorter than the outage, so that heartbeats must have gone on. */
  readonly sessionTimeoutMs: number;
  readonly partitions?: number;
  /** How long it may take to catch up. */
  readonly catchUpLimitMs?: number;
  readonly say?: (line: string) => void;
}

/** Of the ingester's resident memory, MB. */
export interface Memory {
  /** The most that was ever had, as the system tells. */
  readonly peak: number;
  readonly atKill: number;
  /** The least and the most while ClickHouse was away. */
  readonly outage: readonly [number, number];
  /** Once all memory was used that an outage fills: in its second half. */
  readonly lateOutage: readonly [number, number];
  readonly after: readonly [number, number];
  readonly samples: number;
}

export interface Outage {
  readonly rows: number;
  readonly rowsAtKill: number;
  readonly outageSeconds: number;
  readonly rssMb: Memory;
  readonly joins: number;
  readonly assigned: number;
  /** Partitions that were revoked or lost before the end. */
  readonly takenAway: number;
  readonly heartbeatsUnheard: number;
  readonly retries: number;
  /** What Kafka told of the group during the outage. */
  readonly group: { readonly states: readonly string[]; readonly members: number };
  /** From ClickHouse's first answer to the first batch, and to the last. */
  readonly firstBatchSeconds: number;
  readonly caughtUpSeconds: number;
  readonly exactness: Exactness;
}

const sampleEveryMs = 200;
const killAtShare = 0.3;

export async function runOutage(stack: Stack, config: OutageConfig): Promise<Outage> {
  const { rows, outageMs, partitions = 8, catchUpLimitMs = 300_000, say = () => undefined } = config;
  const { brokers, clickhouseUrl, clickhouse } = stack;
  if (clickhouse === undefined) throw new Error('ClickHouse is not ours to kill: unset CLICKHOUSE_URL');
  const name = `outage_${randomUUID().slice(0, 8)}`;
  await createTopic(brokers, name, { partitions });
  await createTable(clickhouseUrl, name);
  say(`producing ${rows} records …`);
  const acknowledged = await produceEvents({ brokers, topic: name, partitions, records: rows });
  const ingester = new Ingester(configOf(stack, name, config));
  const memory = new Sampler(ingester);
  try {
    await until(
      'a part of the backlog was done',
      [ingester],
      () => ingester.rows >= rows * killAtShare,
      catchUpLimitMs,
    );
    const rowsAtKill = ingester.rows;
    await clickhouse.kill();
    memory.begin('outage');
    say(`ClickHouse was killed at ${rowsAtKill} rows …`);
    const killedMs = performance.now();
    const group = await watchGroup(brokers, name, outageMs);
    const outageSeconds = (performance.now() - killedMs) / 1000;
    // While it starts it answers nothing yet: that is still the outage.
    await clickhouse.start();
    const backMs = Date.now();
    memory.begin('after');
    say(`ClickHouse is back after ${outageSeconds.toFixed(1)} s …`);
    await Promise.race([untilComplete(brokers, clickhouseUrl, name, catchUpLimitMs), endedTooEarly(ingester)]);
    // A row too many would come with a batch that is still under way.
    await until('all was delivered', [ingester], () => lastOffsets(ingester) === rows, catchUpLimitMs);
    const caughtUpMs = Date.now();
    const told = toldBy(ingester);
    const rssMb = memory.stop();
    const firstBatch = ingester.lines.find(({ atMs, msg }) => atMs >= backMs && isDone(msg));
    await ingester.drain();
    return {
      rows,
      rowsAtKill,
      outageSeconds: rounded(outageSeconds),
      rssMb,
      ...told,
      group,
      firstBatchSeconds: rounded(((firstBatch?.atMs ?? NaN) - backMs) / 1000),
      caughtUpSeconds: rounded((caughtUpMs - backMs) / 1000),
      exactness: await exactness(brokers, clickhouseUrl, name, { acknowledged }),
    };
  } finally {
    memory.stop();
    ingester.signal('SIGKILL');
    await query(clickhouseUrl, `DROP TABLE IF EXISTS ${name}`).catch(() => undefined);
  }
}

function configOf(
  { brokers, clickhouseUrl, keeperConnect }: Stack,
  name: string,
  { sessionTimeoutMs }: OutageConfig,
): object {
  return {
    kafka: {
      brokers,
      groupId: name,
      fromBeginning: true,
      sessionTimeoutMs,
      heartbeatIntervalMs: Math.floor(sessionTimeoutMs / 6),
    },
    clickhouse: { url: clickhouseUrl },
    state: { store: 'keeper', connect: keeperConnect },
    delivery: 'exactly-once',
    routes: [{ topic: name, table: name }],
  };
}

const isDone = (msg: string): boolean => msg === 'delivered' || msg === 'range that was in doubt is settled';

/** Records up to which the partitions were told to be delivered, all together. */
function lastOffsets({ lines }: Ingester): number {
  const next = new Map<number, number>();
  for (const { msg, partition, last } of lines)
    if (isDone(msg)) next.set(partition!, Math.max(next.get(partition!) ?? 0, last! + 1));
  return [...next.values()].reduce((a, b) => a + b, 0);
}

async function endedTooEarly(ingester: Ingester): Promise<never> {
  const { code, signal } = await ingester.ended;
  throw new Error(`the ingester ended with ${code ?? signal}:\n${ingester.lastWords()}`);
}

function toldBy(
  ingester: Ingester,
): Pick<Outage, 'joins' | 'assigned' | 'takenAway' | 'heartbeatsUnheard' | 'retries'> {
  return {
    joins: ingester.count('kafka: joined the group'),
    assigned: ingester.count('assigned'),
    takenAway: ingester.count('revoked') + ingester.count('lost'),
    heartbeatsUnheard: ingester.count('kafka: no heartbeat got through'),
    retries: ingester.count('retry'),
  };
}

/** Looks for so long, from outside, who is in the group. */
async function watchGroup(brokers: readonly string[], groupId: string, forMs: number): Promise<Outage['group']> {
  const states = new Set<string>();
  const members = new Set<string>();
  return withAdmin(brokers, async (admin) => {
    for (
      const endMs = performance.now() + forMs;
      performance.now() < endMs;
      await sleep(Math.max(0, Math.min(250, endMs - performance.now())))
    ) {
      const { groups } = await admin.describeGroups([groupId]);
      for (const group of groups) {
        states.add(group.state);
        for (const { memberId } of group.members) members.add(memberId);
      }
    }
    return { states: [...states], members: members.size };
  });
}

type Phase = 'before' | 'outage' | 'after';

class Sampler {
  readonly #samples: { readonly phase: Phase; readonly mb: number }[] = [];
  readonly #timer: NodeJS.Timeout;
  readonly #ingester: Ingester;
  #phase: Phase = 'before';
  #peakMb = 0;

  constructor(ingester: Ingester) {
    this.#ingester = ingester;
    this.#timer = setInterval(() => this.#sample(), sampleEveryMs);
  }

  begin(phase: Phase): void {
    this.#sample();
    this.#phase = phase;
  }

  stop(): Memory {
    clearInterval(this.#timer);
    if (this.#ingester.isRunning) this.#sample();
    const of = (phase: Phase): number[] => this.#samples.filter((sample) => sample.phase === phase).map(({ mb }) => mb);
    const span = (values: readonly number[]): readonly [number, number] => [
      Math.round(Math.min(...values)),
      Math.round(Math.max(...values)),
    ];
    const outage = of('outage');
    return {
      peak: this.#peakMb,
      atKill: Math.round(of('before').at(-1) ?? NaN),
      outage: span(outage),
      lateOutage: span(outage.slice(Math.floor(outage.length / 2))),
      after: span(of('after')),
      samples: this.#samples.length,
    };
  }

  #sample(): void {
    const mb = this.#ingester.rssMb();
    if (mb === undefined) return;
    this.#samples.push({ phase: this.#phase, mb });
    this.#peakMb = Math.max(this.#peakMb, this.#ingester.peakRssMb() ?? mb);
  }
}

const rounded = (value: number): number => Math.round(value * 10) / 10;

/** What went wrong, in words; empty when all was as it should be. `limitMb`: for the ingester's resident memory. */
export function complaints(
  { rssMb, joins, assigned, takenAway, group, exactness: { missing, doubled, differences } }: Outage,
  limitMb: number,
  partitions = 8,
): string[] {
  return [
    ...(rssMb.peak > limitMb ? [`the ingester used ${rssMb.peak} MB, more than ${limitMb} MB`] : []),
    ...(joins === 1 && assigned === partitions && takenAway === 0
      ? []
      : [`${joins} joins, ${assigned} assigned, ${takenAway} taken away: the group was rebalanced`]),
    ...(group.members === 1 && group.states.join() === 'Stable'
      ? []
      : [`the group was ${group.states.join(', ')} with ${group.members} members in turn`]),
    ...(missing + doubled === 0 ? [] : [`${missing} missing, ${doubled} doubled`]),
    ...differences,
  ];
}
