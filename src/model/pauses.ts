/**
 * Which partitions take nothing more for now. What was said last counts: of a partition, else of its topic, else of
 * all. Pure. Imports: errors.
 */
import { IngestError } from '../errors.js';
import { partitionName } from './partition-name.js';

/** All partitions of a topic, or one of them. */
export interface PartitionSelection {
  readonly topic: string;
  /** @default all of the topic */
  readonly partition?: number | undefined;
}

/** Topics and partitions of which something was said by themselves. */
const MAX_SAID = 10_000;

export class Pauses {
  #all = false;
  readonly #topics = new Map<string, boolean>();
  /** By topic, then by partition. */
  readonly #partitions = new Map<string, Map<number, boolean>>();

  /** @throws `KCR_CONFIG` for a selection that is none, or beyond ten thousand of them. */
  pause(selection?: PartitionSelection): void {
    this.#say(true, selection);
  }

  /** @throws as `pause` */
  resume(selection?: PartitionSelection): void {
    this.#say(false, selection);
  }

  has({ topic, partition }: { readonly topic: string; readonly partition: number }): boolean {
    if (this.#topics.size === 0 && this.#partitions.size === 0) return this.#all;
    return this.#partitions.get(topic)?.get(partition) ?? this.#topics.get(topic) ?? this.#all;
  }

  /** Everything is paused, without an exception. */
  get isAll(): boolean {
    return this.#all && [this.#topics, ...this.#partitions.values()].every((said) => [...said.values()].every(Boolean));
  }

  /** What one must do to a source that knows of no pauses yet. */
  applyTo(source: {
    pause?(selection?: PartitionSelection): void;
    resume?(selection?: PartitionSelection): void;
  }): void {
    const say = (isPaused: boolean, selection?: PartitionSelection): void =>
      isPaused ? source.pause?.(selection) : source.resume?.(selection);
    if (this.#all) say(true);
    for (const [topic, isPaused] of this.#topics) say(isPaused, { topic });
    for (const [topic, said] of this.#partitions)
      for (const [partition, isPaused] of said) say(isPaused, { topic, partition });
  }

  #say(isPaused: boolean, selection: PartitionSelection | undefined): void {
    if (selection === undefined) {
      this.#all = isPaused;
      this.#topics.clear();
      this.#partitions.clear();
      return;
    }
    const { topic, partition } = checked(selection);
    if (partition === undefined) {
      this.#expectRoom(this.#topics, topic);
      this.#topics.set(topic, isPaused);
      this.#partitions.delete(topic);
      return;
    }
    const said = this.#partitions.get(topic) ?? new Map<number, boolean>();
    this.#expectRoom(said, partition);
    this.#partitions.set(topic, said.set(partition, isPaused));
  }

  #expectRoom<K>(said: ReadonlyMap<K, boolean>, key: K): void {
    const size = [...this.#partitions.values()].reduce((sum, each) => sum + each.size, this.#topics.size);
    if (said.has(key) || size < MAX_SAID) return;
    throw new IngestError(
      'KCR_CONFIG',
      `More than ${MAX_SAID} topics and partitions were paused or resumed one by one`,
      {
        hint: 'pause or resume whole topics, or all',
      },
    );
  }
}

function checked(selection: PartitionSelection): PartitionSelection {
  const { topic, partition } = selection;
  if (typeof topic !== 'string' || topic === '')
    throw new IngestError('KCR_CONFIG', `Expected \`topic\` to be the name of a topic, got ${JSON.stringify(topic)}`);
  if (partition === undefined || (Number.isSafeInteger(partition) && partition >= 0)) return selection;
  const place = partitionName({ topic, partition });
  throw new IngestError('KCR_CONFIG', `Expected \`partition\` to be a whole number from 0, got ${place}`);
}
