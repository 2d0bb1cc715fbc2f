// Imports: the scenario. What a happening does to the cluster and to the processes.
import type { MemoryNodes } from '../../../src/state/memory.js';
import type { SimulatedWorld } from '../../../src/testing/index.js';
import type { Dice } from '../scenario.js';
import type { Brokers } from './broker.js';
import type { VirtualClock } from './clock.js';
import type { Cluster } from './cluster.js';
import type { Counters } from './counters.js';
import type { Member } from './process.js';
import { READ, type Happening, type KafkaScenario, type LifePlan } from './scenario.js';
import type { KafkaLog } from './topic.js';
import { CALM, type Weather } from './weather.js';

/** What a happening may touch. */
export interface Stage {
  readonly scenario: KafkaScenario;
  readonly clock: VirtualClock;
  readonly dice: Dice;
  readonly world: SimulatedWorld;
  readonly cluster: Cluster;
  readonly brokers: Brokers;
  readonly weather: Weather;
  readonly counters: Counters;
  readonly members: readonly Member[];
  readonly log: KafkaLog;
  throttleMs: number;
  commitMs: number;
  remembered: MemoryNodes | undefined;
  isSetBack: boolean;
  begin(plan: LifePlan): Member;
  produce(partition: number, count: number): void;
  isBegun(partition: number): boolean;
  /** Gives how many there were. */
  grow(topic: string, partitions: number): number;
  openIn(partitions: readonly number[]): string[];
  convert(): void;
  found(kind: string, what: string): void;
  tell(line: string): void;
}

type Kind = Happening['kind'];
type Acts = { readonly [K in Kind]: (happening: Extract<Happening, { kind: K }>, stage: Stage) => void };

export function happen(happening: Happening, stage: Stage): void {
  stage.tell(`— ${JSON.stringify(happening)}`);
  (acts[happening.kind] as (happening: Happening, stage: Stage) => void)(happening, stage);
}

/** Ends with the trouble at the latest. */
function later(stage: Stage, ms: number, act: () => void): void {
  stage.clock.after(Math.min(ms, stage.scenario.healMs - stage.clock.nowMs), undefined, act);
}

const acts: Acts = {
  produce: ({ partition, records }, stage) => stage.produce(partition, records),
  transaction: ({ partition, records, isAborted, ms }, stage) => {
    const { log, cluster } = stage;
    if (partition >= log.partitions || !stage.isBegun(partition)) return;
    const end = log.begin(
      partition,
      Array.from({ length: records }, (_, n) => ({ partition, n })),
      isAborted,
    );
    stage.counters.count(isAborted ? 'transactions aborted' : 'transactions committed');
    later(stage, ms, () => {
      end();
      cluster.wake();
    });
  },
  // A supervisor starts it again.
  kill: ({ life }, stage) => {
    const member = stage.members[life];
    if (member === undefined || member.isOver) return;
    member.process.kill();
    later(stage, stage.dice.int(10, 2500), () => stage.begin(member.plan));
  },
  drain: ({ life }, stage) => {
    const member = stage.members[life];
    if (member === undefined || member.isOver || member.self.isFrozen) return;
    member.drain();
    later(stage, stage.dice.int(10, 2500), () => stage.begin(member.plan));
  },
  freeze: ({ life, ms }, { members }) => members[life]?.process.freeze(ms),
  isolate: ({ life, ms }, stage) => {
    const member = stage.members[life];
    if (member === undefined) return;
    const how = stage.dice.of('reset', 'end', 'silent');
    for (let atMs = 0; atMs < ms; atMs += 100) later(stage, atMs, () => stage.brokers.isolate(member.owner, how));
  },
  'broker down': ({ broker, ms }, stage) => {
    stage.cluster.down(broker);
    stage.brokers.disconnect(broker, stage.dice.of('reset', 'end', 'silent'));
    later(stage, ms, () => stage.cluster.up(broker));
  },
  'broker freezes': ({ broker, ms }, stage) =>
    stage.cluster.freeze(broker, Math.min(ms, stage.scenario.healMs - stage.clock.nowMs)),
  weather: ({ weather: bad, ms }, stage) => {
    const { weather } = stage;
    weather.config = bad;
    later(stage, ms, () => {
      if (weather.config === bad) weather.config = CALM;
    });
  },
  'move leader': ({ partition }, { cluster }) => cluster.moveLeader(READ, partition),
  'move coordinator': (_, { cluster }) => cluster.moveCoordinator(),
  rebalance: (_, { cluster }) => cluster.coordinator.rebalance(),
  recreate: (_, { cluster }) => cluster.recreate(READ),
  convert: (_, stage) => stage.convert(),
  orphan: ({ partition, ms }, stage) => {
    stage.cluster.orphan(READ, partition, true);
    later(stage, ms, () => stage.cluster.orphan(READ, partition, false));
  },
  grow: ({ topic, partitions, records }, stage) => {
    const before = stage.grow(topic, partitions);
    stage.counters.count('topics grown');
    if (topic === READ)
      for (let partition = before; partition < partitions; partition++) stage.produce(partition, records);
  },
  retain: ({ partition }, stage) => {
    const { log } = stage;
    const { end } = log.ends(partition);
    log.retainFrom(partition, Math.max(0, end - stage.dice.int(0, 3)));
    stage.cluster.wake();
  },
  quota: ({ ms, throttleMs }, stage) => {
    stage.throttleMs = throttleMs;
    later(stage, ms, () => (stage.throttleMs = 0));
  },
  'slow commits': ({ ms, commitMs }, stage) => {
    stage.commitMs = commitMs;
    later(stage, ms, () => (stage.commitMs = 0));
  },
  remember: (_, stage) => {
    stage.remembered = new Map(stage.world.nodes);
  },
  'set back': (_, stage) => {
    const { members, world, remembered } = stage;
    for (const { process } of members) process.kill();
    world.nodes.clear();
    for (const [key, node] of remembered ?? []) world.nodes.set(key, node);
    stage.isSetBack = true;
    stage.begin({
      startMs: 0,
      topics: [READ],
      batch: { count: 2, bytes: 10_000, maxWaitMs: 10 },
      budgetBytes: 100_000,
    });
  },
  'expect delivered': ({ except }, stage) => {
    const others = Array.from({ length: stage.log.partitions }, (_, partition) => partition).filter(
      (partition) => !except.includes(partition),
    );
    const open = stage.openIn(others);
    if (open.length > 0) stage.found('held up', `${open.join(' ')} wait for ${except.join(', ')}`);
  },
};
