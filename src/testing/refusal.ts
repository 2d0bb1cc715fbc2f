/**
 * How the simulated table refuses an insert. Imports: errors.
 */
import { IngestError } from '../errors.js';

/**
 * What the server says of a row that it refuses:
 *
 * - `named`: which one it is.
 * - `surely`: not which one, but its code is a record's.
 * - `perhaps`: not which one, by a code that nobody knows.
 * - `schema`: not which one, by a code that a table's columns may be to blame for as well.
 */
export type Refusal = 'named' | 'surely' | 'perhaps' | 'schema';

/** `isInPart`: some rows of the insert may have landed all the same. */
export function refusalError(
  refusal: Refusal,
  { topic, partition, offset }: { readonly topic: string; readonly partition: number; readonly offset: number },
  isInPart: boolean,
): IngestError {
  switch (refusal) {
    case 'named':
      return new IngestError('KCR_POISON', 'the row is refused', { topic, partition, offset });
    case 'surely':
      return new IngestError('KCR_POISON', 'a row is refused', {
        topic,
        partition,
        serverCode: 395,
        divisible: 'surely',
        mayHaveLanded: isInPart,
      });
    case 'perhaps':
      return unknownRefusal(topic, partition);
    case 'schema':
      return new IngestError('KCR_SCHEMA', 'a row does not fit', {
        topic,
        partition,
        serverCode: 53,
        divisible: 'perhaps',
        mayHaveLanded: isInPart,
      });
  }
}

/** Of a row, the table or the moment: nobody knows. */
export function unknownRefusal(topic: string, partition: number): IngestError {
  return new IngestError('KCR_INSERT_IN_DOUBT', 'refused by a code that is not listed', {
    topic,
    partition,
    serverCode: 9999,
    divisible: 'perhaps',
  });
}
