/**
 * Room: the partitions that are ours, found by assignment or by name. Only values.
 */
import type { Assignment } from '../model/record.js';
import { nameOf } from './assignor.js';
import { endTenure, type Tenure } from './tenure.js';

export class Assignments {
  readonly #byEpoch = new Map<number, Tenure>();
  readonly #byName = new Map<string, Tenure>();

  get all(): Tenure[] {
    return [...this.#byEpoch.values()];
  }

  get({ epoch }: Assignment): Tenure | undefined {
    return this.#byEpoch.get(epoch);
  }

  find(topic: string, partition: number): Tenure | undefined {
    return this.#byName.get(nameOf({ topic, partition }));
  }

  add(tenure: Tenure): void {
    this.#byEpoch.set(tenure.assignment.epoch, tenure);
    this.#byName.set(nameOf(tenure.assignment), tenure);
  }

  /** It has ended. */
  remove(tenure: Tenure): void {
    endTenure(tenure);
    this.#byEpoch.delete(tenure.assignment.epoch);
    const name = nameOf(tenure.assignment);
    if (this.#byName.get(name) === tenure) this.#byName.delete(name);
  }
}
