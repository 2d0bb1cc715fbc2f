/**
 * What the stores share: the names of writes, by which a writer that lost a reply knows its own value again, the
 * errors of a claim that is not current any more, and calls that end with their subscription. No client library may
 * enter. Imports: errors, model, ports, rxjs.
 */
import { defer, finalize, from, type Observable } from 'rxjs';
import { IngestError } from '../errors.js';
import { decodeState, encodeState, stateName, type StoredState } from '../model/state-codec.js';
import type { PartitionState } from '../model/state.js';
import type { StateKey, Stored } from '../ports.js';

/** A `Claim`'s `version`, for stores whose values have a number that grows by one with every write. */
export interface Mark {
  /** The store's number of the value that the claim stands on. */
  readonly version: number;
  /** Names the claiming call, unique; with the count it names each write. */
  readonly claimId: string;
  /** Writes since the claim. */
  readonly writes: number;
}

/**
 * The value that a claim writes next. The same claim and state give the same text, so that a retry after a lost reply
 * finds exactly its own value; any other write gives another text.
 */
export function nextText(key: StateKey, owner: string, { claimId, writes }: Mark, state: PartitionState): string {
  return encodeState({ state, owner, write: `${claimId}-${writes + 1}` }, key);
}

/** As `StateStore.read` gives it. */
export function asStored({ state, owner }: StoredState): Stored {
  return { state, owner: owner === '' ? undefined : owner };
}

/** Why a write failed, from what the store holds instead of the value that the claim stands on. */
export function fencedBy(key: StateKey, owner: string, mark: Mark, foundText: string): IngestError {
  const { topic, partition } = key;
  let found: StoredState;
  try {
    found = decodeState(foundText, key);
  } catch (cause) {
    return new IngestError('KCR_FENCED', `Claim of ${owner} is over: the state is now a value that cannot be read`, {
      topic,
      partition,
      cause,
    });
  }
  const isOwn = found.write === `${mark.claimId}-${mark.writes + 1}`;
  const message = isOwn
    ? `Claim of ${owner} is used up: another state was written under it already (${stateName(key)})`
    : `Claim of ${owner} is over: ${found.owner} has taken the partition over (${stateName(key)})`;
  return new IngestError('KCR_FENCED', message, { topic, partition });
}

/**
 * A call that is made when it is subscribed to. Unsubscribing aborts the signal, after which nothing more may be sent:
 * a claim that is still being tried for an assignment that was lost would fence the new owner.
 */
export function untilUnsubscribed<T>(call: (signal: AbortSignal) => Promise<T>): Observable<T> {
  return defer(() => {
    const unsubscribed = new AbortController();
    return from(call(unsubscribed.signal)).pipe(finalize(() => unsubscribed.abort()));
  });
}
