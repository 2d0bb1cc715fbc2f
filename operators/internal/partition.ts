/**
 * A helper of the stages: the handle of one partition. Imports: errors, events, model, ports, rxjs.
 */
import { EMPTY, defer, from, merge, throwError, type Observable } from 'rxjs';
import { IngestError } from '../../src/errors.js';
import type { Halted } from '../../src/events.js';
import type { Assignment, Chunk } from '../../src/model/record.js';
import type { OnHalt, Partition, RecordSource } from '../../src/ports.js';

/** What a handle needs of its source. */
export type PartitionSource = Pick<
  RecordSource,
  'commit' | 'commitOnce' | 'seek' | 'claimed' | 'done' | 'halt' | 'reassign'
>;

/** With what the one who made it may ask. */
export interface OwnPartition extends Partition {
  /** Calls all that asked for it; completes when they have ended. */
  noteHalt(halted: Halted, heals: boolean): Observable<unknown>;
}

/**
 * The handle of one partition, for a pipeline without groupByPartition: in tests, or where partitions are given by
 * other means. `done`, `halt` and `reassign` are then yours to call.
 */
export function partitionOf(source: PartitionSource, assignment: Assignment, chunks: Observable<Chunk>): Partition {
  return ownPartition(source, assignment, chunks);
}

export function ownPartition(source: PartitionSource, assignment: Assignment, chunks: Observable<Chunk>): OwnPartition {
  const { topic, partition } = assignment;
  const notes: OnHalt[] = [];
  return {
    topic,
    partition,
    assignment,
    chunks,
    commit: (nextOffset) => source.commit(assignment, nextOffset),
    ...(source.commitOnce === undefined
      ? {}
      : { commitOnce: (nextOffset: number) => source.commitOnce!(assignment, nextOffset) }),
    seek: (offset) => source.seek?.(assignment, offset) ?? throwError(() => cannotSeek(assignment)),
    claimed: (inDoubtUpTo) => source.claimed?.(assignment, inDoubtUpTo),
    done: (lastOffset) => source.done?.(assignment, lastOffset),
    halt: () => source.halt?.(assignment),
    reassign: (afterMs) => source.reassign?.(assignment, afterMs),
    onHalt: (note) => void notes.push(note),
    noteHalt: (halted, heals) =>
      notes.length === 0 ? EMPTY : merge(...notes.map((note) => defer(() => from(note(halted, heals))))),
  };
}

function cannotSeek({ topic, partition }: Assignment): IngestError {
  return new IngestError('KCR_CONFIG', 'The state says where the partition goes on, and its source cannot seek', {
    topic,
    partition,
    hint: 'exactly-once needs a source with `seek`: see RecordSource',
  });
}
