/**
 * The `RecordSource` over Kafka. A thin front: a call is checked here; group/ does it.
 * Imports: errors, events, kafka/connection, kafka/group, model, ports, rxjs.
 */
import { Observable, defer, of, type ObservableInput } from 'rxjs';
import { IngestError } from '../errors.js';
import { ignoreEvents } from '../events.js';
import type { Assignment } from '../model/record.js';
import type { GroupSource, SourceEvent } from '../ports.js';
import { clusterId } from './admin.js';
import { sourceSettings, type KafkaLog, type KafkaSourceOptions, type SourceSettings } from './options.js';
import type { Committed } from './connection/list-offsets.js';
import type { AssignedPartition } from './group/assigned-partition.js';
import type { AssignedPartitions } from './group/assigned-partitions.js';
import { GroupMember } from './group/group-member.js';
import type { OpenSocket } from './connection/sockets.js';

export type { KafkaSourceOptions, OutOfRange, SaslOptions } from './options.js';

/** What the Kafka source can do beyond the port; for a state store that lives in Kafka's offsets, and for tests. */
export interface KafkaSource extends GroupSource {
  /** `metadata` is kept beside the offset, at most 4096 UTF-16 units; each commit replaces it. */
  commit(assignment: Assignment, nextOffset: number, metadata?: string): ObservableInput<void>;
  /** What the group has committed for the partition. */
  committed(assignment: Assignment): ObservableInput<Committed>;
  /**
   * One attempt of such a commit, for a state that is kept there and for at-most-once: what `commit` does when it tries
   * again could overwrite a newer value.
   *
   * @throws `KCR_FENCED` when the generation of the assignment is over, or when the outcome is not known: then this
   * member joins again, so that a late copy of the commit is refused, and the partition is to be claimed again;
   * `KCR_KAFKA_UNREACHABLE` (retryable) when it had no effect that could come later; `KCR_STORE` for metadata that is
   * too large.
   */
  commitOnce(assignment: Assignment, nextOffset: number, metadata?: string): ObservableInput<void>;
  /** What this process has the partition by, at present. */
  assignmentOf(topic: string, partition: number): Assignment | undefined;
  /** Memory of records that were delivered and are not done, bytes. */
  readonly outstandingBytes: number;
}

/**
 * A member of a consumer group. Its commits are pinned to the generation of the assignment, it waits for revoked
 * partitions to be released before it joins again, heartbeats go on meanwhile. An offset out of range is never reset:
 * its partition fails, as one does that cannot be read, or whose topic was recreated; the others go on.
 *
 * @throws `KCR_CONFIG` at once; `KCR_KAFKAJS_HOOKS`, `KCR_TOPIC_MISSING`, `KCR_KAFKA` into `events`.
 * Lost connections are not errors: they are mended for as long as it takes.
 */
export function kafkaSource(options: KafkaSourceOptions): KafkaSource {
  return kafkaSourceOver(options, {});
}

/** What a simulation exchanges. */
export interface SourceSurroundings {
  /** @default real sockets */
  readonly openSocket?: OpenSocket;
  /** Assignments are numbered from the one behind it, so that those of several sources differ. @default 0 */
  readonly epochsFrom?: number;
}

