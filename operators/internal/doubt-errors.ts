/**
 * A helper of insertDeduped: how a range ends that nothing can be done about, in words. Imports: errors.
 */
import { IngestError, type ErrorFields } from '../../src/errors.js';

/** Offsets that a message names; of more it says how many. */
const NAMED_OFFSETS = 20;

export function doubledRows(after: string, offsets: readonly number[], place: ErrorFields): IngestError {
  return unverifiable(`Read back after ${after}, the table has ${nameOffsets(offsets)} twice`, place);
}

/**
 * A fill that was answered and is not seen: whatever hides it may have hidden the rows before it. Filling again would
 * add a copy each time.
 */
export function invisibleFill(missing: readonly number[], place: ErrorFields): IngestError {
  return unverifiable(
    `A fill of ${nameOffsets(missing)} was answered, and the next look does not see them: nothing more is sent, ` +
      'and of each one copy too many may be in the table',
    place,
  );
}

/** Neither the fill nor the range's own token may be used again without a look: of each some blocks may be there. */
export function unprovenFill(why: string, place: ErrorFields): IngestError {
  return unverifiable(`A fill was begun, and what of it is in the table cannot be seen (${why})`, place);
}

function unverifiable(what: string, place: ErrorFields): IngestError {
  return new IngestError('KCR_READ_BACK', what, {
    ...place,
    hint:
      'compare the table with the topic by _partition and _offset, repair it, then start again: the range is ' +
      'still recorded as in doubt',
  });
}

function nameOffsets(offsets: readonly number[]): string {
  const named = offsets.slice(0, NAMED_OFFSETS).join(', ');
  const more = offsets.length - NAMED_OFFSETS;
  return (
    `${offsets.length === 1 ? 'offset' : 'offsets'} ` +
    `${named}${more > 0 ? ` and ${more} more, up to ${offsets.at(-1)}` : ''}`
  );
}
