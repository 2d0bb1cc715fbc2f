/**
 * Room: the state of partitions in Kafka itself: the metadata of the consumer group's offset commit, for those who want
 * nothing to run beside Kafka and ClickHouse. What is committed is where the state resumes; its text lies beside it.
 * Ports and the model may enter; how a commit gets to the broker is the source's.
 *
 * What Kafka gives, and what it does not
 *
 * There is no compare-and-set. There is a fence: the group's coordinator takes a commit only of a member of the current
 * generation, and an assignment gives each partition to one member. It does not look whose partition a commit is for;
 * that every member commits for its own partitions only is ours to keep (and nothing else may use the group). A commit
 * replaces what was there, text and all: one without metadata wipes the state, whence `kafkaStore` gives a source too.
 *
 * Why a lost reply cannot lose or double a write
 *
 * 1. Each write is pinned to the generation of the assignment that its claim was made under. A commit of generation n
 *    is in the offsets topic before the record of generation n + 1 or nowhere, and a member learns its assignment in
 *    n + 1 after that record is replicated. Hence a claim, which reads after the join, sees every commit of former
 *    owners that was or will ever be taken, and their later ones are refused. Of two claimers the later generation wins.
 * 2. A request that was never sent, or that a broker answered, is over and done. Some answers leave open whether it was
 *    appended (a coordinator that is just going), but then it lies before all that is appended from now on. It is
 *    KCR_STORE_UNREACHABLE, and the same write may be made again.
 * 3. A request whose reply was lost may take effect as long as the generation lasts, even after later writes under it.
 *    So it is never repeated, and nothing more is written under its assignment: KCR_FENCED ends the tenure, the member
 *    joins again, and by 1 the next claim finds whether it took effect, for good. What was in doubt is replayed.
 * 4. Within a process there may be two claims in one generation. Commits of one generation go one at a time, each when
 *    the outcome of the one before is known; only the claim that was given last may write, only while its assignment
 *    is the current one, and only the write that follows upon the last, or that one again.
 *
 * An offset without metadata: another consumer has used the group, an administrator has reset it, or the source has
 * just chosen where to begin. It says what comes next, and nothing of the tokens that were used before. Hence the
 * incarnation is the time of the claim in whole seconds: none that was used before, unless the clock was set back.
 */
import { randomBytes } from 'node:crypto';
import { catchError, defer, from, lastValueFrom, map, of, throwError, timeout, type ObservableInput } from 'rxjs';
import { IngestError, asIngestError, hasCode } from '../errors.js';
import { ignoreEvents, type OnEvent } from '../events.js';
import type { Assignment } from '../model/record.js';
import {
  chosenOffset,
  decodeState,
  encodeState,
  neverStored,
  stateName,
  type StoredState,
} from '../model/state-codec.js';
import { resumeOffset, type PartitionState } from '../model/state.js';
import type { Claim, GroupSource, StateKey, StateStore, Stored } from '../ports.js';
import { asStored, fencedBy, nextText, untilUnsubscribed, type Mark } from './write-marks.js';

/** What the group has committed for one partition. */
export interface CommittedOffset {
  /** Undefined: nothing. */
  readonly next: number | undefined;
  readonly metadata: string;
}

/** A source that commits with metadata, under the generation of an assignment. `kafkaSource` is one. */
export interface OffsetSource extends GroupSource {
  /** The tenure in which this process has the partition; it may be revoked and not yet released. */
  assignmentOf(topic: string, partition: number): Assignment | undefined;
  /** Read after the join. Errors: `KCR_KAFKA_UNREACHABLE` (retryable). */
  committed(assignment: Assignment): ObservableInput<CommittedOffset>;
  /**
   * One attempt. Errors: `KCR_FENCED` when the generation is over, or when the outcome is not known, in which case the
   * member joins again; `KCR_KAFKA_UNREACHABLE` (retryable) when it cannot take effect behind anything that is committed
   * from now on; `KCR_STORE`, `KCR_KAFKA` when it was refused.
   */
  commitOnce(assignment: Assignment, nextOffset: number, metadata?: string): ObservableInput<void>;
}

export interface KafkaStoreConfig {
  /** The consumer group; the state of others is not reached through this source. */
  readonly group: string;
  /** Reads offsets of partitions that are not assigned, for `read`. @default none: `read` tells of assigned ones only */
  readonly committed?: (key: StateKey) => ObservableInput<CommittedOffset>;
  /** Milliseconds since the epoch. @default Date.now */
  readonly nowMs?: () => number;
  /** Told (as `kafka`) when an offset without a state was taken as a beginning. */
  readonly onEvent?: OnEvent;
}

