// The leader's look-out for new partitions, in fake time.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { otherPartitions } from '../../../src/kafka/group/topic-watch.js';
import type { KafkaConnection } from '../../../src/kafka/connection/kafka-connection.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Topics with so many partitions; what a broker says is known only once the metadata was refreshed. */
class FakeTopics {
  readonly counts: Record<string, number>;
  isSilent = false;
  refreshes = 0;
  #told: unknown;

  constructor(counts: Record<string, number>) {
    this.counts = counts;
    this.refresh();
  }

  refresh(): void {
    const partitions = (count: number) =>
      Array.from({ length: count }, (_, partitionId) => ({ partitionErrorCode: 0, partitionId, leader: 1 }));
    this.#told = {
      topicMetadata: Object.entries(this.counts).map(([topic, count]) => ({
        topic,
        topicErrorCode: 0,
        topicId: topic,
        partitionMetadata: partitions(count),
      })),
    };
  }

  watch(dealt: Readonly<Record<string, number>>, signal = new AbortController().signal): Promise<readonly string[]> {
    const told = (): unknown => this.#told;
    const refreshMetadata = async (): Promise<void> => {
      this.refreshes++;
      if (this.isSilent) throw new Error('no broker answers');
      this.refresh();
    };
    const cluster = {
      brokerPool: {
        get metadata() {
          return told();
        },
      },
      refreshMetadata,
    };
    return otherPartitions(
      {
        kafka: { cluster } as unknown as KafkaConnection,
        log: () => undefined,
        dealt: new Map(Object.entries(dealt)),
        metadataMaxAgeMs: 60_000,
      },
      signal,
    );
  }
}

test('J7: partitions of a topic that only other members read are found within the age of the metadata', async () => {
  const topics = new FakeTopics({ ours: 1, theirs: 1 });
  const watching = topics.watch({ ours: 1, theirs: 1 });
  topics.counts['theirs'] = 2;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await watching).toEqual(['theirs']);
});

test('J7: partitions that a refresh brought between the deal and the watch are not taken for dealt out', async () => {
  const topics = new FakeTopics({ ours: 2 });
  const watching = topics.watch({ ours: 1 });
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await watching).toEqual(['ours']);
});

test('J7: a look that no broker answered is made again soon, not an age later', async () => {
  const topics = new FakeTopics({ ours: 1 });
  const watching = topics.watch({ ours: 1 });
  topics.isSilent = true;
  await vi.advanceTimersByTimeAsync(60_000);
  topics.isSilent = false;
  topics.counts['ours'] = 2;
  await vi.advanceTimersByTimeAsync(1000);
  expect(await watching).toEqual(['ours']);
  expect(topics.refreshes).toBe(2);
});

test('a topic that is gone, or unknown for a moment, disturbs nobody; one that was called off tells nothing', async () => {
  const topics = new FakeTopics({ ours: 0 });
  const off = new AbortController();
  const watching = topics.watch({ ours: 3, never: 1 }, off.signal);
  await vi.advanceTimersByTimeAsync(300_000);
  expect(topics.refreshes).toBe(5);
  off.abort();
  expect(await watching).toEqual([]);
});