export function kafkaSourceOver(
  options: KafkaSourceOptions,
  { openSocket, epochsFrom = 0 }: SourceSurroundings,
): KafkaSource {
  const settings: SourceSettings & { stateDecides: boolean } = {
    ...sourceSettings(options),
    log: logAndReport(options),
    openSocket,
  };
  const subscribed = new SubscribedMember(settings, epochsFrom);
  const { partitions } = subscribed;
  return {
    events: subscribed.events,
    cluster: askingOnce(() => clusterId(settings)),
    commit: (assignment, nextOffset, metadata) =>
      defer(() => {
        checkOffset('nextOffset', nextOffset);
        return subscribed.of(assignment).commits.commit(assignment, nextOffset, metadata ?? null);
      }),
    commitOnce: (assignment, nextOffset, metadata) =>
      defer(() => {
        checkOffset('nextOffset', nextOffset);
        return subscribed.of(assignment).commits.commitOnce(assignment, nextOffset, metadata ?? null);
      }),
    assignmentOf: (topic, partition) => partitions()?.assignments.find(topic, partition)?.assignment,
    committed: (assignment) => defer(() => subscribed.of(assignment).inquiries.committed(assignment)),
    seek: (assignment, offset) =>
      defer(() => {
        checkOffset('offset', offset);
        const ours = subscribed.of(assignment).partitions;
        ours.seek(assigned(ours, assignment), offset);
        return of(undefined);
      }),
    stateDecides: () => void (settings.stateDecides = true),
    log: (assignment) =>
      defer(() => {
        const member = subscribed.of(assignment);
        assigned(member.partitions, assignment);
        return member.inquiries.log(assignment);
      }),
    reassign: (assignment, afterMs) => partitions()?.reassign(assignment, afterMs),
    claimed: (assignment, inDoubtUpTo) => partitions()?.claimed(assignment, inDoubtUpTo),
    done: (assignment, lastOffset) => partitions()?.done(assignment, lastOffset),
    halt: (assignment) => partitions()?.halt(assignment),
    pause: (selection) => settings.pauses.pause(selection),
    resume: (selection) => {
      settings.pauses.resume(selection);
      partitions()?.resumed();
    },
    drain: () => subscribed.drain(),
    progress: () => partitions()?.progress() ?? { partitions: [] },
    get outstandingBytes() {
      return partitions()?.outstandingBytes ?? 0;
    },
  };
}

/** The member of the group, while somebody is subscribed to the events. */
class SubscribedMember {
  #member: GroupMember | undefined;
  #assignmentIds: number;

  constructor(
    private readonly settings: SourceSettings,
    epochsFrom: number,
  ) {
    this.#assignmentIds = epochsFrom;
  }

  readonly events = new Observable<SourceEvent>((subscriber) => {
    let member: GroupMember;
    try {
      if (this.#member !== undefined) throw subscribedTwice();
      member = new GroupMember(this.settings, subscriber, () => ++this.#assignmentIds);
    } catch (thrown) {
      subscriber.error(thrown);
      return undefined;
    }
    this.#member = member;
    void member.live();
    return () => {
      if (this.#member === member) this.#member = undefined;
      member.stop();
    };
  });

  /** @throws `KCR_FENCED` when nobody is subscribed. */
  of(assignment: Assignment): GroupMember {
    if (this.#member === undefined) throw notOurs(assignment);
    return this.#member;
  }

  readonly partitions = (): AssignedPartitions | undefined => this.#member?.partitions;

  drain(): void {
    this.#member?.drain();
  }
}

/** @throws `KCR_FENCED` when the assignment has ended. */
function assigned(partitions: AssignedPartitions, assignment: Assignment): AssignedPartition {
  const found = partitions.assignments.get(assignment);
  if (found === undefined) throw notOurs(assignment);
  return found;
}

/** What was answered is kept; what failed is asked for again. */
function askingOnce<T>(ask: () => Promise<T>): () => Observable<T> {
  let answer: Promise<T> | undefined;
  return () =>
    defer(() => {
      answer ??= ask().catch((thrown: unknown) => {
        answer = undefined;
        throw thrown;
      });
      return answer;
    });
}

function logAndReport({ log, onEvent = ignoreEvents }: KafkaSourceOptions): KafkaLog {
  return (level, message, fields) => {
    log?.(level, message, fields);
    if (level !== 'debug') onEvent({ kind: 'kafka', level, message, fields });
  };
}

function subscribedTwice(): IngestError {
  const message = 'The events of a Kafka source are subscribed to already: one member, one subscriber';
  return new IngestError('KCR_CONFIG', message);
}

function notOurs({ topic, partition }: Assignment): IngestError {
  return new IngestError('KCR_FENCED', 'The partition is not ours any more', { topic, partition });
}

function checkOffset(name: string, offset: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0) return;
  throw new IngestError('KCR_OFFSET_RANGE', `Expected \`${name}\` to be an integer from 0 to 2^53 - 1, got ${offset}`);
}
