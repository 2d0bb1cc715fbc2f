/**
 * What may happen to a partition's state, and how changes that wait become one write. Pure: no clock, no store.
 * Imports: nothing.
 */
import { lastKnownOffset, type HaltNote, type Intent, type IntentNotes, type PartitionState } from './state.js';

export type StateChange =
  /** Writes a range down before its insert. It must follow the last one that is settled or in doubt. */
  | { readonly kind: 'record'; readonly intent: Intent }
  /** The oldest range in doubt, which ends at `last`, is in the table. */
  | { readonly kind: 'settle'; readonly last: number }
  /** Ranges in doubt become these parts, which cover the very same offsets. */
  | { readonly kind: 'replace'; readonly parts: readonly Intent[] }
  /** Adds to the range in doubt that begins at `first`. */
  | { readonly kind: 'note'; readonly first: number; readonly last: number; readonly notes: IntentNotes }
  /** The partition has halted. Nothing is written after it. */
  | { readonly kind: 'halt'; readonly note: HaltNote };

/** Why the state cannot take the change; undefined: it can. */
export function misfitOf(state: PartitionState, change: StateChange): string | undefined {
  switch (change.kind) {
    case 'record': {
      const known = lastKnownOffset(state);
      if (known === undefined || change.intent.first === known + 1) return undefined;
      return `an intent that begins at ${change.intent.first} after one that ends at ${known}`;
    }
    case 'settle': {
      const oldest = state.pending[0];
      if (oldest?.last === change.last) return undefined;
      const expected =
        oldest === undefined ? 'nothing is in doubt' : `the oldest range in doubt ends at ${oldest.last}`;
      return `settling ${change.last} while ${expected}`;
    }
    case 'replace':
      if (coversWholeRanges(state.pending, change.parts)) return undefined;
      return `parts of ${change.parts[0]?.first}-${change.parts.at(-1)?.last} that are not those of whole ranges in doubt`;
    case 'note':
      if (state.pending.some(({ first }) => first === change.first)) return undefined;
      return `a note on ${change.first}-${change.last}, which is not in doubt`;
    case 'halt':
      return undefined;
  }
}

/** The state with a change that fits it. */
export function changed(state: PartitionState, change: StateChange): PartitionState {
  const { pending } = state;
  switch (change.kind) {
    case 'record':
      return recorded(state, change.intent);
    case 'settle':
      return { ...withoutHalt(state), settled: change.last, pending: pending.slice(1) };
    case 'replace':
      return { ...state, pending: inParts(pending, change.parts) };
    case 'note':
      return {
        ...state,
        pending: pending.map((intent) => (intent.first === change.first ? { ...intent, ...change.notes } : intent)),
      };
    case 'halt':
      // What an empty state learnt of its log is stored with the first range: until then another topic is no reset.
      return lastKnownOffset(state) === undefined
        ? { ...state, topicId: undefined, halted: change.note }
        : { ...state, halted: change.note };
  }
}

/** With its floor: nothing that is recorded with it or before it, and not settled yet, lies below. */
function recorded(state: PartitionState, intent: Intent): PartitionState {
  const { pending } = state;
  const floor = pending[0]?.first ?? intent.first;
  const began = lastKnownOffset(state) === undefined && intent.first !== 0 ? { began: intent.first } : {};
  return {
    ...(pending.length === 0 ? withoutHalt(state) : state),
    ...began,
    pending: [...pending, floor < intent.first ? { ...intent, floor } : intent],
  };
}

export function withoutHalt({ halted: _, ...state }: PartitionState): PartitionState {
  return state;
}

export interface NextWrite<Waiting> {
  readonly state: PartitionState;
  /** What `state` holds, in the order in which it was applied. Empty: there is nothing to write. */
  readonly joined: readonly Waiting[];
  /** What can never be stored: what it followed was given up. */
  readonly misfits: readonly { readonly waiting: Waiting; readonly why: string }[];
}

/**
 * The one rule by which changes that wait become one write: all of them, in the order in which they came, but
 *
 * - a halt goes alone, since nothing else is written any more;
 * - ranges are recorded last, as far as `maxPending` leaves room: what is settled in the same write makes room for
 *   them.
 */
export function nextWrite<Waiting extends { readonly change: StateChange }>(
  state: PartitionState,
  all: readonly Waiting[],
  maxPending: number,
): NextWrite<Waiting> {
  const of = (...kinds: readonly StateChange['kind'][]) => all.filter(({ change }) => kinds.includes(change.kind));
  const halts = of('halt');
  const inOrder = halts.length > 0 ? halts : [...of('settle', 'replace', 'note'), ...of('record')];
  const joined: Waiting[] = [];
  const misfits: { waiting: Waiting; why: string }[] = [];
  let next = state;
  for (const waiting of inOrder) {
    // A predecessor with a larger maxPending may have left more in doubt than there is room for.
    if (waiting.change.kind === 'record' && next.pending.length >= maxPending) break;
    const why = misfitOf(next, waiting.change);
    if (why !== undefined) {
      misfits.push({ waiting, why });
      continue;
    }
    next = changed(next, waiting.change);
    joined.push(waiting);
  }
  return { state: next, joined, misfits };
}

/** Do the parts cover, without a hole, exactly some of the ranges? */
function coversWholeRanges(pending: readonly Intent[], parts: readonly Intent[]): boolean {
  const [first, last] = [parts[0]?.first, parts.at(-1)?.last];
  const isContiguous = parts.every(
    (part, at) => part.first <= part.last && (at === 0 || part.first === parts[at - 1]!.last + 1),
  );
  return (
    isContiguous && pending.some((intent) => intent.first === first) && pending.some((intent) => intent.last === last)
  );
}

function inParts(pending: readonly Intent[], parts: readonly Intent[]): Intent[] {
  const [first, last] = [parts[0]!.first, parts.at(-1)!.last];
  return [
    ...pending.filter((intent) => intent.last < first),
    ...parts,
    ...pending.filter((intent) => intent.first > last),
  ];
}
