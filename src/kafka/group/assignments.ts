/**
 * The partitions that are ours, found by assignment or by name. Only values. Imports: model.
 */
import type { Assignment } from '../../model/record.js';
import { nameOf } from './assignor.js';
import { endAssignedPartition, type AssignedPartition } from './assigned-partition.js';

export class Assignments {
  readonly #byId = new Map<number, AssignedPartition>();
  readonly #byName = new Map<string, AssignedPartition>();

  get all(): AssignedPartition[] {
    return [...this.#byId.values()];
  }

  get({ assignmentId }: Assignment): AssignedPartition | undefined {
    return this.#byId.get(assignmentId);
  }

  find(topic: string, partition: number): AssignedPartition | undefined {
    return this.#byName.get(nameOf({ topic, partition }));
  }

  add(assigned: AssignedPartition): void {
    this.#byId.set(assigned.assignment.assignmentId, assigned);
    this.#byName.set(nameOf(assigned.assignment), assigned);
  }

  /** It has ended. */
  remove(assigned: AssignedPartition): void {
    endAssignedPartition(assigned);
    this.#byId.delete(assigned.assignment.assignmentId);
    const name = nameOf(assigned.assignment);
    if (this.#byName.get(name) === assigned) this.#byName.delete(name);
  }
}
