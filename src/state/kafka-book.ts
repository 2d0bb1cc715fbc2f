/**
 * The claims that one process holds in the offsets of its group, and the commits that write their states, one at a time
 * in a generation. Why a lost reply loses and doubles nothing stands in `kafka.ts`.
 * Imports: Node, errors, events, model, ports, rxjs.
 */
import { randomBytes } from 'node:crypto';
import { catchError, defer, from, lastValueFrom, map, of, throwError, timeout, type ObservableInput } from 'rxjs';
import { IngestError, asIngestError, hasCode } from '../errors.js';
import { ignoreEvents, type OnEvent } from '../events.js';
import { partitionName } from '../model/partition-name.js';
import type { Assignment } from '../model/record.js';
import { decodeState, encodeState, stateName } from '../model/state-codec.js';
import type { PartitionState } from '../model/state.js';
import type { Claim, StateKey, Stored } from '../ports.js';
import { isNoState, offsetOf, stateFromOffset, type CommittedOffset, type OffsetSource } from './kafka-offset.js';
import { asStored, fencedBy, nextText, type Mark } from './write-marks.js';

/** Whose offsets carry the states. */
export interface KafkaStoreConfig {
  /** The consumer group; the state of others is not reached through this source. */
  readonly group: string;
  /**
   * Reads offsets of partitions that are not assigned, for `read`. @default none: `read` tells of assigned ones only
   */
  readonly committed?: (key: StateKey) => ObservableInput<CommittedOffset>;
  /** Milliseconds since the epoch. @default Date.now */
  readonly nowMs?: () => number;
  /** Told (as `kafka`) when an offset without a state was taken as a beginning. */
  readonly onEvent?: OnEvent;
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
export class OffsetBook {
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
      this.#held.set(partitionName(key), { mark, text });
      if (next !== undefined && isNoState(metadata)) this.#tellBeginning(key, next, state);
      return { key, owner, state, version: mark };
    });
  }

  write({ key, owner, version }: Claim, state: PartitionState, signal: AbortSignal): Promise<Claim> {
    const mark = version as TenureMark;
    const text = nextText(key, owner, mark, state);
    return this.#inTurn(key, mark.assignment, signal, async () => {
      const held = this.#held.get(partitionName(key));
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
      if (this.#held.get(partitionName(key)) === held) this.#held.set(partitionName(key), { mark: next, text });
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

  /** Has this very assignment been claimed through us? */
  holds(assignment: Assignment): boolean {
    return this.#held.get(partitionName(assignment))?.mark.assignment.assignmentId === assignment.assignmentId;
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
    const name = partitionName(key);
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
      'the committed offset had no state beside it: taken as a beginning, with nothing in doubt, under tokens ' +
      'that were never used';
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
