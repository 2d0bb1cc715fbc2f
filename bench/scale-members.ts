// Imports: the pipeline. Many processes in one group: once each has its partitions nothing changes any more, so that every
// join after that, and every partition that moves, is of our own making.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { run, type ScaleGroup } from './scale-pipeline.js';
import { API, judgeHeartbeats, Requests, type Heartbeats } from './scale-requests.js';
import { create, fillElsewhere } from './scale-topics.js';

const PARTITIONS_EACH = 4;
const COMPLETE_LIMIT_MS = 600_000;
/** For so long nothing may move before the group is taken for complete. */
const QUIET_MS = 5000;
const POLL_MS = 500;

/** What a member tells twice a second. */
interface Told extends Heartbeats {
  readonly held: number;
  readonly joins: number;
  readonly rebalanced: number;
  readonly batches: number;
  readonly commitRequests: number;
}

export interface MeasuredMembers {
  readonly name: string;
  readonly processes: number;
  readonly partitions: number;
  /** From the start of the first process until each had its partitions. */
  readonly completeMs: number;
  readonly seconds: number;
  /** Since the group was complete. */
  readonly joins: number;
  readonly partitionsMoved: number;
  readonly heartbeats: number;
  readonly heartbeatsLate: number;
  readonly longestBetweenHeartbeatsMs: number;
  readonly batches: number;
  readonly commitRequests: number;
  readonly commitsPerRequest: number;
}

export async function measureMembers(
  brokers: readonly string[],
  processes: number,
  seconds: number,
): Promise<MeasuredMembers> {
  const group = `members-${Date.now().toString(36)}`;
  const partitions = processes * PARTITIONS_EACH;
  await create(brokers, [group], partitions);
  const startMs = performance.now();
  const members = Array.from({ length: processes }, (_, i) =>
    startMember({ brokers, group, owner: `member-${i}`, topics: [group] }),
  );
  try {
    await untilComplete(members, partitions);
    const completeMs = Math.round(performance.now() - startMs - QUIET_MS);
    for (const { child } of members) child.send('count');
    const endMs = performance.now() + seconds * 1000;
    while (performance.now() < endMs) await fillElsewhere({ brokers, names: [group], partitions });
    await sleep(2 * POLL_MS);
    const told = members.map(({ told: last }) => last());
    const sum = (of: (each: Told) => number): number => told.reduce((all, each) => all + of(each), 0);
    const [batches, commitRequests] = [sum((each) => each.batches), sum((each) => each.commitRequests)];
    return {
      name: 'many processes',
      processes,
      partitions,
      completeMs,
      seconds,
      joins: sum((each) => each.joins),
      partitionsMoved: sum((each) => each.rebalanced),
      heartbeats: sum((each) => each.heartbeats),
      heartbeatsLate: sum((each) => each.heartbeatsLate),
      longestBetweenHeartbeatsMs: Math.max(...told.map((each) => each.longestBetweenHeartbeatsMs)),
      batches,
      commitRequests,
      commitsPerRequest: Math.round((batches / Math.max(1, commitRequests)) * 10) / 10,
    };
  } finally {
    await Promise.all(members.map(({ stop }) => stop()));
  }
}

interface Member {
  readonly child: ChildProcess;
  readonly told: () => Told;
  readonly stop: () => Promise<void>;
}

const NOTHING: Told = { held: 0, joins: 0, rebalanced: 0, batches: 0, commitRequests: 0, ...judgeHeartbeats([]) };

function startMember(group: ScaleGroup): Member {
  const child = fork(fileURLToPath(import.meta.url), {
    execArgv: ['--import', 'tsx'],
    env: { ...process.env, SCALE_MEMBER: 'yes' },
  });
  let last = NOTHING;
  child.on('message', (told) => (last = told as Told));
  child.send(group);
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  };
  return { child, told: () => last, stop };
}

/** @throws when a member has died, or the group is not complete in ten minutes. */
async function untilComplete(members: readonly Member[], partitions: number): Promise<void> {
  const endMs = performance.now() + COMPLETE_LIMIT_MS;
  for (let quietMs = 0; quietMs < QUIET_MS; await sleep(POLL_MS)) {
    const dead = members.find(({ child }) => child.exitCode !== null);
    if (dead !== undefined) throw new Error(`a member has ended with ${dead.child.exitCode}`);
    if (performance.now() > endMs) throw new Error('the group is not complete');
    const held = members.map(({ told }) => told().held);
    const isComplete = held.every((each) => each > 0) && held.reduce((all, each) => all + each, 0) === partitions;
    quietMs = isComplete ? quietMs + POLL_MS : 0;
  }
}

/** In a process of its own. */
async function beMember(): Promise<void> {
  const [group] = (await once(process, 'message')) as [ScaleGroup];
  const requests = new Requests();
  const { counts, ended } = run(group);
  ended.catch((thrown: unknown) => {
    console.error(thrown);
    process.exit(1);
  });
  const from = { ms: 0, rebalanced: 0, batches: 0 };
  process.on('message', () =>
    Object.assign(from, { ms: performance.now(), rebalanced: counts.rebalanced, batches: counts.batches }),
  );
  process.on('disconnect', () => process.exit(0));
  setInterval(() => {
    const since = (key: number): readonly number[] => requests.of(key).filter((atMs) => atMs >= from.ms);
    const told: Told = {
      held: counts.assigned - counts.rebalanced,
      joins: since(API.joinGroup).length,
      rebalanced: counts.rebalanced - from.rebalanced,
      batches: counts.batches - from.batches,
      commitRequests: since(API.offsetCommit).length,
      ...judgeHeartbeats(since(API.heartbeat)),
    };
    process.send?.(told);
  }, POLL_MS);
}

if (process.env['SCALE_MEMBER'] !== undefined) await beMember();
