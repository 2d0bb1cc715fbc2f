// Outcomes as a Node stream: a slow reader must not fill the memory.
import { Subject, of, range, throwError } from 'rxjs';
import { describe, expect, test } from 'vitest';
import { toReadable } from '../src/node-streams.js';

const valve = () => {
  const calls: string[] = [];
  return { calls, pause: () => void calls.push('pause'), resume: () => void calls.push('resume') };
};

describe('toReadable', () => {
  test('gives every value in order, and ends', async () => {
    expect(await toReadable(range(0, 100)).toArray()).toEqual(Array.from({ length: 100 }, (_, i) => i));
  });

  test('a reader that does not keep up closes the valve once, and opens it again when it has caught up', async () => {
    const { calls, ...rest } = valve();
    const values = new Subject<number>();
    const readable = toReadable(values, rest);
    const high = readable.readableHighWaterMark;
    readable.read();
    for (let i = 0; i < high + 5; i++) values.next(i);
    expect(calls).toEqual(['pause']);
    while (readable.read() !== null);
    await new Promise((resolve) => setImmediate(resolve));
    expect(calls).toEqual(['pause', 'resume']);
    readable.destroy();
    expect(values.observed).toBe(false);
  });

  test('an error of the ingestion is the error of the stream', async () => {
    await expect(toReadable(throwError(() => new Error('gone'))).toArray()).rejects.toThrow('gone');
  });

  test('nothing is subscribed to before the first read, and destroying it unsubscribes', () => {
    const values = new Subject<number>();
    const readable = toReadable(values);
    expect(values.observed).toBe(false);
    readable.read();
    expect(values.observed).toBe(true);
    readable.destroy();
    expect(values.observed).toBe(false);
    toReadable(of(1)).destroy();
  });
});