export interface KafkaStore {
  readonly store: StateStore;
  /**
   * To be used in place of the source: `commit` does nothing for what was claimed through the store, whose settling has
   * committed that offset already, and would wipe the state.
   */
  readonly source: GroupSource;
}

interface TenureMark extends Mark {
  readonly assignment: Assignment;
  /** Where the group stood at the claim: what is committed while the state does not say what comes next. */
  readonly stood: number;
}

/** The claim that was given last for a partition, and the text of its last write. */
interface Held {
  readonly mark: TenureMark;
  readonly text: string;
}

/** To find out who took a partition over, for the message. */
const lookLimitMs = 500;
const hintForeign =
  'give this pipeline a group of its own (kafka.groupId); or, if what stands there is not needed, stop all members of the group and reset its ' +
  'offsets with kafka-consumer-groups.sh --reset-offsets, which takes the metadata away: the partition then begins at that offset, with nothing in doubt';

/** The store, and the source that goes with it. Nothing is opened: the source's membership is used. */
export function kafkaStore(source: OffsetSource, config: KafkaStoreConfig): KafkaStore {
  const book = new OffsetBook(source, config);
  const store: StateStore = {
    name: 'kafka',
    claim: (key, owner) => untilUnsubscribed((signal) => book.claim(key, owner, signal)),
    write: (claim, state) => untilUnsubscribed((signal) => book.write(claim, state, signal)),
    read: (key) => defer(() => book.read(key)),
    close: () => book.close(),
  };
  return { store, source: sparingCommits(source, book) };
}

/**
 * What the group's committed offset and its metadata say of a partition. Errors with `KCR_STATE_INVALID` where the
 * metadata is not a state, or one that speaks of another offset.
 */
export function stateFromOffset(next: number | undefined, metadata: string, key: StateKey, nowMs: number): StoredState {
  if (isNoState(metadata)) {
    if (next === undefined) return neverStored;
    return {
      state: { settled: next - 1, pending: [], incarnation: Math.floor(nowMs / 1000), topicId: undefined },
      owner: '',
      write: '',
    };
  }
  const stored = decoded(metadata, key);
  const resume = resumeOffset(stored.state);
  if (resume === undefined || resume === next) return stored;
  throw new IngestError(
    'KCR_STATE_INVALID',
    `The group's committed offset is ${next}, but the state beside it goes on at ${resume} [${stateName(key)}]`,
    {
      topic: key.topic,
      partition: key.partition,
      hint: hintForeign,
    },
  );
}

const isNoState = (metadata: string): boolean => metadata === '' || metadata === chosenOffset;

/** What is committed with a state; `stood` where it does not say what comes next. */
export function offsetOf(state: PartitionState, stood: number): number {
  return resumeOffset(state) ?? stood;
}

/** What is asked of a cluster to find out whether states can be kept in it; kafkajs's admin client is one. */
export interface OffsetsAdmin {
  describeCluster(): Promise<{ readonly clusterId: string; readonly brokers: readonly { readonly nodeId: number }[] }>;
  fetchOffsets(of: { groupId: string; topics: string[] }): Promise<
    readonly {
      readonly topic: string;
      readonly partitions: readonly {
        readonly partition: number;
        readonly offset: string;
        readonly metadata: string | null;
      }[];
    }[]
  >;
  describeConfigs(of: {
    resources: { type: number; name: string; configNames: string[] }[];
    includeSynonyms: boolean;
  }): Promise<{
    readonly resources: readonly {
      readonly configEntries: readonly { readonly configName: string; readonly configValue: string }[];
    }[];
  }>;
}

/** What `checkKafkaStore` found. */
export interface KafkaStoreCheck {
  readonly partitions: number;
  /** Partitions that have a state. */
  readonly kept: number;
  /** Characters that the brokers keep beside an offset; undefined: they do not say. */
  readonly metadataMaxBytes: number | undefined;
  /** How long offsets, and states with them, are kept after the last member has left, minutes; undefined as above. */
  readonly retentionMinutes: number | undefined;
}

/** The broker's default. */
const metadataLimit = 4096;
const brokerResource = 4;

