/**
 * Commits of the partitions that are ours, in order, and what follows when one was refused or its outcome is not
 * known. Imports: errors, kafka, model.
 */
import { hasCode, IngestError } from '../../errors.js';
import type { Assignment } from '../../model/record.js';
import type { Assignments } from './assignments.js';
import type { Membership } from './membership.js';
import type { KafkaLog } from '../options.js';
import { fenced, UnknownOutcome, type CommitRequest } from './commit-request.js';
import type { Generation } from './generation.js';
import type { AssignedPartition } from './assigned-partition.js';

export interface CommittingPorts {
  readonly assignments: Assignments;
  readonly membership: Pick<Membership, 'commit' | 'commitOnce'>;
  readonly log: KafkaLog;
  /** The outcome of a commit is not known: whatever of this generation is still on its way must be refused. */
  readonly joinAgain: (generation: Generation) => void;
}

type Call = (assigned: AssignedPartition, request: CommitRequest) => Promise<void>;

export class Committing {
  readonly #ports: CommittingPorts;

  constructor(ports: CommittingPorts) {
    this.#ports = ports;
  }

  commit(assignment: Assignment, next: number, metadata: string | null): Promise<void> {
    const { membership } = this.#ports;
    return this.#inTurn(assignment, next, metadata, ({ generation, ended }, request) =>
      membership.commit(generation.joined, request, ended.signal),
    );
  }

  commitOnce(assignment: Assignment, next: number, metadata: string | null): Promise<void> {
    const { membership } = this.#ports;
    return this.#inTurn(assignment, next, metadata, ({ generation, ended }, request) =>
      membership.commitOnce(generation.joined, request, ended.signal),
    );
  }

  /** One after the other: an earlier one that is tried again must not overwrite a later one. */
  #inTurn(assignment: Assignment, next: number, metadata: string | null, call: Call): Promise<void> {
    const { topic, partition } = assignment;
    const assigned = this.#ports.assignments.get(assignment);
    if (assigned === undefined) return Promise.reject(fenced(topic, partition, next, undefined));
    const committing = assigned.committing.then(() =>
      this.#commit(assigned, { topic, partition, next, metadata }, call),
    );
    assigned.committing = committing.catch(() => undefined);
    return committing;
  }

  async #commit(assigned: AssignedPartition, request: CommitRequest, call: Call): Promise<void> {
    const { log, joinAgain } = this.#ports;
    const { topic, partition, next } = request;
    if (assigned.isCommitUnknown) throw unknownOutcome(request);
    if (assigned.state === 'ended') throw fenced(topic, partition, next, undefined);
    try {
      await call(assigned, request);
    } catch (thrown) {
      if (thrown instanceof UnknownOutcome) {
        assigned.isCommitUnknown = true;
        log('warn', 'the outcome of a commit is not known, joining again', {
          topic,
          partition,
          next,
          reason: thrown.message,
        });
        joinAgain(assigned.generation);
        throw unknownOutcome(request, thrown);
      }
      // The broker has refused it: it knows better than our next heartbeat.
      if (hasCode(thrown, 'KCR_FENCED') && !assigned.ended.signal.aborted) assigned.generation.end('fenced');
      throw thrown;
    }
  }
}

function unknownOutcome({ topic, partition, next }: CommitRequest, cause?: unknown): IngestError {
  return new IngestError(
    'KCR_FENCED',
    `The outcome of the commit of offset ${next} is not known: the partition is claimed again`,
    { topic, partition, cause },
  );
}
