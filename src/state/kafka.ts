/**
 * The state of partitions in Kafka itself: the metadata of the consumer group's offset commit, for those who want
 * nothing to run beside Kafka and ClickHouse. What is committed is where the state resumes; its text lies beside it.
 *
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
 *    owners that was or will ever be taken, and their later ones are refused. Of two claimers the later generation
 * wins.
 * 2. A request that was never sent, or that a broker answered, is over and done. Some answers leave open whether it was
 *    appended (a coordinator that is just going), but then it lies before all that is appended from now on. It is
 *    KCR_STORE_UNREACHABLE, and the same write may be made again.
 * 3. A request whose reply was lost may take effect as long as the generation lasts, even after later writes under it.
 *    So it is never repeated, and nothing more is written under its assignment: KCR_FENCED ends the assignment, the member
 *    joins again, and by 1 the next claim finds whether it took effect, for good. What was in doubt is replayed.
 * 4. Within a process there may be two claims in one generation. Commits of one generation go one at a time, each when
 *    the outcome of the one before is known; only the claim that was given last may write, only while its assignment
 *    is the current one, and only the write that follows upon the last, or that one again.
 *
 * An offset without metadata: another consumer has used the group, an administrator has reset it, or the source has
 * just chosen where to begin. It says what comes next, and nothing of the tokens that were used before. Hence the
 * incarnation is the time of the claim in whole seconds: none that was used before, unless the clock was set back.
 * Imports: ports, rxjs.
 */
import { defer, from, of } from 'rxjs';
import type { GroupSource, StateStore } from '../ports.js';
import { OffsetBook, type KafkaStoreConfig } from './kafka-book.js';
import type { OffsetSource } from './kafka-offset.js';
import { untilUnsubscribed } from './write-marks.js';

export type { KafkaStoreConfig } from './kafka-book.js';
export { checkKafkaStore, type KafkaStoreCheck, type OffsetsAdmin } from './kafka-check.js';
export { offsetOf, stateFromOffset, type CommittedOffset, type OffsetSource } from './kafka-offset.js';

/** The store, and the source that must be used with it. */
export interface KafkaStore {
  readonly store: StateStore;
  /**
   * To be used in place of the source: `commit` does nothing for what was claimed through the store, whose settling has
   * committed that offset already, and would wipe the state.
   */
  readonly source: GroupSource;
}

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
    pause: (selection) => source.pause(selection),
    resume: (selection) => source.resume(selection),
    drain: () => source.drain(),
    progress: () => source.progress?.() ?? { partitions: [] },
  };
}