/**
 * Can states be kept in the group's offsets? Changes nothing. Errors: `KCR_STATE_INVALID` where something else stands
 * beside an offset, `KCR_PREFLIGHT` where the brokers keep too little, and whatever Kafka refuses.
 */
export async function checkKafkaStore(
  admin: OffsetsAdmin,
  { group, topics }: { readonly group: string; readonly topics: readonly string[] },
): Promise<KafkaStoreCheck> {
  const { clusterId: cluster, brokers } = await admin.describeCluster();
  const offsets = await admin.fetchOffsets({ groupId: group, topics: [...topics] });
  const all = offsets.flatMap(({ topic, partitions }) =>
    partitions.map((each) => ({ topic, ...each, metadata: each.metadata ?? '' })),
  );
  for (const { topic, partition, offset, metadata } of all) {
    if (!isNoState(metadata)) stateFromOffset(Number(offset), metadata, { cluster, group, topic, partition }, 0);
  }
  const limits = await limitsOf(admin, brokers[0]?.nodeId).catch(() => new Map<string, number>());
  const metadataMaxBytes = limits.get('offset.metadata.max.bytes');
  if (metadataMaxBytes !== undefined && metadataMaxBytes < metadataLimit) {
    throw new IngestError(
      'KCR_PREFLIGHT',
      `The brokers keep ${metadataMaxBytes} characters beside an offset; a state may take ${metadataLimit}`,
      {
        hint: `set offset.metadata.max.bytes=${metadataLimit}, its default, in the configuration of each broker and restart it`,
      },
    );
  }
  const kept = all.filter(({ metadata }) => !isNoState(metadata)).length;
  return { partitions: all.length, kept, metadataMaxBytes, retentionMinutes: limits.get('offsets.retention.minutes') };
}

async function limitsOf(admin: OffsetsAdmin, nodeId = 0): Promise<ReadonlyMap<string, number>> {
  const configNames = ['offset.metadata.max.bytes', 'offsets.retention.minutes'];
  const { resources } = await admin.describeConfigs({
    resources: [{ type: brokerResource, name: String(nodeId), configNames }],
    includeSynonyms: false,
  });
  return new Map(
    resources.flatMap(({ configEntries }) =>
      configEntries.map(({ configName, configValue }) => [configName, Number(configValue)] as const),
    ),
  );
}

function decoded(metadata: string, key: StateKey): StoredState {
  try {
    return decodeState(metadata, key);
  } catch (thrown) {
    if (!hasCode(thrown, 'KCR_STATE_INVALID') || thrown.fields.hint !== undefined) throw thrown;
    const { topic, partition } = key;
    throw new IngestError(
      'KCR_STATE_INVALID',
      `The metadata beside the group's committed offset is not a state of this program. ${thrown.reason}`,
      {
        topic,
        partition,
        hint: hintForeign,
        cause: thrown,
      },
    );
  }
}

class OffsetBook {
  readonly #source: OffsetSource;
  readonly #config: Required<Omit<KafkaStoreConfig, 'committed' | 'onEvent'>> &
    Pick<KafkaStoreConfig, 'committed'> & { readonly onEvent: OnEvent };
  readonly #held = new Map<string, Held>();
  /** The last call of each partition in its generation; settles when its outcome is known, never rejects. */
  readonly #turns = new Map<string, { readonly generation: number; readonly last: Promise<unknown> }>();
  /** Assignments under which nothing more is written: a write's outcome is not known, or the group has refused one. */
  readonly #over = new WeakSet<Assignment>();
  #isClosed = false;

  constructor(source: OffsetSource, { group, committed, nowMs = Date.now, onEvent = ignoreEvents }: KafkaStoreConfig) {
    this.#source = source;
    this.#config = { group, nowMs, onEvent, ...(committed === undefined ? {} : { committed }) };
  }

