// Imports: the Kafka source that ships, whole, over the simulated network. One process: its source with a watcher before
// it, its store and its sink.
import { defer, from, tap, type Observable, type ObservableInput } from 'rxjs';
import { kafkaSourceOver, type KafkaSource } from '../../../src/kafka/source.js';
import type { OpenSocket } from '../../../src/kafka/connection/sockets.js';
import type { Assignment } from '../../../src/model/record.js';
import type { GroupSource, SourceEvent, StateStore } from '../../../src/ports.js';
import { kafkaStore } from '../../../src/state/kafka.js';
import { memoryStore } from '../../../src/state/memory.js';
import type { Process, SimulatedProcess, SimulatedWorld } from '../../../src/testing/index.js';
import type { Owner, VirtualClock } from './clock.js';
import { PORT } from './cluster.js';
import { OTHER, type KafkaScenario, type LifePlan } from './scenario.js';

export const SESSION_MS = 3000;

export interface Surroundings {
  readonly clock: VirtualClock;
  readonly world: SimulatedWorld;
  readonly openSocket: OpenSocket;
  readonly scenario: KafkaScenario;
  readonly found: (kind: string, what: string) => void;
  readonly tell: ((line: string) => void) | undefined;
  /** A sabotage's. */
  readonly changeSource: ((source: KafkaSource) => KafkaSource) | undefined;
}

export interface Member {
  readonly process: Process;
  readonly self: SimulatedProcess;
  readonly owner: Owner;
  readonly plan: LifePlan;
  readonly drain: () => void;
  isOver: boolean;
}

export function memberOf(plan: LifePlan, index: number, surroundings: Surroundings): Member {
  const { clock, world, openSocket, scenario, tell, changeSource } = surroundings;
  const { process: given, self } = world.process();
  const owner: Owner = {
    get isDead() {
      return self.isDead;
    },
    get thawsAtMs() {
      return self.thawsAtMs;
    },
  };
  const source = kafkaSourceOver(
    {
      brokers: Array.from({ length: scenario.brokers }, (_, i) => `broker-${i + 1}:${PORT + i + 1}`),
      groupId: 'g',
      topics: plan.topics,
      fromBeginning: scenario.fromBeginning,
      clientId: given.name,
      sessionTimeoutMs: SESSION_MS,
      rebalanceTimeoutMs: 6000,
      heartbeatIntervalMs: 400,
      drainTimeoutMs: 2000,
      maxWaitMs: 400,
      metadataMaxAgeMs: 3000,
      connectTimeoutMs: 800,
      requestTimeoutMs: scenario.requestTimeoutMs,
      budgetBytes: plan.budgetBytes,
      onReset: 'restart',
      onOutOfRange: ({ wanted, logStart }) => (wanted < logStart ? logStart : undefined),
      log: (level, message, fields) =>
        level !== 'debug' && tell?.(`${clock.nowMs} ${given.name} ${level}: ${message} ${JSON.stringify(fields)}`),
    },
    { openSocket, epochsFrom: (index + 1) * 1_000_000 },
  );
  const entered = entering(changeSource?.(source) ?? source, () => (clock.current = owner));
  const ports =
    scenario.store === 'kafka' ? overOffsets(entered, surroundings) : { source: entered, store: beside(given.store) };
  const process: Process = { ...given, source: watched(ports.source, surroundings), store: ports.store };
  return { process, self, owner, plan, isOver: false, drain: () => entered.drain() };
}

/** Whatever is called belongs to the process from there on. */
function entering(source: KafkaSource, enter: () => void): KafkaSource {
  const deferred = <T>(call: () => ObservableInput<T>): Observable<T> =>
    defer(() => {
      enter();
      return from(call());
    });
  const at =
    <Args extends unknown[], T>(call: (...args: Args) => T) =>
    (...args: Args): T => {
      enter();
      return call(...args);
    };
  return {
    events: deferred(() => source.events),
    cluster: () => deferred(() => source.cluster()),
    commit: (...args) => deferred(() => source.commit(...args)),
    commitOnce: (...args) => deferred(() => source.commitOnce(...args)),
    committed: (...args) => deferred(() => source.committed(...args)),
    seek: (...args) => deferred(() => source.seek(...args)),
    log: (...args) => deferred(() => source.log(...args)),
    stateDecides: at(() => source.stateDecides?.()),
    assignmentOf: (topic, partition) => source.assignmentOf(topic, partition),
    reassign: at((...args: Parameters<typeof source.reassign>) => source.reassign(...args)),
    claimed: at((...args: Parameters<NonNullable<typeof source.claimed>>) => source.claimed?.(...args)),
    done: at((...args: Parameters<typeof source.done>) => source.done(...args)),
    halt: at((...args: Parameters<typeof source.halt>) => source.halt(...args)),
    pause: at(() => source.pause()),
    resume: at(() => source.resume()),
    drain: at(() => source.drain()),
    get outstandingBytes() {
      return source.outstandingBytes;
    },
  };
}

/** States of the topic that nobody writes to are kept apart: the watcher knows partitions by their number alone. */
function beside(store: StateStore): StateStore {
  const others = memoryStore();
  return {
    ...store,
    claim: (key, owner) => (key.topic === OTHER ? others : store).claim(key, owner),
    write: (claim, state) => (claim.key.topic === OTHER ? others : store).write(claim, state),
  };
}

/** The store in the group's offsets, seen by the watcher as the simulated one is. */
function overOffsets(
  member: KafkaSource,
  { clock, world: { watch } }: Surroundings,
): { readonly source: GroupSource; readonly store: StateStore } {
  const { source, store } = kafkaStore(member, { group: 'g', nowMs: () => 1_790_000_000_000 + clock.nowMs });
  return {
    source,
    store: {
      ...store,
      claim: (key, owner) =>
        defer(() => {
          if (key.topic === OTHER) return store.claim(key, owner);
          watch.claiming(key, owner);
          return from(store.claim(key, owner)).pipe(tap((claim) => watch.claimed(claim)));
        }),
      write: (claim, state) =>
        defer(() => {
          if (claim.key.topic === OTHER) return store.write(claim, state);
          watch.writing(claim);
          return from(store.write(claim, state)).pipe(tap(() => watch.written(claim.key, state)));
        }),
    },
  };
}

/** Chunks of an assignment follow one upon the other; nothing is asked for one that was lost. */
function watched(source: GroupSource, { world: { watch }, found }: Surroundings): GroupSource {
  const next = new Map<number, number>();
  const see = (event: SourceEvent): void => {
    watch.told(event);
    if (event.kind !== 'fetched') return;
    const {
      assignment: { assignmentId, partition },
      chunk,
    } = event;
    const expected = next.get(assignmentId);
    if (expected !== undefined && chunk.afterOffset + 1 !== expected)
      found('order', `partition ${partition}: a chunk begins at ${chunk.afterOffset + 1}, expected ${expected}`);
    next.set(assignmentId, chunk.lastOffset + 1);
  };
  return {
    ...source,
    events: from(source.events).pipe(tap(see)),
    commit: (assignment: Assignment, nextOffset: number) =>
      defer(() => {
        watch.asked('commit', assignment);
        return source.commit(assignment, nextOffset);
      }),
    seek: (assignment: Assignment, offset: number) => {
      watch.asked('seek', assignment);
      next.delete(assignment.assignmentId);
      return source.seek(assignment, offset);
    },
  };
}
