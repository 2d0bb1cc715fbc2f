/**
 * Room: the `RecordSource` over Kafka. A thin front: what a call means is checked here, what it does is run.ts.
 */
import { Observable, defer, from, of, throwError, type ObservableInput } from 'rxjs';
import { IngestError } from '../errors.js';
import { ignoreEvents } from '../events.js';
import type { Assignment } from '../model/record.js';
import type { GroupSource, SourceEvent } from '../ports.js';
import { clusterId } from './admin.js';
import { sourceSettings, type KafkaLog, type KafkaSourceOptions, type SourceSettings } from './options.js';
import type { Committed } from './connection/list-offsets.js';
import { Run } from './group/run.js';
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
   * member joins again, so that a late copy of the commit is refused, and the partition is to be claimed anew;
   * `KCR_KAFKA_UNREACHABLE` (retryable) when it had no effect that could come later; `KCR_STORE` for metadata that is
   * too large.
   */
  commitOnce(assignment: Assignment, nextOffset: number, metadata?: string): ObservableInput<void>;
  /** The present tenure of this process over the partition. */
  assignmentOf(topic: string, partition: number): Assignment | undefined;
  /** Memory of records that were delivered and are not done, bytes. */
  readonly outstandingBytes: number;
}

/**
 * A member of a consumer group. Its commits are pinned to the generation of the assignment, it waits for revoked
 * partitions to be released before it joins again, heartbeats go on meanwhile. An offset out of range is never reset: its
 * partition fails, as one does that cannot be read, or whose topic was created anew; the others go on.
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
  let assignmentIds = epochsFrom;
  let run: Run | undefined;
  let cluster: Promise<string> | undefined;

  const events = new Observable<SourceEvent>((subscriber) => {
    if (run !== undefined) {
      subscriber.error(
        new IngestError(
          'KCR_CONFIG',
          'The events of a Kafka source are subscribed to already: one member, one subscriber',
        ),
      );
      return undefined;
    }
    let mine: Run;
    try {
      mine = new Run(settings, subscriber, () => ++assignmentIds);
    } catch (thrown) {
      subscriber.error(thrown);
      return undefined;
    }
    run = mine;
    void mine.live();
    return () => {
      if (run === mine) run = undefined;
      mine.stop();
    };
  });

  return {
    events,
    cluster: () =>
      defer(() => {
        cluster ??= clusterId(settings).catch((thrown: unknown) => {
          cluster = undefined;
          throw thrown;
        });
        return cluster;
      }),
    commit: (assignment, nextOffset, metadata) =>
      defer(() => {
        checkOffset('nextOffset', nextOffset);
        return run === undefined
          ? throwError(() => notOurs(assignment))
          : from(run.commit(assignment, nextOffset, metadata ?? null));
      }),
    commitOnce: (assignment, nextOffset, metadata) =>
      defer(() => {
        checkOffset('nextOffset', nextOffset);
        return run === undefined
          ? throwError(() => notOurs(assignment))
          : from(run.commitOnce(assignment, nextOffset, metadata ?? null));
      }),
    assignmentOf: (topic, partition) => run?.assignmentOf(topic, partition),
    committed: (assignment) =>
      defer(() => (run === undefined ? throwError(() => notOurs(assignment)) : from(run.committed(assignment)))),
    seek: (assignment, offset) =>
      defer(() => {
        checkOffset('offset', offset);
        const assigned = run?.get(assignment);
        if (run === undefined || assigned === undefined) return throwError(() => notOurs(assignment));
        run.seek(assigned, offset);
        return of(undefined);
      }),
    stateDecides: () => void (settings.stateDecides = true),
    log: (assignment) =>
      defer(() =>
        run?.get(assignment) === undefined ? throwError(() => notOurs(assignment)) : from(run.log(assignment)),
      ),
    reassign: (assignment, afterMs) => run?.reassign(assignment, afterMs),
    claimed: (assignment, inDoubtUpTo) => run?.claimed(assignment, inDoubtUpTo),
    done: (assignment, lastOffset) => run?.done(assignment, lastOffset),
    halt: (assignment) => run?.halt(assignment),
    pause: () => run?.pause(true),
    resume: () => run?.pause(false),
    drain: () => run?.drain(),
    get outstandingBytes() {
      return run?.outstandingBytes ?? 0;
    },
  };
}

function logAndReport({ log, onEvent = ignoreEvents }: KafkaSourceOptions): KafkaLog {
  return (level, message, fields) => {
    log?.(level, message, fields);
    if (level !== 'debug') onEvent({ kind: 'kafka', level, message, fields });
  };
}

function notOurs({ topic, partition }: Assignment): IngestError {
  return new IngestError('KCR_FENCED', 'The partition is not ours any more', { topic, partition });
}

function checkOffset(name: string, offset: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0) return;
  throw new IngestError('KCR_OFFSET_RANGE', `Expected \`${name}\` to be an integer from 0 to 2^53 - 1, got ${offset}`);
}