  claim(key: StateKey, owner: string, signal: AbortSignal): Promise<Claim> {
    const assignment = this.#assigned(key);
    return this.#inTurn(key, assignment, signal, async () => {
      const { next, metadata } = await this.#committed(assignment);
      signal.throwIfAborted();
      const nowMs = this.#config.nowMs();
      const { state } = stateFromOffset(next, metadata, key, nowMs);
      const stood = next ?? assignment.startOffset;
      const mark: TenureMark = {
        version: assignment.assignmentId,
        claimId: randomBytes(9).toString('base64url'),
        writes: 0,
        assignment,
        stood,
      };
      const text = encodeState({ state, owner, write: `${mark.claimId}-0` }, key);
      this.#demandCurrent(key, owner, assignment);
      await this.#commit(key, mark, state, text);
      // It may have taken long: a claim under the next assignment must not be undone.
      this.#demandCurrent(key, owner, assignment);
      this.#held.set(nameOf(key), { mark, text });
      if (next !== undefined && isNoState(metadata)) this.#tellBeginning(key, next, state);
      return { key, owner, state, version: mark };
    });
  }

  write({ key, owner, version }: Claim, state: PartitionState, signal: AbortSignal): Promise<Claim> {
    const mark = version as TenureMark;
    const text = nextText(key, owner, mark, state);
    return this.#inTurn(key, mark.assignment, signal, async () => {
      const held = this.#held.get(nameOf(key));
      if (held === undefined) throw over(key, owner, 'it was not given by this store');
      const isNext = held.mark.claimId === mark.claimId && (held.mark.writes === mark.writes || held.text === text);
      if (!isNext) throw fencedBy(key, owner, mark, held.text);
      try {
        this.#demandCurrent(key, owner, mark.assignment);
        await this.#commit(key, mark, state, text);
      } catch (thrown) {
        throw hasCode(thrown, 'KCR_FENCED') ? await this.#byWhom(thrown, key, owner, mark) : thrown;
      }
      const next: TenureMark = { ...mark, writes: mark.writes + 1 };
      if (this.#held.get(nameOf(key)) === held) this.#held.set(nameOf(key), { mark: next, text });
      return { key, owner, state, version: next };
    });
  }

  async read(key: StateKey): Promise<Stored> {
    this.#demandOurs(key);
    const { committed, nowMs } = this.#config;
    const assignment = this.#source.assignmentOf(key.topic, key.partition);
    if (assignment === undefined && committed === undefined) {
      throw new IngestError('KCR_STORE', `The partition is not assigned to this process (${stateName(key)})`, {
        topic: key.topic,
        partition: key.partition,
        hint: 'to look at the state of others use the program\'s "state" commands, or kafkaStore with `committed`',
      });
    }
    const { next, metadata } =
      assignment === undefined ? await valueOf(committed!(key), key) : await this.#committed(assignment);
    return asStored(stateFromOffset(next, metadata, key, nowMs()));
  }

  /** Has this very tenure been claimed through us? */
  holds(assignment: Assignment): boolean {
    return this.#held.get(nameOf(assignment))?.mark.assignment.assignmentId === assignment.assignmentId;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  #assigned(key: StateKey): Assignment {
    this.#demandOurs(key);
    const assignment = this.#source.assignmentOf(key.topic, key.partition);
    if (assignment === undefined)
      throw new IngestError('KCR_FENCED', `The partition is not ours any more (${stateName(key)})`, {
        topic: key.topic,
        partition: key.partition,
      });
    return assignment;
  }

  #demandOurs(key: StateKey): void {
    if (this.#isClosed) throw new IngestError('KCR_STORE', 'The state store is closed');
    if (key.group === this.#config.group) return;
    throw new IngestError(
      'KCR_CONFIG',
      `The store keeps the states of the group ${this.#config.group}, not those of ${key.group}`,
      {
        hint: 'give kafkaStore the group of its source',
      },
    );
  }

  #demandCurrent(key: StateKey, owner: string, assignment: Assignment): void {
    const current = this.#source.assignmentOf(key.topic, key.partition);
    if (this.#over.has(assignment)) throw over(key, owner, 'a write failed for good under its assignment');
    if (current?.assignmentId !== assignment.assignmentId)
      throw over(key, owner, 'its assignment is not the current one');
  }

  /** One at a time in a generation, in the order of the calls, each when the outcome of the one before is known. */
  #inTurn<T>(key: StateKey, { generation }: Assignment, signal: AbortSignal, call: () => Promise<T>): Promise<T> {
    this.#demandOurs(key);
    const name = nameOf(key);
    const before = this.#turns.get(name);
    const mine = (async () => {
      if (before?.generation === generation) await before.last;
      signal.throwIfAborted();
      return call();
    })();
    this.#turns.set(name, { generation, last: mine.catch(() => undefined) });
    return mine;
  }

  async #commit(key: StateKey, { assignment, stood }: TenureMark, state: PartitionState, text: string): Promise<void> {
    try {
      await lastValueFrom(from(this.#source.commitOnce(assignment, offsetOf(state, stood), text)), {
        defaultValue: undefined,
      });
    } catch (thrown) {
      if (hasCode(thrown, 'KCR_KAFKA_UNREACHABLE', 'KCR_STORE_UNREACHABLE')) throw unreachable(thrown, key);
      if (hasCode(thrown, 'KCR_STORE', 'KCR_KAFKA')) throw thrown;
      // Whatever else: it may still take effect.
      this.#over.add(assignment);
      if (hasCode(thrown, 'KCR_FENCED')) throw thrown;
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      throw new IngestError('KCR_FENCED', `The outcome of a state write is not known: ${reason}`, {
        topic: key.topic,
        partition: key.partition,
        cause: thrown,
      });
    }
  }

  #committed(assignment: Assignment): Promise<CommittedOffset> {
    return valueOf(this.#source.committed(assignment), assignment);
  }

  /** The same error, with the name of the one who has the partition now, if that can be found out quickly. */
  async #byWhom(refusal: IngestError, key: StateKey, owner: string, mark: TenureMark): Promise<IngestError> {
    const look = defer(() => this.#committed(mark.assignment)).pipe(
      timeout(lookLimitMs),
      map(({ metadata }) => (isNoState(metadata) ? undefined : decodeState(metadata, key))),
      map((found) => (found === undefined || found.write.startsWith(`${mark.claimId}-`) ? undefined : found)),
      catchError(() => of(undefined)),
    );
    const found = await lastValueFrom(look, { defaultValue: undefined });
    if (found === undefined) return over(key, owner, refusal.reason, refusal);
    return over(key, owner, `${found.owner} has taken the partition over`, refusal);
  }

  #tellBeginning({ group, topic, partition }: StateKey, next: number, { incarnation }: PartitionState): void {
    const message =
      'the committed offset had no state beside it: taken as a beginning, with nothing in doubt, under tokens that were never used';
    this.#config.onEvent({
      kind: 'kafka',
      level: 'info',
      message,
      fields: { group, topic, partition, next, incarnation },
    });
  }
}

function over({ topic, partition, ...names }: StateKey, owner: string, why: string, cause?: unknown): IngestError {
  return new IngestError(
    'KCR_FENCED',
    `Claim of ${owner} is over: ${why} (${stateName({ topic, partition, ...names })})`,
    { topic, partition, cause },
  );
}

function unreachable(thrown: unknown, { topic, partition }: Pick<StateKey, 'topic' | 'partition'>): IngestError {
  const { detail, fields } = asIngestError(thrown, 'KCR_STORE_UNREACHABLE', 'the group coordinator does not answer', {
    topic,
    partition,
  });
  return new IngestError('KCR_STORE_UNREACHABLE', detail, { hint: fields.hint, cause: thrown });
}

/** A read has no effect: what is not an error of ours may be asked again. */
function valueOf(
  call: ObservableInput<CommittedOffset>,
  place: Pick<StateKey, 'topic' | 'partition'>,
): Promise<CommittedOffset> {
  const isRetryable = (thrown: unknown) => !(thrown instanceof IngestError) || hasCode(thrown, 'KCR_KAFKA_UNREACHABLE');
  return lastValueFrom(
    from(call).pipe(
      catchError((thrown: unknown) => throwError(() => (isRetryable(thrown) ? unreachable(thrown, place) : thrown))),
    ),
  );
}

function nameOf({ topic, partition }: Pick<StateKey, 'topic' | 'partition'>): string {
  return `${partition}/${topic}`;
}

function sparingCommits(source: OffsetSource, book: OffsetBook): GroupSource {
  return {
    events: source.events,
    cluster: () => source.cluster(),
    log: (assignment) => source.log(assignment),
    seek: (assignment, offset) => source.seek(assignment, offset),
    commit: (assignment, nextOffset) =>
      defer(() => (book.holds(assignment) ? of(undefined) : from(source.commit(assignment, nextOffset)))),
    stateDecides: () => source.stateDecides?.(),
    claimed: (assignment, inDoubtUpTo) => source.claimed?.(assignment, inDoubtUpTo),
    done: (assignment, lastOffset) => source.done(assignment, lastOffset),
    halt: (assignment) => source.halt(assignment),
    reassign: (assignment, afterMs) => source.reassign(assignment, afterMs),
    pause: () => source.pause(),
    resume: () => source.resume(),
    drain: () => source.drain(),
  };
}
